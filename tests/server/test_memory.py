"""What the coordinator keeps between two tries of a run: choices once made, ledgers' marks, sums with its noise."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from federated.messages import LedgerMark
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.memory import BegunRun, LedgerMarks


def mark(size: int, name: str = "a") -> LedgerMark:
    return LedgerMark(size, hashlib.sha256(f"{name}/{size}".encode()).digest())


def test_a_choice_is_made_once_and_kept(tmp_path: Path) -> None:
    assert BegunRun(tmp_path, "run").choose("round 1", {"b", "a"}) == ("a", "b")
    again = BegunRun(tmp_path, "run")
    assert again.choose("round 1", ("a", "b", "c")) == ("a", "b")
    assert again.choose("round 2", ("c", "a")) == ("a", "c")
    assert BegunRun(tmp_path, "another").choose("round 1", ("c",)) == ("c",)
    with pytest.raises(RefusalError, match=r"with b, missing now \(round 1\)") as caught:
        BegunRun(tmp_path, "run").choose("round 1", ("a", "c"))
    assert caught.value.code is RefusalCode.REPLAY


def test_marks_only_grow(tmp_path: Path) -> None:
    marks = LedgerMarks(tmp_path)
    assert marks.of(["a", "b"]) == {}
    marks.keep({"a": mark(5), "b": mark(1)})
    marks.keep({"a": mark(3)})  # a repeated answer
    assert LedgerMarks(tmp_path).of(["a", "b", "never seen"]) == {"a": mark(5), "b": mark(1)}
    assert LedgerMarks(tmp_path).of(["b"]) == {"b": mark(1)}
    marks.require_growth("a", mark(5))
    marks.require_growth("a", mark(6))
    marks.require_growth("new", mark(0))
    for lost in (mark(4), mark(5, "other")):
        with pytest.raises(MalformedError, match="lost entries"):
            marks.require_growth("a", lost)


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path) -> None:
    marks = LedgerMarks(tmp_path)
    marks.keep({"a": mark(5)})
    before = (tmp_path / "ledgers.json").stat().st_ino
    marks.keep({"a": mark(5)})
    assert (tmp_path / "ledgers.json").stat().st_ino == before


def test_a_sum_with_noise_is_kept_to_the_bit(tmp_path: Path) -> None:
    begun = BegunRun(tmp_path, "run")
    begun.choose("round 1", ("a",))
    assert begun.noised(1, 3) is None
    words = np.array([0, 2**64 - 1, 7], dtype=np.uint64)
    begun.keep_noised(1, words)
    kept = BegunRun(tmp_path, "run").noised(1, 3)
    assert kept is not None
    assert kept.tolist() == words.tolist()
    with pytest.raises(MalformedError, match=r"1\.sum"):
        begun.noised(1, 4)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff", b"[" * 5000, b'{"a": {"size": 1}}'])
def test_a_broken_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledgers.json").write_bytes(content)
    with pytest.raises(MalformedError, match=r"ledgers\.json"):
        LedgerMarks(tmp_path)
    (tmp_path / "begun" / "run").mkdir(parents=True)
    (tmp_path / "begun" / "run" / "chosen.json").write_bytes(content)
    with pytest.raises(MalformedError, match=r"chosen\.json"):
        BegunRun(tmp_path, "run")
