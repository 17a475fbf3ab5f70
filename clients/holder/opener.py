"""Opening what lies beside a lane's entries, here or in as many processes as there are cores.

HPKE holds the interpreter's lock, so threads would not help. Processes are started afresh and get their keys through
a pipe: neither an argument nor the environment of a process ever shows one.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, TypeVar

from clients.holder.row_seal import RowSeal
from privacy.consent.lane import AnyStub, Stub, parse_leaf
from privacy.consent.record import parse_record
from privacy.consent.sealing import LaneKey, Opened, Sealed, open_sealed
from privacy.consent.view import Entry, Link, Unsealed, erasure, is_from
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

PARALLEL_FROM: Final = 8192
"""From so many fresh entries on it pays to start processes, which takes about a second."""
CHUNK: Final = 1024
"""How many entries or records are handed over at a time."""
_MOST_PROCESSES: Final = 16  # more would wait for the database

Result = TypeVar("Result")


class Kind(IntEnum):
    """What became of a lane entry here. The numbers lie in the database."""

    GARBAGE = 0  # does not open: nothing but its leaf is kept
    OPENED = 1
    TOMBSTONE = 2
    ERASED = 3  # by a tombstone in the lane
    FORGOTTEN = 4  # erased here; its tombstone is not in the lane yet
    MISSING = 5  # only while a sync is under way


class Raw(NamedTuple):
    """A lane entry as it was downloaded: the leaf (106 bytes), and what lies beside it, if it was delivered."""

    leaf: bytes
    beside: bytes | None


class Erasure(NamedTuple):
    """The tombstone at position `by` says that the entry at `position`, whose leaf hash is given, was erased."""

    position: int
    leaf_hash: bytes
    by: int


_Fields = tuple[int, bytes | None, int | None, bytes | None, bytes | None, bytes | None]
Row = tuple[int, bytes, int, bytes | None, int | None, bytes | None, bytes | None, bytes | None, int | None, bytes]
"""Position, leaf, kind, handle, seq, payload, signature, rho, by what it was erased, and the digest of all this."""


class Batch(NamedTuple):
    """Rows for the table of entries with their digests, and the erasures that the batch's tombstones state."""

    rows: list[Row]
    erasures: list[Erasure]


class Claim(NamedTuple):
    """A record at `position` that says it is from the subject of `link`."""

    payload: bytes
    signature: bytes
    position: int
    link: Link


class Reader:
    """What it takes to read one data holder's lane: its keys by epoch, its identity's public key, its row seal."""

    def __init__(self, holder: str, keys: Mapping[int, LaneKey], identity: bytes, storage_key: bytes) -> None:
        self._holder, self._keys, self._identity, self._storage_key = holder, keys, identity, storage_key
        self._seal = RowSeal(storage_key)

    def secrets(self) -> tuple[str, dict[int, bytes], bytes, bytes]:
        """What another process needs to make the same reader."""
        keys = {epoch: key.to_bytes() for epoch, key in self._keys.items()}
        return self._holder, keys, self._identity, self._storage_key

    @classmethod
    def from_secrets(cls, holder: str, keys: dict[int, bytes], identity: bytes, storage_key: bytes) -> "Reader":
        """The reader that `secrets` are of."""
        return cls(holder, {epoch: LaneKey.from_bytes(key) for epoch, key in keys.items()}, identity, storage_key)

    def read(self, first: int, entries: Sequence[Raw]) -> Batch:
        """The entries from position `first` on. TamperingError if a ciphertext is not the one logged."""
        rows: list[Row] = []
        erasures: list[Erasure] = []
        for position, raw in enumerate(entries, start=first):
            stub = parse_leaf(raw.leaf)
            if isinstance(stub, Stub):
                fields = self._record(stub, raw.beside)
            else:
                fields = self._tombstone(stub, raw.beside, position, erasures)
            row = (position, raw.leaf, *fields, None)
            rows.append((*row, self._seal.row("entries", *row)))
        return Batch(rows, erasures)

    def open(self, stub: Stub, ciphertext: bytes) -> Opened | None:
        """What was sealed, with its commitment checked; None for garbage and for an epoch whose key is not here."""
        key = self._keys.get(stub.epoch)
        if key is None:
            return None
        try:
            return open_sealed(Sealed(stub.commit, ciphertext), key, lane=self._holder, epoch=stub.epoch)
        except (MalformedError, TamperingError):
            return None

    def subject(self, stub: Stub, payload: bytes) -> tuple[bytes, int] | None:
        """Handle and number of a consent record for this data holder and epoch; None for anything else."""
        try:
            record = parse_record(payload)
        except MalformedError:
            return None
        ours = record.aud == self._holder and record.aud_kid == stub.epoch
        return (record.handle, record.seq) if ours else None

    def _record(self, stub: Stub, ciphertext: bytes | None) -> _Fields:
        if ciphertext is None:
            return Kind.MISSING.value, None, None, None, None, None
        if hashlib.sha256(ciphertext).digest() != stub.ciphertext_sha256:
            raise withheld()
        opened = self.open(stub, ciphertext)
        if opened is None:
            return Kind.GARBAGE.value, None, None, None, None, None
        # What opens and is nobody's record is kept all the same: an auditor can be shown what it is.
        handle, seq = self.subject(stub, opened.payload) or (None, None)
        return Kind.OPENED.value, handle, seq, opened.payload, opened.signature, opened.rho

    def _tombstone(self, stub: AnyStub, envelope: bytes | None, position: int, erasures: list[Erasure]) -> _Fields:
        found = erasure(Entry(stub, envelope), position, identity=self._identity, lane=self._holder)
        if found:
            erasures.append(Erasure(*found, by=position))
        return Kind.TOMBSTONE.value, None, None, envelope if found else None, None, None


