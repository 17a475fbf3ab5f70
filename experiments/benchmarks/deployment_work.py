"""What is measured while a federation's programs run: runs, watched and killed, the door, and memory."""

import multiprocessing
import os
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from clients.holder.fleet import NODE_KEY, load_node_key
from clients.holder.serve import SERVING
from clients.holder.serve_status import WORKER, WorkerStatus, read_status
from experiments.benchmarks.deployment_bed import Bed
from experiments.benchmarks.deployment_run import run_over_flower
from experiments.benchmarks.deployment_times import Diary, RunTimes, requests_in, slowest_s
from experiments.deployment import HOST
from privacy.errors import RefusalCode, RefusalError
from server.deploy.run_status import State
from server.deploy.run_status import read_status as read_run
from server.deploy.settings import Home

LOOK_S: Final = 0.05
LONGEST_RUN_S: Final = 600.0
DOOR_REQUESTS: Final = 200
_PULL: Final = "/v1/fleet/pull-messages"
_TIMES: Final = "times.json"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run. `process_s` is the whole life of the program; `holders_s` the slowest data holders', if known.

    `requests` is how many requests of SuperNodes went through the door meanwhile, `load` how many processes wanted a
    core at the end, on average over a minute.
    """

    process_s: float
    times: RunTimes
    holders_s: float | None
    requests: int
    load: float


def run(bed: Bed, *, resume: bool = False) -> Ran:
    """Run the current plan, or go on with one, in a process of its own, and watch every data holder's worker."""
    out, diary = bed.directory / _TIMES, Diary()
    before = _requests(bed)
    process_s = _life(bed.home, out, resume=resume, look=lambda: _look(bed, diary))
    times = msgspec.json.decode(out.read_bytes(), type=RunTimes)
    slowest = slowest_s(diary.took, exchanges=len(times.asked), missed=diary.missed)
    return Ran(process_s, times, slowest, _requests(bed) - before, os.getloadavg()[0])


@dataclass(frozen=True, slots=True)
class Killed:
    """A run that was killed so many seconds after its program was started, with so many releases summed."""

    process_s: float
    summed: int


def run_killed(bed: Bed) -> Killed:
    """Run the current plan and kill its program once half of its releases are summed and another is asked for."""
    took = _life(bed.home, bed.directory / _TIMES, resume=False, killed=lambda: _is_half_done(bed.home))
    told = read_run(bed.home.status)
    if told is None or told.state is not State.RUNNING:
        raise AssertionError("a run that was over before it was killed measures nothing")
    return Killed(took, told.stage - 1)


@dataclass(frozen=True, slots=True)
class Door:
    """Median seconds of one request to SuperLink, asked itself and through our door."""

    direct_s: float
    through_s: float

    @property
    def added_s(self) -> float:
        """What the door adds to one request; a clock's jitter is no gain."""
        return max(0.0, self.through_s - self.direct_s)


def door_times(bed: Bed, *, requests: int = DOOR_REQUESTS) -> Door:
    """Requests that a data holder has signed and that name no node, in turn: SuperLink looks at each and says no.

    On a connection that is kept, as a SuperNode keeps it.
    """
    home, federation = bed.home, bed.federation
    key = load_node_key(federation.holder_directory(federation.population.holders[0]) / NODE_KEY)
    fleet = home.settings.fleet
    took: dict[int, list[float]] = {fleet.superlink_port: [], fleet.port: []}
    with httpx.Client(verify=_trusted(home), trust_env=False, timeout=30) as http:
        for turn in range(requests + 1):
            for port, seconds in took.items():
                headers = _signed(key)
                begun = time.perf_counter()
                answer = http.post(f"https://{HOST}:{port}{_PULL}", headers=headers, content=b"")
                if turn:  # the first one opens the connection
                    seconds.append(time.perf_counter() - begun)
                if not answer.content:  # the door's own refusals are empty
                    raise AssertionError("a request that does not reach SuperLink measures nothing")
    return Door(median(took[fleet.superlink_port]), median(took[fleet.port]))


def _signed(key: EllipticCurvePrivateKey) -> dict[str, str]:
    """The headers by which a SuperNode with this key shows that it asks now."""
    at = datetime.now(UTC).isoformat()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(at.encode(), ECDSA(SHA256()))
    return {
        "flwr-public-key": b64encode(pem).decode(), "flwr-timestamp": at,
        "flwr-signature": b64encode(signature).decode(), "content-type": "application/protobuf",
    }  # fmt: skip


def _life(
    home: Home,
    out: Path,
    *,
    resume: bool,
    look: Callable[[], object] = lambda: None,
    killed: Callable[[], bool] = lambda: False,
) -> float:
    """The seconds of a coordinator's program from its start to its end, or until it was `killed`."""
    out.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_over_flower, args=(home.directory, out), kwargs={"resume": resume})
    begun = time.monotonic()
    process.start()
    try:
        while process.is_alive():
            look()
            if killed():
                process.kill()
                process.join()
                return time.monotonic() - begun
            if time.monotonic() - begun > LONGEST_RUN_S:
                raise RefusalError(
                    f"A run took longer than {LONGEST_RUN_S:g} s. `fedcredit coordinator status` says how far it came.",
                    RefusalCode.INTERNAL,
                )
            process.join(LOOK_S)
    finally:
        process.kill()
        process.join()
    look()
    if not out.exists():
        raise RefusalError(
            "A run that was measured did not end well; what it said is above. Run the benchmark again.",
            RefusalCode.INTERNAL,
        )
    return time.monotonic() - begun


def _look(bed: Bed, diary: Diary) -> None:
    for name, path in bed.deployment.holders.items():
        diary.look(name, read_status(path / SERVING / WORKER, WorkerStatus))


def _is_half_done(home: Home) -> bool:
    told = read_run(home.status)
    return told is not None and told.state is State.RUNNING and told.stages > 0 and 2 * told.stage > told.stages


def _requests(bed: Bed) -> int:
    port = bed.home.settings.fleet.metrics_port
    return requests_in(httpx.get(f"http://{HOST}:{port}/metrics", trust_env=False).text)


def _trusted(home: Home) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=home.tls / "ca.pem")
