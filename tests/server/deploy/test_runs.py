"""Runs as programs: wherever one is killed or stopped, it goes on to the same files and charges nobody twice."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

import server.coordinator
import server.deploy.run_status
import server.deploy.runs
import server.deploy.unfinished
import server.memory
from federated.channel import Act
from federated.files import write_whole
from federated.lock import alone, is_held
from federated.messages import Instruction, Letter
from federated.plan import sign_plan
from federated.round_log import Event, split, verify_lines
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from server.coordinator import Coordinator
from server.deploy import round_log
from server.deploy.round_log import RoundLog
from server.deploy.run_status import State, read_status
from server.deploy.runs import Finished, _Record, _Release
from server.deploy.settings import Home
from server.deploy.stopping import Stopped, stop_run, stoppable
from server.grid_channel import GridChannel
from tests.ready import ASTER, AT, BIRCH, HOLDERS, Ready, ready_in
from tests.server.deploy.home import Nodes, coordinator_home, runs_of

WRITERS = (server.memory, server.coordinator, server.deploy.run_status, server.deploy.runs, server.deploy.unfinished)
WRITES = 53  # of files and of lines of the log, in one run of this plan; a test holds it


class Killed(BaseException):
    """The coordinator's process is gone: it writes nothing any more, and nobody handles that."""


@dataclass
class Power:
    """Writes that reach the disk until `left` runs out; from then on the process is dead."""

    left: int
    used: int = 0

    def draw(self) -> None:
        if self.left <= 0:
            raise Killed
        self.left -= 1
        self.used += 1


@contextmanager
def powered(power: Power) -> Iterator[None]:
    """The coordinator's writes draw on `power`; the data holders' own are theirs."""
    append = round_log._write

    def whole(path: Path, content: bytes, *, secret: bool = False) -> None:
        power.draw()
        write_whole(path, content, secret=secret)

    def line(descriptor: int, content: bytes) -> None:
        power.draw()
        append(descriptor, content)

    with pytest.MonkeyPatch.context() as patch:
        for module in WRITERS:
            patch.setattr(module, "write_whole", whole)
        patch.setattr(round_log, "_write", line)
        yield


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Ready]:
    made = ready_in(tmp_path / "federation")
    yield made
    made.registry.close()


@pytest.fixture
def home(ready: Ready) -> Home:
    return coordinator_home(ready)


def _die(*_: object) -> NoReturn:
    raise Killed


def files_of(home: Home) -> dict[str, bytes]:
    """What finished runs have left, and how long everybody's privacy ledger is: it grows with each charge.

    A ledger's marks are salted, so its digests and what is signed over them differ between two federations.
    """
    found = {path.relative_to(home.directory).as_posix(): path.read_bytes() for path in home.runs.rglob("*.json")}
    found["ledgers.json"] = (home.directory / "ledgers.json").read_bytes()
    return {name: re.sub(rb'"(ledger|signature|digest)":"[^"]*"', b"", content) for name, content in found.items()}


def events_of(home: Home) -> list[tuple[Event, int | None]]:
    """Every entry, verified as an auditor does, with its stage."""
    lines, torn = split(home.round_log.read_bytes())
    assert torn == b""
    return [(entry.event, entry.detail.get("stage")) for entry in verify_lines(lines, home.key().public)]


