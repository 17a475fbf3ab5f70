"""The benchmark of real programs adds up: shares, splits, memory and rows over made-up measurements, no program run."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists
from prometheus_client import generate_latest

from clients.holder.serve_status import LastLetter, NodeState, ProgramStatus, ServeStatus, WorkerStatus, write_status
from experiments.benchmarks.bed import TAIWAN
from experiments.benchmarks.deployment import Found, InProcess, Large, Small
from experiments.benchmarks.deployment_bed import Starts, evenly
from experiments.benchmarks.deployment_memory import PROGRAMS, mean_by_program, memory_of, per_holder, pids, pss_in
from experiments.benchmarks.deployment_rows import rows_of
from experiments.benchmarks.deployment_run import Alone, Recorded, Stopwatch
from experiments.benchmarks.deployment_times import (
    Asked,
    Diary,
    RunTimes,
    Split,
    TimedChannel,
    bytes_each,
    per_further_holder,
    requests_in,
    resume_overhead_s,
    slowest_s,
)
from experiments.benchmarks.deployment_work import Door, Killed, Ran
from experiments.benchmarks.rows import BenchRow, rows_json
from experiments.deployment import Deployment
from experiments.federation import PublicData
from federated.channel import Act
from federated.flower import size_of
from federated.messages import Letter, Refused
from privacy.errors import RefusalCode
from server.deploy.metrics import Metrics
from server.deploy.settings import Home
from server.grid_channel import GridChannel

MIB, KIB = 1 << 20, 1 << 10
seconds = floats(0, 1e4)


def asked(holders: int = 3, answers: int = 3, took: float = 4.0) -> Asked:
    return Asked(holders, answers, took, sent_bytes=1000 * holders, got_bytes=500 * answers)


def letter(numbers: int) -> Letter:
    return Letter(Refused("aster-bank", RefusalCode.COHORT), {"numbers": np.zeros(numbers)})


class Slow(GridChannel):
    """A channel that moves a clock of its own."""

    def __init__(self) -> None:
        self.at, self.numbers = 100.0, 0

    def clock(self) -> float:
        return self.at

    def nodes(self) -> list[int]:
        self.at += 2.0
        return [1, 2]

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        assert act is Act.TRAIN
        assert deadline_s == 1.0
        assert letters
        self.at += 5.0
        self.numbers += 4
        return {1: letter(self.numbers)}


@given(total=floats(10, 1e4), parts=lists(floats(0, 3), min_size=3, max_size=3))
def test_ours_and_flowers_are_the_whole_run(total: float, parts: list[float]) -> None:
    split = Split(total, *parts)
    assert split.ours_s + split.flower_s == pytest.approx(total)
    assert split.ours_percent / 100 * split.flower_s == pytest.approx(sum(parts))


def test_five_per_cent_is_of_flowers_share() -> None:
    assert Split(105.0, 2.0, 2.0, 1.0).ours_percent == pytest.approx(5.0)


@given(own=seconds, flower=seconds, waited=seconds, exchanges=lists(floats(0, 100), min_size=1, max_size=30))
def test_the_coordinators_own_time_is_what_it_waits_for_nobody(
    own: float, flower: float, waited: float, exchanges: list[float]
) -> None:
    times = RunTimes(
        own + flower + waited + sum(exchanges), flower, waited, [asked(took=took) for took in exchanges], None
    )
    assert times.own_s == pytest.approx(own, abs=1e-6)
    assert times.exchange_s == pytest.approx(np.mean(exchanges))


def test_rounds_and_the_beginning_are_told_apart() -> None:
    times = RunTimes(0, 0, 0, [asked(took=took) for took in (9, 9, 9, 1, 2, 3, 4)], None)
    assert times.release_s == pytest.approx(5.0)  # two releases, 10 s
    assert bytes_each(times.begun) == 3 * 1500
    assert bytes_each([asked(answers=0)]) == 1000


def test_a_timed_channel_is_the_other_one_and_keeps_its_times() -> None:
    slow = Slow()

    def tell(_: Mapping[int, Letter], __: Mapping[int, Letter]) -> None:
        slow.at += 7.0  # the benchmark's own work

    channel = TimedChannel(slow, clock=slow.clock, told=tell)
    assert channel.nodes() == [1, 2]
    letters = {1: letter(1), 2: letter(1)}
    assert sorted(channel.ask(letters, act=Act.TRAIN, deadline_s=1.0)) == [1]
    assert channel.waited_s == 2.0 + 7.0
    assert channel.asked == [Asked(2, 1, 5.0, 2 * size_of(letter(1)), size_of(letter(4)))]


def test_opening_and_closing_a_channel_is_flowers(tmp_path: Path) -> None:
    @contextmanager
    def opened(_: Home, *, tell: Callable[[str], None]) -> Iterator[GridChannel]:
        tell("submitting")
        yield Slow()

    told: list[str] = []
    watch = Stopwatch(opened, tmp_path)
    with watch(cast("Home", None), tell=told.append) as channel:
        for _ in range(2):
            channel.ask({1: letter(1)}, act=Act.TRAIN, deadline_s=1.0)
    times = watch.times(60.0)
    assert told == ["submitting"]
    assert len(times.asked) == 2
    assert times.peak_bytes is None or times.peak_bytes > MIB
    # What was answered is what is replayed, in its order.
    recorded = Recorded(tmp_path)
    again = [recorded.ask({}, act=Act.TRAIN, deadline_s=1.0) for _ in range(2)]
    assert [len(answers[1].arrays["numbers"]) for answers in again] == [4, 8]
    assert recorded.largest == 8 * 8


@given(table=lists(lists(floats(0, 100), min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_slowest_of_each_exchange_counts(table: list[list[float]]) -> None:
    assert slowest_s(table, exchanges=5) == pytest.approx(np.array(table).max(axis=0).sum())
    assert slowest_s(table, exchanges=6) is None
    assert slowest_s(table, exchanges=5, missed=1) is None
    assert slowest_s([*table, [1.0]], exchanges=5) is None


def test_an_answer_that_was_not_seen_is_noticed() -> None:
    def status(answered: int, took_ms: int) -> WorkerStatus:
        last = LastLetter("instruction", "a", 1, 0, took_ms, None, None)
        return WorkerStatus(True, 0, None, answered, 0, last)

    diary = Diary()
    for seen in (None, status(7, 999), status(7, 999), status(8, 30), status(8, 30), status(9, 50)):
        diary.look("aster-bank", seen)
    assert diary.took == [[0.03, 0.05]]  # what was answered before is not of this run
    assert diary.missed == 0
    diary.look("aster-bank", status(11, 70))
    assert diary.missed == 1
    diary.look("aster-bank", status(1, 20))  # started anew
    assert diary.missed == 1


def test_requests_are_counted_from_the_doors_own_metrics() -> None:
    class Nowhere:
        run_lock, status = Path("/nonexistent/run.lock"), Path("/nonexistent/status.json")

    metrics = Metrics(cast("Home", Nowhere()), lambda: 0.0)
    for path, status in (("/v1/fleet/pull-messages", 200), ("/v1/fleet/push-object", 200), ("/health", 503)):
        metrics.answered(path, status)
    metrics.answered("/v1/fleet/pull-messages", 200)
    assert requests_in(generate_latest(metrics.all).decode()) == 4


@given(fewer=integers(1, 9), more=integers(10, 99), each=floats(0, 1e6), alone=floats(0, 1e6))
def test_memory_for_each_further_data_holder(fewer: int, more: int, each: float, alone: float) -> None:
    found = per_further_holder(fewer, alone + fewer * each, more, alone + more * each)
    assert found == pytest.approx(each, abs=1e-3)


def test_memory_of_a_process_is_what_its_system_tells() -> None:
    rollup = "00400000-7fff rollup\nRss:  20 kB\nPss:  12 kB\nPss_Dirty:   9 kB\n"
    assert pss_in(rollup) == 12 * KIB
    assert pss_in("Rss: 20 kB\n") is None
    own = memory_of(os.getpid())
    assert own is not None
    assert MIB < own < 1 << 40


def test_a_program_is_its_processes(tmp_path: Path) -> None:
    (tmp_path / "coordinator" / "superlink").mkdir(parents=True)
    (tmp_path / "coordinator" / "coordinator.toml").write_text("")
    parties = {"registry": [1, "a"], "coordinator": [2, "b"]}
    for number, name in ((10, "aster-bank"), (20, "birch-telecom")):
        serving = tmp_path / "holders" / name / "serving"
        serving.mkdir(parents=True)
        parties[name] = [number, "c"]
        programs = {
            program: ProgramStatus(number + 1 + k, 0, None) for k, program in enumerate(("supernode", "worker"))
        }
        programs["sync"] = ProgramStatus(None, 3, 1)  # it is about to be started again
        status = ServeStatus(1, name, "open-scoring", "h:1", NodeState.ONLINE, 0, 0, 0, number, programs)
        write_status(serving / "status.json", status)
    (tmp_path / "up.json").write_bytes(msgspec.json.encode(parties))
    (tmp_path / "coordinator" / "superlink" / "supervised.json").write_text('{"SuperLink": [3, "d"]}')
    assert pids(Deployment(tmp_path)) == {
        "registry": [1], "coordinator serve": [2], "SuperLink": [3], "holder serve": [10, 20],
        "supernode": [11, 21], "worker": [12, 22],
    }  # fmt: skip


def test_memory_of_a_data_holder_is_known_if_all_its_programs_are() -> None:
    sizes = {"registry": [100], "holder serve": [1, 3], "supernode": [10, 30], "worker": [20, 40], "sync": [5, 5]}
    assert per_holder(sizes) == (1 + 10 + 20 + 5 + 3 + 30 + 40 + 5) / 2
    assert per_holder({**sizes, "sync": [5]}) is None
    assert per_holder({}) is None
    assert mean_by_program({"worker": [20, 40], "sync": []}) == {"worker": 30.0}


def test_everybody_has_as_many_people_and_holds_out_a_quarter() -> None:
    data = PublicData.load(TAIWAN / "schema.toml", TAIWAN / "data.csv.gz")
    population = evenly(replace(data, lines=data.lines[:480]), 4)
    for holder in population.holders:
        people = [place.person for place in population.at(holder)]
        assert len(people) == 120
        assert sum(population.held_out[people]) == 30
    assert all(len(places) == 1 for places in population.places.values())


def ran(*, exchanges: int, own: float, holders: float | None = 1.0, peak: int | None = 90 * MIB) -> Ran:
    times = RunTimes(own + 3.0 + 4.0 * exchanges, 2.0, 1.0, [asked()] * exchanges, peak)
    return Ran(times.seconds + 2.0, times, holders, requests=3 * exchanges * 10, load=2.5)


def in_process(holders: int, people: int, most: int) -> InProcess:
    times = RunTimes(3.0, 0.0, 0.0, [asked(holders, holders, 0.1)] * 7, 99 * MIB)
    return InProcess(holders, people, times, Alone(most, 6 * KIB))


def found() -> Found:
    idle = dict.fromkeys(PROGRAMS, 50.0 * MIB)
    short = ran(exchanges=7, own=0.2)  # 33.2 s
    small = Small(
        Starts(3.0, 6.0), 12.0, idle, ran(exchanges=25, own=1.0), Door(0.004, 0.007), short, Killed(15.0, 1),
        replace(ran(exchanges=4, own=0.2), process_s=25.0),
    )  # fmt: skip
    large = Large(8, 40.0, dict.fromkeys(PROGRAMS, 60.0 * MIB), 250.0 * MIB, ran(exchanges=7, own=0.3))
    ten, few = in_process(3, 1000, 300 * KIB), in_process(3, 1000, 202 * KIB)
    return Found(small, large, ten, few, in_process(3, 100, 200 * KIB), in_process(50, 60, 4902 * KIB))


def by_name(measured: Found) -> dict[str, BenchRow]:
    rows = rows_of(measured)
    named = {row.name: row for row in rows}
    assert len(named) == len(rows)
    return named


def with_ten_rounds(run: Ran) -> Found:
    measured = found()
    return replace(measured, small=replace(measured.small, ten_rounds=run))


def test_every_promised_figure_is_a_row() -> None:
    named = by_name(found())
    promised = {name: row.target for name, row in named.items() if row.target is not None}
    assert promised == {
        "ten rounds: ours beyond Flower's own": 5.0,
        "coordinator's memory with ten times the rows, times that with one": 1.05,
    }
    assert all(named[name].met and not named[name].higher_is_better for name in promised)
    assert '"met": true' in rows_json(list(named.values()))
    settings = [row.setting for row in named.values()]
    assert any("25 exchanges" in told and "10 rounds" in told and "SIGKILL" not in told for told in settings)
    assert sum("other load" in told and "load average 2.5" in told for told in settings) > 5


def test_figures_follow_from_what_was_measured() -> None:
    named = by_name(found())
    # 1 s, 1 s, and 3 ms for each of 10 requests in each of 25 exchanges; of 104 s.
    ours = 1.0 + 1.0 + 0.75
    assert named["ten rounds: ours beyond Flower's own"].value == pytest.approx(100 * ours / (104.0 - ours))
    assert named["ten rounds: the door"].value == pytest.approx(0.75)
    assert named["ten rounds: `coordinator run` from start to end"].value == pytest.approx(106.0)
    assert named["a killed run resumed, beyond the same run left alone"].value == pytest.approx(15 + 25 - 33.2)
    # Seven in all: the beginning and one release before, so two were left, and four were asked.
    assert named["a killed run resumed: exchanges asked once more"].value == 2
    total = named["idle memory: registry, coordinator and three data holders"]
    assert total.value == pytest.approx(3 * 50 + 3 * 4 * 50)
    assert named["coordinator's memory for each further data holder"].value == pytest.approx(4700 / 47)
    assert named["coordinator's memory with ten times the rows, times that with one"].value == pytest.approx(1.01)
    assert resume_overhead_s(until_killed_s=5, resumed_s=9, uninterrupted_s=10) == 4


def test_a_missed_target_is_missed_and_what_was_not_seen_is_unknown() -> None:
    name = "ten rounds: ours beyond Flower's own"
    slow = by_name(with_ten_rounds(ran(exchanges=25, own=9.0)))[name]
    assert slow.met is False
    assert slow.value is not None
    unknown = by_name(with_ten_rounds(ran(exchanges=25, own=1.0, holders=None)))[name]
    assert (unknown.value, unknown.met) == (None, False)
    measured = found()
    small = replace(measured.small, idle={"registry": 1.0 * MIB})
    large = replace(measured.large, each_bytes=None, short=ran(exchanges=7, own=0.2, peak=None), idle={})
    named = by_name(replace(measured, small=small, large=large))
    assert named["idle memory: a data holder's worker"].value is None
    assert named["idle memory: registry, coordinator and three data holders"].value is None
    assert named["8 data holders as programs: peak memory of `coordinator run`"].value is None
    more_rows = replace(measured, few=in_process(3, 1000, 300 * KIB))
    assert by_name(more_rows)["coordinator's memory with ten times the rows, times that with one"].met is False
