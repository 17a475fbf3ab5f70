"""Timing by processor time, the contenders in turn within one process, so that a busy machine slows them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from experiments.central import one_round, run_centrally
from federated.recipes.base import Recipe, round_of
from federated.rows import EncodedRows
from privacy.noise import SecureNoise

Made = TypeVar("Made")
Work = Callable[[], object]
_STATUS = Path("/proc/self/status")


def timed(work: Callable[[], Made]) -> tuple[float, Made]:
    """Processor seconds of this process, all its threads together, that `work` takes once; and what it makes."""
    started = time.process_time_ns()
    made = work()
    return (time.process_time_ns() - started) * 1e-9, made


def interleaved(contenders: Mapping[str, Work], *, repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each contender in each of `repeats` turns, every one after the other; a turn to warm up."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            seconds, _ = timed(work)
            if turn:
                found[name].append(seconds)
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the turns of ours to theirs: what happened within one turn is compared."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def made_up_rows(people: int, width: int, seed: int) -> EncodedRows:
    """Rows that nobody has: normal cells, every fifth person bad."""
    chance = np.random.default_rng([20261122, seed])
    bad = (np.arange(people) % 5 == 0).astype(np.float64)
    return EncodedRows(chance.standard_normal((people, width)), bad, np.ones(people))


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """Median processor seconds of one round in this process: of the whole run's mean round, and of the last one."""

    mean: float
    last: float


def round_times(recipe: Recipe, parts: Sequence[EncodedRows], *, repeats: int) -> RoundTimes:
    """Contributions of all data holders, their sum, its noise, and the next step."""
    state, chance = recipe.start(), SecureNoise()
    while round_of(state) < recipe.rounds:
        state = one_round(recipe, state, parts, chance)
    turns = interleaved(
        {
            "last": lambda: one_round(recipe, state, parts, chance),
            "run": lambda: run_centrally(recipe, parts, chance),
        },
        repeats=repeats,
    )
    return RoundTimes(mean=median(turns["run"]) / recipe.rounds, last=median(turns["last"]))


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a process: its rows, what it held before it had any, and the most it ever held."""

    rows: int
    before: int
    most: int


def memory_of_a_run(recipe: Recipe, holders: int, people: int, width: int) -> MemoryUse | None:
    """What a whole run over that many data holders takes; None where the system does not tell.

    Only in a process of its own (`experiments.benchmarks.jobs`) is nothing else counted.
    """
    run_centrally(recipe, [made_up_rows(people, width, 0)], SecureNoise())  # what is loaded once is not of the rows
    before = _kilobytes("VmRSS")
    parts = [made_up_rows(people, width, seed) for seed in range(holders)]
    run_centrally(recipe, parts, SecureNoise())
    most = _kilobytes("VmHWM")
    if before is None or most is None:
        return None
    rows = sum(part.x.nbytes + part.bad.nbytes + part.share.nbytes for part in parts)
    return MemoryUse(rows, 1024 * before, 1024 * most)


def _kilobytes(entry: str) -> int | None:
    # Not getrusage: what it calls the largest set of a process counts the one that it was forked from.
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == entry:
            return int(value.split()[0])
    return None
