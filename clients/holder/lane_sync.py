"""One sync of the lane copy: download in batches, open, and then keep all of it or nothing."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from clients.holder.lane_base import Change, LaneBase
from clients.holder.lane_floors import Floors
from clients.holder.lane_spool import Spool
from clients.holder.opener import Batch, Erasure, Kind, Opener, Raw, withheld
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
    """What a lane has behind `start` and up to `head`, downloaded, opened and verified as one history; not kept yet.

    It is made without any hold on the database: a registry that drips keeps nobody else from writing.
    """

    def __init__(self, start: Frontier, head: Head, spool: Spool) -> None:
        self.start, self.head, self._spool = start, head, spool
        self._tree = start.copy()

    def fetch(self, source: LaneSource, lane: str, opener: Opener) -> None:
        """Ask `source` for all of it. TamperingError unless it hashes to the head."""
        if self._tree.size >= self.head.size:  # whoever keeps it sees whether it is the same history
            return
        for batch in opener.read(self._raw(source, lane)):
            self._spool.put(batch)
        if (self._tree.size, self._tree.root) != (self.head.size, self.head.root):
            raise unmatched()

    def onto(self, tree: Frontier) -> Iterator[Batch]:
        """What comes behind `tree`, which another process may have synced since and which grows up to the head.

        TamperingError at the end if that is another history than was downloaded.
        """
        for batch in self._spool.batches():
            rows = [row for row in batch.rows if row[0] >= tree.size]
            tree.extend([leaf_hash(row[1]) for row in rows])
            if rows:
                yield Batch(rows, [erasure for erasure in batch.erasures if erasure.by >= rows[0][0]])
        if (tree.size, tree.root) != (self.head.size, self.head.root):
            raise unmatched()

    def _raw(self, source: LaneSource, lane: str) -> Iterator[tuple[int, list[Raw]]]:
        while (start := self._tree.size) < self.head.size:
            stop = min(start + BATCH, self.head.size)
            entries = source.entries(lane, start, stop)[: stop - start]
            if not entries:
                raise unmatched()
            raw = [Raw(entry.stub.leaf(), entry.beside) for entry in entries]
            self._tree.extend([leaf_hash(leaf) for leaf, _ in raw])
            yield start, raw


def keep_all(base: LaneBase, change: Change, batches: Iterable[Batch], floors: Floors) -> set[bytes] | None:
    """Put everything in `batches` into the table of entries; returns the subjects it is about.

    None for more subjects than are worth remembering. TamperingError if something is missing that no tombstone erased.
    """
    subjects: set[bytes] | None = set()
    direct = {row[0] for row in base.stream("direct")}
    for batch in batches:
        change.insert_sealed("entries", batch.rows)
        leaves = []
        for row in batch.rows:
            if row[3] is not None and subjects is not None:
                subjects.add(row[3])
            # What came directly and no longer opens, its key destroyed since, must not take the withdrawal along.
            if row[1] in direct and row[2] != Kind.GARBAGE:
                leaves.append(row[1])
        for leaf in leaves:
            change.remove("direct", "leaf = ?", leaf)
        for erasure in batch.erasures:
            erased = erase(base, change, floors, erasure)
            if erased is not None and subjects is not None:
                subjects.add(erased)
        if subjects is not None and len(subjects) > BATCH:
            subjects = None
    if base.rows("entries", f"WHERE kind = {Kind.MISSING.value} LIMIT 1"):
        raise withheld()
    return subjects


def erase(base: LaneBase, change: Change, floors: Floors, erasure: Erasure) -> bytes | None:
    """Empty the record that a tombstone names, if its leaf has this hash; returns whom it was about, if known."""
    position, digest, tombstone = erasure
    found = base.rows("entries", "WHERE position = ?", position)
    if not found or found[0][2] in (Kind.TOMBSTONE, Kind.ERASED) or leaf_hash(found[0][1]) != digest:
        return None
    floors.raise_to(change, found[0])
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
