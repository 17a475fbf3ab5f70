"""Over Flower between real programs, and in one process: the same model, scorecard and record, to the bit."""

import json
import shutil
import time
from pathlib import Path

import pytest

from experiments.deployment import deploy
from experiments.registry_place import RegistryPlace
from experiments.session import Session
from server.rounds import no_progress
from tests.deployment.live import EPSILON, Live
from tests.small_federation import small_federation

pytestmark = pytest.mark.slow

WRITTEN = ("model.json", "scorecard.json", "run.json")
# Stands before an installed Ray, if there is one: whoever asks for it is told that there is none.
NO_RAY = "raise ImportError('this deployment has no Ray')\n"


def _written(coordinator: Path) -> dict[str, bytes]:
    """What a run leaves, less what the secret salts of the ledgers change: their marks, and signatures over them."""
    (run,) = (coordinator / "runs").iterdir()
    files = {name: (run / name).read_bytes() for name in WRITTEN}
    record = json.loads(files["run.json"])
    for release in record["releases"]:
        for update in release["updates"].values():
            del update["ledger"], update["signature"]
    return {**files, "run.json": json.dumps(record).encode()}


def test_real_programs_give_the_model_of_the_run_in_process(tmp_path: Path) -> None:
    """Three data holders, a secure sum of each of four releases: the set-up takes three exchanges, each release two."""
    at = int(time.time())
    place = RegistryPlace.on_this_machine(at=at)
    federation, registry = small_federation(tmp_path / "real", at=at, steps=1, place=place)
    registry.close()
    shutil.copytree(federation.directory, tmp_path / "in-process")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text(NO_RAY)
    deploy(federation, epsilon=EPSILON, at=at)
    live = Live(federation, path=(tmp_path,))
    try:
        live.start()
        done = live.command("run")
        assert done.returncode == 0, done.stderr + live.logs()
        with Session(tmp_path / "in-process", lambda: at) as session:  # the registry is that of the programs
            outcome = session.run(no_progress)
    finally:
        live.stop()
    assert outcome.holders == federation.population.holders
    expected = _written(tmp_path / "in-process" / "coordinator")
    assert len(expected["model.json"]) > 100
    assert _written(federation.coordinator_directory) == expected
