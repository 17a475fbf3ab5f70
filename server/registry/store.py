"""The consent registry's storage: per data holder one append-only lane of stubs, with sealed records beside it.

The registry cannot read a record: neither people nor purposes pass through here. SQLite, durable at each commit.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from privacy.consent.lane import Head, Stub, write_checkpoint
from privacy.consent.merkle import leaf_hash, root_of
from privacy.consent.signing import SigningKey
from privacy.consent.view import Entry
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

_METADATA = MetaData()
_ENTRIES = Table(
    "entries",
    _METADATA,
    Column("lane", String(64), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("tag", LargeBinary(16), nullable=False),
    Column("stub", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary),
    UniqueConstraint("lane", "tag"),
)
_HEADS = Table(
    "heads",
    _METADATA,
    Column("lane", String(64), primary_key=True),
    Column("size", Integer, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
)
_MOST_TAGS_A_QUERY = 500


@dataclass(frozen=True, slots=True)
class Submission:
    """What a wallet hands in: a stub for the log and the sealed record that the stub commits to."""

    stub: Stub
    ciphertext: bytes


class Registry:
    """The lanes of all data holders, and the key that signs their heads."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        self._engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _make_durable)
        event.listen(self._engine, "begin", lambda connection: connection.execute(text("BEGIN IMMEDIATE")))
        self._name = path.name
        self._key = key
        with self._readable():
            _METADATA.create_all(self._engine)

    @property
    def public_key(self) -> bytes:
        """The Ed25519 key that verifies this registry's checkpoints."""
        return self._key.public

    def close(self) -> None:
        """Give the database back."""
        self._engine.dispose()

    def append(self, lane: str, submissions: Sequence[Submission]) -> list[int]:
        """Append all of them in one durable commit, or none; returns each one's position in the lane.

        The same stub again keeps its position. RefusalError for a known tag with another stub: a wallet may not
        replace a record, only append a newer one. MalformedError if a ciphertext is not what its stub says.
        """
        for submission in submissions:
            if hashlib.sha256(submission.ciphertext).digest() != submission.stub.ciphertext_sha256:
                raise MalformedError("A stub does not match its sealed record. The wallet should submit it again.")
        with self._readable(), self._engine.begin() as connection:
            leaves = self._stubs(connection, lane)
            known = _known(connection, lane, [submission.stub.tag for submission in submissions])
            fresh = []
            for submission in submissions:
                stub, leaf = submission.stub, submission.stub.leaf()
                position, stored = known.setdefault(stub.tag, (len(leaves), leaf))
                if stored != leaf:
                    raise RefusalError(
                        "This tag is in the lane with another record. The wallet should append under its next number.",
                        RefusalCode.REPLAY,
                    )
                if position == len(leaves):
                    leaves.append(leaf)
                    row = {"lane": lane, "position": position, "tag": stub.tag, "stub": leaf}
                    fresh.append(row | {"ciphertext": submission.ciphertext})
            if fresh:
                connection.execute(insert(_ENTRIES), fresh)
                connection.execute(_HEADS.delete().where(_HEADS.c.lane == lane))
                connection.execute(insert(_HEADS).values(lane=lane, size=len(leaves), root=_root(leaves)))
        return [known[submission.stub.tag][0] for submission in submissions]

    def checkpoint(self, lane: str) -> str:
        """The signed head of a lane as a signed note (C2SP tlog-checkpoint).

        TamperingError if what is stored no longer hashes to the head that was stored with the last append.
        """
        with self._readable(), self._engine.connect() as connection:
            leaves = self._stubs(connection, lane)
        return write_checkpoint(Head(len(leaves), _root(leaves)), f"fedcredit/{lane}", self._key)

    def entries(self, lane: str, start: int) -> list[Entry]:
        """The entries of a lane from position `start` on, in order."""
        query = select(_ENTRIES.c.stub, _ENTRIES.c.ciphertext).order_by(_ENTRIES.c.position)
        with self._readable(), self._engine.connect() as connection:
            rows = connection.execute(query.where(_ENTRIES.c.lane == lane, _ENTRIES.c.position >= start)).all()
        return [Entry(Stub.parse(row.stub), row.ciphertext) for row in rows]

    def _stubs(self, connection: Connection, lane: str) -> list[bytes]:
        """The whole lane, held against its stored head: an append to an edited lane would sign the edit."""
        query = select(_ENTRIES.c.position, _ENTRIES.c.stub).where(_ENTRIES.c.lane == lane)
        rows = connection.execute(query.order_by(_ENTRIES.c.position)).all()
        if [row.position for row in rows] != list(range(len(rows))):
            raise TamperingError(
                f"Lane {lane} in {self._name} has a gap. The registry's operator should restore it from a copy."
            )
        stubs = [row.stub for row in rows]
        head = connection.execute(select(_HEADS.c.size, _HEADS.c.root).where(_HEADS.c.lane == lane)).one_or_none()
        if (len(stubs), _root(stubs)) != ((head.size, head.root) if head else (0, _root([]))):
            raise TamperingError(
                f"Lane {lane} in {self._name} does not hash to its own head: an entry was changed or lost. "
                "The registry's operator should restore it from a copy; until then nobody may train on this lane."
            )
        return stubs

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise RefusalError(
                f"The registry's database {self._name} cannot be written or is busy; nothing was appended. "
                "Its operator should check disk space and permissions, then the wallet submits again.",
                RefusalCode.LANE,
            ) from error
        except DatabaseError as error:
            raise TamperingError(
                f"The registry's database {self._name} cannot be read as one. Its operator should restore a copy."
            ) from error


def _root(stubs: Sequence[bytes]) -> bytes:
    return root_of([leaf_hash(stub) for stub in stubs])


def _known(connection: Connection, lane: str, tags: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
    columns = (_ENTRIES.c.tag, _ENTRIES.c.position, _ENTRIES.c.stub)
    found = {}
    for first in range(0, len(tags), _MOST_TAGS_A_QUERY):
        some = tags[first : first + _MOST_TAGS_A_QUERY]
        for row in connection.execute(select(*columns).where(_ENTRIES.c.lane == lane, _ENTRIES.c.tag.in_(some))):
            found[row.tag] = (row.position, row.stub)
    return found


def _make_durable(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Losing an acknowledged withdrawal is not acceptable: every commit reaches the disk. Transactions are begun by
    # us (BEGIN IMMEDIATE), because the driver's own late begin lets two writers deadlock.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
