"""Supervised programs: real little processes, judged by what the kernel says of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from federated import processes, programs
from federated.processes import MARK, born, end_stale, mark_of, remember
from federated.programs import Fate, Program, Supervisor, cut_log, pause_s
from privacy.errors import RefusalError, UsageError

# Each tells its own pid and that of what it has started, then does not end by itself.
_SLEEPS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
_DEAF = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
_ORDERLY = (
    "import os, signal, sys, time\n"
    "signal.signal(15, lambda *_: (print('orderly', flush=True), sys.exit(0)))\n"
    "print(os.getpid(), flush=True)\ntime.sleep(600)"
)
_PARENT = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); "
    "time.sleep(600)'], start_new_session={apart})\n"
    "print(os.getpid(), child.pid, flush=True)\ntime.sleep(600)"
)


class Hand:
    """A clock that is moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def program(directory: Path, code: str, name: str = "one") -> Program:
    command = (sys.executable, "-c", code)
    return Program(name, command, {"SOME": "thing"}, directory, directory / "logs" / f"{name}.log")


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens on its own: as long as a busy machine may need, and no longer."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def said(one: Program, lines: int = 1) -> list[int]:
    """The numbers in the last line of a program's log, once there are so many lines."""
    until(lambda: one.log.exists() and one.log.read_text().count("\n") >= lines)
    return [int(word) for word in one.log.read_text().splitlines()[-1].split()]


def tended(supervisor: Supervisor) -> Fate:
    supervisor.tend()
    return supervisor.fates()["one"]


