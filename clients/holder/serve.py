"""A data holder's programs, run together: Flower's SuperNode, the worker that answers, and the lane's sync.

This supervisor is light: it reads no rows, keys or consents, and imports nothing that does.

SuperNode and worker speak TLS on loopback (`loopback.py`), for whoever else has the port while the SuperNode is down.
Who is called online has been answered lately (`signs.py`); what is lost for good is ended and started again.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from clients.holder.fleet import CA_FILE, FLEET_FILE, NODE_KEY, Fleet
from clients.holder.loopback import CERTIFICATE, KEY, certify_anew
from clients.holder.node_log import NodeWatch
from clients.holder.serve_status import (
    LOCK,
    STATUS,
    WORDS,
    WORKER,
    NodeState,
    ProgramStatus,
    ServeStatus,
    WorkerStatus,
    read_status,
    write_status,
)
from clients.holder.signs import Signs
from federated.files import write_whole
from federated.flower_home import flower_environment, flower_program
from federated.lock import alone
from federated.logs import LogForm
from federated.programs import Program, Supervisor
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, UsageError

SERVING, SECRET = "serving", "superexec.secret"
SUPERNODE, ANSWERS, SYNC = "supernode", "worker", "sync"
SIGN: Final = "supernode.heard"
STEP_S: Final = 0.2
GRACE_S: Final = 8.0
LONGEST_PAUSE_S: Final = 15.0
"""Before the SuperNode is started again: whoever was cut off is let in again within a minute, and should notice."""

_LOG = logging.getLogger(__name__)


class Stop:
    """Whether this process was asked to end. A flag and no more: a signal may come at any moment."""

    rung = False

    def ring(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Ask for an end."""
        self.rung = True

    def wait(self, seconds: float) -> bool:
        """Whether it was asked for, after so many seconds."""
        if not self.rung:
            time.sleep(seconds)
        return self.rung


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """A stop that SIGTERM, SIGINT and a closed terminal ask for, as long as the body runs."""
    stop = Stop()
    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, stop.ring) for number in asked}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and for whom. `told` is given the line for people once the node is connected and ready."""

    directory: Path
    holder: str
    form: LogForm
    sync: bool
    told: Callable[[str], None]
    clock: Callable[[], float] = time.time


def serve(serving: Serving, stop: Stop) -> None:
    """Run all programs until the bell rings. RefusalError if they run already; UsageError before a fleet was joined."""
    place = serving.directory / SERVING
    fleet = Fleet.load(serving.directory, at=int(serving.clock()))
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise RefusalError(
            f"the directory {SERVING} cannot be made ({error.strerror}). Make room or give write permission to this "
            "data holder's directory, then run the command again.",
            RefusalCode.INTERNAL,
        ) from error
    busy = (
        "This data holder is served already: another `fedcredit holder serve` runs in this directory. One node at a "
        "time answers for a data holder; see `fedcredit holder status`, and stop the other one first."
    )
    with alone(place / LOCK, busy):
        before = read_status(place / STATUS, ServeStatus)
        now = int(serving.clock())
        online = before is not None and before.state is NodeState.ONLINE
        broke_off = before.online_at if before is not None and online else None
        once = _Once(serving, stop, started=now, broke_off_at=broke_off)
        while not stop.rung:
            once.run(fleet)
            fleet = _reloaded(serving, fleet)
        once.tell_stopped()


class _Once:
    """One life of the programs after the other; a new life begins when the fleet's settings or the port change."""

    def __init__(self, serving: Serving, stop: Stop, *, started: int, broke_off_at: int | None) -> None:
        self._serving, self._stop, self._started = serving, stop, started
        self._place = serving.directory / SERVING
        self._watch = NodeWatch(self._place / f"{SUPERNODE}.log", broke_off_at=broke_off_at)
        self._signs = Signs(self._place / SIGN, self._place / f"{SUPERNODE}.log")
        self._state, self._since, self._online_at = NodeState.CONNECTING, started, broke_off_at
        self._written = 0.0
        self._announced = False
        self._fleet: Fleet | None = None
        self._earlier: dict[str, int] = {}

    def run(self, fleet: Fleet) -> None:
        """Until the bell rings, the fleet's files change, or the port is taken."""
        serving, self._fleet = self._serving, fleet
        (self._place / WORKER).unlink(missing_ok=True)
        self._watch.begin()
        self._signs.begin()
        write_whole(self._place / SECRET, secrets.token_hex(32).encode(), secret=True)
        certify_anew(self._place, at=self._now())
        stamp = _stamp(serving.directory)
        supervisor = Supervisor(
            programs(serving, fleet, port=_free_port()),
            pid_file=self._place / "pids.json",
            ended=self._hear_end,
        )
        with supervisor:
            try:
                while not self._stop.wait(STEP_S):
                    supervisor.tend()
                    self._look(supervisor)
                    if self._state is NodeState.PORT or _stamp(serving.directory) != stamp:
                        break
            finally:
                self._tell(supervisor)
                for name, fate in supervisor.fates().items():
                    self._earlier[name] = self._earlier.get(name, 0) + fate.restarts + 1
                supervisor.stop(grace_s=GRACE_S)

    def tell_stopped(self) -> None:
        """Write down that nothing runs any more, and that no connection broke off."""
        self._state, self._since, self._online_at = NodeState.CONNECTING, self._now(), None
        self._write({})
        _LOG.info("stopped; nothing of it runs any more")

    def _hear_end(self, name: str, code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        _LOG.warning("%s ended (%s) and is started again; serving/%s.log may say why", name, how, name)
        if name == SUPERNODE:
            self._signs.look()
            self._turn(self._watch.ended(at=self._now()))
            self._signs.begin()
        if name == ANSWERS:
            told = read_status(self._place / WORKER, WorkerStatus)
            if told is not None and not told.ready:
                _LOG.error("nothing is answered: %s", told.reason)
            else:  # it had no time to say that it is not ready any more
                (self._place / WORKER).unlink(missing_ok=True)

    def _look(self, supervisor: Supervisor) -> None:
        self._signs.look()
        state = self._watch.look(at=self._now())
        if self._signs.is_stuck and supervisor.fates()[SUPERNODE].pid is not None:
            self._watch.give_up(at=self._now())
            state = self._watch.state
            self._signs.begin()
        if self._watch.is_stuck(at=self._now()):
            supervisor.renew(SUPERNODE)
        if state is NodeState.ONLINE and self._signs.is_silent:
            state = NodeState.SILENT
        if self._turn(state) or time.monotonic() - self._written > 5:
            self._tell(supervisor)
        if self._state is NodeState.ONLINE and not self._announced:
            worker = read_status(self._place / WORKER, WorkerStatus)
            if worker is not None and worker.ready and self._fleet is not None:
                self._announced = True
                self._serving.told(
                    f"serving as {self._serving.holder} for {self._fleet.coordinator} at {self._fleet.address}"
                )

    def _turn(self, state: NodeState) -> bool:
        if self._signs.heard_at is not None:
            self._online_at = self._signs.heard_at
        elif state is NodeState.ONLINE and self._state is not NodeState.ONLINE:
            self._online_at = self._now()
        if state is self._state:
            return False
        self._state, self._since = state, self._now()
        log = _LOG.info if state in (NodeState.ONLINE, NodeState.CONNECTING) else _LOG.warning
        log("%s: %s", state.value, WORDS[state])
        return True

    def _tell(self, supervisor: Supervisor) -> None:
        self._write(
            {
                name: ProgramStatus(fate.pid, fate.restarts + self._earlier.get(name, 0), fate.last_exit)
                for name, fate in supervisor.fates().items()
            }
        )

    def _write(self, running: dict[str, ProgramStatus]) -> None:
        self._written = time.monotonic()
        fleet = self._fleet
        status = ServeStatus(
            version=1,
            holder=self._serving.holder,
            coordinator=fleet.coordinator if fleet is not None else "",
            address=fleet.address if fleet is not None else "",
            state=self._state,
            since=self._since,
            online_at=self._online_at,
            started=self._started,
            pid=os.getpid(),
            programs=running,
        )
        write_status(self._place / STATUS, status)

    def _now(self) -> int:
        return int(self._serving.clock())


def programs(serving: Serving, fleet: Fleet, *, port: int) -> list[Program]:
    """What runs. Command lines and environments hold paths and addresses only: anybody on the machine may read them."""
    directory = serving.directory.absolute()
    place = directory / SERVING
    home = place / SUPERNODE
    # Small matrices: on a busy machine a second thread waits many times as long as it works.
    ours = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    local = f"127.0.0.1:{port}"
    supernode = (
        sys.executable, "-P", "-m", "clients.holder.supernode", str(place / SIGN), "--superlink", fleet.address,
        "--root-certificates", str(fleet.ca.absolute()), "--auth-supernode-private-key", str(fleet.node_key.absolute()),
        "--isolation", "process", "--superexec-auth-secret-file", str(place / SECRET),
        "--host", "127.0.0.1", "--port", str(port), "--ssl-ca-certfile", str(place / CERTIFICATE),
        "--ssl-certfile", str(place / CERTIFICATE), "--ssl-keyfile", str(place / KEY),
    )  # fmt: skip
    # -P: nothing that lies in the directory they run in is imported.
    worker = (sys.executable, "-P", "-m", "clients.holder.worker", str(directory), local, serving.form.value)
    sync = (flower_program("fedcredit"), "holder", "sync", "--watch", "--directory", str(directory))
    found = [
        Program(
            SUPERNODE,
            supernode,
            flower_environment(home),
            home,
            place / f"{SUPERNODE}.log",
            longest_pause_s=LONGEST_PAUSE_S,
        ),
        Program(ANSWERS, worker, ours, place, place / f"{ANSWERS}.log"),
    ]
    return [*found, Program(SYNC, sync, ours, place, place / f"{SYNC}.log")] if serving.sync else found


def holder_in(directory: Path) -> str:
    """The name in the settings, and no more of them: the worker reads and checks the rest."""
    try:
        name = tomllib.loads((directory / "holder.toml").read_text(encoding="utf-8"))["holder"]
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"there is no holder.toml in {directory.resolve()}, so this is no data holder's directory. Name one with "
            "--directory, or make one with `fedcredit holder init`."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, KeyError):
        raise MalformedError(
            "holder.toml cannot be read, or names no data holder. `fedcredit holder check` says what is wrong in it."
        ) from None
    return str(name)


def _reloaded(serving: Serving, fleet: Fleet) -> Fleet:
    try:
        return Fleet.load(serving.directory, at=int(serving.clock()))
    except FedcreditError as error:
        _LOG.error("the fleet's files have changed and cannot be used, the earlier ones are: %s", error)
        return fleet


def _stamp(directory: Path) -> tuple[tuple[int, int, int], ...]:
    found = []
    for name in (FLEET_FILE, CA_FILE, NODE_KEY):
        try:
            seen = (directory / name).stat()
        except OSError:
            continue
        found.append((seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
