"""`fedcredit down` ends what runs in its directory, and believes no number that lies there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.deployment import LOCK, PID
from experiments.up_cli import down
from federated.lock import alone
from privacy.errors import RefusalError, UsageError


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Who was sent which signal."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append((pid, number)))
    monkeypatch.setattr("experiments.deployment.DOWN_S", 0.0)
    return found


def ended(directory: Path) -> BaseException | None:
    return CliRunner().invoke(down, [str(directory)], standalone_mode=False).exception


def test_nothing_that_runs_is_nothing_to_end(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    (tmp_path / PID).write_text(f"{os.getpid()}\n")
    assert isinstance(ended(tmp_path), UsageError)
    assert told == []


def test_a_number_that_is_not_the_locks_holder_is_sent_no_signal(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    """Whoever prepared the directory could end any process of whoever says `down` in it, or a group of them."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, start_new_session=True) as other:
        with alone(tmp_path / LOCK, "taken"):
            for number in (-other.pid, other.pid, -1, 0, 1, "none"):
                (tmp_path / PID).write_text(f"{number}\n")
                assert isinstance(ended(tmp_path), RefusalError)
        other.communicate(b"\n")
    assert told == []


def test_the_locks_holder_is_told_to_end(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    with alone(tmp_path / LOCK, "taken"):
        (tmp_path / PID).write_text(f"{os.getpid()}\n")
        assert isinstance(ended(tmp_path), RefusalError)  # this process goes on, which `down` says
    assert told == [(os.getpid(), signal.SIGTERM)]
