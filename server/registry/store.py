"""The consent registry itself: per data holder one append-only lane of stubs, with sealed records beside it.

The registry cannot read a record: neither people nor purposes pass through here.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock

from sqlalchemy import Column, Connection, select

from privacy.consent.canonical import base64url
from privacy.consent.lane import Head, parse_leaf, write_checkpoint
from privacy.consent.limits import EARLIEST_UTC_S
from privacy.consent.merkle import leaf_hash
from privacy.consent.promise import Promise, write_promise
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.consent.tiles import TILE_WIDTH, tile_of, write_bundle
from privacy.consent.tombstone import read_tombstone, tombstone_stub
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from server.registry.appends import Append, LaneAppends, Place
from server.registry.key_sets import publish, stored_key_set
from server.registry.lane_log import LaneLog
from server.registry.tables import BESIDE, ENTRIES, BrokenStoreError, Database

DEFAULT_MERGE_DELAY_S = 60


class NotThereError(RefusalError):
    """Something was asked for that this registry does not have."""


class Registry:
    """The lanes of all data holders, and the key that signs their heads and promises.

    `lanes` gives each data holder's Ed25519 key, by which its tombstones and key sets are known; without them every
    lane name is taken and tombstones and key sets are refused. May be used by several threads, and by several
    processes on one database.
    """

    def __init__(
        self,
        database: str | Path,
        key: SigningKey,
        lanes: Mapping[str, bytes] | None = None,
        *,
        merge_delay_s: int = DEFAULT_MERGE_DELAY_S,
    ) -> None:
        self._database = Database(database)
        self._key = key
        self._lanes = lanes
        self._merge_delay_s = merge_delay_s
        self._logs: dict[str, LaneLog] = {}
        # Of the trees in memory. A commit holds it to its end; a read takes it inside its transaction, before its first
        # query, and lets it go before it fetches what it came for: the database keeps that instant for it.
        self._lock = RLock()

    @property
    def public_key(self) -> bytes:
        """The Ed25519 key that verifies this registry's checkpoints and promises."""
        return self._key.public

    def close(self) -> None:
        """Give the database back."""
        with self._lock:
            self._logs.clear()
            self._database.close()

    def append(self, lane: str, submissions: Sequence[Submission], *, at: int = EARLIEST_UTC_S) -> list[int]:
        """Append all of them in one durable commit, or none; returns each one's position in the lane.

        The same stub again keeps its position. RefusalError for a known tag with another stub: a wallet may not
        replace a record, only append a newer one. MalformedError if a ciphertext is not what its stub says.
        """
        for submission in submissions:
            if hashlib.sha256(submission.ciphertext).digest() != submission.stub.ciphertext_sha256:
                raise MalformedError("A stub does not match its sealed record. The wallet should submit it again.")
        entries = tuple(Entry(submission.stub, submission.ciphertext) for submission in submissions)
        (answer,) = self.commit([Append(lane, entries)], at=at)
        if isinstance(answer, FedcreditError):
            raise answer
        return [place.position for place in answer]

    def commit(self, appends: Sequence[Append], *, at: int) -> list[list[Place] | FedcreditError]:
        """Append what several parties asked for, in one durable commit. Each is appended whole or refused alone.

        Raises DatabaseUnavailableError when nothing was committed, or when that cannot be known: then the same appends
        may be sent again, and none is stored twice.
        """
        by_lane: dict[str, list[Append]] = defaultdict(list)
        for append in appends:
            by_lane[append.lane].append(append)
        works: dict[str, LaneAppends | FedcreditError] = {}
        with self._lock:
            with self._database.writing() as connection:
                # In one order everywhere, so that no two processes wait for each other's heads.
                for lane in sorted(by_lane):
                    works[lane] = self._planner(connection, lane, by_lane[lane], at)
                answers = []
                for append in appends:
                    work = works[append.lane]
                    answers.append(work if isinstance(work, FedcreditError) else work.plan(append))
                for work in works.values():
                    if not isinstance(work, FedcreditError):
                        work.write()
            for work in works.values():
                if not isinstance(work, FedcreditError):
                    work.keep()
        return answers

    def tombstone(self, lane: str, envelope: bytes) -> Append:
        """What a data holder's signed statement has appended: its entry, in place of an erased ciphertext.

        MalformedError or TamperingError when it is not this data holder's statement.
        """
        statement = read_tombstone(envelope, identity=self._identity(lane), lane=lane)
        return Append(lane, (Entry(tombstone_stub(envelope, statement), envelope),))

    def erase(self, lane: str, envelope: bytes, *, at: int = EARLIEST_UTC_S) -> int:
        """Append a tombstone and delete the ciphertext that it names, in one commit; returns its position."""
        (answer,) = self.commit([self.tombstone(lane, envelope)], at=at)
        if isinstance(answer, FedcreditError):
            raise answer
        return answer[0].position

    def promise(self, lane: str, place: Place) -> bytes:
        """The signed promise for a stored entry; for the same entry always the same bytes."""
        promise = Promise(
            lane=lane,
            leaf=base64url(place.leaf),
            position=place.position,
            received_at=place.received_at,
            merge_by=place.received_at + self._merge_delay_s,
        )
        return write_promise(promise, self._key)

    def checkpoint(self, lane: str) -> str:
        """The signed head of a lane as a signed note (C2SP tlog-checkpoint).

        TamperingError if what is stored no longer hashes to the head that was stored with the last append.
        """
        return write_checkpoint(self.head(lane), f"fedcredit/{lane}", self._key)

    def head(self, lane: str) -> Head:
        """Size and root of a lane, unsigned."""
        with self._database.reading() as connection, self._lock:
            return self._caught_up(connection, lane).head

    def entries(self, lane: str, start: int, stop: int | None = None) -> list[Entry]:
        """The entries of a lane from position `start` up to `stop`, in order; without `stop` all there are."""
        # An inner join would leave out the erased ones.
        joined = ENTRIES.outerjoin(
            BESIDE, (ENTRIES.c.lane == BESIDE.c.lane) & (ENTRIES.c.position == BESIDE.c.position)
        )
        query = select(ENTRIES.c.leaf, BESIDE.c.content).select_from(joined).order_by(ENTRIES.c.position)
        query = query.where(ENTRIES.c.lane == lane, ENTRIES.c.position >= start)
        if stop is not None:
            query = query.where(ENTRIES.c.position < stop)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [Entry(parse_leaf(row.leaf), row.content) for row in rows]

    def position(self, lane: str, tag: bytes) -> int | None:
        """Where the record with a tag is; None when it is not in the lane."""
        self._check(lane)
        query = select(ENTRIES.c.position).where(ENTRIES.c.lane == lane, ENTRIES.c.tag == tag)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def tile(self, lane: str, level: int, index: int, width: int) -> bytes:
        """A tile of hashes (C2SP tlog-tiles). NotThereError while the lane has not grown that far."""
        with self._database.reading() as connection, self._lock:
            log = self._caught_up(connection, lane)
            _require_grown(log.head.size >> (8 * level), index, width)
            return tile_of(log.tree, level, index, width)

    def entry_bundle(self, lane: str, index: int, width: int) -> bytes:
        """The log entries from `index` x 256 on, `width` of them (C2SP tlog-tiles)."""
        leaves = self._bundle(lane, index, width, ENTRIES.c.leaf)
        hashes = [leaf_hash(leaf or b"") for leaf in leaves]
        if b"".join(hashes) != self.tile(lane, 0, index, width):
            raise BrokenStoreError(
                f"Lane {lane} in the registry's database was changed while it was served. Its operator should restore "
                "it from a copy and start the registry again."
            )
        return write_bundle(leaves)

    def sealed_bundle(self, lane: str, index: int, width: int) -> bytes:
        """What lies beside those entries, with nothing in the place of what was erased."""
        return write_bundle(self._bundle(lane, index, width, BESIDE.c.content))

    def key_set(self, lane: str) -> bytes:
        """The data holder's newest key set. NotThereError before the first."""
        self._check(lane)
        with self._database.reading() as connection:
            envelope = stored_key_set(connection, lane)
        if envelope is None:
            raise NotThereError(
                "This data holder has published no key set yet. It should publish one before its customers link.",
                RefusalCode.LANE,
            )
        return envelope

    def publish_key_set(self, lane: str, envelope: bytes, *, at: int) -> None:
        """Store a data holder's newer key set; see `key_sets.publish`."""
        identity = self._identity(lane)
        with self._lock, self._database.writing() as connection:
            publish(connection, lane, envelope, identity=identity, at=at)

    def check_database(self) -> None:
        """Read from the database. DatabaseUnavailableError when that is not possible."""
        with self._database.reading() as connection:
            connection.execute(select(ENTRIES.c.position).limit(1)).all()

    def _bundle(self, lane: str, index: int, width: int, column: Column[bytes]) -> list[bytes | None]:
        first = index * TILE_WIDTH
        where = column.table.c
        query = select(where.position, column).where(
            where.lane == lane, where.position >= first, where.position < first + width
        )
        with self._database.reading() as connection:
            with self._lock:
                _require_grown(self._caught_up(connection, lane).head.size, index, width)
            found = {row.position: row[1] for row in connection.execute(query)}
        return [found.get(position) for position in range(first, first + width)]

    def _caught_up(self, connection: Connection, lane: str) -> LaneLog:
        self._check(lane)
        log = self._logs.get(lane) or LaneLog(lane)
        log.catch_up(connection)
        if log.head.size:
            # Not for an empty lane: without given lanes every name is one, and somebody may ask for many.
            self._logs[lane] = log
        return log

    def _planner(
        self, connection: Connection, lane: str, appends: Sequence[Append], at: int
    ) -> LaneAppends | FedcreditError:
        """The work on one lane; a lane that cannot be written is refused, and the others go on."""
        try:
            self._check(lane)
            log = self._logs.setdefault(lane, LaneLog(lane))
            identity = self._lanes[lane] if self._lanes is not None else None
            return LaneAppends(connection, log, appends, identity=identity, at=at)
        except (NotThereError, TamperingError) as refusal:
            return refusal

    def _check(self, lane: str) -> None:
        if self._lanes is not None and lane not in self._lanes:
            raise NotThereError(
                "This registry has no such lane. Whoever asks should check the data holder's name and the registry's "
                "address; the registry's operator adds lanes in registry.toml.",
                RefusalCode.POLICY,
            )

    def _identity(self, lane: str) -> bytes:
        self._check(lane)
        if self._lanes is None:
            raise RefusalError(
                "This registry was not told the data holders' keys, so it can take neither tombstones nor key sets. "
                "Its operator should name the lanes with their keys.",
                RefusalCode.POLICY,
            )
        return self._lanes[lane]


def _require_grown(size: int, index: int, width: int) -> None:
    if index * TILE_WIDTH + width > size:
        raise NotThereError(
            "The lane has not grown that far. Whoever asks should take the size of its newest checkpoint.",
            RefusalCode.LANE,
        )
