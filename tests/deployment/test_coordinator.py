"""The coordinator is killed, stopped, started twice, and goes on as if nothing had been."""

import signal

import pytest

from tests.deployment.conftest import Settle
from tests.deployment.in_time import wait_for_round
from tests.deployment.live import COMMAND_S, Live

pytestmark = pytest.mark.slow

STEPS = ("opening", "dealing", "members", "1.updates", "1.total", "2.updates", "2.total")
KILLED_AFTER = """
import os, signal

def kill_after(module):
    write = module.BegunRun._write

    def write_and_die(self, what, kept):
        write(self, what, kept)
        if what == {step!r}:
            os.kill(os.getpid(), signal.SIGKILL)

    module.BegunRun._write = write_and_die

FAULTS = {{"server.memory": kill_after}}
"""

HELD = """
import time
from pathlib import Path

def hold(module):
    asks = module.Watch.asks

    def ask_and_wait(self, stage, instruction):
        asks(self, stage, instruction)
        while Path({path!r}).exists():
            time.sleep(0.05)

    module.Watch.asks = ask_and_wait

FAULTS = {{"server.deploy.watch": hold}}
"""


def test_a_coordinator_killed_after_every_step_ends_with_the_model_of_one_that_was_not(
    live: Live, seen: Settle
) -> None:
    live.plan(masked=True)
    told: list[str] = []
    for step in STEPS:
        done = live.command("resume" if told else "run", fault=KILLED_AFTER.format(step=step))
        assert done.returncode == -signal.SIGKILL, done.stderr
        status = live.status()
        told.append(status["state"])
        run = status["last"]["run"]
        before = {name: live.charges(name, run) for name in live.names}
    assert live.command("resume").returncode == 0
    live.require_lawful(run)
    record = live.record(run)
    assert sorted(record["holders"]) == sorted(live.names)
    assert {name: live.charges(name, run) for name in live.names} == before
    assert set(told) == {"interrupted"}
    seen(
        "coordinator killed (SIGKILL) after each step it keeps, and resumed each time",
        f"a model from {len(record['holders'])} of {len(live.names)} data holders, after {len(STEPS)} kills",
        f"{told[0]} after each kill, {live.status()['state']} at the end",
    )


def test_a_run_is_stopped_in_a_round_and_a_second_one_refused_while_it_goes_on(live: Live, seen: Settle) -> None:
    live.plan()
    first = live.begin("run")
    wait_for_round(live, first)
    assert live.command("stop").returncode == 0
    _, told = first.communicate()
    assert first.returncode == 130, told
    assert "Nothing is lost" in told
    stopped = live.status()
    assert (stopped["run_is_alive"], stopped["log_holds"]) == (False, True)
    assert stopped["unfinished_run"] == stopped["last"]["run"]

    held = live.directory / "held"
    held.touch()
    goes_on = live.begin("resume", fault=HELD.format(path=str(held)))
    wait_for_round(live, goes_on)
    second = live.command("run")
    meanwhile = live.status()
    held.unlink()
    assert second.returncode == 3
    assert "under way already" in second.stderr
    assert meanwhile["run_is_alive"]
    _, told = goes_on.communicate(timeout=COMMAND_S)
    assert goes_on.returncode == 0, told
    run = stopped["unfinished_run"]
    live.require_lawful(run)
    record = live.record(run)
    model = f"a model from {len(record['holders'])} of {len(live.names)} data holders"
    seen(
        "coordinator stopped (`coordinator stop`) in a round, and resumed",
        model,
        f"{stopped['state']}, {live.status()['state']} at the end",
    )
    seen("two runs at once", f"the second is refused; the first: {model}", f"{meanwhile['state']}, of the first")
