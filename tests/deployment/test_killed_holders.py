"""Data holders whose programs are killed: what was charged is sent once, and never charged twice."""

import pytest

from clients.holder.serve import ANSWERS
from server.answers import SILENT
from tests.deployment.conftest import Settle
from tests.deployment.in_time import is_ready
from tests.deployment.live import Live

pytestmark = pytest.mark.slow

DEADLINE_S = "60"
"""Nobody uses it up: whoever is killed says so as soon as it is back."""
KILLED = ("trains", "has charged", "has sent")


def test_a_release_is_charged_once_whenever_its_data_holder_is_killed(live: Live, seen: Settle) -> None:
    killed = dict(zip(live.names, KILLED, strict=True))
    restarted = _restarts(live)
    for name, how in killed.items():
        live.switch(name, how)
    live.plan(minimum=len(KILLED))
    done = live.command("run", "--deadline", DEADLINE_S)
    refused = live.status()
    assert done.returncode == 3, done.stderr
    assert refused["state"] == "refused"
    message, run = refused["last"]["message"], refused["last"]["run"]
    before = {name: live.charges(name, run) for name in live.names}
    for name, how in killed.items():
        assert before[name].keys() == (set() if how == "trains" else {f"{run}/1"})
        assert (f"{name}: {SILENT.reason}" in message) is (how != "has sent")

    live.until(lambda: all(is_ready(live, name) for name in live.names), "the killed are ready again")
    done = live.command("resume", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    live.require_lawful(run)
    record, status = live.record(run), live.status()["last"]["holders"]
    for release in record["releases"]:
        assert (sorted(release["updates"]), release["left_out"]) == (sorted(live.names), {})
    assert all(live.charges(name, run).items() >= before[name].items() for name in live.names)
    assert _restarts(live) == {name: before + 1 for name, before in restarted.items()}
    for name, how in killed.items():
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


def _restarts(live: Live) -> dict[str, int]:
    """How often each data holder's worker has been started again."""
    return {name: live.holder_status(name)["programs"][ANSWERS]["restarts"] for name in live.names}
