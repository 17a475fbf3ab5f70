"""The coordinator's run: begin, ask each round's sum, take the next step, measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np

from federated.channel import Channel
from federated.messages import Instruction, Letter, Measurement, Opening, digest_of
from federated.metrics import ScoreHistogram
from federated.model import Model
from federated.plan import SignedPlan, TrainingPlan, run_id
from federated.recipes.base import Recipe
from federated.releases import BASE_RATE_SCALE, measurement_edges
from privacy.noise import NoiseSource
from server.answers import Answers
from server.calibration import BaseRate
from server.cohort import Beginning, Cohort
from server.memory import BegunRun, LedgerMarks
from server.stage import Stage
from server.sums import Release, Summed, Sums

Progress = Callable[[str, int, int], None]  # what, done, of how many


class Observer(Protocol):
    """Watches a run, step by step. What it raises ends the run, which can be gone on with."""

    def begins(self, run: str, stages: Sequence[Stage]) -> None:
        """Before anybody is asked to join the run."""
        ...

    def opened(self, cohort: Cohort) -> None:
        """It is settled who takes part."""
        ...

    def asks(self, stage: Stage, instruction: bytes) -> None:
        """Before anybody is asked for a release. `instruction` is the digest of what everybody is asked."""
        ...

    def summed(self, stage: Stage, summed: Summed) -> None:
        """A release is added up and kept."""
        ...


class Unobserved:
    """For a run that nobody watches."""

    def begins(self, run: str, stages: Sequence[Stage]) -> None:
        """Nothing."""

    def opened(self, cohort: Cohort) -> None:
        """Nothing."""

    def asks(self, stage: Stage, instruction: bytes) -> None:
        """Nothing."""

    def summed(self, stage: Stage, summed: Summed) -> None:
        """Nothing."""


UNOBSERVED: Final = Unobserved()


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of the training rounds."""

    model: Model
    releases: tuple[Release, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was released about the held-out people: their scores, weighted by shares, and how many they are.

    `deviation` is the standard deviation of the noise in each count of the histogram.
    """

    histogram: ScoreHistogram
    base_rate: BaseRate
    deviation: float
    release: Release


@dataclass(frozen=True, slots=True)
class Plan:
    """A signed plan with what follows from it: its recipe and its releases."""

    terms: TrainingPlan
    signed: SignedPlan
    recipe: Recipe
    stages: Sequence[Stage]


class Run:
    """One run of a plan over a channel, begun: who takes part is settled, and each stage does without who is away."""

    def __init__(self, plan: Plan, cohort: Cohort, sums: Sums, observer: Observer = UNOBSERVED) -> None:
        self._plan, self._sums, self._observer = plan, sums, observer
        self.cohort = cohort

    @classmethod
    def open(
        cls,
        plan: Plan,
        checkpoints: dict[str, str],
        *,
        channel: Channel | None,
        deadline_s: float,
        begun: Callable[[str], BegunRun],
        marks: LedgerMarks,
        noise: Callable[[int], NoiseSource],
        observer: Observer = UNOBSERVED,
    ) -> "Run":
        """Send the plan and the pinned lane heads to every node; those who check and accept are the cohort.

        Without a channel nobody is asked: then every sum of the run must have been kept by an earlier try.
        RefusalError if fewer join, or deal each other the secrets of their masks, than the plan needs.
        `noise` gives the coordinator's own for a stage; most plans have it add none.
        """
        run = run_id(plan.signed, checkpoints)
        answers = Answers(run, {entry.holder: entry.identity for entry in plan.terms.roster})
        observer.begins(run, plan.stages)
        kept = begun(run)
        beginning = Beginning(plan.terms, len(plan.stages), answers, kept, marks)
        opening = Letter(Opening(plan.signed.payload, plan.signed.signature, checkpoints, marks.of(answers.identities)))
        if channel is None:
            cohort, exchange = beginning.kept()
        else:
            cohort, exchange = beginning.open(opening, channel, deadline_s=deadline_s)
        owner_of = partial(beginning.owner_of, cohort=cohort)

        def look() -> None:
            exchange.look_for_silent(opening, owner_of)
            if cohort.deliveries is not None:
                cohort.deliveries.bring()

        observer.opened(cohort)
        return cls(plan, cohort, Sums(plan.terms, cohort, exchange, answers, kept, marks, noise, look), observer)

    def train(self, progress: Progress) -> Trained:
        """All rounds of the recipe. RefusalError as soon as too few data holders are left in one."""
        recipe = self._plan.recipe
        state, releases = recipe.start(), []
        for stage in self._plan.stages[: recipe.rounds]:
            header = Instruction(self.cohort.run, stage.number, list(self.cohort.members))
            summed = self._summed(stage, Letter(header, recipe.instruction(state)))
            state = recipe.advance(state, summed.total, contributors=summed.contributors)
            releases.append(summed.release)
            progress("training", stage.number, recipe.rounds)
        return Trained(recipe.model(state), tuple(releases))

    def measure(self, scorecard: bytes) -> Measured:
        """The noisy score histogram of the held-out people who agreed to it, summed over the cohort."""
        stage = self._plan.stages[-1]
        header = Measurement(self.cohort.run, list(self.cohort.members), scorecard)
        summed = self._summed(stage, Letter(header))
        counts, (heads, bads) = summed.total[:-2], summed.total[-2:] / BASE_RATE_SCALE
        edges = measurement_edges(self._plan.terms)
        goods_by_band, bads_by_band = np.split(counts, 2)
        return Measured(
            histogram=ScoreHistogram(edges, goods_by_band, bads_by_band),
            base_rate=BaseRate(float(heads), float(bads), summed.deviation / BASE_RATE_SCALE),
            deviation=summed.deviation,
            release=summed.release,
        )

    def _summed(self, stage: Stage, letter: Letter) -> Summed:
        self._observer.asks(stage, digest_of(letter))
        summed = self._sums.of(stage, letter)
        self._observer.summed(stage, summed)
        return summed


def no_progress(what: str, done: int, total: int) -> None:
    """For a run that nobody watches."""
