"""The data holder's copy of its own lane, its links, and the runs it has joined, in one database.

A sync downloads what is new, recomputes the root over the whole lane and compares it with the registry's signed
head. The last accepted head also lies in a file of its own, so that a restored database is noticed. Each opened
record, link and use carries a keyed digest, so that an edited one is noticed too. A link or a use that was deleted is
not: without its link a row is never used, but a use that is gone is not counted.

The privacy ledger's last head lies here as well, because a ledger that is restored together with its own head file
looks sound. Nothing here notices that this database, the ledger and both head files were restored together, or that
the ledger was restored and its head deleted here.
"""

import hashlib
import hmac
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from clients.holder.ledger_chain import LedgerHead
from clients.holder.row_seal import RowSeal
from clients.holder.settings import HolderSettings
from federated.files import write_whole
from privacy.consent.lane import Head, Stub, read_checkpoint
from privacy.consent.merkle import EMPTY_ROOT, leaf_hash, root_of
from privacy.consent.sealing import LaneKey
from privacy.consent.view import Entry, LaneView, Link, open_entry
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

_TABLES = """
CREATE TABLE IF NOT EXISTS links (
    customer TEXT PRIMARY KEY, handle BLOB NOT NULL UNIQUE, public_key BLOB NOT NULL, linked_at_size INTEGER NOT NULL,
    mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, stub BLOB NOT NULL, ciphertext BLOB NOT NULL, payload BLOB, opened BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS synced (
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS uses (
    handle BLOB NOT NULL, recipient TEXT NOT NULL, nonce TEXT NOT NULL, at INTEGER NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (handle, recipient, nonce)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, accepted BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ledger_head (
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, digest BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
"""


class LaneSource(Protocol):
    """Where a lane is downloaded from: the consent registry, in process or over a network."""

    def checkpoint(self, lane: str) -> str:
        """The lane's newest head as a signed note."""
        ...

    def entries(self, lane: str, start: int) -> Sequence[Entry]:
        """The lane's entries from position `start` on."""
        ...