def state_of(home: Home) -> State:
    status = read_status(home.status)
    assert status is not None
    return status.state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the same run leaves when nothing goes wrong."""
    made = ready_in(tmp_path_factory.mktemp("undisturbed") / "federation")
    home, power = coordinator_home(made), Power(10_000)
    with powered(power):
        runs_of(made, home).run()
    made.registry.close()
    assert power.used == WRITES
    found = files_of(home)
    assert len(found) == 5
    return found


def test_a_run_tells_everything_it_did(ready: Ready, home: Home) -> None:
    finished = runs_of(ready, home).run()
    stages = [(event, number) for number in range(1, 6) for event in (Event.STAGE_ASKED, Event.STAGE_SUMMED)]
    assert events_of(home) == [(Event.RUN_BEGUN, None), (Event.OPENED, None), *stages, (Event.FINISHED, None)]
    entries = RoundLog(home.round_log, home.key()).entries
    assert entries[0].detail["plan"] == finished.plan
    assert entries[1].detail == {"holders": list(HOLDERS), "absent": {}}
    assert entries[3].detail["contributors"] == list(HOLDERS)
    status = read_status(home.status)
    assert status is not None
    assert (status.state, status.run, status.stage, status.stages) == (State.FINISHED, finished.run, 5, 5)
    assert status.holders == dict.fromkeys(HOLDERS, "joined")
    assert not (home.directory / "unfinished.json").exists()


def test_the_same_plan_over_the_same_lanes_is_there_already(ready: Ready, home: Home) -> None:
    nodes = Nodes(ready)
    first = runs_of(ready, home, nodes).run()
    before = files_of(home)
    again = runs_of(ready, home, nodes).run()
    assert (first.was_there, again.was_there, again.run) == (False, True, first.run)
    assert nodes.opened == 1
    assert files_of(home) == before
    assert [event for event, _ in events_of(home)].count(Event.FINISHED) == 1


def test_results_that_were_changed_are_tampering_and_never_signed(ready: Ready, home: Home) -> None:
    directory = runs_of(ready, home).run().directory
    for name in ("model.json", "scorecard.json", "measured.json"):
        path, whole = directory / name, (directory / name).read_bytes()
        for how in ("changed", "gone"):
            assert state_of(home) is State.FINISHED
            path.unlink() if how == "gone" else path.write_bytes(whole.replace(b"1", b"2", 1))
            before = home.round_log.read_bytes()
            with pytest.raises(TamperingError, match=f"{name}.* changed or gone"):
                runs_of(ready, home).run()
            assert home.round_log.read_bytes() == before
            assert state_of(home) is not State.FINISHED
            path.write_bytes(whole)
            assert runs_of(ready, home).run().was_there


def test_a_finished_run_that_is_run_again_began_when_it_began(ready: Ready, home: Home) -> None:
    runs_of(ready, home).run()
    again = runs_of(ready, home)
    object.__setattr__(again, "clock", lambda: float(AT + 60))
    assert again.run().was_there
    status = read_status(home.status)
    assert status is not None
    assert (status.started, status.updated) == (AT, AT + 60)


def _killed_then_resumed(ready: Ready, home: Home, writes: int) -> Finished:
    with powered(Power(writes)), pytest.raises(Killed):
        runs_of(ready, home).run()
    assert not is_held(home.run_lock)
    try:
        return runs_of(ready, home).resume()
    except UsageError:  # it was killed before anybody was asked: nothing is left to go on with
        assert not (home.directory / "begun").exists()
        return runs_of(ready, home).run()


def _judge(home: Home, undisturbed: Mapping[str, bytes]) -> None:
    assert files_of(home) == undisturbed
    events = events_of(home)
    for number in range(1, 6):
        assert events.count((Event.STAGE_ASKED, number)) == 1
        assert events.count((Event.STAGE_SUMMED, number)) == 1
    assert events.count((Event.FINISHED, None)) == 1
    assert state_of(home) is State.FINISHED
    assert not (home.directory / "unfinished.json").exists()


@pytest.mark.parametrize("writes", [2, 24, WRITES - 1])
def test_killed_anywhere_it_is_gone_on_with_to_the_same_end(
    ready: Ready, home: Home, undisturbed: dict[str, bytes], writes: int
) -> None:
    _killed_then_resumed(ready, home, writes)
    _judge(home, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(0, WRITES, 5))  # of each step another part; all take too long
def test_killed_between_any_two_writes_it_is_gone_on_with_to_the_same_end(
    ready: Ready, home: Home, undisturbed: dict[str, bytes], writes: int
) -> None:
    _killed_then_resumed(ready, home, writes)
    _judge(home, undisturbed)


@pytest.mark.slow
def test_killed_at_every_try_it_comes_to_the_same_end(ready: Ready, home: Home, undisturbed: dict[str, bytes]) -> None:
    """Each try gets further than the one before, though telling what is kept already takes writes too."""
    with powered(Power(14)), pytest.raises(Killed):
        runs_of(ready, home).run()
    for _ in range(20):
        try:
            with powered(Power(19)):
                runs_of(ready, home).resume()
            break
        except Killed:
            continue
    else:
        pytest.fail("it never came to an end")
    _judge(home, undisturbed)


def test_it_goes_on_with_its_own_plan_whatever_was_planned_since(
    ready: Ready, home: Home, undisturbed: dict[str, bytes]
) -> None:
    with powered(Power(24)), pytest.raises(Killed):
        runs_of(ready, home).run()
    other = msgspec.structs.replace(Coordinator(home.directory).plan, name="another")
    write_whole(home.plan, msgspec.json.encode(sign_plan(other, home.key())))
    write_whole(home.directory / "checkpoints.json", b"{}")
    runs_of(ready, home).resume()
    _judge(home, undisturbed)


def test_a_run_that_was_begun_is_in_the_way_of_another_until_it_is_given_up(ready: Ready, home: Home) -> None:
    with powered(Power(24)), pytest.raises(Killed):
        runs_of(ready, home).run()
    nodes = Nodes(ready)
    with pytest.raises(RefusalError, match="--abandon") as caught:
        runs_of(ready, home, nodes).run()
    assert caught.value.code is RefusalCode.REPLAY
    assert nodes.opened == 0
    other = msgspec.structs.replace(Coordinator(home.directory).plan, name="another")
    write_whole(home.plan, msgspec.json.encode(sign_plan(other, home.key())))
    finished = runs_of(ready, home, nodes).run(abandon=True)
    assert (Event.ABANDONED, None) in events_of(home)
    assert [path.name for path in home.runs.iterdir()] == [finished.run]


def test_giving_up_what_is_the_same_run_is_going_on_with_it_and_is_told_so(
    ready: Ready, home: Home, undisturbed: dict[str, bytes]
) -> None:
    with powered(Power(24)), pytest.raises(Killed):
        runs_of(ready, home).run()
    runs_of(ready, home).run(abandon=True)
    events = [event for event, _ in events_of(home)]
    assert Event.ABANDONED not in events
    assert (events.count(Event.RUN_BEGUN), events.count(Event.RESUMED)) == (1, 1)
    _judge(home, undisturbed)


def test_a_run_whose_sums_are_all_kept_ends_after_its_plan_has(
    ready: Ready, home: Home, undisturbed: dict[str, bytes]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Coordinator, "_write", _die)
        with pytest.raises(Killed):
            runs_of(ready, home).run()
    nodes = Nodes(ready)
    late = runs_of(ready, home, nodes)
    object.__setattr__(late, "clock", lambda: float(AT + 40 * 3600))
    late.resume()
    assert nodes.opened == 0
    _judge(home, undisturbed)


def test_a_disk_that_is_full_after_the_end_makes_it_no_refused_run(
    ready: Ready, home: Home, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes, *, secret: bool = False) -> None:
        if b'"state":"finished"' in content:
            raise RefusalError("status.json could not be written (No space left on device)", RefusalCode.INTERNAL)
        write_whole(path, content, secret=secret)

    with monkeypatch.context() as patch:
        patch.setattr(server.deploy.run_status, "write_whole", full)
        with pytest.raises(RefusalError, match="No space left"):
            runs_of(ready, home).run()
    assert events_of(home)[-1] == (Event.FINISHED, None)
    runs_of(ready, home).resume()
    _judge(home, undisturbed)


def test_without_a_run_there_is_nothing_to_go_on_with(ready: Ready, home: Home) -> None:
    with pytest.raises(UsageError, match="coordinator run"):
        runs_of(ready, home).resume()


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf"), 86_401.0])
def test_nobody_is_waited_for_without_an_end(ready: Ready, home: Home, deadline_s: float) -> None:
    nodes = Nodes(ready)
    for start in (runs_of(ready, home, nodes).run, runs_of(ready, home, nodes).resume):
        with pytest.raises(UsageError, match="--deadline"):
            start(deadline_s=deadline_s)
    assert nodes.opened == 0
    assert not home.round_log.exists()


def test_two_runs_at_once_are_one_too_many(ready: Ready, home: Home) -> None:
    nodes = Nodes(ready)
    with alone(home.run_lock, "busy"):
        for start in (runs_of(ready, home, nodes).run, runs_of(ready, home, nodes).resume):
            with pytest.raises(RefusalError, match="under way already"):
                start()
    assert nodes.opened == 0
    assert not home.status.exists()


def test_without_the_registry_nobody_is_asked(ready: Ready, home: Home) -> None:
    nodes = Nodes(ready)
    runs = runs_of(ready, home, nodes)
    ready.registry.close()

    class Away:
        def checkpoint(self, lane: str) -> NoReturn:  # noqa: ARG002 (the registry's)
            raise RefusalError("The registry cannot be reached.", RefusalCode.LANE)

    @contextmanager
    def away(_: Home) -> Iterator[Away]:
        yield Away()

    object.__setattr__(runs, "registry", away)
    with pytest.raises(RefusalError, match="nobody was asked"):
        runs.run()
    assert nodes.opened == 0
    assert not (home.directory / "checkpoints.json").exists()
    assert state_of(home) is State.REFUSED
    with pytest.raises(UsageError):
        runs.resume()


def test_a_head_that_the_registry_has_not_signed_is_tampering(ready: Ready, home: Home) -> None:
    nodes, runs = Nodes(ready), runs_of(ready, home)
    heads = {name: ready.registry.checkpoint(name) for name in HOLDERS}

    class Swapped:
        def checkpoint(self, lane: str) -> str:
            return heads[BIRCH if lane == ASTER else lane]

    @contextmanager
    def swapped(_: Home) -> Iterator[Swapped]:
        yield Swapped()

    object.__setattr__(runs, "registry", swapped)
    with pytest.raises(FedcreditError) as caught:
        runs.run()
    assert isinstance(caught.value, TamperingError | MalformedError)
    assert nodes.opened == 0


def test_too_few_nodes_are_counted_and_nobody_is_asked(ready: Ready, home: Home) -> None:
    class Alone(GridChannel):
        def __init__(self, inner: GridChannel) -> None:
            super().__init__(inner._grid)

        def nodes(self) -> list[int]:
            return super().nodes()[:1]

        def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> NoReturn:  # noqa: ARG002 (a channel's)
            raise AssertionError("somebody was asked")

    with pytest.raises(RefusalError, match="1 nodes are online"):
        runs_of(ready, home, Nodes(ready, Alone)).run()
    assert state_of(home) is State.REFUSED
    runs_of(ready, home).run()  # a new run: nothing stands in its way


def test_a_plan_that_has_run_out_is_not_asked_about(ready: Ready, home: Home) -> None:
    nodes = Nodes(ready)
    runs = runs_of(ready, home, nodes)
    object.__setattr__(runs, "clock", lambda: float(AT + 40 * 3600))
    with pytest.raises(RefusalError, match="has run out") as caught:
        runs.run()
    assert caught.value.code is RefusalCode.PLAN
    assert nodes.opened == 0


class Interrupting(GridChannel):
    """Sends this process a signal before the first question of a round."""

    def __init__(self, inner: GridChannel, number: int, round_number: int = 3) -> None:
        super().__init__(inner._grid)
        self._number, self._round = number, round_number

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        headers = [letter.header for letter in letters.values()]
        if any(isinstance(header, Instruction) and header.round_number == self._round for header in headers):
            os.kill(os.getpid(), self._number)
        return super().ask(letters, act=act, deadline_s=deadline_s)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_in_order(
    ready: Ready, home: Home, undisturbed: dict[str, bytes], number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    nodes = Nodes(ready, lambda channel: Interrupting(channel, number))
    with pytest.raises(Stopped), stoppable():
        runs_of(ready, home, nodes).run()
    assert signal.getsignal(number) is before
    assert state_of(home) is State.STOPPED
    assert events_of(home)[-2:] == [(Event.STAGE_ASKED, 3), (Event.STOPPED, None)]
    assert not is_held(home.run_lock)
    runs_of(ready, home).resume()
    _judge(home, undisturbed)


def test_a_refusal_in_the_middle_can_be_gone_on_with(ready: Ready, home: Home, undisturbed: dict[str, bytes]) -> None:
    class Deaf(GridChannel):
        def __init__(self, inner: GridChannel) -> None:
            super().__init__(inner._grid)

        def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
            lost = any(
                isinstance(letter.header, Instruction) and letter.header.round_number == 2
                for letter in letters.values()
            )
            return {} if lost else super().ask(letters, act=act, deadline_s=deadline_s)

    with pytest.raises(RefusalError, match="0 data holders are left"):
        runs_of(ready, home, Nodes(ready, Deaf)).run()
    status = read_status(home.status)
    assert status is not None
    assert (status.state, status.stage) == (State.REFUSED, 2)
    assert "0 data holders are left" in status.message
    assert events_of(home)[-1] == (Event.REFUSED, None)
    runs_of(ready, home).resume()
    _judge(home, undisturbed)


def test_a_mistake_of_our_own_is_no_running_run(ready: Ready, home: Home) -> None:
    def wrong(channel: GridChannel) -> GridChannel:
        raise ZeroDivisionError("row 17")

    with pytest.raises(ZeroDivisionError):
        runs_of(ready, home, Nodes(ready, wrong)).run()
    status = read_status(home.status)
    assert status is not None
    assert status.state is State.FAILED
    assert "row 17" not in status.message


def test_a_full_disk_is_told_and_nothing_is_lost(
    ready: Ready, home: Home, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 20

    def full(path: Path, content: bytes, *, secret: bool = False) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RefusalError(f"{path.name} could not be written (No space left on device)", RefusalCode.INTERNAL)
        write_whole(path, content, secret=secret)

    with monkeypatch.context() as patch:
        for module in WRITERS:
            patch.setattr(module, "write_whole", full)
        with pytest.raises(RefusalError, match="No space left"):
            runs_of(ready, home).run()
    runs_of(ready, home).resume()
    _judge(home, undisturbed)


def test_stop_ends_the_run_that_holds_the_lock(ready: Ready, home: Home) -> None:
    """In this process: the channel waits until somebody has told it to stop."""
    asked = threading.Event()
    stopped: list[int] = []

    def stop() -> None:
        asked.wait(30)
        stopped.append(stop_run(home))

    class Waiting(GridChannel):
        def __init__(self, inner: GridChannel) -> None:
            super().__init__(inner._grid)

        def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> NoReturn:  # noqa: ARG002 (a channel's)
            asked.set()
            for _ in range(3000):
                time.sleep(0.01)
            raise AssertionError("nobody stopped it")

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Stopped), stoppable():
        runs_of(ready, home, Nodes(ready, Waiting)).run()
    stopper.join()
    assert stopped == [os.getpid()]
    assert state_of(home) is State.STOPPED


def test_stop_touches_no_process_that_has_not_the_lock(ready: Ready, home: Home) -> None:
    with pytest.raises(UsageError, match="no run is under way"):
        stop_run(home)
    runs_of(ready, home).run()
    status = read_status(home.status)
    assert status is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        # A number of an earlier day, which another process has now.
        write_whole(home.status, msgspec.json.encode(msgspec.structs.replace(status, pid=stranger.pid)))
        try:
            with alone(home.run_lock, "busy"), pytest.raises(RefusalError, match=r"no run that status\.json knows"):
                stop_run(home, patience_s=0.1)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_who_is_in_the_run_and_not_in_every_sum_is_told_with_the_reasons() -> None:
    releases = [_Release({"aster-bank": "internal"}), _Release({}), _Release({"aster-bank": "lane", "cedar": "silent"})]
    assert _Record(["aster-bank", "birch-telecom", "cedar"], {}, releases).left_out == {
        "aster-bank": "left out of release 1: internal; left out of release 3: lane",
        "cedar": "left out of release 3: silent",
    }
