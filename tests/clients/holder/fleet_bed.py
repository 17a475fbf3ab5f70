"""A real SuperLink on loopback with TLS and node keys, and a coordinator's side that sends letters over it by hand."""

import contextlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Message

from clients.holder.fleet import CA_FILE, NODE_KEY, FleetSettings, new_node_key, save_fleet
from experiments.registry_place import RegistryPlace
from federated.flower import read_letter, write_letter
from federated.flower_home import flower_environment, flower_program
from federated.flower_tasks import RunTask, TaskDesk, secret_in
from federated.messages import Letter

LONG_S = 90.0


def until(holds: Callable[[], bool], *, told: Callable[[], str] = lambda: "") -> None:
    """Wait for something that happens on its own, as long as a busy machine may need."""
    end = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < end, told()
        time.sleep(0.1)


class FleetBed:
    """One SuperLink. `join` enrols a data holder's directory by hand; `run` submits an app and takes its run."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        place = RegistryPlace.on_this_machine(at=int(time.time()))  # a free port and a certificate for it
        self.address = f"127.0.0.1:{place.port}"
        (directory / "ca.pem").write_bytes(place.certificate)
        (directory / "tls.key").write_bytes(place.private_key)
        (directory / "secret").write_text(secrets.token_hex(32))
        (directory / "config.toml").write_text(
            f'[superlink]\ndefault = "bed"\n\n[superlink.bed]\naddress = "{self.address}"\n'
            f'root-certificates = "{directory / "ca.pem"}"\n'
        )
        with (directory / "superlink.log").open("wb") as log:
            self._superlink = subprocess.Popen(
                [
                    flower_program("flower-superlink"), "--host", "127.0.0.1", "--port", str(place.port),
                    "--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "ca.pem", "--ssl-keyfile", "tls.key",
                    "--enable-supernode-auth", "--database", "state.db", "--isolation", "process",
                    "--superexec-auth-secret-file", "secret", "--disable-runtime-dependency-installation",
                ],
                cwd=directory, env=flower_environment(directory), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._desk = TaskDesk(
            self.address, secret_in(directory / "secret"), ca=(directory / "ca.pem").read_bytes(), patience_s=LONG_S
        )

    def flwr(self, *arguments: str) -> dict[str, object]:
        done = subprocess.run(
            [flower_program("flwr"), *arguments, "bed", "--format", "json"],
            cwd=self.directory, env=flower_environment(self.directory), capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        assert answer["success"], answer
        return answer

    def join(self, holder: Path, *, enrolled: bool = True) -> None:
        key = new_node_key(holder / NODE_KEY)
        public = holder.parent / "node.pub"
        public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
        settings = FleetSettings(version=1, address=self.address, ca=CA_FILE, coordinator="open-scoring")
        save_fleet(holder, settings, (self.directory / "ca.pem").read_text())
        if enrolled:
            self.enrol(holder)

    def enrol(self, holder: Path) -> None:
        until(lambda: b"Uvicorn running" in (self.directory / "superlink.log").read_bytes())
        self.flwr("supernode", "register", str(holder.parent / "node.pub"))

    @contextlib.contextmanager
    def run(self, app: Path) -> Iterator["Coordinating"]:
        self.flwr("run", str(app))
        task: RunTask | None = None
        while task is None:
            task = self._desk.run(pushed=lambda: None)
        try:
            yield Coordinating(task)
        finally:
            task.end(completed=True)

    def close(self) -> None:
        self._desk.close()
        self._superlink.terminate()
        try:
            self._superlink.wait(15)
        finally:
            self._superlink.kill()
            self._superlink.wait()


class Coordinating:
    """The coordinator's side of one run."""

    def __init__(self, task: RunTask) -> None:
        self._grid = task.grid

    def ask(self, letter: Letter) -> Message:
        """The one node's answer."""
        until(lambda: len(list(self._grid.get_node_ids())) == 1)
        (node,) = self._grid.get_node_ids()
        (asked,) = self._grid.push_messages([Message(write_letter(letter), node, "query")])
        assert asked is not None
        answers: list[Message] = []

        def answered() -> bool:
            answers.extend(self._grid.pull_messages([asked]))
            return bool(answers)

        until(answered)
        return answers[0]

    def letter(self, letter: Letter) -> Letter:
        """What it answered, which must be a letter."""
        answer = self.ask(letter)
        assert not answer.has_error(), answer.error
        return read_letter(answer.content)
