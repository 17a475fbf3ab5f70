"""SuperLink is killed in a round: a run waits until it is there again, for a minute, and then says what is wrong."""

import json

import pytest

from server.deploy.settings import Home
from tests.deployment.conftest import Settle
from tests.deployment.live import Live

pytestmark = pytest.mark.slow

KILLED_WHEN_ASKED = """
import os, signal

def kill_when_asked(module):
    asks = module.Watch.asks

    def kill_and_ask(self, stage, instruction):
        asks(self, stage, instruction)
        if stage.number == {stage}:
            os.kill({pid}, signal.SIGKILL)

    module.Watch.asks = kill_and_ask

def have_patience(module):
    module.PATIENCE_S = {patience_s}

FAULTS = {{"server.deploy.watch": kill_when_asked, "federated.flower_tasks": have_patience}}
"""
PATIENCE_S, NONE_S = 60.0, 0.0


def test_a_run_outlasts_a_superlink_that_is_back_in_time_and_else_goes_on_with_resume(live: Live, seen: Settle) -> None:
    live.plan()
    first = _pid(live)
    ended = live.command("run", fault=KILLED_WHEN_ASKED.format(stage=1, pid=first, patience_s=NONE_S))
    assert ended.returncode == 3, ended.stderr
    assert "SuperLink does not answer any more" in ended.stderr
    status = live.status()
    run = status["unfinished_run"]
    assert status["run_is_alive"] is False
    assert [live.charges(name, run) for name in live.names] == [{} for _ in live.names]

    live.until(lambda: _pid(live) != first, "SuperLink is started anew")
    goes_on = live.command("resume", fault=KILLED_WHEN_ASKED.format(stage=2, pid=_pid(live), patience_s=PATIENCE_S))
    assert goes_on.returncode == 0, goes_on.stderr
    live.require_lawful(run)
    record = live.record(run)
    assert {live.holder_status(name)["node"] for name in live.names} == {"online"}
    model = f"a model from {len(record['holders'])} of {len(live.names)} data holders"
    seen(
        "SuperLink restarted in a round",
        f"by itself: {model}; refused if it is away for longer than a minute, and resumed: the same",
        f"{status['state']}, then {live.status()['state']}; every node online again",
    )


def _pid(live: Live) -> int:
    """SuperLink's process, which the coordinator's own program supervises."""
    supervised = json.loads((Home.open(live.coordinator).superlink / "supervised.json").read_bytes())
    return int(supervised["SuperLink"][0])
