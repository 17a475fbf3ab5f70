"""The lane copy's database: its tables, whole transactions, rows with keyed digests, and a tally of what may not go.

Every row carries a keyed digest, so that an edited one is noticed when it is read. Of every table but three the rows
are also counted in a tally, so that a deleted one is noticed when its table is read whole. Entries hash to the lane's
head; heads and verdicts can be computed again from them: losing one costs time and nothing else.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clients.holder.row_seal import RowSeal, Tally
from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT, Frontier
from privacy.errors import RefusalCode, RefusalError, TamperingError

Row = tuple[Any, ...]

_FORMAT: Final = 4
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL, at INTEGER NOT NULL,
    changes INTEGER NOT NULL, tallies BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, leaf BLOB NOT NULL, kind INTEGER NOT NULL, handle BLOB, seq INTEGER, payload BLOB,
    signature BLOB, rho BLOB, erased_by INTEGER, mac BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS newest ON entries (handle, seq, position) WHERE handle IS NOT NULL;
CREATE INDEX IF NOT EXISTS unsettled ON entries (kind, position) WHERE kind > 3;
CREATE TABLE IF NOT EXISTS verdicts (
    position INTEGER PRIMARY KEY, good INTEGER NOT NULL, link BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS heads (size INTEGER PRIMARY KEY, root BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS links (
    customer TEXT PRIMARY KEY, handle BLOB NOT NULL UNIQUE, public_key BLOB NOT NULL, linked_at_size INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS ended_links (
    customer TEXT NOT NULL, handle BLOB NOT NULL, public_key BLOB NOT NULL, linked_at_size INTEGER NOT NULL,
    ended_at_size INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (handle, linked_at_size)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ended_of ON ended_links (customer);
CREATE TABLE IF NOT EXISTS uses (
    handle BLOB NOT NULL, recipient TEXT NOT NULL, nonce TEXT NOT NULL, at INTEGER NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (handle, recipient, nonce)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, accepted BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS direct (
    leaf BLOB PRIMARY KEY, handle BLOB NOT NULL, seq INTEGER NOT NULL, payload BLOB NOT NULL, signature BLOB NOT NULL,
    rho BLOB NOT NULL, at INTEGER NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS direct_of ON direct (handle);
CREATE TABLE IF NOT EXISTS floors (
    handle BLOB PRIMARY KEY, seq INTEGER NOT NULL, link BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS erasing (handle BLOB PRIMARY KEY, customer TEXT NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ledger_head (size INTEGER PRIMARY KEY, digest BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
"""
COLUMNS: Final = {
    "entries": "position, leaf, kind, handle, seq, payload, signature, rho, erased_by",
    "verdicts": "position, good, link",
    "heads": "size, root",
    "links": "customer, handle, public_key, linked_at_size",
    "ended_links": "customer, handle, public_key, linked_at_size, ended_at_size",
    "uses": "handle, recipient, nonce, at",
    "runs": "name, accepted",
    "direct": "leaf, handle, seq, payload, signature, rho, at",
    "floors": "handle, seq, link",
    "erasing": "handle, customer",
    "ledger_head": "size, digest",
}
TALLIED: Final = ("links", "ended_links", "uses", "runs", "direct", "floors", "erasing", "ledger_head")
_TALLY_BYTES: Final = 40
_PATIENCE_S: Final = 30  # the longest that another process writes: a million downloaded entries, some 15 s
_FETCHED: Final = 1024  # rows at a time: what is read as a stream never lies in memory whole


@dataclass(frozen=True, slots=True)
class State:
    """What the copy as a whole says of itself: newest accepted head, when it was synced, how often it was changed."""

    head: Head
    at: int
    changes: int
    tallies: bytes


EMPTY_STATE: Final = State(Head(0, EMPTY_ROOT), 0, 0, b"".join(Tally().to_bytes() for _ in TALLIED))


class Change:
    """A transaction under way: the state it will leave, and the rows it puts in and takes out."""

    def __init__(self, base: "LaneBase", state: State) -> None:
        self._base = base
        self._before = state
        self.head, self.at = state.head, state.at
        self.tree: Frontier | None = None  # over the entries up to the new head, if they are more
        self._tallies = _tallies(state.tallies)

    def insert(self, table: str, rows: Iterable[Row]) -> None:
        """Add rows, each with its digest. RefusalError (by `readable`) if one is there already."""
        seal, tally = self._base.seal, self._tallies.get(table)
        sealed = []
        for row in rows:
            mac = seal.row(table, *row)
            if tally is not None:
                tally.add(seal, mac)
            sealed.append((*row, mac))
        self.insert_sealed(table, sealed)

    def insert_sealed(self, table: str, sealed: list[Row]) -> None:
        """Add rows that carry their digests already."""
        marks = ", ".join("?" * (COLUMNS[table].count(",") + 2))
        columns = f"{COLUMNS[table]}, mac"
        # S608 here and below: names of tables and columns are constants of this file; every value is bound.
        self._base.connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", sealed)  # noqa: S608

    def judge(self, verdicts: Iterable[Row]) -> None:
        """Remember of records whether they hold: position, 1 or 0, and under which link."""
        rows = [(*row, self._base.seal.row("verdicts", *row)) for row in verdicts]
        self._base.connection.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", rows)

    def remove(self, table: str, clause: str, *values: object) -> list[Row]:
        """Take out the rows of `clause`, which is SQL of ours behind WHERE; returns them. TamperingError if edited."""
        rows = self._base.rows(table, f"WHERE {clause}", *values)
        tally = self._tallies.get(table)
        if tally is not None:
            for row in rows:
                tally.remove(self._base.seal, self._base.seal.row(table, *row))
        self._base.connection.execute(f"DELETE FROM {table} WHERE {clause}", values)  # noqa: S608
        return rows

    def write(self) -> State:
        """Write the state that this change leaves."""
        tallies = b"".join(self._tallies[table].to_bytes() for table in TALLIED)
        state = State(self.head, self.at, self._before.changes + 1, tallies)
        fields = (state.head.size, state.head.root, state.at, state.changes, state.tallies)
        row = (*fields, self._base.seal.row("state", *fields))
        self._base.connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?)", row)
        return state


