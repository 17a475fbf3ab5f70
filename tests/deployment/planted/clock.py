"""All programs of a party believe that it is an hour later or earlier, as long as a switch beside this fault says so.

In our code, and in what Flower signs its requests with and checks them by.
"""

import datetime
import os
import time
from pathlib import Path
from typing import Any

SWITCH = Path(os.environ["PLANTED_FAULT"]).with_suffix(".on")
SHIFTS_S = {"an hour ahead": 3600, "an hour behind": -3600}
_true_time = time.time


def shift_s() -> int:
    """How far the clock is off now."""
    try:
        return SHIFTS_S.get(SWITCH.read_text(encoding="utf-8"), 0)
    except FileNotFoundError:
        return 0


time.time = lambda: _true_time() + shift_s()


def in_flower(date: Any) -> None:
    """Flower's one way of telling the time."""
    now = date.now
    date.now = lambda: now() + datetime.timedelta(seconds=shift_s())


FAULTS = {"flwr.supercore.date": in_flower}
