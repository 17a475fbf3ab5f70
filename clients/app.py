"""Flower's ClientApp: hands each message to this node's data holder, and its answer back. Translation only."""

import logging
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.holder.node import Holder
from federated.flower import read_letter, write_failure, write_letter
from privacy.errors import FedcreditError

_LOG = logging.getLogger(__name__)


def app_for(holder_of: Callable[[str], Holder], clock: Callable[[], float]) -> ClientApp:
    """The app whose data holder lies in the directory that the node's configuration names."""
    made = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        try:
            holder = holder_of(str(context.node_config["holder-directory"]))
            letter = holder.answer(read_letter(message.content), at=int(clock()))
            return Message(write_letter(letter), reply_to=message)
        except Exception as error:  # Flower would send the text of whatever gets out of here to the coordinator
            ours = isinstance(error, FedcreditError)  # only a text that we wrote quotes no row
            _LOG.error("no answer, %s: %s", type(error).__name__, error if ours else "a fault in its own code")
            return write_failure(error, reply_to=message)

    made.query()(answer)  # openings, shares, the taking off of masks; score requests on their way to this data holder
    made.train()(answer)  # rounds of a run that it has joined
    made.evaluate()(answer)  # the measurement on held-out people at the end of a run
    return made


@cache
def _holder(directory: str) -> Holder:
    return Holder(Path(directory))


app = app_for(_holder, time.time)
