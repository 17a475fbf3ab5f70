"""One program at a time, judged by a second process."""

import subprocess
import sys
from pathlib import Path

import pytest

from federated.lock import alone, is_held
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
