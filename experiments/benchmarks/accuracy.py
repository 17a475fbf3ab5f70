"""What is measured for the accuracy benchmark: one split at a time, in jobs that worker processes can share out."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import assert_never

import numpy as np

from experiments import baselines
from experiments.benchmarks.bed import Bed, Layout, by_outcome, by_size, everybody_of, load_bed
from experiments.benchmarks.contenders import DEFAULT
from experiments.benchmarks.gaps import COMPARED_AT, gap_to_central
from experiments.benchmarks.jobs import shared_out
from experiments.benchmarks.judge import Judge, auc
from experiments.central import run_centrally
from experiments.plans import DELTA, tolerated_dropouts
from federated.model import LinearModel
from federated.rows import EncodedRows
from privacy.noise import NoiseSource, SecureNoise, Vector
from server.rounds import Progress

EPSILONS = (0.5, 1.0, 3.0)
Figures = Mapping[str, float]


class Job(StrEnum):
    """What a worker does with one split: a closed set, the longest first."""

    USUAL = "usual settings, our encoding"
    USUAL_RAW = "usual settings, raw columns"
    USUAL_SKEWED = "usual settings, label skew"
    RECIPE = "recipe and pooled models"


@dataclass(frozen=True, slots=True)
class AccuracySettings:
    """How much is measured. `people` None is everybody in the data set; `draws` are repeated on the first split."""

    splits: int = 5
    holders: int = 10
    draws: int = 20
    people: int | None = None
    workers: int = 1


def measure(settings: AccuracySettings, progress: Progress) -> list[Figures]:
    """All figures of each split, in order of the splits."""
    found: list[dict[str, float]] = [{} for _ in range(settings.splits)]
    tasks = [(job, split) for job in Job for split in range(settings.splits)]
    progress("accuracy", 0, len(tasks))
    work = shared_out(partial(_run_task, settings), tasks, workers=settings.workers)
    for done, ((_, split), figures) in enumerate(work, start=1):
        found[split].update(figures)
        progress("accuracy", done, len(tasks))
    return list(found)


def _run_task(settings: AccuracySettings, task: tuple[Job, int]) -> Figures:
    return run_job(settings, *task)


def run_job(settings: AccuracySettings, job: Job, split: int) -> Figures:
    """The figures of one job on one split, by name."""
    bed = load_bed(settings.people)
    match job:
        case Job.RECIPE:
            return _recipe(bed, settings, split)
        case Job.USUAL:
            return {"usual": _usual(bed, by_size(bed.bad, settings.holders, split), bed.x)}
        case Job.USUAL_RAW:
            layout = by_size(bed.bad, settings.holders, split)
            known = bed.raw[layout.training]
            standardised = (bed.raw - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-12)
            return {"usual raw": _usual(bed, layout, standardised)}
        case Job.USUAL_SKEWED:
            return {"usual label skew": _usual(bed, by_outcome(bed.bad, settings.holders, split), bed.x)}
        case _:
            assert_never(job)


def train(bed: Bed, parts: list[EncodedRows], epsilon: float, chance: NoiseSource) -> LinearModel:
    """The default recipe over these data holders' rows; one shared noise, enough though some of them may leave."""
    dropouts = tolerated_dropouts(len(parts))
    model = run_centrally(DEFAULT.recipe(bed, epsilon), parts, chance, dropouts=dropouts)
    if not isinstance(model, LinearModel):
        raise TypeError("the fixed Hessian makes linear models")
    return model


def _recipe(bed: Bed, settings: AccuracySettings, split: int) -> Figures:
    layout, skewed = by_size(bed.bad, settings.holders, split), by_outcome(bed.bad, settings.holders, split)
    judge = Judge(bed, layout)
    parts = layout.parts(bed.x, bed.bad)
    figures: dict[str, float] = {}
    for epsilon in EPSILONS:
        model = train(bed, parts, epsilon, SecureNoise())
        figures[f"linear {epsilon:g}"] = judge.linear(model)
        figures[f"additive {epsilon:g}"] = judge.additive(model)
    noiseless = baselines.without_noise(parts, bed.schema, delta=DELTA)
    figures["linear without noise"] = judge.linear(noiseless)
    figures["additive without noise"] = judge.additive(noiseless)

    known, bad = layout.training, bed.bad[layout.training]
    figures["pooled"] = judge.linear(baselines.pooled(bed.x[known], bad, bed.schema.digest))
    figures["boosted"] = judge.of(baselines.boosted(bed.raw[known], bad)(bed.raw[layout.held_out]))
    alone = [(len(part), baselines.alone(part, bed.schema.digest)) for part in parts]
    theirs = [(people, judge.linear(model)) for people, model in alone if model is not None]
    figures["alone"] = sum(people * value for people, value in theirs) / sum(people for people, _ in theirs)

    figures["central"] = judge.linear(train(bed, [everybody_of(bed, layout)], COMPARED_AT, SecureNoise()))
    model = train(bed, skewed.parts(bed.x, bed.bad), COMPARED_AT, SecureNoise())
    figures["linear label skew"], figures["additive label skew"] = judge.linear(model), judge.additive(model)
    figures["gap size skew"] = gap_to_central(bed, DEFAULT, layout, split)
    figures["gap label skew"] = gap_to_central(bed, DEFAULT, skewed, split)
    if split == 0:
        for draw in range(settings.draws):
            figures[f"draw {draw}"] = judge.linear(train(bed, parts, COMPARED_AT, SecureNoise()))
    return figures


def _usual(bed: Bed, layout: Layout, rows: Vector) -> float:
    model = baselines.usual_opacus(
        layout.parts(rows, bed.bad), bed.schema, epsilon=COMPARED_AT, delta=DELTA, chance=SecureNoise()
    )
    return auc(model.log_odds(rows[layout.held_out]), bed.bad[layout.held_out])