def signed(claims: Sequence[Claim]) -> list[bool]:
    """Of each claim whether it holds: signed by the linked key, and not from before the link."""
    return [_holds(claim) for claim in claims]


def _holds(claim: Claim) -> bool:
    try:
        record = parse_record(claim.payload)
    except MalformedError:
        return False
    return is_from(Unsealed(claim.payload, claim.signature, b"", record), claim.link, claim.position)


def withheld() -> TamperingError:
    """The error for a sealed record that was not delivered as it was logged."""
    return TamperingError(
        "The registry withholds or replaces a sealed record, which could be a withdrawal. Use nobody's "
        "rows until it delivers, and tell its operator and the auditor."
    )


class Opener(Protocol):
    """Reads entries and checks signatures, wherever that happens."""

    def read(self, entries: Iterable[tuple[int, Sequence[Raw]]]) -> Iterator[Batch]:
        """Each batch read, in order; takes the next ones from `entries` while it works."""
        ...

    def signed(self, claims: Sequence[Claim]) -> list[bool]:
        """As `signed` above."""
        ...


class OwnProcess:
    """Opens in this process: for a few entries nothing is faster."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, entries: Iterable[tuple[int, Sequence[Raw]]]) -> Iterator[Batch]:
        """Each batch read, in order."""
        for first, some in entries:
            yield self._reader.read(first, some)

    def signed(self, claims: Sequence[Claim]) -> list[bool]:
        """As `signed` above."""
        return signed(claims)


class ManyProcesses:
    """Opens in processes of its own, which end with the `with` block or with this process, whatever comes first."""

    def __init__(self, reader: Reader, processes: int | None = None) -> None:
        self._count = processes or min(os.cpu_count() or 1, _MOST_PROCESSES)
        self._pool = ProcessPoolExecutor(
            self._count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=reader.secrets(),
        )

    def __enter__(self) -> "ManyProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, entries: Iterable[tuple[int, Sequence[Raw]]]) -> Iterator[Batch]:
        """Each batch read, in order; a few more are always taken from `entries` and under way."""
        return self._ordered(
            self._submit(_read, first + start, some[start : start + CHUNK])
            for first, some in entries
            for start in range(0, len(some), CHUNK)
        )

    def signed(self, claims: Sequence[Claim]) -> list[bool]:
        """As `signed` above."""
        width = max(64, len(claims) // (4 * self._count))
        chunks = (claims[start : start + width] for start in range(0, len(claims), width))
        return [holds for some in self._ordered(self._submit(_signed, chunk) for chunk in chunks) for holds in some]

    def _submit(self, function: Callable[..., Result], *values: object) -> "Future[Result]":
        try:
            return self._pool.submit(function, *values)
        except BrokenProcessPool:
            raise _broken() from None

    def _ordered(self, futures: Iterator["Future[Result]"]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        for future in futures:
            waiting.append(future)
            if len(waiting) > 2 * self._count:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(future: "Future[Result]") -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        raise _broken() from None


def _broken() -> RefusalError:
    return RefusalError(
        "A process that opens consent records was ended from outside, perhaps for want of memory; nothing was "
        "changed. This data holder should make room and sync again.",
        RefusalCode.INTERNAL,
    )


_reader: Reader | None = None


def _start(holder: str, keys: dict[int, bytes], identity: bytes, storage_key: bytes) -> None:
    global _reader  # one process, one reader: that is how a pool hands a value to its tasks
    _reader = Reader.from_secrets(holder, keys, identity, storage_key)
    # The keyboard's interrupt reaches the whole group; the process that started us ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A pool's processes hold both ends of their queue, so they would wait for a killed parent for ever, with its keys.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read(first: int, entries: Sequence[Raw]) -> Batch:
    if _reader is None:
        raise RuntimeError("a process of the pool was not started by _start")
    return _reader.read(first, entries)


def _signed(claims: Sequence[Claim]) -> list[bool]:
    return signed(claims)
