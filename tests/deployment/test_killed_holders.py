"""Data holders whose programs are killed, or cannot write: what was charged is sent once, and never charged twice."""

import signal
from collections.abc import Iterator

import pytest

from clients.holder.serve import ANSWERS, SERVING, SUPERNODE
from clients.holder.serve_status import STATUS, WORKER, NodeState, ServeStatus, WorkerStatus, read_status
from privacy.errors import RefusalCode
from server.answers import SILENT
from tests.deployment.conftest import Settle
from tests.deployment.live import PLANTED, Live

pytestmark = pytest.mark.slow

HOLDERS = 6
DEADLINE_S = "60"
"""Nobody uses it up: whoever is killed says so as soon as it is back."""

KILLED = {
    "aster-bank": "trains",
    "birch-telecom": "has charged",
    "cedar-power": "has sent",
}
STUCK = {"dahlia-stores": "no room", "elm-credit-union": "read-only"}
RESTARTED = "fern-water"
RESTARTS = 20


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Six data holders online, each of which can be spoiled."""
    made = Live.make(tmp_path_factory.mktemp("some") / "federation", holders=HOLDERS)
    for name in made.names:
        made.plant(name, (PLANTED / "spoiled.py").read_text(encoding="utf-8"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def is_ready(live: Live, name: str) -> bool:
    """Whether the programs that run now are connected and answer."""
    place = live.holder(name) / SERVING
    serving, worker = read_status(place / STATUS, ServeStatus), read_status(place / WORKER, WorkerStatus)
    return worker is not None and worker.ready and serving is not None and serving.state is NodeState.ONLINE


def restart(live: Live, name: str, part: str, number: signal.Signals) -> None:
    """End a part of a data holder's programs by a signal, as soon as it runs, and wait until it is started again."""
    live.until(lambda: live.pid(name, part) is not None, f"{part} runs")
    killed = live.kill(name, part, number)
    live.until(lambda: live.pid(name, part) not in {killed, None}, f"{part} runs again")


def test_a_release_is_charged_once_whenever_its_data_holder_is_killed(some: Live, seen: Settle) -> None:
    for name, how in (KILLED | STUCK).items():
        some.switch(name, how)
    some.plan(minimum=HOLDERS - len(STUCK))
    done = some.command("run", "--deadline", DEADLINE_S)
    refused = some.status()
    assert done.returncode == 3, done.stderr
    assert refused["state"] == "refused"
    message, run = refused["last"]["message"], refused["last"]["run"]
    first = f"{run}/1"
    before = {name: some.charges(name, run) for name in some.names}
    assert {name for name in some.names if before[name].keys() == {first}} == {*some.names} - {"aster-bank", *STUCK}
    assert all(before[name] == {} for name in ("aster-bank", *STUCK))
    for name, how in KILLED.items():
        assert (f"{name}: {SILENT.reason}" in message) is (how != "has sent")

    some.until(lambda: all(is_ready(some, name) for name in KILLED), "the killed are ready again")
    done = some.command("resume", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    some.require_lawful(run)
    record, status = some.record(run), some.status()["last"]["holders"]
    for release in record["releases"]:
        assert release["left_out"] == dict.fromkeys(STUCK, RefusalCode.INTERNAL.value)
        assert sorted(release["updates"]) == sorted({*some.names} - STUCK.keys())
    assert all(some.charges(name, run) == {} for name in STUCK)
    assert all(some.charges(name, run).items() >= before[name].items() for name in some.names)
    restarts = {name: some.holder_status(name)["programs"][ANSWERS]["restarts"] for name in some.names}
    assert restarts == dict.fromkeys(some.names, 0) | dict.fromkeys(KILLED, 1)
    for name, how in KILLED.items():
        event = f"data holder killed {'while it' if how == 'trains' else 'after it'} {how}"
        if how == "has sent":
            ends = "a model with what it sent"
        else:
            ends = "refused, for too few are left; with the model of `resume`, it in it again"
        if how == "has charged":
            event += " and before it sends"
            ends += ", and no second charge"
        assert status[name] == "joined"
        seen(event, ends, "joined" if how == "has sent" else f"{SILENT.reason}; joined after `resume`")
    for name, event in zip(STUCK, ("disk full", "read-only directory"), strict=True):
        assert status[name].startswith("left out of release 1: internal")
        seen(f"{event} at a data holder", "a model from the others; nothing charged", "left out of release 1: internal")


def test_a_data_holder_whose_programs_are_killed_20_times_works_on(some: Live, seen: Settle) -> None:
    for name in STUCK:
        some.switch(name, None)
    kills = [
        (ANSWERS, signal.SIGKILL),
        (SUPERNODE, signal.SIGTERM),
        (ANSWERS, signal.SIGKILL),
        (SUPERNODE, signal.SIGKILL),
    ]
    entries = some.holder_status(RESTARTED)["ledger"]["entries"]
    for part, number in (RESTARTS // len(kills)) * kills:
        restart(some, RESTARTED, part, number)
    some.until(lambda: is_ready(some, RESTARTED), "online and ready again")
    status = some.holder_status(RESTARTED)
    assert status["ledger"]["entries"] == entries
    assert sum(program["restarts"] for program in status["programs"].values()) >= RESTARTS
    assert status["do"] == []

    some.plan()
    done = some.command("run", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    told = some.status()
    some.require_lawful(told["last"]["run"])
    assert told["last"]["holders"] == dict.fromkeys(some.names, "joined")
    assert told["state"] == "finished"
    seen("20 restarts of a data holder's programs in a row", "the next run is whole, with it in it", "finished, joined")
