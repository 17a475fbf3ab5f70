"""What is measured for the accuracy benchmark: one split at a time, in jobs that worker processes can share out."""

import math
import multiprocessing
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, assert_never

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

from experiments import baselines
from experiments.benchmarks.bed import Bed, Layout, by_outcome, by_size, load_bed
from experiments.central import run_centrally
from experiments.plans import DELTA, SCALE, STEPS
from federated.model import LinearModel
from federated.recipes.fixed_hessian import FixedHessian
from federated.rows import EncodedRows
from federated.scorecard import scorecard_from
from privacy.noise import NoiseSource, SecureNoise, SeededNoise, Vector
from server.rounds import Progress

EPSILONS = (0.5, 1.0, 3.0)
COMPARED_AT = 1.0  # the epsilon of the comparisons
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


class SummedNoise:
    """The noise that `holders` data holders draw one after another for one sum, drawn in one place and added up.

    With the same seed it is the very noise of the federated sum, so that only where the rows are can differ.
    """

    is_private: ClassVar[bool] = False

    def __init__(self, seeded: SeededNoise, holders: int) -> None:
        self._seeded, self._holders = seeded, holders

    def gaussian(self, n: int, standard_deviation: float) -> Vector:
        """`n` draws of that standard deviation, each the sum of one a data holder."""
        each = standard_deviation * math.sqrt(1 / self._holders)
        total = np.zeros(n)
        for _ in range(self._holders):
            total += self._seeded.gaussian(n, each)
        return total

    def random_bytes(self, n: int) -> bytes:
        """`n` bytes of the same stream."""
        return self._seeded.random_bytes(n)


def measure(settings: AccuracySettings, progress: Progress) -> list[Figures]:
    """All figures of each split, in order of the splits."""
    found: list[dict[str, float]] = [{} for _ in range(settings.splits)]
    tasks = [(job, split) for job in Job for split in range(settings.splits)]
    progress("accuracy", 0, len(tasks))
    for done, (split, figures) in enumerate(_results(settings, tasks), start=1):
        found[split].update(figures)
        progress("accuracy", done, len(tasks))
    return list(found)


def _results(settings: AccuracySettings, tasks: list[tuple[Job, int]]) -> Iterator[tuple[int, Figures]]:
    if settings.workers <= 1:
        yield from ((split, run_job(settings, job, split)) for job, split in tasks)
        return
    # Forked workers would inherit locks of thread pools that do not exist in them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.workers, mp_context=context) as workers:
        running: dict[Future[Figures], int] = {
            workers.submit(run_job, settings, job, split): split for job, split in tasks
        }
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            workers.shutdown(wait=False, cancel_futures=True)


def run_job(settings: AccuracySettings, job: Job, split: int) -> Figures:
    """The figures of one job on one split, by name. Runs on one thread: the workers are what runs side by side."""
    bed = load_bed(settings.people)
    with threadpool_limits(limits=1):
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


def auc(log_odds: Vector, bad: Vector) -> float:
    """Chance that a bad has higher log-odds of bad than a good, ties counted half; scikit-learn is the judge of all."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(bad, log_odds))


def train(bed: Bed, parts: list[EncodedRows], epsilon: float, chance: NoiseSource) -> LinearModel:
    """The default recipe over these data holders' rows, one shared noise."""
    recipe = FixedHessian(
        width=bed.encoder.width, radius=bed.schema.radius, centred_radius=bed.schema.centred_radius, epsilon=epsilon,
        delta=DELTA, steps=STEPS, schema_digest=bed.schema.digest,
    )  # fmt: skip
    model = run_centrally(recipe, parts, chance)
    if not isinstance(model, LinearModel):
        raise TypeError("the fixed Hessian makes linear models")
    return model


def everybody_of(bed: Bed, layout: Layout) -> EncodedRows:
    """Everybody whom the layout trains on in one place, each once and with a whole share."""
    people = layout.training
    return EncodedRows(bed.x[people], bed.bad[people], np.ones(len(people)))


def gap_to_central(bed: Bed, layout: Layout, seed: int) -> float:
    """|AUC over the layout's data holders - AUC with everybody in one place| under the same seeded noise in all."""
    parts, label = layout.parts(bed.x, bed.bad), "accuracy benchmark"
    federated = train(bed, parts, COMPARED_AT, SeededNoise(seed, label))
    central = train(bed, [everybody_of(bed, layout)], COMPARED_AT, SummedNoise(SeededNoise(seed, label), len(parts)))
    held_out = layout.held_out
    return abs(
        auc(federated.log_odds(bed.x[held_out]), bed.bad[held_out])
        - auc(central.log_odds(bed.x[held_out]), bed.bad[held_out])
    )


def _recipe(bed: Bed, settings: AccuracySettings, split: int) -> Figures:
    layout, skewed = by_size(bed.bad, settings.holders, split), by_outcome(bed.bad, settings.holders, split)
    judge = _Judge(bed, layout)
    parts = layout.parts(bed.x, bed.bad)
    figures: dict[str, float] = {}
    for epsilon in EPSILONS:
        model = train(bed, parts, epsilon, SecureNoise())
        figures[f"linear {epsilon:g}"] = judge.linear(model)
        figures[f"additive {epsilon:g}"] = judge.additive(model)
    noiseless = baselines.without_noise(parts, bed.schema, width=bed.encoder.width, delta=DELTA, steps=STEPS)
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
    figures["gap size skew"] = gap_to_central(bed, layout, split)
    figures["gap label skew"] = gap_to_central(bed, skewed, split)
    if split == 0:
        for draw in range(settings.draws):
            figures[f"draw {draw}"] = judge.linear(train(bed, parts, COMPARED_AT, SecureNoise()))
    return figures


def _usual(bed: Bed, layout: Layout, rows: Vector) -> float:
    model = baselines.usual_opacus(
        layout.parts(rows, bed.bad), bed.schema, width=rows.shape[1], epsilon=COMPARED_AT, delta=DELTA,
        chance=SecureNoise(),
    )  # fmt: skip
    return auc(model.log_odds(rows[layout.held_out]), bed.bad[layout.held_out])


class _Judge:
    """AUC on a layout's held-out people, each once."""

    def __init__(self, bed: Bed, layout: Layout) -> None:
        self._encoder, self._bad = bed.encoder, bed.bad[layout.held_out]
        self._x = bed.x[layout.held_out]
        self._table = bed.table.take(np.flatnonzero(layout.held_out))

    def of(self, log_odds: Vector) -> float:
        """Of log-odds of bad (held-out people,)."""
        return auc(log_odds, self._bad)

    def linear(self, model: LinearModel) -> float:
        """Of the model's own log-odds."""
        return self.of(model.log_odds(self._x))

    def additive(self, model: LinearModel) -> float:
        """Of the published scorecard's whole points."""
        return self.of(-scorecard_from(model, self._encoder, SCALE).score(self._table).astype(np.float64))
