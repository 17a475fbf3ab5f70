"""Data holders that try to spoil the model, and what the ways of adding up their updates make of it.

Everybody keeps to the protocol's form: an attacker's words are lawful words. What it sends goes through the project's
own grid, the coordinator's own check of what the plan's people can sum to, and its own aggregation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

import msgspec
import numpy as np

from experiments.benchmarks.bed import Bed, alike, load_bed
from experiments.benchmarks.contenders import DEFAULT, FEDAVG, Contender
from experiments.benchmarks.judge import Judge
from experiments.central import Combine, run_centrally
from experiments.plans import default_plan, tolerated_dropouts
from federated.plan import RosterEntry, TrainingPlan
from federated.recipes.base import Recipe
from federated.rows import EncodedRows
from federated.trust import Aggregation, TrustModel
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Words
from privacy.noise import SeededNoise, Vector
from server.stage import Stage, stages
from server.visible_sums import aggregated

HOLDERS = 10
MALICIOUS = (1, 2)
EPSILON = 1.0
ROOMY: Final = 1_000_000  # people that a plan may have room for, whoever there are
PEOPLE_ALLOWED = 1.25  # the tight plan's bound on people, times those there are
WORDS = 2**64


class Attack(StrEnum):
    """What a malicious data holder does: a closed set."""

    FLIPPED = "flipped labels"
    SCALED = "updates x 10"
    REVERSED = "updates x -100"
    CONSTANT = "constant rows"

    @property
    def factor(self) -> int:
        """What the words of an update are multiplied by, modulo 2^64."""
        match self:
            case Attack.SCALED:
                return 10
            case Attack.REVERSED:
                return -100
            case Attack.FLIPPED | Attack.CONSTANT:
                return 1
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How updates become one. `tight` plans bound the number of people closely, others by a million."""

    title: str
    contender: Contender
    trust: TrustModel
    aggregation: Aggregation
    tight: bool = True

    @property
    def is_sound(self) -> bool:
        """Whether something is meant to hold attackers: bounds on a secure sum, or robust aggregation."""
        return self.aggregation is not Aggregation.SUM or (self.trust.is_masked and self.tight)


SCHEMES: Final = (
    Scheme("secure sum", DEFAULT, TrustModel.SHARED_NOISE, Aggregation.SUM),
    Scheme("secure sum, loose plan", DEFAULT, TrustModel.SHARED_NOISE, Aggregation.SUM, tight=False),
    Scheme("visible updates, sum", DEFAULT, TrustModel.HOLDER_NOISE, Aggregation.SUM),
    Scheme("visible updates, trimmed mean", DEFAULT, TrustModel.HOLDER_NOISE, Aggregation.TRIMMED_MEAN),
    Scheme("visible updates, median", DEFAULT, TrustModel.HOLDER_NOISE, Aggregation.MEDIAN),
    Scheme("FedAvg, mean", FEDAVG, TrustModel.HOLDER_NOISE, Aggregation.SUM),
    Scheme("FedAvg, trimmed mean", FEDAVG, TrustModel.HOLDER_NOISE, Aggregation.TRIMMED_MEAN),
    Scheme("FedAvg, median", FEDAVG, TrustModel.HOLDER_NOISE, Aggregation.MEDIAN),
)


@dataclass(frozen=True, slots=True, order=True)
class Poisoned:
    """One case: `attack` None and 0 malicious data holders is the clean run."""

    scheme: str
    attack: Attack | None
    malicious: int


CLEAN_AND_ATTACKED: Final = ((None, 0), *((attack, count) for attack in Attack for count in MALICIOUS))


@dataclass(frozen=True, slots=True)
class PoisoningJob:
    """One scheme, by its title, on one split: it travels to other processes."""

    scheme: str
    split: int
    people: int | None


def run_job(job: PoisoningJob) -> Mapping[Poisoned, float | None]:
    """AUC of each case of a scheme on one split; None where the run ends without a model."""
    bed = load_bed(job.people)
    (scheme,) = (scheme for scheme in SCHEMES if scheme.title == job.scheme)
    return {
        Poisoned(job.scheme, attack, malicious): poisoned_auc(bed, scheme, attack, malicious, job.split)
        for attack, malicious in CLEAN_AND_ATTACKED
    }


