"""What one transaction adds to one lane: planned, checked and written before anything in memory changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from privacy.consent.lane import Stub, TombstoneStub, parse_leaf
from privacy.consent.merkle import leaf_hash
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError
from server.registry.key_sets import stored_epochs
from server.registry.lane_log import LaneLog
from server.registry.tables import BESIDE, ENTRIES, HEADS

_MOST_TAGS_A_QUERY = 500
_TOMBSTONE_PREFIX = b"\x02"


@dataclass(frozen=True, slots=True)
class Append:
    """What somebody asks to have appended to one lane, all of it or nothing. A tombstone comes alone."""

    lane: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is in its lane, its leaf hash, and when it was first received (UTC seconds)."""

    position: int
    leaf: bytes
    received_at: int


class LaneAppends:
    """The appends of one transaction to one lane, whose head is locked. Refused ones leave no trace."""

    def __init__(
        self, connection: Connection, log: LaneLog, appends: Sequence[Append], *, identity: bytes | None, at: int
    ) -> None:
        log.catch_up(connection, lock=True)
        self._connection, self._log, self._at = connection, log, at
        self._epochs = None if identity is None else stored_epochs(connection, log.lane, identity)
        tags = {stored_tag(entry.stub) for append in appends for entry in append.entries}
        self._known = _known(connection, log.lane, sorted(tags))
        self._fresh: list[Entry] = []
        self._erased: list[int] = []
        self._hashes: list[bytes] = []
        self._frontier = log.frontier.copy()

    def plan(self, append: Append) -> list[Place] | FedcreditError:
        """Where the entries will be, or why none of them is appended; nothing is written yet.

        The same entry again keeps its place. Another entry under a known tag is refused: nobody may replace a
        record, only append a newer one.
        """
        known: dict[bytes, Place] = {}
        fresh: list[Entry] = []
        erased: list[int] = []
        places = []
        for entry in append.entries:
            tag, leaf = stored_tag(entry.stub), leaf_hash(entry.stub.leaf())
            place = known.get(tag) or self._known.get(tag)
            if place is None:
                try:
                    erased += self._check_fresh(entry.stub)
                except FedcreditError as refusal:
                    return refusal
                place = Place(self._frontier.size + len(self._fresh) + len(fresh), leaf, self._at)
                known[tag] = place
                fresh.append(entry)
            elif place.leaf != leaf:
                return _taken(entry.stub)
            places.append(place)
        self._known |= known
        self._fresh += fresh
        self._erased += erased
        return places

    def write(self) -> None:
        """Write everything planned to the database, and the head that covers it."""
        if not self._fresh:
            return
        lane, start = self._log.lane, self._frontier.size
        rows = [
            {"lane": lane, "position": position, "tag": stored_tag(entry.stub), "leaf": entry.stub.leaf(),
             "received_at": self._at, "content": entry.beside}
            for position, entry in enumerate(self._fresh, start)
        ]  # fmt: skip
        self._connection.execute(insert(ENTRIES), [_only(ENTRIES.c.keys(), row) for row in rows])
        self._connection.execute(insert(BESIDE), [_only(BESIDE.c.keys(), row) for row in rows])
        for position in self._erased:
            self._connection.execute(delete(BESIDE).where(BESIDE.c.lane == lane, BESIDE.c.position == position))
        self._hashes = [leaf_hash(entry.stub.leaf()) for entry in self._fresh]
        self._frontier.extend(self._hashes)
        head = {"size": self._frontier.size, "root": self._frontier.root}
        self._connection.execute(update(HEADS).where(HEADS.c.lane == lane).values(head))

    def keep(self) -> None:
        """After the commit: let the tree in memory follow."""
        if self._fresh:
            self._log.grow(self._hashes, self._frontier)

    def _check_fresh(self, stub: Stub | TombstoneStub) -> list[int]:
        """The positions whose ciphertext a new entry erases. MalformedError for one that has no place in the lane."""
        if isinstance(stub, Stub):
            if self._epochs is not None and stub.epoch not in self._epochs:
                raise MalformedError(
                    "A record is sealed to a key that its data holder no longer publishes. The wallet should fetch "
                    "the key set again and write the record anew."
                )
            return []
        # Only what was committed before: nobody can know the place of an entry of this very transaction.
        query = select(ENTRIES.c.leaf).where(ENTRIES.c.lane == self._log.lane, ENTRIES.c.position == stub.position)
        leaf = self._connection.execute(query).scalar_one_or_none()
        if leaf is None or leaf_hash(leaf) != stub.erased_leaf or not isinstance(parse_leaf(leaf), Stub):
            raise MalformedError(
                "A tombstone names no record of this lane. The data holder should sync its lane and name the record "
                "by the position and the hash that it has there."
            )
        return [stub.position]


def stored_tag(stub: Stub | TombstoneStub) -> bytes:
    """The tag as the database holds it: a tombstone's can never meet a record's."""
    return stub.tag if isinstance(stub, Stub) else _TOMBSTONE_PREFIX + stub.tag


def _taken(stub: Stub | TombstoneStub) -> RefusalError:
    if isinstance(stub, Stub):
        return RefusalError(
            "This tag is in the lane with another record. The wallet should append under its next number.",
            RefusalCode.REPLAY,
        )
    return RefusalError(
        "This record is erased already, by another statement. The data holder has nothing left to do.",
        RefusalCode.REPLAY,
    )


def _known(connection: Connection, lane: str, tags: Sequence[bytes]) -> dict[bytes, Place]:
    columns = (ENTRIES.c.tag, ENTRIES.c.position, ENTRIES.c.leaf, ENTRIES.c.received_at)
    found = {}
    for first in range(0, len(tags), _MOST_TAGS_A_QUERY):
        some = tags[first : first + _MOST_TAGS_A_QUERY]
        for row in connection.execute(select(*columns).where(ENTRIES.c.lane == lane, ENTRIES.c.tag.in_(some))):
            found[row.tag] = Place(row.position, leaf_hash(row.leaf), row.received_at)
    return found


def _only(columns: Sequence[str], row: Mapping[str, object]) -> dict[str, object]:
    return {column: row[column] for column in columns}
