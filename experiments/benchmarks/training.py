"""The benchmark of training: accuracy, FATE's split, poisoning, speed and secure sums, each a part of its own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never

from experiments.benchmarks import fate, fate_rows, poisoning, training_accuracy
from experiments.benchmarks.jobs import on_one_thread, shared_out
from experiments.benchmarks.poisoning import SCHEMES, Poisoned, PoisoningJob
from experiments.benchmarks.poisoning_rows import poisoning_rows
from experiments.benchmarks.rows import BenchRow
from experiments.benchmarks.speed_rows import SpeedSettings, round_rows, step_rows, sum_rows
from experiments.benchmarks.training_accuracy_rows import accuracy_rows
from server.rounds import Progress

TITLE: Final = "Training: accuracy (Taiwan credit card default), poisoning, speed, secure sums"


class Part(StrEnum):
    """What can be measured alone. Speed comes first, before workers share the processor."""

    SPEED = "speed"
    SUMS = "sums"
    ACCURACY = "accuracy"
    FATE = "fate"
    POISONING = "poisoning"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How much is measured. `people` None is everybody in the data set; it does not cut FATE's split."""

    splits: int = 5
    people: int | None = None
    workers: int = 1
    parts: tuple[Part, ...] = tuple(Part)
    speed: SpeedSettings = field(default_factory=SpeedSettings)


def training(settings: TrainingSettings, progress: Progress) -> list[BenchRow]:
    """Measure and tell; accuracy first, whatever the order in which it was measured."""
    found = {part: list(_measure(part, settings, progress)) for part in Part if part in settings.parts}
    order = (Part.ACCURACY, Part.FATE, Part.POISONING, Part.SPEED, Part.SUMS)
    return [row for part in order for row in found.get(part, [])]


def _measure(part: Part, settings: TrainingSettings, progress: Progress) -> Iterator[BenchRow]:
    match part:
        case Part.SPEED:
            yield from step_rows(settings.speed, progress)
            yield from round_rows(settings.speed, progress)
        case Part.SUMS:
            yield from sum_rows(settings.speed, progress)
        case Part.ACCURACY:
            found = training_accuracy.measure(
                settings.splits, settings.people, workers=settings.workers, progress=progress
            )
            yield from accuracy_rows(found, settings.people)
        case Part.FATE:
            progress("FATE's split", 0, 1)
            yield from fate_rows.rows_of(on_one_thread(fate.run_job, None))
            progress("FATE's split", 1, 1)
        case Part.POISONING:
            yield from poisoning_rows(_poisoned(settings, progress), settings.people)
        case _:
            assert_never(part)


def _poisoned(settings: TrainingSettings, progress: Progress) -> list[Mapping[Poisoned, float | None]]:
    jobs = [
        PoisoningJob(scheme.title, split, settings.people) for scheme in SCHEMES for split in range(settings.splits)
    ]
    found: list[dict[Poisoned, float | None]] = [{} for _ in range(settings.splits)]
    progress("poisoning", 0, len(jobs))
    for done, (job, figures) in enumerate(shared_out(poisoning.run_job, jobs, workers=settings.workers), start=1):
        found[job.split].update(figures)
        progress("poisoning", done, len(jobs))
    return list(found)
