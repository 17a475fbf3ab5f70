"""What the coordinator must not forget between two tries of a run: it begins everything once, and tells no two stories.

Data holders pin who is in each step and refuse a second version of it. So the coordinator writes down what it was
answered before it goes on, and a run that was cut short goes on from there: what was answered is not asked again.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from federated.files import make_directory, write_whole
from federated.lock import take_turn
from federated.messages import Dealt, Joined, LedgerMark, Update
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.answers import Absence

LEDGERS: Final = "ledgers.json"
BEGUN: Final = "begun"
_UPDATES: Final = ".updates"

Kept = TypeVar("Kept")


class LedgerMarks:
    """The last mark of each data holder's privacy ledger, over all runs: with it, a restored backup is noticed."""

    def __init__(self, directory: Path) -> None:
        """MalformedError if the file is there and cannot be read, or is gone though there were releases."""
        self._path = directory / LEDGERS
        self._marks = self._read()
        if not self._path.exists() and any(directory.glob(f"{BEGUN}/*/*{_UPDATES}")):
            raise MalformedError(
                f"{LEDGERS} is gone from the coordinator's directory, though data holders have made releases: without "
                "it a data holder that has lost its ledger is not noticed. The coordinator should restore it from a "
                f"copy, or delete {BEGUN}/ to confirm that it does without."
            )

    def of(self, holders: Iterable[str]) -> dict[str, LedgerMark]:
        """Those of `holders` that were ever seen: other plans' data holders are nobody's business."""
        return {holder: self._marks[holder] for holder in holders if holder in self._marks}

    def require_growth(self, holder: str, mark: LedgerMark) -> None:
        """MalformedError if a ledger that ends in `mark` cannot extend the one that was last seen."""
        last = self._marks.get(holder)
        if last is not None and (mark.size < last.size or (mark.size == last.size and mark != last)):
            raise MalformedError("its privacy ledger has lost entries since its last release, or has other ones")

    def keep(self, seen: Mapping[str, LedgerMark]) -> None:
        """Durable on return. A repeated answer carries the mark it had the first time, so the longest counts."""
        if not self._newer(seen):
            return
        with _alone(self._path):
            # Another run of this coordinator may have written since.
            self._marks |= _newer(self._read(), self._marks)
            self._marks |= self._newer(seen)
            write_whole(self._path, msgspec.json.encode(self._marks, order="sorted") + b"\n")

    def _newer(self, seen: Mapping[str, LedgerMark]) -> dict[str, LedgerMark]:
        return _newer(seen, self._marks)

    def _read(self) -> dict[str, LedgerMark]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, LedgerMark])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise _unreadable(self._path) from error


def _newer(seen: Mapping[str, LedgerMark], known: Mapping[str, LedgerMark]) -> dict[str, LedgerMark]:
    return {holder: mark for holder, mark in seen.items() if holder not in known or mark.size > known[holder].size}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else writes `path` meanwhile: the lock goes when its file is closed, also by a crash."""
    try:
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusalError(
            f"{path.name} could not be locked ({error.strerror}). Make room or give write permission, then run the "
            "command again.",
            RefusalCode.INTERNAL,
        ) from error
    try:
        take_turn(descriptor, path.with_suffix(".lock").name)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Opened:
    """Who joined a run, as each of them said it, and why the rest of the roster did not."""

    joined: dict[str, Joined]
    absent: dict[str, Absence]


@dataclass(frozen=True, slots=True)
class Dealing:
    """The shares that were dealt, and why the rest of those who joined dealt none."""

    dealt: dict[str, Dealt]
    absent: dict[str, Absence]


@dataclass(frozen=True, slots=True)
class Members:
    """Who of those who dealt are members, and why the rest are not."""

    members: list[str]
    absent: dict[str, Absence]


@dataclass(frozen=True, slots=True)
class Updates:
    """What came of one release: the signed headers, the words (little-endian), and why the other members are left
    out."""

    headers: dict[str, Update]
    words: dict[str, bytes]
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class Total:
    """One release added up, without masks and with all its noise: little-endian float64."""

    numbers: bytes
    unhelpful: dict[str, str]


class BegunRun:
    """What was answered in the steps of one run; each is kept once, durable before anything follows from it."""

    def __init__(self, directory: Path, run: str) -> None:
        self._directory = directory / BEGUN / run
        self.is_repeated: Final = self._directory.exists()

    def opened(self) -> Opened | None:
        """Who joined in the first try; None in the first try itself, as for all of these."""
        return self._read("opening", Opened)

    def dealing(self) -> Dealing | None:
        """What they dealt each other."""
        return self._read("dealing", Dealing)

    def members(self) -> Members | None:
        """Who the run's sums are made with."""
        return self._read("members", Members)

    def updates(self, stage: int) -> Updates | None:
        """What came of a release. A second sum of other updates would be a second release."""
        return self._read(f"{stage}{_UPDATES}", Updates)

    def total(self, stage: int) -> Total | None:
        """A release added up. A second draw of the coordinator's noise would be a second release of the same sum."""
        return self._read(f"{stage}.total", Total)

    def keep_opened(self, opened: Opened) -> None:
        """Durable on return, like all of these."""
        self._write("opening", opened)

    def keep_dealing(self, dealing: Dealing) -> None:
        """The shares as they were dealt."""
        self._write("dealing", dealing)

    def keep_members(self, members: Members) -> None:
        """Before anybody is delivered shares without those of somebody who dealt."""
        self._write("members", members)

    def keep_updates(self, stage: int, updates: Updates) -> None:
        """Before any data holder is told who is in the sum."""
        self._write(f"{stage}{_UPDATES}", updates)

    def keep_total(self, stage: int, total: Total) -> None:
        """Before anything is computed from it."""
        self._write(f"{stage}.total", total)

    def _read(self, what: str, kind: type[Kept]) -> Kept | None:
        path = self._directory / what
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise _unreadable(path) from error

    def _write(self, what: str, kept: object) -> None:
        make_directory(self._directory)
        write_whole(self._directory / what, msgspec.msgpack.encode(kept), secret=True)


def _unreadable(path: Path) -> MalformedError:
    return MalformedError(
        f"{path.name} in the coordinator's directory cannot be read. The coordinator should restore it from a copy: it "
        "holds what must not be forgotten between two runs."
    )
