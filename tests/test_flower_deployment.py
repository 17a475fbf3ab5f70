"""The apps under a real SuperLink and three SuperNodes, started as the README says: the same model, to the bit."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.federation import Federation
from experiments.registry_place import RegistryPlace
from experiments.session import Session
from server.rounds import no_progress
from tests.app_copy import BINARIES, copy_app, environment
from tests.small_federation import small_federation

pytestmark = pytest.mark.slow

DEADLINE_S = 240.0
WRITTEN = ("model.json", "scorecard.json", "run.json")


class Deployment:
    """Flower's own programs on loopback, each in an empty directory with a Flower home of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        no_ray = directory / "no-ray" / "ray"
        no_ray.mkdir(parents=True)
        # Stands before an installed Ray, if there is one: whoever asks for it is told that there is none.
        (no_ray / "__init__.py").write_text("raise ImportError('this deployment has no Ray')\n")

    def start(self, name: str, *command: str) -> None:
        """Start one of Flower's programs in a process group of its own; what it prints is kept in a file."""
        home = self._home(name)
        with (self._directory / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [str(BINARIES / command[0]), *command[1:]],
                cwd=home,
                env=self._environment(home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def flwr(self, *arguments: str, address: str, cwd: Path) -> dict[str, object]:
        """What one `flwr` command answers in JSON."""
        home = self._home("operator")
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n\n[superlink.loopback]\naddress = "{address}"\ninsecure = true\n'
        )
        finished = subprocess.run(
            [str(BINARIES / "flwr"), *arguments, "--format", "json"],
            cwd=cwd,
            env=self._environment(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr + self.logs()
        answer = json.loads(finished.stdout)
        assert isinstance(answer, dict)
        return answer

    def ended(self) -> list[str]:
        """Programs that have ended although nobody stopped them."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def logs(self) -> str:
        """The end of what every program printed."""
        paths = sorted(self._directory.glob("*.log"))
        return "".join(f"\n--- {path.stem}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)

    def stop(self) -> None:
        """End all programs and whatever they started, politely and then not."""
        for process in reversed(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for orphan in self.orphans():  # the SuperLink's superexec leads a session of its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)

    def orphans(self) -> list[int]:
        """Living processes that were started with this deployment's environment, where the system can say so."""
        mark = f"FLWR_HOME={self._directory}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def _home(self, name: str) -> Path:
        home = self._directory / name
        home.mkdir(exist_ok=True)
        return home

    def _environment(self, home: Path) -> dict[str, str]:
        return environment(home, PYTHONPATH=str(self._directory / "no-ray"))


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "flower")
    try:
        yield made
    finally:
        made.stop()
        end = time.monotonic() + 10
        while made.orphans() and time.monotonic() < end:
            time.sleep(0.1)
    assert made.orphans() == []


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_it_listens(port: int, deployment: Deployment) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and not deployment.ended():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    pytest.fail("The SuperLink does not listen." + deployment.logs())


def _wait_until_finished(deployment: Deployment, *, address: str, cwd: Path) -> str:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        assert deployment.ended() == [], deployment.logs()
        (run,) = _runs(deployment, address=address, cwd=cwd)
        if run["status"].startswith("finished"):
            return f"{run['status']} {run['status-details']}"
        time.sleep(3)
    pytest.fail("The run did not finish in time." + deployment.logs())


def _runs(deployment: Deployment, *, address: str, cwd: Path) -> list[dict[str, str]]:
    runs = deployment.flwr("ls", address=address, cwd=cwd)["runs"]
    assert isinstance(runs, list)
    return runs


def _written(federation: Path) -> dict[str, bytes]:
    """What a run leaves, less what the secret salts of the ledgers change: their marks, and signatures over them."""
    (run,) = (federation / "coordinator" / "runs").iterdir()
    files = {name: (run / name).read_bytes() for name in WRITTEN}
    record = json.loads(files["run.json"])
    for release in record["releases"]:
        for update in release["updates"].values():
            del update["ledger"], update["signature"]
    return {**files, "run.json": json.dumps(record).encode()}


def test_a_real_deployment_gives_the_model_of_the_run_in_process(tmp_path: Path, deployment: Deployment) -> None:
    """Three data holders, a secure sum of each of four releases: the set-up takes three exchanges, each release two.

    The apps run from the bundle of a copy, far from the working tree.
    The consent registry is a program of its own, which every data holder asks before each release.
    """
    app = copy_app(tmp_path / "app")
    at = int(time.time())
    place = RegistryPlace.on_this_machine(at=at)
    federation, registry = small_federation(tmp_path / "real", at=at, steps=1, place=place)
    registry.close()
    shutil.copytree(federation.directory, tmp_path / "in-process")
    with federation.start_registry():
        _runs_alike(tmp_path, deployment, federation, app, at)


def _runs_alike(tmp_path: Path, deployment: Deployment, federation: Federation, app: Path, at: int) -> None:
    port, *node_ports = _free_ports(1 + len(federation.population.holders))
    address = f"127.0.0.1:{port}"
    deployment.start("superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
    _wait_until_it_listens(port, deployment)
    for holder, node_port in zip(federation.population.holders, node_ports, strict=True):
        directory = federation.holder_directory(holder)
        deployment.start(
            holder,
            "flower-supernode", "--insecure", "--superlink", address, "--port", str(node_port),
            "--node-config", f'holder-directory="{directory}"',
        )  # fmt: skip
    setting = f'coordinator-directory="{federation.coordinator_directory}"'
    assert deployment.flwr("run", ".", "--run-config", setting, address=address, cwd=app)["success"] is True

    with Session(tmp_path / "in-process", lambda: at) as session:
        outcome = session.run(no_progress)
    assert outcome.holders == federation.population.holders
    expected = _written(tmp_path / "in-process")
    assert len(expected["model.json"]) > 100

    status = _wait_until_finished(deployment, address=address, cwd=tmp_path)
    assert status.startswith("finished:completed"), status + deployment.logs()
    assert _written(tmp_path / "real") == expected
