"""Reads beside the commits: a thread of their own, and no more of them at once than it can soon answer."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from federated.rate_limit import Shares
from privacy.errors import RefusalCode
from server.registry.tables import DatabaseUnavailableError

Value = TypeVar("Value")

MOST_READS: Final = 256
"""Reads that may wait or run at once: about half a second's work, even if each is a whole bundle."""
MOST_READS_EACH: Final = 48
"""From one address or IPv6 /64: less than a quarter, so that a few strangers do not turn everybody away."""


class Reads:
    """One thread for what only reads. Anybody may read, as often as they like, and no append waits for it."""

    def __init__(self, *, most: int = MOST_READS, each: int = MOST_READS_EACH) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reads")
        self._places = Shares(most, each)

    async def call(self, address: str, work: Callable[[], Value]) -> Value:
        """The result of `work`, asked for by `address`. DatabaseUnavailableError when too many reads wait already."""
        if not self._places.take(address):
            raise DatabaseUnavailableError(
                "The registry has more to read than it can answer at once. Send the same request again in a few "
                "seconds.",
                RefusalCode.LANE,
            )
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._places.give_back(address)

    def close(self) -> None:
        """Let the thread go; what waits is still answered."""
        self._thread.shutdown()
