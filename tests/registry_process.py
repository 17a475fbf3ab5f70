"""A registry in a process of its own, over TLS on a free port of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from clients.registry_client import RegistryClient
from server.registry.settings import Home, LimitSettings
from server.registry.setup import make_home

WIDE_LIMITS = LimitSettings(records_per_minute=10_000_000, burst=10_000_000)
START_S = 60.0


@dataclass(frozen=True)
class RegistryProcess:
    """One running registry: where it is, what verifies it, and what it said on stderr so far."""

    process: subprocess.Popen[str]
    home: Home
    url: str
    said: list[str]
    errors: Thread

    @property
    def public_key(self) -> bytes:
        return self.home.key().public

    @property
    def ca(self) -> str | None:
        return self.home.certificate.read_text() if self.home.settings.encrypted else None

    def client(self, *, timeout_s: float = 10.0) -> RegistryClient:
        return RegistryClient(self.url, ca=self.ca, timeout_s=timeout_s)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(START_S)
            self.errors.join()
            return code
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()


def make_registry(
    directory: Path,
    lanes: Mapping[str, bytes],
    *,
    database: str = "sqlite:///registry.db",
    limits: LimitSettings = WIDE_LIMITS,
    tls: bool = True,
    port: int = 0,
) -> Home:
    """A registry's directory; `lanes` gives each data holder's public identity key."""
    return make_home(
        directory, host="127.0.0.1", port=port, database=database, at=int(time.time()), limits=limits,
        lanes=[f"{name}={key.hex()}" for name, key in lanes.items()], certified_name="127.0.0.1" if tls else None,
    )  # fmt: skip


def start(home: Home) -> RegistryProcess:
    """Serve a directory. Whoever calls must `stop` it in a finally."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.registry_process", str(home.directory)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    said: list[str] = []
    assert process.stderr is not None
    assert process.stdout is not None
    errors = Thread(target=said.extend, args=(process.stderr,), daemon=True)
    errors.start()
    line = process.stdout.readline()
    if not line.startswith("listening on "):
        process.kill()
        process.wait()
        errors.join()
        process.stdout.close()
        process.stderr.close()
        raise RuntimeError(f"the registry did not start: {''.join(said)}")
    return RegistryProcess(process, home, line.removeprefix("listening on ").strip(), said, errors)


@contextmanager
def serving(home: Home) -> Iterator[RegistryProcess]:
    """A registry that serves a directory until the end of the block."""
    running = start(home)
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL if sys.exc_info()[0] else signal.SIGTERM)
        for stream in (running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()


if __name__ == "__main__":
    sys.argv = ["fedcredit", "registry", "serve", *sys.argv[1:]]
    from federated.cli import main

    main()
