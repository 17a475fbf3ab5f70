"""The ledger's storage: an append-only chain of entries in SQLite, and its newest head in a file beside it.

Each entry's digest covers the one before. The head is written and synced after every commit, so a changed
byte, a lost entry or an older copy is noticed. Both restored together are noticed by whoever kept a later
head (`last_known`).
"""

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from privacy.errors import RefusalCode, RefusalError, TamperingError

_DOMAIN = b"fedcredit/ledger/v1"
_START = bytes(32)
_SALT_BYTES = 16
_SALT = re.compile(rf"[0-9a-f]{{{2 * _SALT_BYTES}}}\Z")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, header BLOB NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS contents (name TEXT PRIMARY KEY, content BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """How many entries the ledger has, and the digest of the last."""

    size: int
    digest: bytes


def broken(found: str) -> TamperingError:
    """The error for a ledger that contradicts itself."""
    return TamperingError(
        f"the privacy ledger contradicts itself: {found}. Nothing may be released from it; the data holder's operator "
        "must find the true ledger, and tell the coordinator if it is lost"
    )


def _unusable(error: Exception) -> RefusalError:
    # SQLite's and the system's own texts name files and limits, never rows.
    return RefusalError(
        f"the privacy ledger cannot be read or written ({type(error).__name__}: {error}); nothing was released: the "
        "data holder's operator must check space, permissions and other processes, then try again",
        RefusalCode.INTERNAL,
    )


def _digest(before: bytes, header: bytes, body: bytes) -> bytes:
    sizes = len(header).to_bytes(8, "big") + len(body).to_bytes(8, "big")
    return hashlib.sha256(_DOMAIN + before + sizes + header + body).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One verified entry; positions count from 1. `header` is without the salt, which is nobody's to read."""

    position: int
    header: Mapping[str, object]
    body: bytes


class LedgerChain:
    """Entries in order. Safe between threads and between processes on one file."""

    def __init__(self, connection: sqlite3.Connection, head_path: Path) -> None:
        self._connection = connection
        self._head_path = head_path
        self._lock = threading.RLock()
        self._digests: list[bytes] = []

    @classmethod
    def open(cls, path: Path) -> "LedgerChain":
        """The chain at `path`, not read yet; an empty one if neither it nor its head file exists."""
        head_path = path.with_name(path.name + ".head")
        try:
            if head_path.exists() and not path.exists():
                raise broken("its head file is there but the database is gone")
            # Created here, so that nobody but the owner can read it from its first byte on.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(error) from None
        chain = cls(connection, head_path)
        try:
            with chain.guarded():
                # EXTRA is FULL that also syncs the directory: a power cut must not bring an undone charge
                # back.
                connection.execute("PRAGMA synchronous=EXTRA")
                connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return chain

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._connection.close()

    @property
    def head(self) -> LedgerHead:
        """Of the entries read so far."""
        return LedgerHead(len(self._digests), self._last)

    def head_at(self, position: int) -> LedgerHead:
        """The head as it was when the entry at `position` was the last; it must have been read."""
        return LedgerHead(position, self._digests[position - 1])

    @property
    def _last(self) -> bytes:
        return self._digests[-1] if self._digests else _START

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """One thread at a time, and every failure of file or database in words a person can act on."""
        with self._lock:
            try:
                yield
            except (sqlite3.OperationalError, OSError) as error:
                raise _unusable(error) from None
            except sqlite3.ProgrammingError:
                raise
            except sqlite3.DatabaseError as error:
                raise broken(f"the database is damaged ({error})") from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. No other process can write between a look at the chain and an entry of our own."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.execute("COMMIT")

    def append(self, header: Mapping[str, object], body: bytes) -> None:
        """A new last entry with a fresh salt, inside a transaction in which `news` was read to its end.

        This object too learns of it through `news`, once it is committed.
        """
        salted = {**header, "salt": os.urandom(_SALT_BYTES).hex()}
        encoded = json.dumps(salted, sort_keys=True, separators=(",", ":")).encode()
        row = (len(self._digests) + 1, encoded, body, _digest(self._last, encoded, body))
        self._connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)

    def news(self) -> Iterator[Entry]:
        """The entries not handed out yet, verified. One counts as handed out when the next is asked for."""
        (size,) = self._connection.execute("SELECT count(*) FROM entries").fetchone()
        if size < len(self._digests):
            raise broken("entries are gone")
        rows = self._connection.execute(
            "SELECT position, header, body, digest FROM entries WHERE position >= ? ORDER BY position",
            (len(self._digests),),
        )
        for position, header, body, digest in rows:
            if self._digests and position == len(self._digests):
                # The last entry we know must still be the one we know.
                if digest != self._last:
                    raise broken("its newest known entry was replaced")
                continue
            lawful = isinstance(header, bytes) and isinstance(body, bytes)
            if not lawful or position != len(self._digests) + 1 or digest != _digest(self._last, header, body):
                raise broken(f"entry {len(self._digests) + 1} of {size} is missing or changed")
            yield Entry(position, _read_header(header), body)
            self._digests.append(digest)
        if len(self._digests) != size:
            raise broken("its entries are not numbered without gaps")

    def read(self, position: int) -> Entry:
        """The entry at `position`, verified again."""
        row = self._connection.execute("SELECT header, body FROM entries WHERE position = ?", (position,)).fetchone()
        before = self._digests[position - 2] if position > 1 else _START
        lawful = row is not None and isinstance(row[0], bytes) and isinstance(row[1], bytes)
        if not lawful or _digest(before, *row) != self._digests[position - 1]:
            raise broken(f"entry {position} is missing or changed")
        return Entry(position, _read_header(row[0]), row[1])

    def put_content(self, name: str, content: bytes) -> None:
        """Keep bytes beside the chain; an entry must hold their digest."""
        self._connection.execute("INSERT INTO contents VALUES (?, ?)", (name, content))

    def content(self, name: str) -> bytes | None:
        """Bytes kept beside the chain, not verified."""
        row = self._connection.execute("SELECT content FROM contents WHERE name = ?", (name,)).fetchone()
        if row is not None and not isinstance(row[0], bytes):
            raise broken("bytes kept beside it are none")
        return None if row is None else row[0]

    def require_extends(self, head: LedgerHead | None, whose: str) -> None:
        """TamperingError unless `head` is of this very history; None and an empty head are."""
        if head is None or head == LedgerHead(0, _START):
            return
        if not 0 < head.size <= len(self._digests):
            raise broken(f"{whose} is {head.size} entries long, the database {len(self._digests)}")
        if self._digests[head.size - 1] != head.digest:
            raise broken(f"{whose} is of another history")

    def head_on_file(self) -> LedgerHead | None:
        """The head in the file beside the database; None only for a chain without entries."""
        try:
            text = self._head_path.read_text(encoding="ascii")
        except FileNotFoundError:
            if self._digests:
                raise broken("its head file is gone") from None
            return None
        try:
            size, digest = text.split()
            return LedgerHead(int(size), bytes.fromhex(digest))
        except ValueError:
            raise broken("its head file cannot be read") from None

    def write_head(self) -> None:
        """The head read so far, durable in its file; a later one that another process wrote stays.

        Call it after the commit: a crash in between leaves a head that the database extends.
        """
        with self.transaction():
            on_file = self.head_on_file()
            if on_file is not None and on_file.size >= len(self._digests):
                return
            written = self._head_path.with_name(self._head_path.name + ".new")
            with written.open("w", encoding="ascii") as file:
                file.write(f"{self.head.size} {self.head.digest.hex()}\n")
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._head_path)
            directory = os.open(self._head_path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def _read_header(encoded: bytes) -> Mapping[str, object]:
    try:
        header = json.loads(encoded)
    except ValueError:
        raise broken("an entry's header cannot be read") from None
    if not isinstance(header, dict):
        raise broken("an entry's header is not a table")
    salt = header.pop("salt", None)
    if not isinstance(salt, str) or not _SALT.match(salt):
        raise broken("an entry has no salt of its own, as an earlier version wrote it; such a ledger must be made anew")
    return header