def poisoned_auc(bed: Bed, scheme: Scheme, attack: Attack | None, malicious: int, split: int) -> float | None:
    """AUC on the held-out people when the first `malicious` of the data holders attack; None for a refused run.

    The noise is seeded, the same whatever the attack, so that the attack is all that differs.
    """
    layout = alike(bed.bad, HOLDERS, split)
    recipe = scheme.contender.recipe(bed, EPSILON)
    parts = layout.parts(bed.x, bed.bad)
    people = len(layout.training)
    plan = plan_of(bed, scheme, people)
    if attack is not None:
        parts[:malicious] = [poisoned(part, attack) for part in parts[:malicious]]
    factors = [1 if attack is None else attack.factor] * malicious
    try:
        model = run_centrally(
            recipe, parts, SeededNoise(split, "poisoning"), trust=scheme.trust,
            dropouts=plan.dropouts_tolerated, combine=received(recipe, plan, factors),
        )  # fmt: skip
    except RefusalError as error:
        if error.code is not RefusalCode.INTEGRITY:
            raise
        return None
    return Judge(bed, layout).linear(model)


def poisoned(part: EncodedRows, attack: Attack) -> EncodedRows:
    """The rows that a malicious data holder pretends to have."""
    match attack:
        case Attack.FLIPPED:
            return replace(part, bad=1 - part.bad)
        case Attack.CONSTANT:
            goods = part.x[part.bad == 0]
            ordinary = goods[np.argmin(np.linalg.norm(goods - goods.mean(axis=0), axis=1))]
            return EncodedRows(np.tile(ordinary, (len(part), 1)), np.ones(len(part)), part.share)
        case Attack.SCALED | Attack.REVERSED:
            return part
        case _:
            assert_never(attack)


def plan_of(bed: Bed, scheme: Scheme, people: int) -> TrainingPlan:
    """The project's own plan for the scheme, over data holders that nobody signs for."""
    roster = [RosterEntry(f"holder-{k}", bytes([k]) * 32) for k in range(HOLDERS)]
    plan = default_plan(
        "poisoning", bed.schema, roster, epsilon=EPSILON, at=HOLDERS * 3600, seed=None, people=people,
        recipe=scheme.contender.settings(bed, EPSILON), trust=scheme.trust, aggregation=scheme.aggregation,
        dropouts_tolerated=tolerated_dropouts(HOLDERS),
    )  # fmt: skip
    most = int(PEOPLE_ALLOWED * people) if scheme.tight else ROOMY
    return msgspec.structs.replace(plan, most_people=most)


def received(recipe: Recipe, plan: TrainingPlan, factors: list[int]) -> Combine:
    """What the coordinator makes of updates, of which the first are multiplied by `factors` in whole numbers.

    As `server.sums` does it: a sum that the plan's people and noise cannot reach is refused where updates are masked;
    where they are not, an update that goes too far is left out.
    """
    by_number = {stage.number: stage for stage in stages(recipe, plan)}

    def combine(number: int, updates: list[Vector]) -> tuple[Vector, int]:
        stage = by_number[number]
        words = {f"{place:03d}": stage.shape.grid.encode(update) for place, update in enumerate(updates)}
        for name, factor in zip(words, factors, strict=False):
            words[name] = words[name] * np.uint64(factor % WORDS)
        if plan.trust.is_masked:
            total = aggregated(words, stage.shape.grid, plan.aggregation, trimmed=0)
            if not _can_be(stage, plan, total, holders=len(words)):
                raise RefusalError("The sum is out of bounds.", RefusalCode.INTEGRITY)
            return total, len(words)
        lawful = {name: each for name, each in words.items() if _is_lawful(stage, plan, each)}
        total = aggregated(lawful, stage.shape.grid, plan.aggregation, trimmed=plan.dropouts_tolerated)
        return total, len(lawful)

    return combine


def _is_lawful(stage: Stage, plan: TrainingPlan, words: Words) -> bool:
    return _can_be(stage, plan, stage.shape.grid.decode(words), holders=1)


def _can_be(stage: Stage, plan: TrainingPlan, values: Vector, *, holders: int) -> bool:
    each = stage.shape.holder_variance(plan.trust, members=HOLDERS, dropouts_tolerated=plan.dropouts_tolerated)
    return stage.can_be(values, holders=holders, variance=holders * each)
