"""`fedcredit coordinator serve` in a process of its own, on free ports of this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from server.deploy.settings import Home
from server.deploy.setup import Start, make_home

ROOT = Path(__file__).parents[3]
START_S = 120.0


def make_coordinator(directory: Path) -> Home:
    """A new coordinator's directory, with free ports for the door, SuperLink and the metrics."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        port, superlink_port, metrics_port = (one.getsockname()[1] for one in sockets)
    start = Start(
        name="open-scoring", address=f"127.0.0.1:{port}", host="127.0.0.1", port=port, superlink_port=superlink_port,
        metrics_port=metrics_port, schema=ROOT / "experiments" / "data" / "south_german" / "schema.toml",
        registry_url="http://127.0.0.1:9", registry_key="ab" * 32, registry_ca=None,
    )  # fmt: skip
    return make_home(directory, start, at=int(time.time()))


@dataclass(frozen=True)
class CoordinatorProcess:
    """A running one: its directory, its public address, and what it said on stderr so far."""

    process: subprocess.Popen[str]
    home: Home
    url: str
    said: list[str]
    errors: Thread

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(START_S)
            self.errors.join(START_S)
            return code
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


def run(home: Home) -> subprocess.CompletedProcess[str]:
    """The command, where it is expected to end by itself."""
    return subprocess.run(_command(home), cwd=ROOT, capture_output=True, text=True, check=False, timeout=START_S)


@contextmanager
def serving(home: Home) -> Iterator[CoordinatorProcess]:
    """A coordinator that serves until the end of the block."""
    process = subprocess.Popen(
        _command(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    errors = Thread(target=said.extend, args=(process.stderr,), daemon=True)
    errors.start()
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            process.kill()
            process.wait()
            errors.join(START_S)
            raise RuntimeError(f"the coordinator did not start: {''.join(said)}")
        running = CoordinatorProcess(process, home, line.removeprefix("listening on ").strip(), said, errors)
        yield running
        running.stop()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        errors.join(START_S)
        process.stdout.close()
        process.stderr.close()


def processes_of(home: Home) -> list[int]:
    """Living processes that were started with SuperLink's own home."""
    mark = f"FLWR_HOME={home.superlink.absolute()}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _command(home: Home) -> list[str]:
    return [sys.executable, "-m", "tests.server.deploy.coordinator_process", str(home.directory)]


if __name__ == "__main__":
    from privacy.errors import FedcreditError
    from server.deploy.cli_serve import serve

    try:
        serve(["--directory", sys.argv[1]], standalone_mode=False)
    except FedcreditError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
