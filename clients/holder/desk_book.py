"""What the desk has begun and not finished, in a small database of its own, durable at each step.

Offers that await an answer, tombstones that the lane does not show yet, and until when published key sets list an
epoch. Offers and epochs carry a keyed digest: whoever edits the file can neither tie an answer to another customer nor
make a key look unused.
"""

import hmac
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.holder.row_seal import RowSeal, Value
from privacy.errors import RefusalCode, RefusalError, TamperingError

_TABLES = """
CREATE TABLE IF NOT EXISTS offers (
    customer TEXT PRIMARY KEY, nonce BLOB NOT NULL UNIQUE, offer BLOB NOT NULL, lane_size INTEGER NOT NULL,
    expires INTEGER NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tombstones (position INTEGER PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS epochs (
    epoch INTEGER PRIMARY KEY, current_until INTEGER NOT NULL, listed_until INTEGER NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS key_set (one INTEGER PRIMARY KEY CHECK (one = 1), envelope BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True, repr=False)
class PendingOffer:
    """An offer that was made to `customer` when the lane had `lane_size` entries, as it was signed."""

    customer: str
    nonce: bytes
    envelope: bytes
    lane_size: int
    expires: int


@dataclass(frozen=True, slots=True)
class EpochDates:
    """Until when a wallet may take the epoch's key for the current one, and until when a key set lists it at all."""

    current_until: int
    listed_until: int


class DeskBook:
    """The desk's own notes. Readable by their owner only."""

    def __init__(self, path: Path, seal: RowSeal) -> None:
        """Open the notes, making them if there are none. TamperingError if they are no database or were edited."""
        self._name, self._seal = path.name, seal
        with self._readable():
            # Made before SQLite does, which would make it readable by everybody.
            try:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise sqlite3.OperationalError(error.strerror) from error
            self._database = sqlite3.connect(path, isolation_level=None)
        try:
            with self._readable():
                self._database.execute("PRAGMA busy_timeout=10000")
                self._database.execute("PRAGMA synchronous=EXTRA")
                # A finished offer ties a customer to a handle; it must not stay behind in a free page.
                self._database.execute("PRAGMA secure_delete=ON")
                self._database.executescript(_TABLES)
            self.epochs()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Give the database back."""
        self._database.close()

    def put_offers(self, offers: list[PendingOffer], *, at: int) -> None:
        """Keep offers until they are answered; an earlier one to the same customer ends, and so do those expired."""
        rows = []
        for offer in offers:
            row = (offer.customer, offer.nonce, offer.envelope, offer.lane_size, offer.expires)
            rows.append((*row, self._seal.row("offers", *row)))
        with self._transaction():
            self._database.execute("DELETE FROM offers WHERE expires <= ?", (at,))
            self._database.executemany("INSERT OR REPLACE INTO offers VALUES (?, ?, ?, ?, ?, ?)", rows)

    def offer(self, nonce: bytes) -> PendingOffer | None:
        """The pending offer with that nonce, or None."""
        query = "SELECT customer, nonce, offer, lane_size, expires, mac FROM offers WHERE nonce = ?"
        with self._readable():
            row = self._database.execute(query, (nonce,)).fetchone()
        if row is None:
            return None
        self._check("offers", row)
        return PendingOffer(*row[:-1])

    def drop_offers(self, customer: str) -> None:
        """Forget the offer to a customer: it was answered, or the customer is erased."""
        with self._transaction():
            self._database.execute("DELETE FROM offers WHERE customer = ?", (customer,))

    def tombstones(self) -> dict[int, bytes]:
        """Position to signed statement of every entry whose tombstone has not come back in the lane."""
        with self._readable():
            rows = self._database.execute("SELECT position, envelope FROM tombstones ORDER BY position").fetchall()
        return dict(rows)

    def note_tombstones(self, envelopes: Mapping[int, bytes], *, settled: Iterable[int]) -> None:
        """Remember signed statements before they are sent, and strike out those at the `settled` positions."""
        with self._transaction():
            self._database.executemany("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", envelopes.items())
            self._database.executemany("DELETE FROM tombstones WHERE position = ?", [(gone,) for gone in settled])

    def note_epochs(self, dates: Mapping[int, EpochDates]) -> None:
        """Remember until when a key set that is about to be published lists which epochs."""
        rows = []
        for epoch, date in dates.items():
            row = (epoch, date.current_until, date.listed_until)
            rows.append((*row, self._seal.row("epochs", *row)))
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?)", rows)

    def epochs(self) -> dict[int, EpochDates]:
        """The dates of every epoch that a key set ever listed."""
        with self._readable():
            rows = self._database.execute("SELECT epoch, current_until, listed_until, mac FROM epochs").fetchall()
        for row in rows:
            self._check("epochs", row)
        return {epoch: EpochDates(current, listed) for epoch, current, listed, _ in rows}

    def keep_key_set(self, envelope: bytes) -> None:
        """Remember the key set that the registry took last."""
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO key_set VALUES (1, ?)", (envelope,))

    def key_set(self) -> bytes | None:
        """The key set that the registry took last, signed; None before the first."""
        with self._readable():
            row = self._database.execute("SELECT envelope FROM key_set").fetchone()
        return None if row is None else bytes(row[0])

    def _check(self, table: str, row: Sequence[Value]) -> None:
        *values, mac = row
        if not isinstance(mac, bytes) or not hmac.compare_digest(self._seal.row(table, *values), mac):
            raise TamperingError(
                f"{self._name} does not hold what the desk wrote: it was edited. This data holder should move it away; "
                "its pending offers then end, and customers who have not answered need new ones."
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._readable():
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
                f"{self._name} cannot be written or is busy; nothing was changed. This data holder should check disk "
                "space and permissions, then run the command again.",
                RefusalCode.INTERNAL,
            ) from error
        except sqlite3.DatabaseError as error:
            raise TamperingError(
                f"{self._name} is damaged: it cannot be read as a database. This data holder should move it away; its "
                "pending offers then end, and customers who have not answered need new ones."
            ) from error
