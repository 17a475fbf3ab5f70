"""A small federation ready to run, copied from one that is made once: each test may break its own."""

import atexit
import copy
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clients.holder.node import Holder
from experiments.federation import Federation
from experiments.people import Attitude, Membership
from experiments.session import Session
from federated.messages import Instruction, Joined, Letter, Opening, Refused
from server.coordinator import Coordinator, Outcome
from server.registry.store import Registry
from server.rounds import no_progress
from tests.small_federation import small_federation

AT = 1_793_491_200
HOLDERS = ("aster-bank", "birch-telecom", "cedar-power")
ASTER, BIRCH, CEDAR = HOLDERS


@dataclass(frozen=True)
class Ready:
    """Everybody's directories, the open registry, and short ways to what tests ask most."""

    federation: Federation
    registry: Registry

    @property
    def directory(self) -> Path:
        return self.federation.directory

    def session(self, at: int = AT) -> Session:
        return Session(self.directory, lambda: at)

    @contextmanager
    def holder(self, name: str = ASTER) -> Iterator[Holder]:
        holder = Holder(self.home(name))
        try:
            yield holder
        finally:
            holder.close()

    def home(self, name: str = ASTER) -> Path:
        return self.federation.holder_directory(name)

    def run(self) -> Outcome:
        with self.session() as session:
            return session.run(no_progress)

    def sync(self) -> None:
        with self.session() as session:
            self.federation.sync(self.registry, session.holders, no_progress)

    def opening(self) -> Opening:
        coordinator = Coordinator(self.federation.coordinator_directory)
        return Opening(coordinator.signed.payload, coordinator.signed.signature, coordinator.checkpoints)

    def places(self, holder: str, *, held_out: bool = False) -> list[Membership]:
        population = self.federation.population
        return [place for place in population.at(holder) if bool(population.held_out[place.person]) is held_out]

    def agreeing(self, holder: str = ASTER, *, held_out: bool = False) -> list[Membership]:
        """Everybody in a sample who said yes, with a cap that is worth something."""
        population = self.federation.population
        return [
            place
            for place in self.places(holder, held_out=held_out)
            if population.attitudes[place.person] is Attitude.AGREES and population.caps[place.person] >= 0.25
        ]

    def with_attitude(self, attitude: Attitude, holder: str = ASTER, *, held_out: bool = False) -> list[Membership]:
        attitudes = self.federation.population.attitudes
        return [place for place in self.places(holder, held_out=held_out) if attitudes[place.person] is attitude]


@cache
def _template() -> tuple[Federation, Path]:
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    federation, registry = small_federation(directory / "federation", at=AT)
    registry.close()
    return federation, directory / "federation"


def ready_in(directory: Path) -> Ready:
    """A federation of 600 people at three data holders in `directory`, lanes synced and plan written."""
    template, source = _template()
    shutil.copytree(source, directory)
    federation = copy.copy(template)
    federation.directory = directory
    federation._wallets = copy.deepcopy(template._wallets)
    return Ready(federation, federation.open_registry())


def joined_by(holders: Mapping[str, Holder], opening: Opening, *, at: int = AT) -> dict[str, Joined]:
    """What each data holder answers to the opening, none of them refusing."""
    return {name: holder.join(opening, at=at) for name, holder in holders.items()}


def first_instruction(ready: Ready, joined: Mapping[str, Joined]) -> Letter:
    """The letter that the coordinator sends in round 1."""
    recipe = Coordinator(ready.federation.coordinator_directory).recipe
    run = next(iter(joined.values())).run
    cohort = {name: header.mask_key for name, header in joined.items()}
    return Letter(Instruction(run, 1, cohort), recipe.instruction(recipe.start()))


def code_of(letter: Letter) -> str:
    """Why a data holder refused."""
    assert isinstance(letter.header, Refused), letter.header
    return letter.header.code.value


def commitments_of(outcome: Outcome, holder: str) -> dict[str, bytes]:
    """What one data holder committed to in each release of a run."""
    return {release.name: release.updates[holder].commitment for release in outcome.releases}


def state_of(directory: Path) -> dict[str, str]:
    """SHA-256 of every file under a directory but SQLite's own side files, which come and go with each connection."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }
