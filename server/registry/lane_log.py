"""One lane's tree in memory, always held against the head that the database stores."""

from collections.abc import Iterator

from sqlalchemy import Connection, select, text

from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT, Frontier, TreeHead, leaf_hash
from server.registry.tables import ENTRIES, HEADS, BrokenStoreError

_ROWS_AT_ONCE = 10_000
_FIRST_HEAD = text("INSERT INTO heads (lane, size, root) VALUES (:lane, 0, :root) ON CONFLICT (lane) DO NOTHING")


class LaneLog:
    """The tree of all entries of a lane that are known to be committed.

    It is read from the database once and then grows with it, so that neither an append nor a checkpoint reads the
    lane again. Another process may append as well: whoever uses the tree first brings it up to the stored head.
    """

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.tree = TreeHead()
        self.frontier = Frontier()
        self.head = Head(0, EMPTY_ROOT)
        self._read = False
        self._contradicted: str | None = None

    def catch_up(self, connection: Connection, *, lock: bool = False) -> None:
        """Read what was appended since; with `lock` nobody else appends before the transaction ends.

        BrokenStoreError when the stored entries do not hash to the stored head: nothing may be signed then.
        """
        if self._contradicted is not None:
            # Not read again at each request: a lane of millions would keep the other lanes waiting.
            raise BrokenStoreError(self._contradicted)
        stored = locked_head(connection, self.lane) if lock else stored_head(connection, self.lane)
        if stored == self.head and self._read:
            return
        if stored.size <= self.head.size and self._read:
            raise self._contradiction("its head went back")
        frontier = self.frontier.copy()
        grown = []
        for hashes in self._hashes(connection, self.head.size):
            frontier.extend(hashes)
            grown.append(hashes)
        if (frontier.size, frontier.root) != (stored.size, stored.root):
            raise self._contradiction("its entries do not hash to its head")
        for hashes in grown:
            self.tree.extend(hashes)
        self.frontier, self.head, self._read = frontier, stored, True

    def grow(self, hashes: list[bytes], frontier: Frontier) -> None:
        """Take over leaf hashes that were committed, and the frontier behind them."""
        self.tree.extend(hashes)
        self.frontier, self.head = frontier, Head(frontier.size, frontier.root)

    def _hashes(self, connection: Connection, start: int) -> Iterator[list[bytes]]:
        query = select(ENTRIES.c.position, ENTRIES.c.leaf).where(ENTRIES.c.lane == self.lane)
        query = query.where(ENTRIES.c.position >= start).order_by(ENTRIES.c.position)
        with connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE}) as rows:
            for part in rows.partitions():
                if [row.position for row in part] != list(range(start, start + len(part))):
                    raise self._contradiction("it has a gap")
                start += len(part)
                yield [leaf_hash(row.leaf) for row in part]

    def _contradiction(self, what: str) -> BrokenStoreError:
        self._contradicted = (
            f"Lane {self.lane} in the registry's database contradicts itself: {what}, so something was changed or "
            "lost. Its operator should restore it from a copy and start the registry again; until then nobody may "
            "train on this lane."
        )
        return BrokenStoreError(self._contradicted)


def stored_head(connection: Connection, lane: str) -> Head:
    """The head stored with the last append; the empty log's for a lane that has none."""
    row = connection.execute(select(HEADS.c.size, HEADS.c.root).where(HEADS.c.lane == lane)).one_or_none()
    return Head(row.size, row.root) if row else Head(0, EMPTY_ROOT)


def locked_head(connection: Connection, lane: str) -> Head:
    """The same, with the head's row locked until the transaction ends. (SQLite locks the whole database anyway.)"""
    query = select(HEADS.c.size, HEADS.c.root).where(HEADS.c.lane == lane).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        # Two processes may both be the first: the second waits here for the first, and then finds its row.
        connection.execute(_FIRST_HEAD, {"lane": lane, "root": EMPTY_ROOT})
        row = connection.execute(query).one()
    return Head(row.size, row.root)
