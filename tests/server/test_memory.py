"""What the coordinator keeps between two tries of a run: what was answered, and ledgers' marks."""

import fcntl
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from federated.messages import Dealt, Joined, LedgerMark, Update
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.answers import Absence
from server.memory import BegunRun, Dealing, LedgerMarks, Members, Opened, Total, Updates


def mark(size: int, name: str = "a") -> LedgerMark:
    return LedgerMark(size, hashlib.sha256(f"{name}/{size}".encode()).digest())


def update(size: int) -> Update:
    return Update("a", "run/1", bytes(32), bytes(64), mark(size))


def test_each_step_is_kept_to_the_bit(tmp_path: Path) -> None:
    begun = BegunRun(tmp_path, "run")
    assert not begun.is_repeated
    steps = (begun.opened(), begun.dealing(), begun.members(), begun.updates(1), begun.total(1))
    assert steps == (None,) * 5
    opened = Opened({"a": Joined("a", "run", None, mark(3), bytes(64))}, {"b": Absence("policy", RefusalCode.POLICY)})
    dealing = Dealing({"a": Dealt("a", "run", {"b": b"sealed"}, bytes(64))}, {})
    members = Members(["a"], {"b": Absence("silent", RefusalCode.COHORT)})
    updates = Updates({"a": update(4)}, {"a": bytes(range(16))}, {"b": "silent"})
    total = Total(np.array([0.1, -0.0, 1e300]).tobytes(), {"a": "silent"})
    begun.keep_opened(opened)
    begun.keep_dealing(dealing)
    begun.keep_members(members)
    begun.keep_updates(1, updates)
    begun.keep_total(1, total)
    again = BegunRun(tmp_path, "run")
    assert again.is_repeated
    assert (again.opened(), again.dealing(), again.members()) == (opened, dealing, members)
    assert (again.updates(1), again.total(1)) == (updates, total)
    assert (again.updates(2), BegunRun(tmp_path, "another").opened()) == (None, None)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "begun" / "run").iterdir()} == {0o600}


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


def test_two_runs_at_once_lose_no_mark(tmp_path: Path) -> None:
    one, two = LedgerMarks(tmp_path), LedgerMarks(tmp_path)
    one.keep({"a": mark(9), "b": mark(2)})
    two.keep({"a": mark(3), "b": mark(4)})
    one.keep({"c": mark(1)})
    assert LedgerMarks(tmp_path).of("abc") == {"a": mark(9), "b": mark(4), "c": mark(1)}


def test_lost_marks_are_noticed_unless_the_coordinator_confirms(tmp_path: Path) -> None:
    LedgerMarks(tmp_path).keep({"a": mark(4)})
    begun = BegunRun(tmp_path, "run")
    begun.keep_opened(Opened({}, {}))
    (tmp_path / "ledgers.json").unlink()
    LedgerMarks(tmp_path)  # nothing was released in that run
    begun.keep_updates(1, Updates({"a": update(4)}, {}, {}))
    with pytest.raises(MalformedError, match=r"restore it from a copy, or delete begun/"):
        LedgerMarks(tmp_path)
    shutil.rmtree(tmp_path / "begun")
    assert LedgerMarks(tmp_path).of(["a"]) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff", b"[" * 5000, b'{"a": {"size": 1}}'])
def test_a_broken_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledgers.json").write_bytes(content)
    with pytest.raises(MalformedError, match=r"ledgers\.json"):
        LedgerMarks(tmp_path)
    (tmp_path / "begun" / "run").mkdir(parents=True)
    (tmp_path / "begun" / "run" / "members").write_bytes(content)
    with pytest.raises(MalformedError, match="members"):
        BegunRun(tmp_path, "run").members()


def test_who_keeps_the_lock_of_the_marks_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks, lock = LedgerMarks(tmp_path), tmp_path / "ledgers.lock"
    lock.touch(mode=0o644)
    monkeypatch.setattr("federated.lock.WAIT_S", 0.05)
    with lock.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(RefusalError, match=r"ledgers\.lock has been held"):
            marks.keep({"a": mark(1)})
    marks.keep({"a": mark(1)})
    assert LedgerMarks(tmp_path).of(["a"]) == {"a": mark(1)}
    assert lock.stat().st_mode & 0o777 == 0o600
