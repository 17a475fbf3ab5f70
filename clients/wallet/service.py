"""What a wallet asks of others: a registry's lane, and a data holder's side door."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from privacy.consent.linking import RegistryAddress
from privacy.consent.merkle import HashSource
from privacy.consent.submission import Submission
from privacy.consent.view import Entry


class LaneService(Protocol):
    """A registry as a wallet sees it. Every method raises RefusalError when it does not answer, or says no.

    Nothing it gives is verified yet.
    """

    def checkpoint(self, lane: str) -> str:
        """The lane's newest checkpoint."""
        ...

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        """The lane's entries from `start` to `stop`, exclusive."""
        ...

    def submit(self, lane: str, submissions: Sequence[Submission]) -> list[bytes]:
        """One promise for each submission, in order. RefusalError with code REPLAY for a tag that is taken."""
        ...

    def position(self, lane: str, tag: bytes) -> int | None:
        """Where the entry with that tag is; None when there is none."""
        ...

    def tree(self, lane: str, size: int) -> HashSource:
        """The lane's hashes at that size."""
        ...

    def key_set(self, lane: str) -> bytes:
        """The data holder's newest key set."""
        ...


Connect = Callable[[RegistryAddress], AbstractContextManager[LaneService]]
"""Opens the way to a registry."""

SideDoor = Callable[[str, str | None, bytes], None]
"""Hands frames to the data holder at an address, trusting these certificates too. RefusalError unless it took them."""
