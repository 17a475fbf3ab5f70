"""How fast training is, as rows: a private step, rounds of many data holders in one process, secure sums."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

from experiments.benchmarks.jobs import in_its_own_process, on_one_thread
from experiments.benchmarks.rows import BenchRow, Peer
from experiments.benchmarks.speed import (
    MemoryUse,
    RoundTimes,
    interleaved,
    made_up_rows,
    memory_of_a_run,
    ratio,
    round_times,
)
from experiments.benchmarks.speed_steps import numpy_round, private_round
from experiments.benchmarks.speed_sums import STAGES, SecureSums, noise_seconds
from experiments.benchmarks.speed_torch import torch_round
from experiments.plans import DELTA, STEPS, tolerated_dropouts
from federated.recipes.fixed_hessian import FixedHessian
from server.rounds import Progress

WIDTH: Final = 39  # encoded columns of the embedded data
PEOPLE_OF_EACH: Final = 300
ROUND_TARGET_MS: Final = 5.0
MEMORY_TARGET: Final = 1.1
MODELS: Final[Mapping[str, tuple[int, ...]]] = {"logistic regression": (), "network 64-32": (64, 32)}
OURS, NUMPY, TORCH = "ours", "numpy", "torch"
STEP_TARGETS: Final = {
    ("logistic regression", NUMPY): 2.0,
    ("network 64-32", NUMPY): 2.5,
    ("logistic regression", TORCH): 1.0,
    ("network 64-32", TORCH): 1.0,
}


@dataclass(frozen=True, slots=True)
class SpeedSettings:
    """How much is timed. `many` are numbers of data holders in one process, the first one promised a time."""

    people: int = 24_000
    batches: tuple[int, ...] = (256, 1024, 4096, 24_000)
    repeats: int = 7
    many: tuple[int, int] = (100, 1000)
    sums: tuple[int, ...] = (10, 50, 100)
    numbers: int = 5000


def step_rows(settings: SpeedSettings, progress: Progress) -> list[BenchRow]:
    """A private step against the same step without privacy, for every size of batch and the worst of them."""
    ratios: dict[tuple[str, str, int], float] = {}
    progress("speed of a step", 0, len(MODELS))
    for done, (model, hidden) in enumerate(MODELS.items(), start=1):
        for (other, batch), value in in_its_own_process(_step_ratios, settings, hidden).items():
            ratios[model, other, batch] = value
        progress("speed of a step", done, len(MODELS))
    return list(_step_rows(settings, ratios))


def _step_ratios(settings: SpeedSettings, hidden: tuple[int, ...]) -> dict[tuple[str, int], float]:
    ratios: dict[tuple[str, int], float] = {}
    for batch in settings.batches:
        found = on_one_thread(_turns, settings, hidden, batch)
        ratios |= {(other, batch): ratio(found[OURS], found[other]) for other in (NUMPY, TORCH)}
    return ratios


def _turns(settings: SpeedSettings, hidden: tuple[int, ...], batch: int) -> dict[str, list[float]]:
    rows = made_up_rows(settings.people, WIDTH, 0)
    contenders = {
        OURS: private_round(rows, hidden, batch),
        NUMPY: numpy_round(rows, hidden, batch),
        TORCH: torch_round(rows, hidden, batch),
    }
    return interleaved(contenders, repeats=settings.repeats)


def _step_rows(settings: SpeedSettings, ratios: Mapping[tuple[str, str, int], float]) -> Iterator[BenchRow]:
    how = (
        f"processor time of a round of local steps, set-up included, {settings.people:,} people x {WIDTH} columns, "
        f"median of {settings.repeats} turns within one process on one thread; ours draws Poisson batches, clips each "
        "person and adds noise; the others deal out shuffled batches; torch in its usual 32-bit numbers, numpy like "
        "ours in 32 bits for networks and in 64 for logistic regression"
    )
    others = {NUMPY: "numpy without privacy", TORCH: "torch without privacy"}
    for model in MODELS:
        for other, title in others.items():
            of_batch = {ratios[model, other, batch]: batch for batch in settings.batches}
            best, worst = min(of_batch), max(of_batch)
            yield BenchRow(
                f"private step against {title}, {model}, the worst size of batch",
                worst, "x", how, STEP_TARGETS.get((model, other)), higher_is_better=False,
                peer=Peer(f"at {of_batch[best]:,}; the worst is {of_batch[worst]:,}", best),
            )  # fmt: skip
            for batch in settings.batches:
                yield BenchRow(
                    f"private step against {title}, {model}, batches of {batch:,}", ratios[model, other, batch], "x",
                    how, higher_is_better=False, in_table=False,
                )  # fmt: skip


def round_rows(settings: SpeedSettings, progress: Progress) -> list[BenchRow]:
    """Rounds of many data holders in one process: time and memory."""
    recipe = FixedHessian(
        width=WIDTH, radius=2.65, centred_radius=1.6, epsilon=1.0, delta=DELTA, steps=STEPS, schema_digest="0" * 64
    )
    few, many = settings.many
    progress("rounds in one process", 0, 4)
    times: dict[int, RoundTimes] = {}
    memory: dict[int, MemoryUse | None] = {}
    for done, holders in enumerate((few, many)):
        times[holders] = in_its_own_process(_round_times, recipe, holders, 3 * settings.repeats)
        progress("rounds in one process", 2 * done + 1, 4)
        memory[holders] = in_its_own_process(memory_of_a_run, recipe, holders, PEOPLE_OF_EACH, WIDTH)
        progress("rounds in one process", 2 * done + 2, 4)
    how = (
        f"processor time on one thread, {PEOPLE_OF_EACH} made-up people x {WIDTH} columns at each data holder, the "
        "default recipe: every contribution, their sum, its noise as one Gaussian draw and the next step; no messages, "
        f"masks, ledgers or consents; median of {3 * settings.repeats}"
    )
    rows = []
    for holders, target in ((few, ROUND_TARGET_MS), (many, None)):
        found = times[holders]
        rows.append(
            BenchRow(
                f"{holders:,} holders in one process, a gradient round", 1e3 * found.last, "ms", how, target,
                higher_is_better=False, peer=Peer("mean round of the whole run", 1e3 * found.mean),
            )
        )  # fmt: skip
    rows.append(_memory_row(memory[few], memory[many], f"from {few:,} to {many:,} holders"))
    return rows


def _memory_row(few: MemoryUse | None, many: MemoryUse | None, over: str) -> BenchRow:
    value, peer = None, None
    if few is not None and many is not None:
        value = (many.most - few.most) / (many.rows - few.rows)
        peer = Peer(f"MB in all, the rows {many.rows / 1e6:,.0f} MB", many.most / 1e6)
    how = (
        "largest resident set of a process that holds everybody's rows and runs the default recipe; at 1, memory "
        "grows by data only"
    )
    name = f"memory for each byte of rows, {over}"
    return BenchRow(name, value, "bytes", how, MEMORY_TARGET, higher_is_better=False, peer=peer)


def _round_times(recipe: FixedHessian, holders: int, repeats: int) -> RoundTimes:
    parts = [made_up_rows(PEOPLE_OF_EACH, WIDTH, seed) for seed in range(holders)]
    return on_one_thread(round_times, recipe, parts, repeats=repeats)


def sum_rows(settings: SpeedSettings, progress: Progress) -> list[BenchRow]:
    """Secure sums: set-up and a round, for one data holder and for the coordinator."""
    noise = median(noise_seconds(settings.numbers, repeats=settings.repeats) for _ in range(3))
    rows = [
        BenchRow(
            f"exact discrete noise of {settings.numbers:,} numbers", 1e3 * noise, "ms",
            "processor time of one data holder; the noise of one release", higher_is_better=False,
        )
    ]  # fmt: skip
    progress("secure sums", 0, len(settings.sums))
    for done, holders in enumerate(settings.sums, start=1):
        rows += in_its_own_process(_sum_rows, holders, settings.numbers)
        progress("secure sums", done, len(settings.sums))
    return rows


def _sum_rows(holders: int, numbers: int) -> list[BenchRow]:
    tolerated = tolerated_dropouts(holders)
    sums = SecureSums(holders, tolerated=tolerated)
    of = f"{holders} holders x {numbers:,} numbers"
    how = (
        f"processor time; keys, shares and masks of every data holder for real, {tolerated} drop-outs tolerated; what "
        "came out is what the holders who stayed put in"
    )
    rows = [
        BenchRow(
            f"secure sum, {holders} holders, set-up of a run, per holder", 1e3 * sums.set_up, "ms",
            f"{how}; once for {STAGES} releases", higher_is_better=False, in_table=holders >= 100,
        )
    ]  # fmt: skip
    for stage, dropouts in enumerate((0, tolerated), start=1):
        cost = sums.round(stage, numbers, dropouts=dropouts)
        gone = f"{dropouts} drop-outs after masking"
        rows += [
            BenchRow(
                f"secure sum, {of}, a round, per holder, {gone}", 1e3 * (cost.mask + cost.reveal), "ms", how,
                higher_is_better=False, peer=Peer("ms for the coordinator", 1e3 * cost.coordinator),
            ),
            BenchRow(
                f"secure sum, {of}, a round, coordinator, {gone}", 1e3 * cost.coordinator, "ms", how,
                higher_is_better=False, peer=Peer("ms for a holder to reveal shares", 1e3 * cost.reveal),
                in_table=False,
            ),
        ]  # fmt: skip
    return rows
