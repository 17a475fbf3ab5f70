"""The coordinator's channel over a Flower grid: any grid, in process or on the network."""

import logging
import time
from collections.abc import Callable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from federated.channel import Act
from federated.flower import read_letter, write_letter
from federated.messages import Letter

_LOG = logging.getLogger(__name__)


class GridChannel:
    """Letters as Flower messages. An answer that is an error or cannot be read counts as silence."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> list[int]:
        """The nodes that are online now, sorted."""
        return sorted(self._grid.get_node_ids())

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        """The answers that came before the deadline, by node."""
        if not letters:
            return {}  # nobody is online to be asked
        messages = [Message(write_letter(letter), node, act.value) for node, letter in letters.items()]
        answers = {}
        for reply in self._grid.send_and_receive(messages, timeout=deadline_s):
            try:
                node = reply.metadata.src_node_id
                if not reply.has_error() and node in letters and node not in answers:
                    answers[node] = read_letter(reply.content)
            except Exception as error:  # the rim: one sender of nonsense must not end the round for the others
                # Its text may be anything that the sender wrote, so only its class is told.
                _LOG.warning("an answer could not be read (%s); it counts as silence", type(error).__name__)
        return answers


def wait_for_nodes(
    channel: GridChannel, fewest: int, *, deadline_s: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Return once `fewest` nodes are online or the deadline has passed: Flower itself would wait for ever."""
    end = clock() + deadline_s
    while len(channel.nodes()) < fewest and clock() < end:
        time.sleep(min(0.5, deadline_s))
