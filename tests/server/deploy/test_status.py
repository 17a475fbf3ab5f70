"""`status` tells the truth: what is alive, what was interrupted, what can be relied on, and what to do next."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

from federated.files import write_whole
from federated.lock import alone
from federated.round_log import Event
from privacy.errors import MalformedError, RefusalError, TamperingError
from server.coordinator import Pinned
from server.deploy import unfinished
from server.deploy.planning import make_plan, sign
from server.deploy.publish import publish
from server.deploy.round_log import RoundLog
from server.deploy.run_status import State, StatusBook, read_status
from server.deploy.settings import Home
from server.deploy.status import INTERRUPTED, NEVER, lines, report
from server.deploy.stopping import stop_run
from server.deploy.tls import make_tls
from server.grid_channel import GridChannel
from tests.ready import AT, HOLDERS, Ready, ready_in
from tests.server.deploy.home import Nodes, coordinator_home, enrol_everybody, runs_of

DAY_S = 86_400


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Ready]:
    made = ready_in(tmp_path / "federation")
    yield made
    made.registry.close()


@pytest.fixture
def home(ready: Ready) -> Home:
    made = coordinator_home(ready)
    make_tls(made.directory, "127.0.0.1", AT)
    enrol_everybody(ready, made)
    return made


def book(home: Home, state: State, *, pid: int | None = None) -> StatusBook:
    made = StatusBook(home.status, run="r" * 32, plan="p" * 64, pid=pid or os.getpid(), clock=lambda: AT)
    made.change(
        state=state, stage=2, stages=5, what="round 2", holders={"aster-bank": "joined", "birch-telecom": "lane"}
    )
    return made


def test_before_the_first_run_it_says_how_to_begin(home: Home) -> None:
    told, gravest = report(home, at=AT)
    assert (told.state, told.run_is_alive, told.serving, gravest) == (NEVER, False, False, None)
    assert told.members == dict.fromkeys(HOLDERS, "enrolled")
    assert "coordinator serve" in told.next
    with alone(home.serve_lock, "busy"):
        told, _ = report(home, at=AT)
    assert told.serving
    assert "coordinator run" in told.next


def test_without_data_holders_or_a_plan_it_says_whose_turn_it_is(home: Home) -> None:
    home.plan.unlink()
    with alone(home.serve_lock, "busy"):
        assert "coordinator plan" in report(home, at=AT)[0].next
    home.members.unlink()
    assert "enroll" in report(home, at=AT)[0].next


@pytest.mark.parametrize("state", list(State))
def test_whether_a_run_runs_the_lock_tells_and_not_what_it_wrote(home: Home, state: State) -> None:
    book(home, state)
    dead = report(home, at=AT)[0]
    assert (dead.state, dead.run_is_alive) == (state.value if state.is_over else INTERRUPTED, False)
    with alone(home.run_lock, "busy"):
        alive = report(home, at=AT)[0]
    assert (alive.state, alive.run_is_alive) == (state.value, True)
    if not state.is_over:
        assert "stop" in alive.next


@pytest.mark.parametrize("state", list(State))
def test_a_dry_run_that_holds_the_lock_is_no_run(home: Home, state: State) -> None:
    """The run's own process is another one, and has not the lock open."""
    book(home, state, pid=os.getppid())
    with alone(home.run_lock, "busy"):
        told = report(home, at=AT)[0]
        with pytest.raises(RefusalError, match="a dry run"):
            stop_run(home)
    assert (told.run_is_alive, told.dry_run_is_alive) == (False, True)
    assert told.state == (state.value if state.is_over else INTERRUPTED)
    assert "dry run" in told.next
    assert any("a dry run" in line for line in lines(told))
    assert not report(home, at=AT)[0].dry_run_is_alive


def test_without_a_status_a_dry_run_is_told_as_one(home: Home) -> None:
    with alone(home.run_lock, "busy"):
        told = report(home, at=AT)[0]
    assert (told.state, told.run_is_alive, told.dry_run_is_alive) == (NEVER, False, True)


def test_an_interrupted_run_can_be_gone_on_with_and_it_says_so(home: Home) -> None:
    book(home, State.RUNNING)
    write_whole(home.directory / "checkpoints.json", b"{}")
    pinned = Pinned.current(home.directory)
    unfinished.keep(home.directory, pinned)
    with alone(home.serve_lock, "busy"):
        told = report(home, at=AT)[0]
    assert (told.state, told.unfinished_run) == (INTERRUPTED, pinned.run)
    assert "resume" in told.next
    text = "\n".join(lines(told))
    assert "interrupted, stage 2 of 5 (round 2)" in text
    assert "birch-telecom: lane" in text
    assert f"begun and not finished: run {pinned.run}" in text


