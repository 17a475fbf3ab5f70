"""A small federation ready to run, copied from one that is made once: each test may break its own."""

import atexit
import copy
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

from clients.holder.node import Holder
from experiments.federation import Federation
from experiments.people import Attitude, Membership
from experiments.plans import DELTA, RELEASES_PER_WINDOW
from experiments.session import Session
from experiments.wishes import JURISDICTION, TERMS, records_of
from federated.messages import (
    Dealt,
    Delivery,
    Instruction,
    Introduction,
    Joined,
    Letter,
    Opening,
    Received,
    Refused,
)
from privacy.accounting import mu_of
from privacy.consent.budget import tier_of
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.consent.view import Entry
from privacy.errors import RefusalCode, RefusalError
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
        return Session(self.directory, lambda: at, self.registry)

    @contextmanager
    def holder(self, name: str = ASTER, source: "Source | None" = None) -> Iterator[Holder]:
        holder = Holder(self.home(name), source or self.registry)
        try:
            yield holder
        finally:
            holder.close()

    def source(self, *, away: bool = False) -> "Source":
        return Source(self.registry, self.federation.registry_key, away=away)

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
        return Opening(coordinator.signed.payload, coordinator.signed.signature, coordinator.checkpoints, {})

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

    def measured(self, holder: str = ASTER) -> list[Membership]:
        """Those who agreed to be measured and allow enough of its mu to be counted in the base rate at all.

        Goods and bads, heads and bads without shares: with a tenth for each of the last two, somebody who allows less
        than sqrt(0.02 / 1.02) of it would have no part left in the histogram.
        """
        population, whole = self.federation.population, mu_of(1.0, DELTA) * sqrt(RELEASES_PER_WINDOW)
        return [
            place
            for place in self.agreeing(holder, held_out=True)
            if place.share_milli / 1000 * min(1.0, mu_of(tier_of(population.caps[place.person]) or 0.0, DELTA) / whole)
            >= sqrt(0.02 / 1.02)
        ]

    def with_attitude(self, attitude: Attitude, holder: str = ASTER, *, held_out: bool = False) -> list[Membership]:
        attitudes = self.federation.population.attitudes
        return [place for place in self.places(holder, held_out=held_out) if attitudes[place.person] is attitude]


@cache
def _template(holders: int) -> tuple[Federation, Path]:
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    federation, registry = small_federation(directory / "federation", people=360, at=AT, holders=holders)
    registry.close()
    return federation, directory / "federation"


def ready_in(directory: Path, *, holders: int = 3) -> Ready:
    """A federation of 360 people in `directory`, lanes synced and plan written; with four a drop-out is tolerated."""
    template, source = _template(holders)
    shutil.copytree(source, directory)
    federation = copy.copy(template)
    federation.directory = directory
    federation._wallets = copy.deepcopy(template._wallets)
    return Ready(federation, federation.open_registry())


class Source:
    """The registry as data holders reach it: it may be away, lie, or hear news just before it answers."""

    def __init__(self, registry: Registry, key: SigningKey, *, away: bool = False) -> None:
        self.registry, self.away, self.asked = registry, away, 0
        self._key = key
        self.before: Callable[[], None] | None = None
        self.lie: Head | None = None  # a head that this registry has signed, and does not serve

    def checkpoint(self, lane: str) -> str:
        self.asked += 1
        if self.away:
            raise RefusalError("The registry cannot be reached.", RefusalCode.LANE)
        if self.before is not None:
            self.before()
        if self.lie is not None:
            return write_checkpoint(self.lie, f"fedcredit/{lane}", self._key)
        return self.registry.checkpoint(lane)

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        return self.registry.entries(lane, start, stop)


def withdrawal(ready: Ready, place: Membership) -> Submission:
    """A person's newest record at a data holder, which grants nothing; nobody has it yet."""
    federation = ready.federation
    record = federation.wallet(place.person).write(
        federation.address(place.holder), handle=federation.handles[place], grants=[], frozen=False, terms=TERMS,
        jurisdiction=JURISDICTION, at=AT,
    )  # fmt: skip
    return Submission(record.stub, record.ciphertext)


def agreement(ready: Ready, place: Membership, *, cap: float = 8.0, share_milli: int | None = None) -> Submission:
    """A person's newest record at a data holder, which grants everything usual; nobody has it yet."""
    federation = ready.federation
    (record,) = records_of(
        Attitude.AGREES, federation.wallet(place.person), federation.address(place.holder),
        handle=federation.handles[place], categories=federation.data.schema.categories,
        share_milli=share_milli or place.share_milli, cap=cap, at=AT,
    )  # fmt: skip
    return Submission(record.stub, record.ciphertext)


def joined_by(holders: Mapping[str, Holder], opening: Opening, *, at: int = AT) -> dict[str, Joined]:
    """What each data holder answers to the opening, none of them refusing; then they deal each other their shares."""
    joined = {name: holder.join(opening, at=at) for name, holder in holders.items()}
    run = next(iter(joined.values())).run
    introduction = Introduction(run, {name: header.keys for name, header in joined.items() if header.keys})
    dealt: dict[str, Dealt] = {}
    for name, holder in holders.items():
        answer = holder.answer(Letter(introduction), at=at).header
        assert isinstance(answer, Dealt), answer
        dealt[name] = answer
    for name, holder in holders.items():
        sealed = {dealer: theirs.sealed[name] for dealer, theirs in dealt.items() if dealer != name}
        received = holder.answer(Letter(Delivery(run, sorted(dealt), sealed)), at=at).header
        assert isinstance(received, Received), received
    return joined


def first_instruction(ready: Ready, joined: Mapping[str, Joined]) -> Letter:
    """The letter that the coordinator sends in round 1."""
    recipe = Coordinator(ready.federation.coordinator_directory).recipe
    run = next(iter(joined.values())).run
    return Letter(Instruction(run, 1, sorted(joined)), recipe.instruction(recipe.start()))


def code_of(letter: Letter) -> str:
    """Why a data holder refused."""
    assert isinstance(letter.header, Refused), letter.header
    return letter.header.code.value


def commitments_of(outcome: Outcome, holder: str) -> dict[str, bytes]:
    """What one data holder committed to in each release of a run."""
    return {
        release.name: release.updates[holder].commitment for release in outcome.releases if holder in release.updates
    }


def state_of(directory: Path) -> dict[str, str]:
    """SHA-256 of every file under a directory but SQLite's own side files, which come and go with each connection."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }
