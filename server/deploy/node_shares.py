"""What one data holder may take of the door, so that there is enough for the others, whatever its program does."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from federated.rate_limit import Shares, network_of

AT_ONCE: Final = 4
"""Requests of one key that are with SuperLink at once. A SuperNode pushes two objects, pulls, and says it is there."""
WAITING: Final = 16
WAIT_S: Final = 10.0
"""More wait for a place, so many and so long, before they are told to try again."""
BYTES_BURST: Final = 256 << 20
BYTES_PER_S: Final = 256 << 10
"""Of request bodies under one key, which SuperLink keeps on disk until their run has ended. The burst is four models
of the largest size; a holder that never stops fills 22 GB in a day. Who is over it is told to try again (503): a run
that needs more goes on slowly, where 413 would end the node's program without a word."""
BODY_S: Final = 10.0
BODY_BYTES_PER_S: Final = 64 << 10
"""Seconds that a body may keep us waiting, and a second more for so many bytes of it that have come."""
KEPT_FOR: Final = 1024
"""So many addresses are remembered as those of enrolled nodes; after a start, none is."""


class FullError(Exception):
    """All places of a key are taken, and nobody left in time."""


@dataclass(slots=True)
class _Queue:
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    inside: int = 0


class Places:
    """Each key's places with SuperLink; of one event loop."""

    def __init__(self) -> None:
        self._queues: dict[bytes, _Queue] = {}

    @asynccontextmanager
    async def one(self, key: bytes) -> AsyncIterator[None]:
        """A place for as long as the block runs. FullError if too many wait, or if none was free in time."""
        queue = self._queues.setdefault(key, _Queue())
        if queue.inside >= AT_ONCE + WAITING:
            raise FullError
        queue.inside += 1
        try:
            try:
                async with asyncio.timeout(WAIT_S):
                    await queue.free.acquire()
            except TimeoutError:
                raise FullError from None
            try:
                yield
            finally:
                queue.free.release()
        finally:
            queue.inside -= 1
            if not queue.inside:
                del self._queues[key]

    def __len__(self) -> int:
        return len(self._queues)


class KeptConnections(Shares):
    """Connections, the last `kept` of which are for addresses from which an enrolled node has proven itself."""

    def __init__(self, most: int, each: int, *, kept: int) -> None:
        super().__init__(most, each)
        self._open_to_all = most - kept
        self._met: OrderedDict[str, None] = OrderedDict()

    def meet(self, address: str) -> None:
        """An enrolled node asked from this address. Beyond `KEPT_FOR` who was silent longest is forgotten."""
        network = network_of(address)
        self._met[network] = None
        self._met.move_to_end(network)
        if len(self._met) > KEPT_FOR:
            self._met.popitem(last=False)

    def take(self, address: str) -> bool:
        """Whether a place was free for this address; whoever got one gives it back."""
        if len(self) >= self._open_to_all and network_of(address) not in self._met:
            return False
        return super().take(address)