def test_while_it_runs_it_tells_the_stage_and_who_is_in(ready: Ready, home: Home) -> None:
    seen: list[tuple[str, int, dict[str, str]]] = []

    class Looking(GridChannel):
        def __init__(self, inner: GridChannel) -> None:
            super().__init__(inner._grid)

        def nodes(self) -> list[int]:
            told = report(home, at=AT)[0]
            assert told.last is not None
            assert told.run_is_alive
            seen.append((told.state, told.last["stage"], told.last["holders"]))
            return super().nodes()

    runs_of(ready, home, Nodes(ready, Looking)).run()
    assert seen[0][0] == "waiting"
    assert {state for state, _, _ in seen} == {"waiting", "opening", "running"}
    assert {stage for state, stage, _ in seen if state == "running"} == {1, 2, 3, 4, 5}
    assert seen[-1][2] == dict.fromkeys(HOLDERS, "joined")


def test_after_a_run_it_tells_what_was_planned_and_published(ready: Ready, home: Home, tmp_path: Path) -> None:
    plan, schema = make_plan(home, "autumn", holders=None, at=AT, seed=7)
    digest = sign(home, plan, schema, at=AT).signed.digest
    run = runs_of(ready, home).run().run
    bundle = publish(home, tmp_path / "bundle", run=None, at=AT)
    told, gravest = report(home, at=AT)
    assert gravest is None
    assert (told.state, told.plan, told.log_holds) == ("finished", digest, True)
    assert told.published == {"run": run, "at": AT, "manifest": bundle.manifest}
    assert told.log_entries == len(RoundLog(home.round_log, home.key()).entries)
    assert msgspec.json.decode(msgspec.json.encode(asdict(told)))["last"]["state"] == "finished"
    assert f"head {told.log_head}" in "\n".join(lines(told))


def test_the_last_refusal_is_told_in_its_own_words(ready: Ready, home: Home) -> None:
    class Nobody(GridChannel):
        def __init__(self, inner: GridChannel) -> None:
            super().__init__(inner._grid)

        def nodes(self) -> list[int]:
            return []

    with pytest.raises(RefusalError) as caught:
        runs_of(ready, home, Nodes(ready, Nobody)).run()
    told = report(home, at=AT)[0]
    assert told.state == "refused"
    assert told.last is not None
    assert told.last["message"] == str(caught.value)
    assert told.unfinished_run is None


def test_a_changed_round_log_is_told_and_the_rest_too(ready: Ready, home: Home) -> None:
    log = RoundLog(home.round_log, home.key())
    for number in range(3):
        log.append(Event.PLAN_SIGNED, at=AT, plan=str(number))
    content = home.round_log.read_bytes()
    home.round_log.write_bytes(content.replace(b'"plan":"1"', b'"plan":"9"'))
    told, gravest = report(home, at=AT)
    assert isinstance(gravest, TamperingError)
    assert (told.log_holds, told.log_entries) == (False, 0)
    assert told.members == dict.fromkeys(HOLDERS, "enrolled")
    assert "round log: DOES NOT HOLD" in lines(told)
    assert any("Entry 2" in text for text in told.unreadable)


@pytest.mark.parametrize("name", ["status.json", "unfinished.json", "members.json"])
def test_what_cannot_be_read_is_told_and_the_rest_too(home: Home, name: str) -> None:
    (home.directory / name).write_bytes(b"{")
    told, gravest = report(home, at=AT)
    assert isinstance(gravest, MalformedError)
    assert any(name in text for text in told.unreadable)
    assert told.log_holds


def test_a_certificate_that_runs_out_is_told_in_time(home: Home) -> None:
    assert all(one["days_left"] > 60 for one in report(home, at=AT)[0].certificates)
    late = report(home, at=AT + 80 * DAY_S)[0]
    assert min(one["days_left"] for one in late.certificates) < 21
    assert "--renew" in late.next


def test_a_status_is_written_whole_and_read_strictly(home: Home) -> None:
    assert read_status(home.status) is None
    book(home, State.RUNNING).change(message="x")
    status = read_status(home.status)
    assert status is not None
    assert (status.state, status.message, status.updated) == (State.RUNNING, "x", AT)
    home.status.write_bytes(home.status.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(MalformedError, match="may delete it"):
        read_status(home.status)