class LaneCopy:
    """The lane of one data holder, verified as far as `head`."""

    def __init__(self, path: Path, settings: HolderSettings, key: LaneKey) -> None:
        """Open the copy, making it if there is none.

        TamperingError if it does not hash to its accepted head, or if a record, a link or a use in it was edited.
        """
        self._path = path
        self._head_path = path.with_suffix(".head")
        self._settings = settings
        self._key = key
        self._seal = RowSeal(key)
        self._views: dict[Head, LaneView] = {}
        with self._readable():
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._verify()
        except BaseException:
            self._database.close()
            raise

    def _verify(self) -> None:
        with self._readable():
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
            row = self._database.execute("SELECT size, root, at FROM synced").fetchone()
            stubs = [stub for (stub,) in self._database.execute("SELECT stub FROM entries ORDER BY position")]
        self.synced_at = 0 if row is None else int(row[2])
        self._leaves = [leaf_hash(stub) for stub in stubs]
        self.head = Head(len(stubs), root_of(self._leaves))
        stored = Head(row[0], row[1]) if row else Head(0, EMPTY_ROOT)
        # A crash between the commit and the head's file leaves the file behind, at a head that the lane extends.
        if stored != self.head or not self._extends(self._accepted()):
            raise self._edited()
        self._payloads(self.head.size)
        self._linked()
        self._used("SELECT handle, recipient, nonce, at, mac FROM uses")
        self._accept(self.head)

    def close(self) -> None:
        """Give the database back."""
        self._database.close()

    def link(self, links: Mapping[str, Link]) -> None:
        """Tie customers of this data holder to wallets: customer number to handle and public key. All or none.

        RefusalError if a customer or a handle is tied already.
        """
        fields = [(customer, link.handle, link.public_key, link.linked_at_size) for customer, link in links.items()]
        rows = [(*row, self._seal.link(*row)) for row in fields]
        with self._readable(), self._transaction():
            self._database.executemany("INSERT INTO links VALUES (?, ?, ?, ?, ?)", rows)
            self._open_late({link.handle: link for link in links.values()})
        self._views.clear()

    def links(self) -> dict[str, bytes]:
        """Customer number to handle; TamperingError if a link was edited."""
        return {customer: handle for customer, handle, _, _ in self._linked()}

    def sync(self, source: LaneSource, *, at: int) -> int:
        """Download and verify what is new; returns how many entries that was. All of it is kept, or nothing.

        TamperingError if the registry's head goes back, does not match its entries, or is not signed by it.
        """
        lane = self._settings.holder
        registry_key = bytes.fromhex(self._settings.registry_key)
        head = read_checkpoint(source.checkpoint(lane), f"fedcredit/{lane}", registry_key)
        if head.size < self.head.size:
            raise TamperingError(
                "The registry's lane is shorter than the one accepted before. Keep both checkpoints, use nobody's "
                "rows, and tell the registry's operator and the auditor."
            )
        fresh = list(source.entries(lane, self.head.size))[: head.size - self.head.size]
        for entry in fresh:
            if entry.beside is None or hashlib.sha256(entry.beside).digest() != entry.stub.ciphertext_sha256:
                raise TamperingError(
                    "The registry withholds or replaces a sealed record, which could be a withdrawal. Use nobody's "
                    "rows until it delivers, and tell its operator and the auditor."
                )
        leaves = self._leaves + [leaf_hash(entry.stub.leaf()) for entry in fresh]
        if Head(len(leaves), root_of(leaves)) != head:
            raise TamperingError(
                "The registry's lane does not hash to its signed head: an entry was left out, changed or moved. Keep "
                "the checkpoint, use nobody's rows, and tell the registry's operator and the auditor."
            )
        first = self.head.size
        links = self.links_by_handle()
        opened = []
        for position, entry in enumerate(fresh, start=first):
            stub, payload = entry.stub.leaf(), self._open(entry, position, links)
            opened.append((position, stub, entry.beside, payload, self._opened(stub, payload)))
        with self._readable(), self._transaction():
            self._database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", opened)
            self._database.execute("INSERT OR REPLACE INTO synced VALUES (1, ?, ?, ?)", (head.size, head.root, at))
        self._accept(head)
        self.head, self._leaves, self.synced_at, self._views = head, leaves, at, {}
        return len(fresh)

    def view(self, head: Head | None = None) -> LaneView:
        """Every subject's standing at `head`, or at the newest one accepted.

        TamperingError if this lane does not extend `head`.
        """
        at = self.head if head is None else head
        if at not in self._views:
            if not self._extends(at):
                raise TamperingError(
                    "The run is pinned to a head of this data holder's lane that its own copy does not extend: two "
                    "histories exist. Keep both checkpoints, use nobody's rows, and tell the registry's operator and "
                    "the auditor."
                )
            self._views[at] = LaneView.of(at, self._payloads(at.size))
        return self._views[at]

    def entries(self) -> list[Entry]:
        """The lane as it was downloaded, for an auditor's replay."""
        with self._readable():
            rows = self._database.execute("SELECT stub, ciphertext FROM entries ORDER BY position").fetchall()
        return [Entry(Stub.parse(stub), ciphertext) for stub, ciphertext in rows]

    def keep_run(self, name: str, accepted: bytes) -> None:
        """Remember a run that was joined; the same run again changes nothing."""
        with self._readable(), self._transaction():
            self._database.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (name, accepted))

    def kept_run(self, name: str) -> bytes | None:
        """What `keep_run` was given, or None."""
        with self._readable():
            row = self._database.execute("SELECT accepted FROM runs WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def public_key_of(self, handle: bytes) -> bytes | None:
        """The linked person's public key, or None; TamperingError if the link was edited."""
        return next((public_key for _, _, public_key, _ in self._linked(handle)), None)

    def past_uses(self, handle: bytes, recipient: str) -> list[int]:
        """When this person was scored for this recipient, UTC seconds; TamperingError if such an entry was edited."""
        query = "SELECT handle, recipient, nonce, at, mac FROM uses WHERE handle = ? AND recipient = ?"
        return self._used(query, handle, recipient)

    def enter_use(self, handle: bytes, recipient: str, nonce: str, *, at: int) -> bool:
        """Enter one answer about a person, durably; False if this very request was answered before."""
        row = (handle, recipient, nonce, at, self._seal.use(handle, recipient, nonce, at))
        with self._readable(), self._transaction():
            entered = self._database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?, ?, ?, ?)", row)
        return entered.rowcount == 1

    def links_by_handle(self) -> dict[bytes, Link]:
        """Handle to link; TamperingError if a link was edited."""
        return {handle: Link(handle, key, size) for _, handle, key, size in self._linked()}

    def ledger_head(self) -> LedgerHead | None:
        """The privacy ledger's head that was kept last, or None; TamperingError if it was edited."""
        with self._readable():
            row = self._database.execute("SELECT size, digest, mac FROM ledger_head").fetchone()
        if row is None:
            return None
        head = LedgerHead(row[0], row[1])
        if not hmac.compare_digest(self._seal.ledger_head(head), row[2]):
            raise self._edited()
        return head

    def keep_ledger_head(self, head: LedgerHead) -> None:
        """Remember the privacy ledger's head, durably; a later one that another process kept stays."""
        with self._readable(), self._transaction():
            self._database.execute(
                "INSERT INTO ledger_head VALUES (1, ?, ?, ?) ON CONFLICT (one) DO UPDATE"
                " SET size = excluded.size, digest = excluded.digest, mac = excluded.mac WHERE excluded.size > size",
                (head.size, head.digest, self._seal.ledger_head(head)),
            )

    def _linked(self, only: bytes | None = None) -> list[tuple[str, bytes, bytes, int]]:
        """Customer, handle, public key and lane size of each link, or of `only` this handle's.

        TamperingError if one is not what was linked.
        """
        query = "SELECT customer, handle, public_key, linked_at_size, mac FROM links"
        with self._readable():
            if only is None:
                rows = self._database.execute(query).fetchall()
            else:
                rows = self._database.execute(query + " WHERE handle = ?", (only,)).fetchall()
        if not all(hmac.compare_digest(self._seal.link(*row), mac) for *row, mac in rows):
            raise self._edited()
        return [row[:4] for row in rows]

    def _used(self, query: str, *values: bytes | str) -> list[int]:
        """The times of the uses that `query` selects whole. TamperingError if one is not what was entered."""
        with self._readable():
            rows = self._database.execute(query, values).fetchall()
        if not all(hmac.compare_digest(self._seal.use(*row), mac) for *row, mac in rows):
            raise self._edited()
        return [at for _, _, _, at, _ in rows]

    def _extends(self, head: Head) -> bool:
        return head.size <= self.head.size and root_of(self._leaves[: head.size]) == head.root

    def _payloads(self, size: int) -> list[bytes]:
        """The opened records among the first `size` entries. TamperingError if one is not what was opened."""
        query = "SELECT stub, payload, opened FROM entries WHERE position < ? ORDER BY position"
        with self._readable():
            rows = self._database.execute(query, (size,)).fetchall()
        if not all(hmac.compare_digest(self._opened(stub, payload), opened) for stub, payload, opened in rows):
            raise self._edited()
        return [payload for _, payload, _ in rows if payload is not None]

    def _opened(self, stub: bytes, payload: bytes | None) -> bytes:
        return self._seal.entry(stub, payload)

    def _open_late(self, links: Mapping[bytes, Link]) -> None:
        """Open what was synced before its writer was linked."""
        first = min((link.linked_at_size for link in links.values()), default=self.head.size)
        query = "SELECT position, stub, ciphertext FROM entries WHERE payload IS NULL AND position >= ?"
        for position, stub, ciphertext in self._database.execute(query, (first,)).fetchall():
            payload = self._open(Entry(Stub.parse(stub), ciphertext), position, links)
            if payload is not None:
                row = (payload, self._opened(stub, payload), position)
                self._database.execute("UPDATE entries SET payload = ?, opened = ? WHERE position = ?", row)

    def _open(self, entry: Entry, position: int, links: Mapping[bytes, Link]) -> bytes | None:
        holder = self._settings.holder
        epoch = self._settings.epoch
        return open_entry(entry, position, key=self._key, lane=holder, holder=holder, epoch=epoch, links=links)

    def _edited(self) -> TamperingError:
        return TamperingError(
            f"{self._path.name} does not hold the lane and the links that were accepted last: it was edited, cut or "
            "restored from an older copy. This data holder should move it and its head file away, link its customers "
            "again from its own records and sync anew; until then nobody's rows may be used."
        )

    def _accept(self, head: Head) -> None:
        text = f"{head.size} {head.root.hex()}\n".encode()
        if not self._head_path.exists() or self._head_path.read_bytes() != text:
            write_whole(self._head_path, text)

    def _accepted(self) -> Head:
        try:
            size, root = self._head_path.read_text(encoding="ascii").split()
            return Head(int(size), bytes.fromhex(root))
        except FileNotFoundError:
            if self._leaves:
                raise TamperingError(
                    f"{self._head_path.name}, which holds the lane head accepted last, is gone. This data holder "
                    "should move its lane copy away, link its customers again from its own records and sync anew."
                ) from None
            return Head(0, EMPTY_ROOT)
        except (OSError, ValueError, MalformedError):
            raise TamperingError(
                f"{self._head_path.name} cannot be read as the head that was accepted last. This data holder should "
                "move its lane copy away, link its customers again from its own records and sync anew."
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RefusalError(
                f"{self._path.name} cannot be written or is busy; nothing was changed. This data holder should check "
                "disk space and permissions.",
                RefusalCode.LANE,
            ) from error
        except sqlite3.IntegrityError as error:
            raise RefusalError(
                f"{self._path.name} already has what was to be added: a customer or wallet that is linked, or entries "
                "that another process has synced; nothing was changed. This data holder should start its node again.",
                RefusalCode.LANE,
            ) from error
        except sqlite3.DatabaseError as error:
            raise TamperingError(
                f"{self._path.name} is damaged: it cannot be read as a database. This data holder should move it and "
                "its head file away, link its customers again from its own records and sync anew; the registry still "
                "has every consent record."
            ) from error
