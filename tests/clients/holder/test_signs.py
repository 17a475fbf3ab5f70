"""Whether a SuperNode is heard, by the times of two files; and what the supervisor makes of it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from clients.holder.serve import SERVING, SIGN, SUPERNODE, Serving, Stop, _Once
from clients.holder.serve_status import STATUS, NodeState, ServeStatus, read_status
from clients.holder.serve_told import tell_status
from clients.holder.signs import SILENT_S, STUCK_S, Signs
from federated.lock import alone
from federated.logs import LogForm
from federated.programs import Fate, Supervisor
from tests.ready import ASTER, Ready

AT = 1_800_000_000
ONLINE = "INFO :      SuperNode ID: 7\n"
AWAY = "WARNING :   Connection attempt failed, retrying in 20.00 seconds\n"


class Hand:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def seen(tmp_path: Path, clock: Hand) -> Signs:
    return Signs(tmp_path / "sign", tmp_path / "log", clock=clock)


def leave(path: Path, at: int = AT) -> None:
    path.touch()
    os.utime(path, (at, at))


def test_signs_are_seen_to_change_whatever_the_clock_says(tmp_path: Path, clock: Hand, seen: Signs) -> None:
    for at in (AT, AT + 3, AT - 10**6):  # the machine's clock was set
        leave(tmp_path / "sign", at)
        seen.look()
        assert seen.heard_at == at
        clock.now += SILENT_S - 1
        seen.look()
        assert not seen.is_silent
    clock.now += 1
    seen.look()
    assert seen.is_silent
    assert not seen.is_stuck
    clock.now += STUCK_S
    assert seen.is_stuck


def test_a_word_in_the_log_is_life_but_no_answer(tmp_path: Path, clock: Hand, seen: Signs) -> None:
    leave(tmp_path / "sign")
    seen.look()
    for number in range(20):
        clock.now += STUCK_S / 2
        leave(tmp_path / "log", AT + number)
        seen.look()
        assert seen.is_silent
        assert not seen.is_stuck


def test_the_signs_of_an_earlier_life_do_not_count(tmp_path: Path, clock: Hand, seen: Signs) -> None:
    leave(tmp_path / "sign")
    seen.look()
    clock.now += STUCK_S
    seen.begin()
    seen.look()
    assert (seen.heard_at, seen.is_silent, seen.is_stuck) == (None, False, False)


class Programs:
    """A supervisor that runs nothing, and notes what it is to start anew."""

    def __init__(self, ended: Callable[[str, int], None]) -> None:
        self._ended, self.renewed, self.pid = ended, 0, 4711

    def fates(self) -> dict[str, Fate]:
        return {SUPERNODE: Fate(self.pid, 1, None, 0)}

    def renew(self, name: str) -> None:
        assert name == SUPERNODE
        self.renewed += 1
        self._ended(name, 0)
        self.pid += 1


class Served:
    """The supervisor's eyes, with files and clocks moved by hand."""

    def __init__(self, home: Path, clock: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self._clock = home / SERVING, clock
        self.place.mkdir()
        self._log = self.place / f"{SUPERNODE}.log"
        self._log.touch()
        monkeypatch.setattr("clients.holder.serve.time.monotonic", clock)
        serving = Serving(home, ASTER, LogForm.HUMAN, False, lambda _: None, clock=lambda: AT + clock.now)
        self._once = _Once(serving, Stop(), started=AT, broke_off_at=None)
        self._once._signs = Signs(self.place / SIGN, self._log, clock=clock)
        self.programs = Programs(self._once._hear_end)

    def after(self, seconds: float, *, logged: str = "", heard: bool = False) -> NodeState:
        self._clock.now += seconds
        if logged:
            with self._log.open("a") as file:
                file.write(logged)
            leave(self._log, int(AT + self._clock.now))
        if heard:
            leave(self.place / SIGN, int(AT + self._clock.now))
        self._once._look(cast(Supervisor, self.programs))
        status = read_status(self.place / STATUS, ServeStatus)
        assert status is not None
        return status.state


def test_nobody_is_called_online_for_an_old_line(ready: Ready, clock: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(ready.home(), clock, monkeypatch)
    assert served.after(1, logged=ONLINE, heard=True) is NodeState.ONLINE
    heard = int(AT + clock.now)
    assert served.after(SILENT_S - 1) is NodeState.ONLINE
    assert served.after(1) is NodeState.SILENT
    with alone(ready.home() / SERVING / "serve.lock", "taken"):
        facts, lines = tell_status(ready.home(), at=int(AT + clock.now))
    assert (facts["node"], facts["heard_at"]) == ("silent", heard)
    assert any("last good sign at" in line for line in lines)
    assert served.after(1, heard=True) is NodeState.ONLINE
    assert served.programs.renewed == 0


def test_one_that_does_nothing_any_more_is_started_anew(
    ready: Ready, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(ready.home(), clock, monkeypatch)
    served.after(1, logged=ONLINE, heard=True)
    served.after(STUCK_S - 1)
    assert served.programs.renewed == 0
    assert served.after(1) is NodeState.SILENT
    assert served.after(5) is NodeState.SILENT
    assert served.programs.renewed == 1
    assert served.after(STUCK_S - 1) is NodeState.SILENT  # the new one has its own time
    assert served.programs.renewed == 1
    assert served.after(1, logged=ONLINE, heard=True) is NodeState.ONLINE


def test_one_that_logs_its_tries_is_away_and_left_alone(
    ready: Ready, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(ready.home(), clock, monkeypatch)
    served.after(1, logged=ONLINE, heard=True)
    for _ in range(100):
        assert served.after(20, logged=AWAY) is NodeState.AWAY
    assert served.programs.renewed == 0


def test_an_answer_that_is_not_tried_again_has_it_started_anew(
    ready: Ready, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(ready.home(), clock, monkeypatch)
    served.after(1, logged=ONLINE, heard=True)
    line = "ERROR :     Server error '500 Internal Server Error' for url 'https://a:1/v1/fleet/pull-messages'\n"
    assert served.after(1, logged=line) is NodeState.ENDED
    assert served.after(5) is NodeState.ENDED
    assert served.programs.renewed == 1
    assert served.after(1, logged=ONLINE, heard=True) is NodeState.ONLINE
