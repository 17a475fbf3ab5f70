"""The benchmark of real programs: rounds over TLS, memory, starts, a run that is killed, and more data holders."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.benchmarks import deployment_work as work
from experiments.benchmarks.deployment_bed import Bed, Starts, at_work, make_bed, start_times
from experiments.benchmarks.deployment_memory import mean_by_program, memory_by_program, per_holder
from experiments.benchmarks.deployment_run import Alone, memory_alone, run_in_process
from experiments.benchmarks.deployment_times import RunTimes
from experiments.benchmarks.jobs import in_its_own_process
from federated.recipes.base import RecipeName
from server.rounds import Progress

TITLE: Final = "Real programs: rounds over TLS, memory, starts, and a run that is killed"
TEN_ROUNDS: Final = RecipeName.FIXED_HESSIAN
SHORT: Final = RecipeName.SUFFICIENT_STATISTICS
FEW: Final = 3
TEN_TIMES: Final = 10


@dataclass(frozen=True, slots=True)
class DeploymentSettings:
    """How much is measured with. `nodes` is how many real data holders the larger federation has."""

    nodes: int = 8
    people: int = 1000  # at each of the three data holders
    in_process: int = 50
    people_each: int = 60  # at each data holder of the larger federations
    idle_s: float = 5.0  # for programs to settle before their memory is looked at


@dataclass(frozen=True, slots=True)
class Small:
    """Three data holders as programs."""

    starts: Starts
    up_s: float
    idle: dict[str, float]  # mean bytes of each program while nothing runs
    ten_rounds: work.Ran
    door: work.Door
    short: work.Ran
    killed: work.Killed
    resumed: work.Ran


@dataclass(frozen=True, slots=True)
class Large:
    """More data holders as programs, on the same machine."""

    holders: int
    up_s: float
    idle: dict[str, float]
    each_bytes: float | None  # of all programs of one data holder
    short: work.Ran


@dataclass(frozen=True, slots=True)
class InProcess:
    """A run with every node in the coordinator's process, and its coordinator without them."""

    holders: int
    people: int  # at each
    times: RunTimes
    alone: Alone


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that was measured."""

    small: Small
    large: Large
    ten_rounds: InProcess  # as the three data holders' programs
    few: InProcess  # from here on with the short plan
    few_rows: InProcess  # with a tenth of the people
    many: InProcess


def deployment(settings: DeploymentSettings, progress: Progress) -> Found:
    """Measure everything, one thing after the other. Whatever happens, no program is left running."""
    steps = 6
    with tempfile.TemporaryDirectory(prefix="fedcredit-bench-") as folder:
        place = Path(folder)

        def step(number: int) -> None:
            progress("real programs", number, steps)

        step(0)
        three = make_bed(place / "three", holders=FEW, people=settings.people)
        step(1)
        small = _small(three, settings)
        step(2)
        ten_rounds = _in_process(three, TEN_ROUNDS, place / "ten-rounds-answers")
        few = _in_process(three, SHORT, place / "few-answers")
        step(3)
        large = _large(make_bed(place / "large", holders=settings.nodes, people=settings.people_each), settings)
        step(4)
        fifty = make_bed(place / "many", holders=settings.in_process, people=settings.people_each)
        many = _in_process(fifty, SHORT, place / "many-answers")
        step(5)
        fewer_rows = make_bed(place / "tenth", holders=FEW, people=settings.people // TEN_TIMES)
        few_rows = _in_process(fewer_rows, SHORT, place / "tenth-answers")
        step(6)
    return Found(small, large, ten_rounds, few, few_rows, many)


def _small(bed: Bed, settings: DeploymentSettings) -> Small:
    starts = start_times(bed)
    with at_work(bed) as up_s:
        time.sleep(settings.idle_s)
        idle = mean_by_program(memory_by_program(bed.deployment))
        bed.plan(TEN_ROUNDS, "ten rounds")
        ten_rounds = work.run(bed)
        door = work.door_times(bed)
        bed.plan(SHORT, "uninterrupted")
        short = work.run(bed)
        bed.plan(SHORT, "killed")
        killed = work.run_killed(bed)
        resumed = work.run(bed, resume=True)
    return Small(starts, up_s, idle, ten_rounds, door, short, killed, resumed)


def _large(bed: Bed, settings: DeploymentSettings) -> Large:
    with at_work(bed) as up_s:
        time.sleep(settings.idle_s)
        sizes = memory_by_program(bed.deployment)
        bed.plan(SHORT, "more data holders")
        short = work.run(bed)
    return Large(bed.holders, up_s, mean_by_program(sizes), per_holder(sizes), short)


def _in_process(bed: Bed, recipe: RecipeName, record: Path) -> InProcess:
    record.mkdir()
    bed.plan(recipe, "in process")
    with bed.federation.start_registry():
        times = in_its_own_process(run_in_process, bed.directory, record)
    alone = in_its_own_process(memory_alone, bed.home.directory, record)
    return InProcess(bed.holders, bed.people, times, alone)
