"""The whole of a registry's database held against itself: what a restored copy must pass before it serves."""

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from sqlalchemy import Connection, Row, select

from privacy.consent.key_set import read_key_set
from privacy.consent.lane import TombstoneStub, parse_leaf
from privacy.consent.merkle import Frontier, leaf_hash
from privacy.consent.tombstone import read_tombstone, tombstone_stub
from privacy.errors import MalformedError, TamperingError
from server.registry.appends import stored_tag
from server.registry.key_sets import stored_key_set
from server.registry.lane_log import stored_head
from server.registry.settings import Home
from server.registry.tables import BESIDE, ENTRIES, HEADS, KEY_SETS, Database

MOST_FAULTS: Final = 20
_ROWS_AT_ONCE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Verified:
    """A lane that holds: its number of entries, how many of them were erased, and its root."""

    entries: int
    erased: int
    root: bytes


def verify_database(home: Home) -> dict[str, Verified]:
    """Every lane of a registry, read whole. TamperingError lists what does not hold, up to 20 faults."""
    database = Database(home.database)
    identities = home.settings.identities
    verified, faults = {}, []
    try:
        with database.reading() as connection:
            for lane in sorted(_lanes(connection) | identities.keys()):
                check = _LaneCheck(lane, identities.get(lane))
                with closing(check.faults(connection)) as found:
                    faults += [f"lane {lane}: {fault}" for fault in islice(found, MOST_FAULTS)]
                verified[lane] = Verified(check.frontier.size, len(check.missing), check.frontier.root)
    finally:
        database.close()
    if faults:
        raise TamperingError(
            f"{database.name} does not hold what its registry signed. {'; '.join(faults[:MOST_FAULTS])}. Its operator "
            "should stop the registry, keep this database for the auditor and restore a copy."
        )
    return verified


@dataclass(slots=True)
class _LaneCheck:
    lane: str
    identity: bytes | None
    frontier: Frontier = field(default_factory=Frontier)
    missing: dict[int, bytes] = field(default_factory=dict)  # leaf hashes of entries beside which nothing lies
    erased: set[int] = field(default_factory=set)  # of these, those with a tombstone

    def faults(self, connection: Connection) -> Generator[str, None, None]:
        """Everything that does not hold, in words without a tag."""
        if self.identity is None:
            yield "it is in the database and not in registry.toml, so its tombstones cannot be verified"
        with closing(_rows(connection, self.lane)) as rows:
            for row in rows:
                if row.position != self.frontier.size:
                    yield f"position {self.frontier.size} is missing"
                    return
                yield from self._entry_faults(row)
                self.frontier.append(leaf_hash(row.leaf))
        head = stored_head(connection, self.lane)
        if head.size != self.frontier.size:
            yield f"its head says {head.size} entries and {self.frontier.size} are there"
        elif head.root != self.frontier.root:
            yield f"the root over its {head.size} entries is not its head's: an entry was changed"
        for position in sorted(self.missing.keys() - self.erased):
            yield f"the ciphertext at position {position} is missing without a tombstone"
        if _strays(connection, self.lane, self.frontier.size):
            yield "ciphertexts lie beside positions that have no entry"
        yield from self._key_set_faults(connection)

    def _entry_faults(self, row: Row[int, bytes, bytes, bytes]) -> Iterator[str]:
        position, tag, leaf = row.position, row.tag, row.leaf
        content: bytes | None = row.content
        try:
            stub = parse_leaf(leaf)
        except MalformedError:
            yield f"the entry at position {position} cannot be read as one"
            return
        if tag != stored_tag(stub):
            yield f"the entry at position {position} is filed under another tag than its own"
        if content is None:
            self.missing[position] = leaf_hash(leaf)
        elif hashlib.sha256(content).digest() != stub.beside_sha256:
            yield f"what lies beside position {position} is not what was logged"
        elif isinstance(stub, TombstoneStub):
            yield from self._tombstone_faults(position, stub, content)

    def _tombstone_faults(self, position: int, stub: TombstoneStub, envelope: bytes) -> Iterator[str]:
        if self.identity is None:
            return
        try:
            statement = read_tombstone(envelope, identity=self.identity, lane=self.lane)
        except (MalformedError, TamperingError):
            yield f"the tombstone at position {position} is not signed by the lane's data holder"
            return
        if tombstone_stub(envelope, statement) != stub:
            yield f"the tombstone at position {position} says something else than its statement"
        elif stub.position >= position:
            yield f"the tombstone at position {position} names an entry that is not before it"
        elif stub.position not in self.missing:
            yield f"the ciphertext at position {stub.position} was erased by a tombstone and is there"
        elif self.missing[stub.position] != stub.erased_leaf:
            yield f"the tombstone at position {position} names another entry than the one at {stub.position}"
        else:
            self.erased.add(stub.position)

    def _key_set_faults(self, connection: Connection) -> Iterator[str]:
        envelope = stored_key_set(connection, self.lane)
        if envelope is None or self.identity is None:
            return
        try:
            read_key_set(envelope, identity=self.identity, holder=self.lane, at=None)
        except (MalformedError, TamperingError):
            yield "its key set is not signed by its data holder"


def _lanes(connection: Connection) -> set[str]:
    return {
        lane
        for table in (ENTRIES, BESIDE, HEADS, KEY_SETS)
        for (lane,) in connection.execute(select(table.c.lane).distinct())
    }


def _rows(connection: Connection, lane: str) -> Generator[Row[int, bytes, bytes, bytes], None, None]:
    joined = ENTRIES.outerjoin(BESIDE, (ENTRIES.c.lane == BESIDE.c.lane) & (ENTRIES.c.position == BESIDE.c.position))
    query = select(ENTRIES.c.position, ENTRIES.c.tag, ENTRIES.c.leaf, BESIDE.c.content).select_from(joined)
    query = query.where(ENTRIES.c.lane == lane).order_by(ENTRIES.c.position)
    with connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE}) as rows:
        yield from rows


def _strays(connection: Connection, lane: str, size: int) -> bool:
    query = select(BESIDE.c.position).where(
        BESIDE.c.lane == lane, (BESIDE.c.position >= size) | (BESIDE.c.position < 0)
    )
    return connection.execute(query.limit(1)).one_or_none() is not None
