"""The coordinator's channel over a Flower grid: any grid, in process or on the network."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from flwr.app import Message

from federated.channel import Act
from federated.flower import read_letter, write_letter
from federated.messages import Letter

_LOG = logging.getLogger(__name__)
POLL_S: Final = 0.2
"""Between two looks for answers; Flower's own `send_and_receive` takes 3 s."""


class Post(Protocol):
    """What the channel needs of a grid: Flower's own has it, and `federated.flower_grid.RunGrid`."""

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are online now."""
        ...

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str | None]:
        """The messages' identities, in their order; none for what is not taken."""
        ...

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there. A grid that waits for one here makes everybody wait."""
        ...


class GridChannel:
    """Letters as Flower messages. An answer that is an error or cannot be read counts as silence."""

    def __init__(
        self, grid: Post, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._grid, self._clock, self._wait = grid, clock, wait

    def nodes(self) -> list[int]:
        """The nodes that are online now, sorted."""
        return sorted(self._grid.get_node_ids())

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        """The answers that came before the deadline, by node."""
        if not letters:
            return {}  # nobody is online to be asked
        end = self._clock() + deadline_s
        messages = [Message(write_letter(letter), node, act.value) for node, letter in letters.items()]
        # Flower puts None for a message that it could not take, such as one to a node that has just gone.
        identities = zip(self._grid.push_messages(messages), letters, strict=True)
        asked = {identity: node for identity, node in identities if identity}
        waiting, answers = set(asked), dict[int, Letter]()
        while waiting:
            looked = self._clock()
            for reply in self._grid.pull_messages(sorted(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                self._take(reply, asked, answers)
            now = self._clock()
            if looked >= end:
                break  # that was the one look after the deadline
            if waiting and now < end:  # many nodes take long to be looked through, and SuperLink has more to do
                self._wait(min(max(POLL_S, now - looked), end - now))
        return answers

    def _take(self, reply: Message, asked: Mapping[str, int], answers: dict[int, Letter]) -> None:
        try:
            node = reply.metadata.src_node_id
            if not reply.has_error() and asked.get(reply.metadata.reply_to_message_id) == node and node not in answers:
                answers[node] = read_letter(reply.content)
        except Exception as error:  # the rim: one sender of nonsense must not end the round for the others
            # Its text may be anything that the sender wrote, so only its class is told.
            _LOG.warning("an answer could not be read (%s); it counts as silence", type(error).__name__)


def wait_for_nodes(
    channel: GridChannel, fewest: int, *, deadline_s: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Return once `fewest` nodes are online or the deadline has passed: Flower itself would wait for ever."""
    end = clock() + deadline_s
    while len(channel.nodes()) < fewest and clock() < end:
        time.sleep(min(0.5, deadline_s))
