"""One program at a time, judged by a second process."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from federated.lock import alone, holder_of, is_held, take_turn
from privacy.errors import RefusalError

_HOLD = (
    "import sys\nfrom pathlib import Path\nfrom federated.lock import alone\n"
    "with alone(Path(sys.argv[1]), 'taken'):\n    print('has it', flush=True)\n    sys.stdin.read()\n"
)


def test_a_second_program_is_refused_and_told_why(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    with subprocess.Popen([sys.executable, "-c", _HOLD, lock], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        assert is_held(lock)
        with pytest.raises(RefusalError, match="it runs already"), alone(lock, "it runs already"):
            pytest.fail("two have the lock")
        other.kill()
    assert not is_held(lock)
    with alone(lock, "it runs already"):
        assert is_held(lock)
    assert not is_held(lock)


def test_the_lock_is_given_back_after_a_failure(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    with pytest.raises(ZeroDivisionError), alone(lock, "taken"):
        _ = 1 // 0
    assert not is_held(lock)


def test_looking_makes_nothing_and_takes_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    assert not is_held(lock)
    assert list(tmp_path.iterdir()) == []
    with alone(lock, "taken"):
        assert is_held(lock)
        assert is_held(lock)


def test_a_program_that_is_started_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    with alone(lock, "taken"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, close_fds=False)
    try:
        assert not is_held(lock)
    finally:
        child.communicate(b"\n")


def test_a_directory_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match="cannot be made"), alone(tmp_path / "gone" / "serve.lock", "taken"):
        pytest.fail("there is no such directory")


def test_who_waits_for_a_turn_waits_no_longer_than_said_and_leaves_the_file_to_its_owner(tmp_path: Path) -> None:
    lock = tmp_path / "marks.lock"
    lock.touch(mode=0o644)
    descriptor, other = os.open(lock, os.O_RDWR), os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_SH)  # as whoever may read the file can
        with pytest.raises(RefusalError, match=r"marks.lock has been held by another program for 0.1 s"):
            take_turn(descriptor, lock.name, patience_s=0.1)
        assert lock.stat().st_mode & 0o777 == 0o600
        fcntl.flock(other, fcntl.LOCK_UN)
        take_turn(descriptor, lock.name, patience_s=0.1)
        assert is_held(lock)
    finally:
        os.close(descriptor)
        os.close(other)


def test_a_process_holds_a_file_if_it_has_it_open_and_no_group_of_processes_does(tmp_path: Path) -> None:
    lock = tmp_path / "serve.lock"
    assert not holder_of(lock, os.getpid())
    with alone(lock, "taken"):
        assert holder_of(lock, os.getpid())
        for number in (-os.getpgid(0), -os.getpid(), -1, 0, 1, os.getppid(), 1 << 40):
            assert not holder_of(lock, number)
