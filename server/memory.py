"""What the coordinator must not forget between two tries of a run: it begins everything once, and tells no two stories.

Data holders pin who is in each step and refuse a second version of it. So the coordinator writes down whom it chose
before it tells them, and a run that was cut short goes on with the same choices.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np

from federated.files import write_whole
from federated.messages import LedgerMark
from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.grid import Words

LEDGERS: Final = "ledgers.json"
BEGUN: Final = "begun"

Kept = TypeVar("Kept")


class LedgerMarks:
    """The last mark of each data holder's privacy ledger, over all runs: with it, a restored backup is noticed."""

    def __init__(self, directory: Path) -> None:
        """MalformedError if the file is there and cannot be read."""
        self._path = directory / LEDGERS
        self._marks: dict[str, LedgerMark] = _read(self._path, dict[str, LedgerMark]) or {}

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
        newer = {
            holder: mark
            for holder, mark in seen.items()
            if holder not in self._marks or mark.size > self._marks[holder].size
        }
        if newer:
            self._marks |= newer
            write_whole(self._path, msgspec.json.encode(self._marks, order="sorted") + b"\n")


class BegunRun:
    """What was chosen in one run, and the sums to which the coordinator has added its noise."""

    def __init__(self, directory: Path, run: str) -> None:
        """MalformedError if what was kept of an earlier try cannot be read."""
        self._directory = directory / BEGUN / run
        self._path = self._directory / "chosen.json"
        self._chosen: dict[str, list[str]] = _read(self._path, dict[str, list[str]]) or {}

    def choose(self, step: str, answered: Iterable[str]) -> tuple[str, ...]:
        """Who is in `step`, sorted: those who were in an earlier try of it, else who `answered`. Durable on return.

        RefusalError (replay) if somebody of the earlier try is missing now.
        """
        here = set(answered)
        before = self._chosen.get(step)
        if before is None:
            before = self._chosen[step] = sorted(here)
            self._directory.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, msgspec.json.encode(self._chosen, order="sorted") + b"\n")
        if missing := sorted(set(before) - here):
            raise RefusalError(
                f"This run was begun before with {', '.join(missing)}, missing now ({step}). Data holders answer each "
                "step once, for one set of data holders: whoever is missing should put its node in order, then the "
                "coordinator runs the same plan again, or writes another plan.",
                RefusalCode.REPLAY,
            )
        return tuple(before)

    def noised(self, stage: int, length: int) -> Words | None:
        """The sum of a stage as it was kept with the coordinator's noise in it, shape (length,); None if it was not.

        A second draw would be a second release of the same sum.
        """
        path = self._noised_path(stage)
        try:
            kept = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path) from error
        if len(kept) != 8 * length:
            raise _unreadable(path)
        return np.frombuffer(kept, dtype="<u8").astype(np.uint64)

    def keep_noised(self, stage: int, words: Words) -> None:
        """Durable on return."""
        write_whole(self._noised_path(stage), words.astype("<u8").tobytes(), secret=True)

    def _noised_path(self, stage: int) -> Path:
        return self._directory / f"{stage}.sum"


def left_over(answered: Collection[str], chosen: Collection[str]) -> list[str]:
    """Who answered and is not in the step, because an earlier try of it was made without them."""
    return sorted(set(answered) - set(chosen))


def _read(path: Path, kind: type[Kept]) -> Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> MalformedError:
    return MalformedError(
        f"{path.name} in the coordinator's directory cannot be read. The coordinator should restore it from a copy: it "
        "holds what must not be forgotten between two runs."
    )
