"""All programs of a party believe that it is an hour later: in our code, and in what Flower signs its requests with."""

import datetime
import time
from typing import Any

AHEAD_S = 3600
_true_time = time.time

time.time = lambda: _true_time() + AHEAD_S


def in_flower(date: Any) -> None:
    """Flower's one way of telling the time."""
    now = date.now
    date.now = lambda: now() + datetime.timedelta(seconds=AHEAD_S)


FAULTS = {"flwr.supercore.date": in_flower}
