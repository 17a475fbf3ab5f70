"""A federation of real programs to measure: made small and even, started in steps or at once, and always ended."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from clients.holder.serve import Stop
from experiments.benchmarks.bed import TAIWAN
from experiments.deployment import HOST, Deployment, deploy
from experiments.federation import Federation, PublicData
from experiments.people import HELD_OUT_SHARE, Membership, Population, populate
from experiments.registry_place import RegistryPlace
from experiments.workers import workers
from federated.programs import Program, Supervisor
from federated.recipes.base import RecipeName
from privacy.errors import RefusalCode, RefusalError
from server.deploy.planning import make_plan, sign
from server.deploy.settings import SETTINGS_FILE, Home
from server.rounds import no_progress

EPSILON: Final = 1.0
FEWEST_PEOPLE: Final = 10
"""At one data holder, of permitted people and of those held out: small ones are measured here."""
STEP_S: Final = 0.05
START_S: Final = 120.0
END_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Bed:
    """A federation whose programs can be started: so many data holders, and so many people at each."""

    federation: Federation
    holders: int
    people: int

    @property
    def directory(self) -> Path:
        """Everybody's directories."""
        return self.federation.directory

    @property
    def home(self) -> Home:
        """The coordinator."""
        return Home.open(self.federation.coordinator_directory)

    @property
    def deployment(self) -> Deployment:
        """Its programs."""
        return Deployment(self.directory)

    def plan(self, recipe: RecipeName, name: str) -> None:
        """Sign another plan and make it the current one: the next run is a new one."""
        home, at = self.home, int(time.time())
        terms = msgspec.structs.replace(home.settings.plan, recipe=recipe.value)
        home = replace(home, settings=msgspec.structs.replace(home.settings, plan=terms))
        plan, schema = make_plan(home, name, holders=None, at=at)
        sign(home, plan, schema, at=at)


def make_bed(directory: Path, *, holders: int, people: int) -> Bed:
    """Data holders of one size, everybody agreeing, enrolled with a coordinator that has metrics."""
    at = int(time.time())
    data = PublicData.load(TAIWAN / "schema.toml", TAIWAN / "data.csv.gz")
    data = replace(data, lines=data.lines[: holders * people])
    place = RegistryPlace.on_this_machine(at=at)
    federation = Federation(
        directory, data, evenly(data, holders), seed=None, at=at, fewest_people=FEWEST_PEOPLE, registry=place
    )
    federation.write_parties()
    with federation.start_registry() as registry, workers(len(data.lines)) as pool:
        federation.write_consents(registry, no_progress, pool)
        federation.settle(pool, no_progress)
    deploy(federation, epsilon=EPSILON, at=at)
    settings = federation.coordinator_directory / SETTINGS_FILE
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    settings.write_text(settings.read_text().replace("metrics_port = 0", f"metrics_port = {port}"))
    return Bed(federation, holders, people)


def evenly(data: PublicData, holders: int) -> Population:
    """As many people at each data holder, everybody at one, and as many held out at each."""
    population = populate(data.outcome(), holders, everybody_agrees=True)
    people = np.arange(len(data.lines))
    places = tuple(Membership(person, population.holders[person % holders], 1000) for person in range(len(people)))
    held_out = (people // holders) % round(1 / HELD_OUT_SHARE) == 0
    return replace(population, memberships=places, held_out=held_out)


@dataclass(frozen=True, slots=True)
class Starts:
    """Seconds from the start of one program until it can do its work."""

    coordinator_s: float  # until its door listens
    holder_s: float  # until its node is online and its worker ready


def start_times(bed: Bed) -> Starts:
    """The coordinator's program, and then one data holder's; both are ended again."""
    registry, coordinator, first, *_ = bed.deployment.programs()
    address = bed.home.settings.fleet.host, bed.home.settings.fleet.port
    with _started(bed, registry), _started(bed, coordinator):
        coordinator_s = _until(lambda: _listens(address), coordinator.name)
        since = int(time.time())
        with _started(bed, first):
            holder_s = _until(lambda: first.name not in bed.deployment.missing(since=since), first.name)
    return Starts(coordinator_s, holder_s)


@contextmanager
def at_work(bed: Bed) -> Iterator[float]:
    """Everybody's programs, as `fedcredit up` runs them; gives the seconds until all data holders were online."""
    stop, online = Stop(), threading.Event()
    failed: list[BaseException] = []

    def live() -> None:
        try:
            bed.deployment.run(lambda _: online.set(), stop)
        except BaseException as error:  # whatever it is, it is raised where somebody waits
            failed.append(error)
        finally:
            online.set()

    begun = time.monotonic()
    # The kernel ends the programs with the thread that started them.
    life = threading.Thread(target=live, name="up")
    life.start()
    try:
        online.wait()
        took = time.monotonic() - begun
        if failed:
            raise failed[0]
        yield took
    finally:
        stop.ring()
        life.join(END_S)
    if failed:
        raise failed[0]


@contextmanager
def _started(bed: Bed, program: Program) -> Iterator[None]:
    supervisor = Supervisor([program], pid_file=bed.directory / f"{program.name}.json")
    with supervisor:
        yield


def _until(done: Callable[[], bool], name: str) -> float:
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > START_S:
            raise RefusalError(
                f"{name} did not come up within {START_S:g} s. Its log in the federation's logs/ says why.",
                RefusalCode.INTERNAL,
            )
        time.sleep(STEP_S)
    return time.monotonic() - begun


def _listens(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False
