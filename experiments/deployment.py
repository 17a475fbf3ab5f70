"""A federation's parties as real programs on this machine: enrolled as on several, started, watched, and stopped."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from clients.holder.joining import make_request, take_welcome
from clients.holder.serve import SERVING, Stop
from clients.holder.serve_status import STATUS, WORKER, NodeState, ServeStatus, WorkerStatus, read_status
from experiments.federation import CERTIFICATES, Federation
from experiments.plans import TRAINED_ON, tolerated_dropouts
from federated.app_bundle import digest
from federated.files import write_whole
from federated.flower_home import flower_program
from federated.lock import alone
from federated.programs import Program, Supervisor
from privacy.errors import RefusalCode, RefusalError, UsageError
from server.deploy.enrolment import Welcomes, enrol
from server.deploy.settings import KEY_FILE, SCHEMA_FILE, SETTINGS_FILE, Home
from server.deploy.setup import Start, make_home

HOST: Final = "127.0.0.1"
LOCK, PID, SUPERVISED, LOGS = "up.lock", "up.pid", "up.json", "logs"
STEP_S: Final = 0.2
ONLINE_S: Final = 180.0
"""How long everybody may take to be online: starting a node takes some seconds of one core."""
DOWN_S: Final = 60.0
"""How long everybody together may take to end."""


def deploy(federation: Federation, *, epsilon: float, at: int) -> None:
    """Give the coordinator of `federation` its settings and certificates, and enrol every data holder with it.

    `at` is now (UTC seconds). Each step is the one that operators take by hand, on one machine.
    """
    directory, holders = federation.coordinator_directory, federation.population.holders
    people = len(federation.data.lines)
    fleet, superlink = _free_ports(2)
    start = Start(
        name=federation.coordinator,
        address=f"{HOST}:{fleet}",
        schema=federation.holder_directory(holders[0]) / SCHEMA_FILE,
        registry_url=federation.registry_url,
        registry_key=federation.registry_key.public.hex(),
        registry_ca=federation.holder_directory(holders[0]) / CERTIFICATES,
        superlink_port=superlink,
        epsilon=epsilon,
        people=round(TRAINED_ON * people),
        most_people=people,
        minimum_people=federation.fewest_people,
        minimum_holders=max(2, 3 * tolerated_dropouts(len(holders)) + 1),
        dropouts_tolerated=tolerated_dropouts(len(holders)),
    )
    for name in (KEY_FILE, SCHEMA_FILE):
        (directory / name).unlink()  # written for a run in process; a coordinator's directory is made in one piece
    home = make_home(directory, start, at=at)
    write_whole(directory / KEY_FILE, federation.coordinator_key.seed, secret=True)  # which data holders know already
    for holder in holders:
        request = make_request(federation.holder_directory(holder), another_node_key=False, at=at)
        enrol(home, request.data, ask=partial(_telephone, request.fingerprint), again=False, at=at)
    welcomes = Welcomes.of(home, bundle=digest())
    for holder in holders:
        welcome = welcomes.to(holder, at=at)
        take_welcome(federation.holder_directory(holder), welcome, accept_peers=True, accept_bundle=True, at=at)


def _telephone(fingerprint: str, _holder: str, _expected: str) -> str:
    """What the data holder reads out: here both ends are one machine."""
    return fingerprint


@dataclass(frozen=True)
class Deployment:
    """The programs of the federation in `directory`: its registry, its coordinator's door, and each data holder's.

    `environments` holds more environment variables for a party, by its directory's name. With `sync` every data
    holder has `holder sync --watch` at its side.
    """

    directory: Path
    sync: bool = True
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """UsageError if there is no federation in the directory that could be started."""
        if not (self.coordinator / SETTINGS_FILE).exists() or not self.holders:
            raise UsageError(
                f"{self.directory} holds no federation of programs. `fedcredit up DIR` makes one in a directory that "
                "is not there yet."
            )

    @property
    def coordinator(self) -> Path:
        """The coordinator's directory."""
        return self.directory / "coordinator"

    @property
    def registry(self) -> Path:
        """The consent registry's directory."""
        return self.directory / "registry"

    @property
    def holders(self) -> dict[str, Path]:
        """Every data holder's directory, by its name."""
        return {path.name: path for path in sorted((self.directory / "holders").glob("*")) if path.is_dir()}

    @property
    def home(self) -> Home:
        """The coordinator."""
        return Home.open(self.coordinator)

    def programs(self) -> list[Program]:
        """Everybody's programs. What they start themselves is theirs to supervise."""
        sync = () if self.sync else ("--no-sync",)
        return [
            self._program("registry", "registry", "serve", str(self.registry.absolute())),
            self._program("coordinator", "coordinator", "serve", "--directory", str(self.coordinator.absolute())),
            *(
                self._program(name, "holder", "serve", "--directory", str(path.absolute()), *sync)
                for name, path in self.holders.items()
            ),
        ]

    def run(self, told: Callable[[str], None], stop: Stop, *, online_s: float = ONLINE_S) -> None:
        """Start everything, tell the coordinator's address once all data holders are online, go on until `stop` rings.

        RefusalError if somebody is not online in time, or if the federation runs already; nothing is left running.
        """
        busy = f"The federation in {self.directory} runs already. `fedcredit down {self.directory}` ends it."
        supervisor = Supervisor(self.programs(), pid_file=self.directory / SUPERVISED)
        with ExitStack() as stack:
            stack.enter_context(alone(self.directory / LOCK, busy))
            started = int(time.time())
            write_whole(self.directory / PID, f"{os.getpid()}\n".encode())
            stack.enter_context(supervisor)
            end = time.monotonic() + online_s
            while not stop.rung and (missing := self.missing(since=started)):
                if time.monotonic() > end:
                    raise RefusalError(
                        f"After {online_s:g} s not online: {', '.join(missing)}. Look into {self.directory / LOGS} and "
                        "at `fedcredit holder status`, then start it again.",
                        RefusalCode.INTERNAL,
                    )
                supervisor.tend()
                stop.wait(STEP_S)
            if not stop.rung:
                told(self.home.settings.fleet.address)
            while not stop.wait(STEP_S):
                supervisor.tend()

    def missing(self, *, since: int) -> list[str]:
        """Who is not online and ready yet, by what they have told since that instant (UTC seconds)."""
        return [name for name, path in self.holders.items() if not _is_online(path / SERVING, since)]

    def _program(self, name: str, *arguments: str) -> Program:
        logs = self.directory.absolute() / LOGS
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.environments.get(name, {})}
        return Program(name, (flower_program("fedcredit"), *arguments), environment, logs, logs / f"{name}.log")


def _is_online(place: Path, since: int) -> bool:
    status, worker = read_status(place / STATUS, ServeStatus), read_status(place / WORKER, WorkerStatus)
    return (
        status is not None
        and status.state is NodeState.ONLINE
        and status.started >= since
        and worker is not None
        and worker.ready
    )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server((HOST, 0))).getsockname()[1] for _ in range(count)]
