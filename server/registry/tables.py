"""The registry's tables, and the one way to reach them: SQLite or PostgreSQL by URL, durable at each commit."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from privacy.consent.limits import DIGEST_BYTES
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

METADATA: Final = MetaData()

ENTRIES: Final = Table(
    "entries",
    METADATA,
    Column("lane", String(64), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    # The stub's 16 bytes; a tombstone's behind one more byte. Whoever reads a lane can compute the tag of any entry's
    # tombstone, and would otherwise take it first, with a record, to hinder the erasure.
    Column("tag", LargeBinary(17), nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),  # UTC seconds: a promise that is asked for again stays the same
    UniqueConstraint("lane", "tag"),
)
"""The log itself. It is read whole when a registry starts, so it holds no ciphertexts."""

BESIDE: Final = Table(
    "beside",
    METADATA,
    Column("lane", String(64), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
"""What lies beside each entry: a sealed record until it is erased, or a tombstone's signed statement."""

HEADS: Final = Table(
    "heads",
    METADATA,
    Column("lane", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(DIGEST_BYTES), nullable=False),
)
"""Size and root of each lane after its last append. Who appends holds this row locked."""

KEY_SETS: Final = Table(
    "key_sets",
    METADATA,
    Column("lane", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)
"""The newest key set of each data holder, signed by it."""

BUSY_MS: Final = 30_000
CONNECT_S: Final = 10
_TABLES_LOCK: Final = 0x66656463  # any number that other programs on the same server do not lock


class DatabaseUnavailableError(RefusalError):
    """The database cannot be reached or written now; nothing was appended."""


class BrokenStoreError(TamperingError):
    """What the database holds contradicts itself; nothing of it may be signed."""


class Database:
    """One registry's database. `name` is what a text may call it: a file's name, never a password."""

    def __init__(self, database: str | Path) -> None:
        url = _url(database)
        self._on_sqlite = url.get_backend_name() == "sqlite"
        self.name = Path(url.database or "memory").name
        # Error texts of the driver would otherwise quote tags and ciphertexts.
        self._engine = create_engine(url, hide_parameters=True, **self._options())
        self._snapshots = self._engine
        if self._on_sqlite:
            event.listen(self._engine, "connect", _make_durable)
            event.listen(self._engine, "begin", _begin)
        else:
            # A head and the entries under it must come from one instant; SQLite's readers have that anyway.
            self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ")
        with self.writing() as connection:
            if not self._on_sqlite:
                # Two processes that start at once on an empty database: the second finds the tables made.
                connection.execute(select(func.pg_advisory_xact_lock(_TABLES_LOCK)))
            METADATA.create_all(connection)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that commits durably at its end, or is undone. DatabaseUnavailableError or TamperingError."""
        with self._told(), self._engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one instant throughout and changes nothing."""
        with self._told(), self._snapshots.connect() as connection:
            yield connection

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    def _options(self) -> dict[str, object]:
        if self._on_sqlite:
            return {}
        # A server set to acknowledge before its disk has the commit would lose acknowledged withdrawals.
        options = f"-c synchronous_commit=on -c lock_timeout={BUSY_MS}"
        return {"pool_pre_ping": True, "connect_args": {"options": options, "connect_timeout": CONNECT_S}}

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            passing = isinstance(error, OperationalError) if self._on_sqlite else not isinstance(error, IntegrityError)
            if passing:
                # No cause goes on: the driver's text may hold the database's address.
                raise DatabaseUnavailableError(
                    f"The registry's database {self.name} cannot be reached or written, or is busy; nothing was "
                    "appended. Its operator should check that it runs, its disk space and its permissions; then "
                    "the same request can be sent again.",
                    RefusalCode.LANE,
                ) from None
            raise BrokenStoreError(
                f"The registry's database {self.name} cannot be read as one, or holds entries that its heads do not "
                "know. Its operator should restore a copy."
            ) from None


def _url(database: str | Path) -> URL:
    if isinstance(database, Path):
        return URL.create("sqlite", database=str(database))
    try:
        url = make_url(database)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        backend = "nothing known"
    if backend == "postgresql":
        # Without a driver's name the URL would ask for another driver than the one that we install.
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return url
    raise MalformedError(
        "The registry's database must be sqlite:///FILE or postgresql://HOST/NAME; the URL in its settings is "
        "neither. Its operator should correct it."
    )


def _make_durable(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Losing an acknowledged withdrawal is not acceptable: every commit reaches the disk. Transactions are begun by
    # us, because the driver's own late begin lets two writers deadlock. An erased ciphertext is overwritten, too.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    _enter_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _enter_wal(cursor: DBAPICursor) -> None:
    # Of two processes that make the same file at once, SQLite tells one that it is busy without letting it wait.
    end = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _begin(connection: Connection) -> None:
    # A writer that begins as a reader and then finds another writer ahead of it can only give up.
    connection.execute(text("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"))
