"""Over Flower between real programs, and in one process: the same model, scorecard and record, to the bit."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from clients.holder.serve import ANSWERS, SUPERNODE
from experiments.session import Session
from server.rounds import no_progress
from tests.deployment.conftest import Settle
from tests.deployment.in_time import is_ready
from tests.deployment.live import EPSILON, SEED, Live
from tests.small_federation import usual_recipe

pytestmark = pytest.mark.slow

WRITTEN = ("model.json", "scorecard.json", "run.json")
RESTARTS = 20
KILLS = (
    (ANSWERS, signal.SIGKILL),
    (SUPERNODE, signal.SIGTERM),
    (ANSWERS, signal.SIGKILL),
    (SUPERNODE, signal.SIGKILL),
)


def test_real_programs_give_the_model_of_the_run_in_process_and_restarts_do_not_matter(
    live: Live, seen: Settle
) -> None:
    """Three data holders, a secure sum of each of four releases: the set-up takes three exchanges, each release two."""
    restarted = live.names[-1]
    before = live.holder_status(restarted)
    live.switch(restarted, "impatient")
    for part, number in (RESTARTS // len(KILLS)) * KILLS:
        _restart(live, restarted, part, number)
    restarts = _restarts(before) + RESTARTS
    live.until(lambda: _restarts(live.holder_status(restarted)) >= restarts, "all restarts are told")
    live.until(lambda: is_ready(live, restarted), "online and ready again")
    live.switch(restarted, None)
    after = live.holder_status(restarted)
    assert after["ledger"]["entries"] == before["ledger"]["entries"]
    assert after["do"] == []

    live.plan(masked=True, recipe=usual_recipe(live.federation.data.schema, epsilon=EPSILON, steps=1), seed=SEED)
    done = live.command("run")
    assert done.returncode == 0, done.stderr + live.logs()
    told = live.status()
    run = told["last"]["run"]
    live.require_lawful(run)
    assert told["last"]["holders"] == dict.fromkeys(live.names, "joined")
    shutil.copy(live.coordinator / "plan.json", live.in_process / "coordinator" / "plan.json")
    at = int(time.time())
    with Session(live.in_process, lambda: at) as session:  # the registry is that of the programs
        outcome = session.run(no_progress)
    assert outcome.holders == live.federation.population.holders
    expected = _written(live.in_process / "coordinator", run)
    assert len(expected["model.json"]) > 100
    assert _written(live.coordinator, run) == expected
    seen(
        "20 restarts of a data holder's programs in a row",
        "the next run is whole, with it in it",
        f"{told['state']}, {told['last']['holders'][restarted]}",
    )


def _restart(live: Live, name: str, part: str, number: signal.Signals) -> None:
    """End a part of a data holder's programs by a signal, as soon as it runs, and wait until it is started again."""
    live.until(lambda: live.pid(name, part) is not None, f"{part} runs")
    killed = live.kill(name, part, number)
    live.until(lambda: live.pid(name, part) not in {killed, None}, f"{part} runs again")


def _restarts(status: dict[str, Any]) -> int:
    return sum(program["restarts"] for program in status["programs"].values())


def _written(coordinator: Path, run: str) -> dict[str, bytes]:
    """What a run leaves, less what the salts and earlier entries of the ledgers change: their marks and sizes.

    Signatures over them are left out too; of a size there is left by how much it has grown.
    """
    files = {name: (coordinator / "runs" / run / name).read_bytes() for name in WRITTEN}
    record = json.loads(files["run.json"])
    first = {name: update["ledger_size"] for name, update in record["releases"][0]["updates"].items()}
    for release in record["releases"]:
        for name, update in release["updates"].items():
            update["ledger_size"] -= first[name]
            del update["ledger"], update["signature"]
    return {**files, "run.json": json.dumps(record).encode()}
