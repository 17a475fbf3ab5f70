"""The split of the same data that FATE publishes: three data holders of 8,000 people, 6,000 people to test on."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from experiments import baselines
from experiments.benchmarks.bed import TAIWAN, Bed, Layout, load_bed
from experiments.benchmarks.contenders import DEFAULT
from experiments.benchmarks.judge import Judge
from experiments.central import run_centrally
from experiments.plans import DELTA, tolerated_dropouts
from privacy.errors import MalformedError
from privacy.noise import SecureNoise

SPLIT: Final = TAIWAN.parent / "fate_split" / "default_credit_homo_split.csv.gz"
PARTS: Final = ("guest", "host_1", "host_2")
HELD_OUT: Final = "test"
EPSILONS: Final = (0.5, 1.0, 3.0)
DRAWS: Final = 5  # of the noise: the split is one only


def fate_layout(bed: Bed, path: Path = SPLIT) -> Layout:
    """FATE's split of the bed's people, each at one data holder with a whole share.

    MalformedError unless the file names every person of the bed once, in a known part.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.strip().split(",") for line in file]
    part_of = {line[0]: line[1] for line in lines[1:] if len(line) == 2}
    known = {*PARTS, HELD_OUT}
    if lines[:1] != [["id", "part"]] or len(part_of) != len(lines) - 1 or not set(part_of.values()) <= known:
        raise MalformedError(f"{path.name} is not a list of people and parts; it should be copied again.")
    if unnamed := sum(subject not in part_of for subject in bed.table.subjects):
        raise MalformedError(f"{path.name} does not say where {unnamed} people are; it should be copied again.")
    part = np.array([part_of[subject] for subject in bed.table.subjects])
    people = tuple(np.flatnonzero(part == name) for name in PARTS)
    return Layout(people, tuple(np.ones(len(theirs)) for theirs in people), part == HELD_OUT)


def run_job(people: int | None) -> Mapping[str, float]:
    """AUC on FATE's test people, by name."""
    bed = load_bed(people)
    layout = fate_layout(bed)
    judge, parts, known = Judge(bed, layout), layout.parts(bed.x, bed.bad), layout.training
    bad, dropouts = bed.bad[known], tolerated_dropouts(len(parts))
    found = {
        "pooled": judge.linear(baselines.pooled(bed.x[known], bad, bed.schema.digest)),
        "boosted": judge.of(baselines.boosted(bed.raw[known], bad)(bed.raw[layout.held_out])),
        "usual": judge.linear(
            baselines.usual_opacus(parts, bed.schema, epsilon=1.0, delta=DELTA, chance=SecureNoise())
        ),
    }
    for epsilon in EPSILONS:
        recipe = DEFAULT.recipe(bed, epsilon)
        models = [run_centrally(recipe, parts, SecureNoise(), dropouts=dropouts) for _ in range(DRAWS)]
        found[f"linear {epsilon:g}"] = float(np.mean([judge.linear(model) for model in models]))
        found[f"additive {epsilon:g}"] = float(np.mean([judge.additive(model) for model in models]))
    return found
