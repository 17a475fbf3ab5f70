"""A coordinator and fake data holders at one table, with a channel between them on which anything can go wrong."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from federated.channel import Act
from federated.messages import (
    Delivery,
    Header,
    Instruction,
    Introduction,
    Letter,
    Measurement,
    Opening,
    ScoreRequests,
    Unmasking,
)
from federated.plan import SignedPlan, TrainingPlan
from federated.releases import (
    BASE_RATE_SCALE,
)
from federated.trust import TrustModel
from privacy.grid import add_words
from privacy.noise import NoiseSource, SeededNoise, Vector
from server.memory import BegunRun, LedgerMarks
from server.plan_checks import checked_stages
from server.rounds import Measured, Plan, Run, no_progress
from server.sums import Release
from tests.server.fakes import LAST, AddingRecipe, FakeHolder, names, plan_of

Change = Callable[[FakeHolder, Letter], Letter | None]


class Once:
    """What becomes of the first answer in a step; what is asked again is answered well."""

    def __init__(self, change: Change) -> None:
        self.change = change


def step_of(header: Header, *, last: int = LAST) -> str:
    match header:
        case Opening():
            return "opening"
        case Introduction():
            return "dealing"
        case Delivery():
            return "delivery"
        case Instruction(round_number=number):
            return f"update {number}"
        case Measurement():
            return f"update {last}"
        case Unmasking(stage=stage):
            return f"unmasking {stage}"
        case ScoreRequests():
            return "scores"
        case _:
            raise AssertionError(header)


class FakeChannel:
    """A channel over fake data holders. `changes` maps (step, holder) to what becomes of its answer on the way."""

    def __init__(self, holders: Mapping[int, FakeHolder], changes: Mapping[tuple[str, str], Change | Once]) -> None:
        self.holders, self.changes = holders, dict(changes)
        self.deadlines: list[float] = []
        self.acts: list[tuple[str, Act]] = []
        self.late: dict[int, Letter] = {}

    def nodes(self) -> list[int]:
        return sorted(self.holders)

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        self.deadlines.append(deadline_s)
        answers, self.late = self.late, {}
        for node, letter in letters.items():
            holder, step = self.holders[node], step_of(letter.header)
            if (step, act) not in self.acts:
                self.acts.append((step, act))
            change = self.changes.get((step, holder.name))
            if isinstance(change, Once):
                del self.changes[step, holder.name]
                change = change.change
            if change is unreachable:
                continue
            answer: Letter | None = holder.answer(letter)
            if change is late and answer is not None:
                self.late[node] = answer
                continue
            if change is not None and answer is not None:
                answer = change(holder, answer)
            if answer is not None:
                answers.setdefault(node, answer)  # what came late stands before it
        return answers


def silent(holder: FakeHolder, letter: Letter) -> None:
    """It did what it was asked, and its answer was lost."""


def unreachable(holder: FakeHolder, letter: Letter) -> None:
    """The question was lost."""


def late(holder: FakeHolder, letter: Letter) -> None:
    """The answer comes with those to the next question."""


@dataclass
class Table:
    """A coordinator and fake data holders; every `run` is a new try over what both have kept."""

    plan: TrainingPlan
    directory: Path
    noise: Callable[[int], NoiseSource] = lambda stage: SeededNoise(5, f"coordinator/{stage}")
    ends: int = 0  # tells plans apart that are the same otherwise

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.recipe = AddingRecipe()
        self.stages = checked_stages(self.recipe, self.plan)
        self.signed = SignedPlan(f"plan {self.ends}".encode(), b"")
        self.holders = {
            entry.holder: FakeHolder(entry.holder, self.plan, self.stages, signed=self.signed)
            for entry in self.plan.roster
        }
        self.channel = FakeChannel({}, {})

    @property
    def node_of(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.holders, start=10)}

    @property
    def marks(self) -> LedgerMarks:
        """As they are on the disk."""
        return LedgerMarks(self.directory)

    def open(
        self, changes: Mapping[tuple[str, str], Change | Once] | None = None, *, extra: Sequence[FakeHolder] = ()
    ) -> Run:
        """Begin a run; `extra` are more nodes on the channel than the plan's."""
        nodes = {self.node_of[name]: holder for name, holder in self.holders.items()}
        nodes |= dict(enumerate(extra, start=100))
        self.recipe.seen.clear()
        self.channel = FakeChannel(nodes, changes or {})
        return Run.open(
            Plan(self.plan, self.signed, self.recipe, self.stages),
            {},
            channel=self.channel,
            deadline_s=7.5,
            begun=partial(BegunRun, self.directory),
            marks=self.marks,
            noise=self.noise,
        )

    def run(self, changes: Mapping[tuple[str, str], Change | Once] | None = None) -> tuple[Run, list[Release]]:
        """A run from its opening to the measurement: every release that was made."""
        run = self.open(changes)
        trained = run.train(no_progress)
        measured = run.measure(b"a scorecard")
        self.recipe.seen.append((self.vector_of(measured), len(measured.release.updates)))
        return run, [*trained.releases, measured.release]

    @staticmethod
    def noise_of(number: int, stage: int) -> NoiseSource:
        """The coordinator's noise in one of many repetitions."""
        return SeededNoise(number, f"coordinator/{stage}")

    @staticmethod
    def vector_of(measured: Measured) -> Vector:
        """The measured sum as it was released."""
        histogram, base_rate = measured.histogram, measured.base_rate
        counted = np.array([base_rate.heads, base_rate.bads]) * BASE_RATE_SCALE
        return np.concatenate([histogram.goods, histogram.bads, counted])

    def plain_sum(self, stage: int, holders: Iterable[str]) -> Vector:
        """What those data holders released in that stage, added up without any mask."""
        words = [self.holders[name].words[stage] for name in holders]
        return self.stages[stage - 1].shape.grid.decode(add_words(words))


EVERYBODY = names(5)


def five(directory: Path, trust: TrustModel = TrustModel.SHARED_NOISE) -> Table:
    """Five data holders, of whom one may drop out of each step."""
    return Table(plan_of(5, trust=trust), directory)


def without(*left: str) -> tuple[str, ...]:
    return tuple(name for name in EVERYBODY if name not in left)


def check_sums(made: Table, releases: list[Release], missing: Mapping[int, tuple[str, ...]]) -> None:
    """Every release is the sum of what its contributors released, and lacks only those who are `missing` in it."""
    assert len(releases) == LAST
    for stage, release in enumerate(releases, start=1):
        there = without(*missing.get(stage, ()))
        assert tuple(release.updates) == there, stage
        total, contributors = made.recipe.seen[stage - 1]
        assert contributors == len(there)
        plain = made.plain_sum(stage, there)
        if stage < LAST:
            assert total.tolist() == plain.tolist(), stage
        else:  # its last two numbers were scaled there and back
            assert total == pytest.approx(plain, rel=1e-15, abs=0)