def lives(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def stopped() -> Iterator[list[Supervisor]]:
    made: list[Supervisor] = []
    yield made
    for supervisor in made:
        supervisor.stop(grace_s=0.2)


def test_a_program_that_ends_is_started_again_each_time_later(tmp_path: Path, stopped: list[Supervisor]) -> None:
    clock, ends = Hand(), list[tuple[str, int]]()
    one = program(tmp_path, "raise SystemExit(7)")
    supervisor = Supervisor(
        [one], pid_file=tmp_path / "pids", clock=clock, ended=lambda name, code: ends.append((name, code))
    )
    stopped.append(supervisor)
    supervisor.start()
    for number, pause in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        until(lambda: tended(supervisor).pid is None)
        assert len(ends) == number
        clock.now += pause - 0.5
        assert tended(supervisor).starts == number
        clock.now += 0.5
        assert tended(supervisor).starts == number + 1
    assert set(ends) == {("one", 7)}
    assert supervisor.fates()["one"].last_exit == 7


def test_the_pauses_are_bounded() -> None:
    assert [pause_s(failures) for failures in (1, 2, 6, 7, 8, 10**9)] == [1, 2, 32, 60, 60, 60]


def test_whoever_lived_for_long_is_started_again_at_once(tmp_path: Path, stopped: list[Supervisor]) -> None:
    clock = Hand()
    one = program(tmp_path, _SLEEPS)
    supervisor = Supervisor([one], pid_file=tmp_path / "pids", clock=clock)
    stopped.append(supervisor)
    supervisor.start()
    for starts in (1, 2, 3):
        (pid,) = said(one, starts)
        clock.now += programs.SETTLED_S
        os.kill(pid, signal.SIGKILL)
        until(lambda: tended(supervisor).pid is None)
        assert supervisor.fates()["one"].failures == 1
        assert supervisor.fates()["one"].last_exit == -signal.SIGKILL
        clock.now += programs.FIRST_PAUSE_S
        assert tended(supervisor).starts == starts + 1


def test_an_orderly_stop_lets_programs_finish_and_leaves_nothing(tmp_path: Path) -> None:
    ones = [program(tmp_path, _ORDERLY, name) for name in ("one", "two")]
    with Supervisor(ones, pid_file=tmp_path / "pids") as supervisor:
        pids = [said(one)[0] for one in ones]
        assert [fate.pid for fate in supervisor.fates().values()] == pids
    assert [one.log.read_text().splitlines()[-1] for one in ones] == ["orderly", "orderly"]
    assert not any(map(lives, pids))
    assert not (tmp_path / "pids").exists()


def test_who_does_not_listen_is_killed(tmp_path: Path) -> None:
    one = program(tmp_path, _DEAF)
    supervisor = Supervisor([one], pid_file=tmp_path / "pids")
    supervisor.start()
    (pid,) = said(one)
    supervisor.stop(grace_s=0.3)
    assert not lives(pid)


@pytest.mark.parametrize("apart", [False, True])
def test_what_a_program_has_started_ends_with_it(tmp_path: Path, apart: bool) -> None:
    one = program(tmp_path, _PARENT.format(apart=apart))
    with Supervisor([one], pid_file=tmp_path / "pids") as supervisor:
        pids = said(one)
        assert all(map(lives, pids))
        supervisor.stop(grace_s=0.3)
        until(lambda: not any(map(lives, pids)))


def test_what_a_program_has_started_does_not_outlive_its_restart(tmp_path: Path, stopped: list[Supervisor]) -> None:
    one = program(tmp_path, _PARENT.format(apart=False))
    supervisor = Supervisor([one], pid_file=tmp_path / "pids", clock=Hand())
    stopped.append(supervisor)
    supervisor.start()
    pid, grandchild = said(one)
    os.kill(pid, signal.SIGKILL)
    until(lambda: tended(supervisor).pid is None)
    until(lambda: not lives(grandchild))


_SUPERVISE = (
    "import sys, time\nfrom pathlib import Path\nfrom federated.programs import Program, Supervisor\n"
    "at, code = Path(sys.argv[1]), sys.argv[2]\n"
    "one = Program('one', (sys.executable, '-c', code), {}, at, at / 'logs' / 'one.log')\n"
    "Supervisor([one], pid_file=at / 'pids').start()\nprint('started', flush=True)\ntime.sleep(600)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a program to its parent's life")
def test_programs_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _SUPERVISE, tmp_path, _DEAF], stdout=-1) as supervisor:
        (pid,) = said(program(tmp_path, ""))
        assert lives(pid)
        supervisor.kill()
    until(lambda: not lives(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a program to its parent's life")
def test_no_program_begins_after_its_supervisor_is_gone() -> None:
    command = [sys.executable, "-I", "-S", programs._CHILD, "1", "/bin/echo", "begun"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "supervisor has ended" in done.stderr


@pytest.mark.parametrize("proc", [Path("/proc"), Path("/no/proc/here")])
def test_a_new_life_ends_what_the_last_one_left(
    tmp_path: Path, proc: Path, stopped: list[Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_PROC", proc)
    pid_file = tmp_path / "pids"
    mark = mark_of(pid_file)
    left = [
        subprocess.Popen([sys.executable, "-c", code], env={MARK: mark}, stdout=-1, start_new_session=True)
        for code in (_SLEEPS, _DEAF)
    ]
    others = [  # of another directory; and of one with the same path, in a container that shares our numbers
        subprocess.Popen([sys.executable, "-c", _SLEEPS], env={MARK: theirs}, stdout=-1)
        for theirs in (mark_of(tmp_path / "other"), str(pid_file), f"{pid_file}#{'0' * 32}", f"{mark}0")
    ]
    try:
        for process in (*left, *others):
            assert process.stdout is not None
            process.stdout.readline()
        remember(pid_file, {str(process.pid): process.pid for process in left})
        monkeypatch.setattr(processes, "_lives", lambda known: lives(known[0]))
        assert end_stale(pid_file, mark_of(pid_file), grace_s=0.3) == 2
        assert [process.wait(10) for process in left] == [-signal.SIGTERM, -signal.SIGKILL]
        assert all(lives(other.pid) for other in others)
    finally:
        for process in (*left, *others):
            process.kill()
            process.communicate()


def test_a_number_that_somebody_else_got_is_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", Path("/no/proc/here"))
    pid_file = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", _SLEEPS], start_new_session=True, stdout=-1) as innocent:
        monkeypatch.setattr(processes, "born", lambda _: "long ago")
        remember(pid_file, {"one": innocent.pid})
        monkeypatch.setattr(processes, "born", born)
        assert end_stale(pid_file, mark_of(pid_file), grace_s=0.1) == 0
        assert lives(innocent.pid)
        innocent.kill()


def test_a_damaged_pid_file_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PROC", Path("/no/proc/here"))
    (tmp_path / "pids").write_bytes(b"{]")
    assert end_stale(tmp_path / "pids", mark_of(tmp_path / "pids"), grace_s=0.1) == 0


def test_a_mark_is_drawn_once_and_kept_to_oneself(tmp_path: Path) -> None:
    mark = mark_of(tmp_path / "pids")
    assert mark_of(tmp_path / "pids") == mark
    kept = tmp_path / "pids.id"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(mark.rpartition("#")[2])) == 16
    kept.write_bytes(b"\xff or short")
    assert mark_of(tmp_path / "pids") not in (mark, f"{tmp_path / 'pids'}#")
    (tmp_path / "file").write_bytes(b"no directory")  # where nothing can be kept
    assert mark_of(tmp_path / "file" / "pids") != mark_of(tmp_path / "file" / "pids")


@pytest.mark.parametrize(("code", "end"), [(_SLEEPS, -signal.SIGTERM), (_DEAF, -signal.SIGKILL)])
def test_a_program_that_does_nothing_any_more_is_started_again(
    tmp_path: Path, stopped: list[Supervisor], code: str, end: int
) -> None:
    clock = Hand()
    one = program(tmp_path, code)
    supervisor = Supervisor([one], pid_file=tmp_path / "pids", clock=clock)
    stopped.append(supervisor)
    supervisor.start()
    (pid,) = said(one)
    supervisor.renew("one", grace_s=5)
    if code == _DEAF:
        assert tended(supervisor).pid == pid
        clock.now += 4
        supervisor.renew("one", grace_s=5)  # asked again, it has no longer
        clock.now += 1
    until(lambda: tended(supervisor).pid is None)
    supervisor.renew("one")  # which nobody hears
    clock.now += 100
    fate = tended(supervisor)
    assert (fate.starts, fate.last_exit) == (2, end)
    said(one, 2)
    assert tended(supervisor).pid == fate.pid


def test_the_longest_pause_is_each_programs_own(tmp_path: Path, stopped: list[Supervisor]) -> None:
    clock = Hand()
    one = replace(program(tmp_path, "raise SystemExit(7)"), longest_pause_s=3.0)
    supervisor = Supervisor([one], pid_file=tmp_path / "pids", clock=clock)
    stopped.append(supervisor)
    supervisor.start()
    for number, pause in enumerate((1, 2, 3, 3, 3), start=1):
        until(lambda: tended(supervisor).pid is None)
        clock.now += pause - 0.5
        assert tended(supervisor).starts == number
        clock.now += 0.5
        assert tended(supervisor).starts == number + 1


def test_a_program_sees_its_own_environment_and_directory_only(tmp_path: Path) -> None:
    code = "import os\nprint(sorted(n for n in os.environ if n != 'LC_CTYPE'), os.getcwd(), 0, sep='|', flush=True)"
    one = program(tmp_path, code)
    with Supervisor([one], pid_file=tmp_path / "pids"):
        until(lambda: one.log.exists() and "\n" in one.log.read_text())
    assert one.log.read_text().splitlines()[0] == f"{sorted(['SOME', MARK])}|{tmp_path}|0"
    assert one.log.stat().st_mode & 0o777 == 0o600


def test_a_log_is_added_to_and_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_bytes(b"earlier\n")
    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        cut_log(log, most=18)
        assert log.read_bytes() == b"earlier\n0123456789"
        cut_log(log, most=10)
        assert log.read_bytes() == b""
        assert (tmp_path / "one.log.1").read_bytes() == b"56789"
        assert (tmp_path / "one.log.1").stat().st_mode & 0o777 == 0o600
        writer.write(b"later")
    assert log.read_bytes() == b"later"


def test_a_log_without_room_for_its_copy_is_emptied_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_bytes(b"x" * 100)
    (tmp_path / "one.log.1").mkdir()  # where nothing can be written to
    cut_log(log, most=10)
    assert log.read_bytes() == b""


def test_a_log_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "logs").write_bytes(b"a file where the directory should be")
    supervisor = Supervisor([program(tmp_path, _SLEEPS)], pid_file=tmp_path / "pids")
    with pytest.raises(RefusalError, match=r"one\.log, the log of one, cannot be written"):
        supervisor.start()
    assert supervisor.fates()["one"].pid is None


def test_a_log_lost_later_does_not_end_the_service(tmp_path: Path, stopped: list[Supervisor]) -> None:
    clock = Hand()
    one = program(tmp_path, _SLEEPS)
    supervisor = Supervisor([one], pid_file=tmp_path / "pids", clock=clock)
    stopped.append(supervisor)
    supervisor.start()
    os.kill(said(one)[0], signal.SIGKILL)
    until(lambda: tended(supervisor).pid is None)
    one.log.unlink()
    one.log.parent.rmdir()
    clock.now += 1
    pid = tended(supervisor).pid
    assert pid is not None
    assert lives(pid)


def test_a_program_that_is_not_installed_is_said_before_anything_runs(tmp_path: Path) -> None:
    there = program(tmp_path, _SLEEPS)
    missing = Program("two", (str(tmp_path / "flower-nothing"),), {}, tmp_path, tmp_path / "two.log")
    with pytest.raises(UsageError, match="flower-nothing is not installed"):
        (supervisor := Supervisor([there, missing], pid_file=tmp_path / "pids")).start()
    assert [fate.starts for fate in supervisor.fates().values()] == [0, 0]
