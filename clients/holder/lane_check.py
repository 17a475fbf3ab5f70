"""Reading a lane copy through, from the first entry or from where it was verified before."""

from collections.abc import Iterator
from typing import NamedTuple

from clients.holder.lane_base import TALLIED, LaneBase
from clients.holder.opener import Kind
from privacy.consent.lane import Head
from privacy.consent.merkle import Frontier, leaf_hash

_NO_END = 2**62


class LaneOpening(NamedTuple):
    """What this data holder can show an auditor of the entry at `position`, whose bytes are `leaf` (106).

    `payload`, `signature` and `rho` open a record (OPENED). Of a tombstone `payload` is the envelope of its statement,
    or None if it states nothing. `tombstone` is the position of the one that erased the entry (ERASED).
    """

    position: int
    leaf: bytes
    state: Kind
    payload: bytes | None
    signature: bytes | None
    rho: bytes | None
    tombstone: int | None


def verify_all(base: LaneBase, accepted: Head) -> Frontier:
    """Read the whole copy through; returns the lane's tree. Memory does not grow with the lane.

    TamperingError if the entries do not extend the `accepted` head, a row was edited, or one is gone that may not go.
    """
    tree = Frontier()
    grow(base, tree, accepted.size)
    if tree_head(tree) != accepted:
        raise base.edited()
    grow(base, tree, None)
    if tree_head(tree) != base.state.head:
        raise base.edited()
    for _ in base.stream("verdicts"):
        pass
    # The ledger's head is read by whoever opens the ledger, and nobody opens it without.
    for table in TALLIED:
        if table == "ledger_head":
            continue
        for _ in base.whole(table):
            pass
    return tree


def grow(base: LaneBase, tree: Frontier, stop: int | None) -> None:
    """Extend `tree` by the verified rows from its size on, up to `stop` (exclusive) or the end."""
    some: list[bytes] = []
    clause = "WHERE position >= ? AND position < ? ORDER BY position"
    for expected, row in enumerate(
        base.stream("entries", clause, tree.size, 2**62 if stop is None else stop), tree.size
    ):
        if row[0] != expected or row[2] == Kind.MISSING:
            raise base.edited()
        some.append(leaf_hash(row[1]))
        if len(some) == 1024:
            tree.extend(some)
            some = []
    tree.extend(some)


def tree_head(tree: Frontier) -> Head:
    """Size and root of a tree."""
    return Head(tree.size, tree.root)


def extends(base: LaneBase, head: Head) -> bool:
    """Whether the lane in the copy begins with the one under `head`."""
    if head.size > base.state.head.size:
        return False
    for _, root in base.rows("heads", "WHERE size = ?", head.size):
        return bool(root == head.root)
    tree = Frontier()
    found = base.connection.execute("SELECT leaf FROM entries WHERE position < ? ORDER BY position", (head.size,))
    while some := found.fetchmany(1024):
        tree.extend([leaf_hash(leaf) for (leaf,) in some])
    return tree_head(tree) == head


def openings(base: LaneBase, first: int, stop: int) -> Iterator[LaneOpening]:
    """What can be shown of the entries from `first` up to `stop` (exclusive)."""
    for row in base.stream("entries", "WHERE position >= ? AND position < ? ORDER BY position", first, stop):
        position, leaf, kind, _, _, payload, signature, rho, erased_by = row
        yield LaneOpening(position, leaf, Kind(kind), payload, signature, rho, erased_by)
