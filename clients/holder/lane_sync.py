"""One sync of the lane copy: download in batches, open, and keep all of it or nothing.

The caller holds one transaction. What is too much for memory lies in the database until the end decides.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from clients.holder.lane_base import Change, LaneBase
from clients.holder.opener import Kind, Opener, Raw, withheld
from privacy.consent.lane import Head
from privacy.consent.merkle import Frontier, leaf_hash
from privacy.consent.view import Entry
from privacy.errors import TamperingError

BATCH: Final = 4096
"""How many entries are asked for at a time: some 12 MB."""

_ERASE: Final = (
    "UPDATE entries SET kind = ?, handle = NULL, seq = NULL, payload = NULL, signature = NULL, rho = NULL, "
    "erased_by = ?, mac = ? WHERE position = ?"
)


class LaneSource(Protocol):
    """Where a lane is downloaded from: the consent registry, in process or over a network."""

    def checkpoint(self, lane: str) -> str:
        """The lane's newest head as a signed note."""
        ...

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        """The lane's entries from position `start` on, up to `stop` (exclusive): at least one if there is one."""
        ...


class Download:
    """What a lane has up to `head`, in batches."""

    def __init__(self, source: LaneSource, lane: str, head: Head) -> None:
        self._source, self._lane, self.head = source, lane, head
        self._ahead: tuple[int, Sequence[Entry]] = (-1, ())

    def look_ahead(self, start: int) -> None:
        """Fetch the batch from `start` on now, so that nobody else waits for the network later."""
        self._ahead = start, self._fetch(start)

    def batches(self, tree: Frontier) -> Iterator[tuple[int, list[Raw]]]:
        """What comes behind `tree`, which grows by it. TamperingError if the source has less than the head says."""
        while (start := tree.size) < self.head.size:
            ahead, entries = self._ahead
            if ahead != start:
                entries = self._fetch(start)
            self._ahead = -1, ()
            raw = [Raw(entry.stub.leaf(), entry.beside) for entry in entries]
            tree.extend([leaf_hash(leaf) for leaf, _ in raw])
            yield start, raw

    def _fetch(self, start: int) -> Sequence[Entry]:
        stop = min(start + BATCH, self.head.size)
        entries = self._source.entries(self._lane, start, stop)[: stop - start]
        if not entries:
            raise unmatched()
        return entries


def download_into(
    base: LaneBase, change: Change, download: Download, tree: Frontier, opener: Opener
) -> set[bytes] | None:
    """Put everything that `download` brings behind `tree` into the table of entries; returns the subjects it is about.

    None for more subjects than are worth remembering. `tree` grows. TamperingError unless it grows to the signed head
    and nothing is missing that no tombstone erased.
    """
    subjects: set[bytes] | None = set()
    direct = {row[0] for row in base.stream("direct")}
    for batch in opener.read(download.batches(tree)):
        change.insert_sealed("entries", batch.rows)
        leaves = []
        for row in batch.rows:
            if row[3] is not None and subjects is not None:
                subjects.add(row[3])  # type: ignore[arg-type]  # the handle
            # What came directly and no longer opens, its key destroyed since, must not take the withdrawal along.
            if row[1] in direct and row[2] != Kind.GARBAGE:
                leaves.append(row[1])
        for leaf in leaves:
            change.remove("direct", "leaf = ?", leaf)
        for position, digest, tombstone in batch.erasures:
            erased = erase(base, position, digest, tombstone)
            if erased is not None and subjects is not None:
                subjects.add(erased)
        if subjects is not None and len(subjects) > BATCH:
            subjects = None
    if (tree.size, tree.root) != (download.head.size, download.head.root):
        raise unmatched()
    if base.rows("entries", f"WHERE kind = {Kind.MISSING.value} LIMIT 1"):
        raise withheld()
    return subjects


def erase(base: LaneBase, position: int, digest: bytes, tombstone: int) -> bytes | None:
    """Empty the record at `position`, if its leaf has this hash; returns whom it was about, if it was opened."""
    found = base.rows("entries", "WHERE position = ?", position)
    if not found or found[0][2] in (Kind.TOMBSTONE, Kind.ERASED) or leaf_hash(found[0][1]) != digest:
        return None
    empty_row(base, position, found[0][1], Kind.ERASED, tombstone)
    handle: bytes | None = found[0][3]
    return handle


def empty_row(base: LaneBase, position: int, leaf: bytes, kind: Kind, tombstone: int | None) -> None:
    """Leave nothing of an entry but its leaf."""
    mac = base.seal.row("entries", position, leaf, kind.value, None, None, None, None, None, tombstone)
    base.connection.execute(_ERASE, (kind.value, tombstone, mac, position))
    base.connection.execute("DELETE FROM verdicts WHERE position = ?", (position,))


def unmatched() -> TamperingError:
    """The error for entries that are not those under the signed head."""
    return TamperingError(
        "The registry's lane does not hash to its signed head: an entry was left out, changed or moved. Keep "
        "the checkpoint, use nobody's rows, and tell the registry's operator and the auditor."
    )