class LaneBase:
    """One connection to the database. Whoever uses it from several threads must take turns."""

    def __init__(self, path: Path, seal: RowSeal) -> None:
        """Open the database, making it if there is none."""
        self.path, self.seal = path, seal
        with self.readable():
            _make_private(path)
            self.connection: Final = sqlite3.connect(
                path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
            self.state = self.read_state()
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        with self.readable():
            execute = self.connection.execute
            # What was forgotten must not lie on the disk: SQLite overwrites what it deletes.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "cache_size=-65536"):
                execute(f"PRAGMA {pragma}")
            (found,) = execute("PRAGMA user_version").fetchone()
            if found == _FORMAT:
                return
            if execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise RefusalError(
                    f"{self.path.name} was written by another version of this program. This data holder should move "
                    "it and its head file away, link its customers again from its own records and sync anew; the "
                    "registry still has every consent record.",
                    RefusalCode.LANE,
                )
            self.connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={_FORMAT}; COMMIT;")

    def close(self) -> None:
        """Give the database back."""
        self.connection.close()

    def version(self) -> int:
        """A number that changes when another connection has changed the database (PRAGMA data_version)."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def read_state(self) -> State:
        """The state as it is in the database. TamperingError if it was edited."""
        with self.readable():
            row = self.connection.execute("SELECT size, root, at, changes, tallies, mac FROM state").fetchone()
        if row is None:
            return EMPTY_STATE
        *fields, mac = row
        if not self.seal.holds(mac, "state", *fields):
            raise self.edited()
        size, root, at, changes, tallies = fields
        return State(Head(size, root), at, changes, tallies)

    def rows(self, table: str, clause: str = "", *values: object) -> list[Row]:
        """The rows of `table` that `clause`, which is SQL of ours, selects. TamperingError if one was edited."""
        return list(self.stream(table, clause, *values))

    def stream(self, table: str, clause: str = "", *values: object) -> Iterator[Row]:
        """As `rows`, a few at a time."""
        return (row[:-1] for row in self._sealed(table, clause, *values))

    def whole(self, table: str, order: str = "") -> Iterator[Row]:
        """All rows of a tallied table, as a stream. TamperingError if one was edited, or at the end if one is gone."""
        tally = Tally()
        for *row, mac in self._sealed(table, order):
            tally.add(self.seal, mac)
            yield tuple(row)
        if tally != _tallies(self.state.tallies)[table]:
            raise self.edited()

    def _sealed(self, table: str, clause: str, *values: object) -> Iterator[Row]:
        """Rows with their digests behind them, which hold."""
        holds = self.seal.holds
        with self.readable():
            found = self.connection.execute(f"SELECT {COLUMNS[table]}, mac FROM {table} {clause}", values)  # noqa: S608
            while some := found.fetchmany(_FETCHED):
                for row in some:
                    if not holds(row[-1], table, *row[:-1]):
                        raise self.edited()
                    yield row

    @contextmanager
    def change(self) -> Iterator[Change]:
        """All that is done within is committed durably at the end, or none of it. Call within `begun`."""
        change = Change(self, self.state)
        yield change
        state = change.write()
        self.connection.execute("COMMIT")
        self.state = state

    @contextmanager
    def begun(self, *, write: bool) -> Iterator[None]:
        """One transaction, so that all reads see one state; rolled back unless `change` has committed it."""
        with self.readable():
            self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def edited(self) -> TamperingError:
        """The error for a copy that is not what this data holder wrote."""
        return TamperingError(
            f"{self.path.name} does not hold the lane and the links that were accepted last: it was edited, cut or "
            "restored from an older copy. This data holder should move it and its head file away, link its customers "
            "again from its own records and sync anew; until then nobody's rows may be used."
        )

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turns the database's own errors into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RefusalError(
                f"{self.path.name} cannot be written or is busy; nothing was changed. This data holder should check "
                "disk space and permissions.",
                RefusalCode.LANE,
            ) from error
        except sqlite3.IntegrityError as error:
            raise RefusalError(
                f"{self.path.name} already has what was to be added: a customer or wallet that is linked, or entries "
                "that another process has synced; nothing was changed. This data holder should start its node again.",
                RefusalCode.LANE,
            ) from error
        except sqlite3.DatabaseError as error:
            raise TamperingError(
                f"{self.path.name} is damaged: it cannot be read as a database. This data holder should move it and "
                "its head file away, link its customers again from its own records and sync anew; the registry still "
                "has every consent record."
            ) from error


def _make_private(path: Path) -> None:
    """Make the database readable by its owner only, before SQLite does otherwise: it says who is whose customer."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        for suffix in ("", "-wal", "-shm"):  # SQLite makes the other two like the first
            file = path.with_name(path.name + suffix)
            with suppress(FileNotFoundError):
                if file.stat().st_mode & 0o077:
                    file.chmod(0o600)
    except OSError as error:
        raise sqlite3.OperationalError(error.strerror) from error


def _tallies(data: bytes) -> dict[str, Tally]:
    return {
        table: Tally.from_bytes(data[number * _TALLY_BYTES : (number + 1) * _TALLY_BYTES])
        for number, table in enumerate(TALLIED)
    }
