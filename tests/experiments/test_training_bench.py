"""The benchmark of training, small: every promise has its row, and what is measured is what its row says."""

import csv
import gzip
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import baselines
from experiments.benchmarks import fate, training_accuracy
from experiments.benchmarks.bed import SPREADS, Bed, by_size, load_bed
from experiments.benchmarks.contenders import CONTENDERS, DEFAULT, FEDAVG
from experiments.benchmarks.fate_rows import rows_of as fate_rows_of
from experiments.benchmarks.gaps import gap_to_central
from experiments.benchmarks.jobs import in_its_own_process, shared_out
from experiments.benchmarks.judge import Judge
from experiments.benchmarks.rows import BenchRow
from experiments.benchmarks.training import Part, TrainingSettings, training
from experiments.benchmarks.training_accuracy import (
    ADDITIVE,
    ALIKE,
    EPSILONS,
    LINEAR,
    LOCAL,
    OTHERS,
    USUAL,
    USUAL_CASES,
    AccuracyJob,
    Case,
    Found,
)
from experiments.benchmarks.training_accuracy_rows import ADDITIVE_TARGETS, LINEAR_TARGETS, accuracy_rows
from experiments.plans import DELTA
from federated.model import Model
from federated.recipes.choice import choose
from federated.rows import EncodedRows
from federated.schema import Schema
from federated.trust import TrustModel
from privacy.errors import MalformedError
from server.rounds import no_progress

PEOPLE = 3000
HOLDERS = (5, 10)  # fifty take a while


@pytest.fixture(scope="module")
def bed() -> Bed:
    return load_bed(PEOPLE)


@pytest.fixture
def quick_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual settings take longer than everything else; another benchmark's tests run them."""

    def usual(parts: list[EncodedRows], schema: Schema, **_: object) -> Model:
        return baselines.without_noise(parts, schema, delta=DELTA)

    monkeypatch.setattr(baselines, "usual_opacus", usual)


@pytest.fixture(scope="module")
def rows() -> Iterator[list[BenchRow]]:
    """One real measurement of accuracy on a cut, with one recipe of each kind."""
    few = {contender.title: contender for contender in (DEFAULT, FEDAVG)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_accuracy, "CONTENDERS", few)
        patch.setattr(training_accuracy, "HOLDERS", HOLDERS)
        patch.setattr(baselines, "usual_opacus", lambda parts, schema, **_: _stand_in(parts, schema))
        yield training(TrainingSettings(splits=1, people=PEOPLE, parts=(Part.ACCURACY,)), no_progress)


def _stand_in(parts: list[EncodedRows], schema: Schema) -> Model:
    return baselines.without_noise(parts, schema, delta=DELTA)


def test_every_accuracy_that_was_promised_has_its_row(rows: list[BenchRow]) -> None:
    promised = [row for row in rows if row.target is not None and row.higher_is_better]
    assert sorted(row.target or 0 for row in promised) == sorted([*LINEAR_TARGETS.values(), *ADDITIVE_TARGETS.values()])
    assert all("centred fixed Hessian" in row.name and "shared noise" in row.name for row in promised)
    assert all("10 holders" in row.name and row.in_table and row.peer is not None for row in promised)
    gaps = [row for row in rows if row.target is not None and not row.higher_is_better]
    assert {row.target for row in gaps} == {0.001}
    assert {"size skew", "label skew"} <= {skew for row in gaps for skew in SPREADS if skew in row.name}


def test_every_combination_is_written_once_and_the_table_is_a_summary(rows: list[BenchRow]) -> None:
    assert len({row.name for row in rows}) == len(rows)
    # One figure for every amount of noise in the default recipe's sums, and for every layout of the local one.
    noises = len(EPSILONS) * (2 * len(HOLDERS) + 1)
    layouts = len(EPSILONS) * len(SPREADS) * len(HOLDERS)
    assert sum(row.name.startswith(f"{DEFAULT.title}, {LINEAR}") for row in rows) == noises
    assert sum(row.name.startswith(f"{DEFAULT.title}, {ADDITIVE}") for row in rows) == noises
    assert sum(row.name.startswith(f"{FEDAVG.title}, {LINEAR}") for row in rows) == layouts
    assert sum(row.name.startswith(f"{USUAL}, {LINEAR}") for row in rows) == len(USUAL_CASES)
    assert sum(row.in_table for row in rows) < 40 < len(rows)
    for row in rows:
        assert f"{PEOPLE:,} people only" in row.setting or "gap" in row.name
        assert row.value is not None
        assert "gap" in row.name or 0.4 < row.value < 0.9


def test_rows_average_the_splits_and_the_worst_gap_counts() -> None:
    shared = Case(DEFAULT.title, LINEAR, 1.0, TrustModel.SHARED_NOISE, ALIKE, 10)
    usual = {Case(USUAL, LINEAR, 1.0, None, *case): 0.72 for case in USUAL_CASES}
    usual[Case(USUAL, LINEAR, 1.0, None, "label skew", 10)] = 0.62
    others = dict.fromkeys(("pooled", "boosted", "boosted as it comes", "without noise"), 0.78)
    gaps = {(DEFAULT.title, layout, 10): 0.0 for layout in SPREADS}
    first = Found({shared: 0.7, **usual}, others, gaps)
    second = Found({shared: 0.8, **usual}, others, {**gaps, (DEFAULT.title, "label skew", 10): 0.002})
    told = {row.name: row for row in accuracy_rows([[first], [second]], None)}
    promised = told["centred fixed Hessian, linear form, epsilon 1, 10 holders, shared noise"]
    assert promised.value == pytest.approx(0.75)
    assert promised.met is False
    assert promised.peer is not None
    assert promised.peer.value == pytest.approx(0.72)
    assert "2 stratified 75/25 splits, everybody" in promised.setting
    gap = told["centred fixed Hessian, label skew, gap to the central result"]
    assert (gap.value, gap.met) == (0.002, False)
    assert gap.peer is not None
    assert gap.peer.value == pytest.approx(0.1)
    assert told["every recipe that sums, every layout, largest gap to the central result"].met is False
    assert told["centred fixed Hessian, size skew, gap to the central result"].met is True
    worst = told["usual settings, the layout that suits it least, epsilon 1, 10 holders"]
    assert worst.value == pytest.approx(0.62)
    assert worst.setting.startswith("label skew")


@pytest.mark.parametrize("title", [title for title, contender in CONTENDERS.items() if contender.is_sum])
@pytest.mark.parametrize("layout", list(SPREADS))
def test_no_recipe_that_sums_cares_who_holds_whom(bed: Bed, title: str, layout: str) -> None:
    spread = SPREADS[layout](bed.bad, 5, 0)
    # People with the same attributes tie, and rounding breaks the tie one way or the other: 1e-5 for each pair.
    assert gap_to_central(bed, CONTENDERS[title], spread, 1) < 1e-4


def test_a_recipe_that_averages_does_care(bed: Bed) -> None:
    assert gap_to_central(bed, FEDAVG, by_size(bed.bad, 5, 0), 1) > 1e-3


def test_the_default_is_what_would_be_chosen_for_the_data() -> None:
    everybody = load_bed(None)
    chosen = choose(people=22_500, epsilon=1.0, delta=DELTA, schema=everybody.schema)
    assert DEFAULT.settings(everybody, 1.0) == chosen.settings


def test_every_kind_of_job_can_travel_to_another_process() -> None:
    for what in (*CONTENDERS, LOCAL, OTHERS, USUAL):
        job = AccuracyJob(what, 0, PEOPLE, ALIKE, 5)
        assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301 (made here)
    assert dict(shared_out(abs, [-1, -2, -3], workers=2)) == dict(shared_out(abs, [-1, -2, -3], workers=1))
    assert in_its_own_process(abs, -4) == 4


def test_an_error_in_a_worker_ends_the_measurement() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(shared_out(int, ["1", "one"], workers=2))


def test_boosted_trees_are_no_weak_baseline(bed: Bed) -> None:
    layout = by_size(bed.bad, 5, 0)
    known, held_out = layout.training, layout.held_out
    judge = Judge(bed, layout)
    tuned = judge.of(baselines.boosted(bed.raw[known], bed.bad[known])(bed.raw[held_out]))
    plain = judge.of(baselines.boosted_as_it_comes(bed.raw[known], bed.bad[known])(bed.raw[held_out]))
    assert tuned > plain > 0.65
    again = judge.of(baselines.boosted(bed.raw[known], bed.bad[known])(bed.raw[held_out]))
    assert again == tuned


def test_fates_split_is_the_published_one() -> None:
    everybody = load_bed(None)
    layout = fate.fate_layout(everybody)
    with gzip.open(fate.SPLIT, "rt") as file:
        published = {line["id"]: line["part"] for line in csv.DictReader(file)}
    assert [len(people) for people in layout.people] == [8000, 8000, 8000]
    assert layout.held_out.sum() == 6000
    for name, people in zip(fate.PARTS, layout.people, strict=True):
        assert {published[everybody.table.subjects[person]] for person in people} == {name}
    assert sorted([*np.concatenate(layout.people), *np.flatnonzero(layout.held_out)]) == list(range(30_000))
    assert all((shares == 1).all() for shares in layout.shares)


@pytest.mark.parametrize(
    "damaged",
    ["id,part\n1,guest\n", "id,part\n1,guest\n1,guest\n", "id,part\n1,elsewhere\n", "id,where\n1,guest\n", ""],
)
def test_a_damaged_split_is_refused(bed: Bed, tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "split.csv.gz"
    path.write_bytes(gzip.compress(damaged.encode()))
    with pytest.raises(MalformedError, match=r"split\.csv\.gz"):
        fate.fate_layout(bed, path)


def test_nobody_is_in_two_parts_of_the_split(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "split.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(fate.SPLIT.read_bytes()) + b"1,guest\n"))
    with pytest.raises(MalformedError, match="copied again"):
        fate.fate_layout(bed, path)


@pytest.mark.usefixtures("quick_usual")
def test_fates_split_is_measured_at_every_epsilon() -> None:
    found = fate.run_job(PEOPLE)
    told = fate_rows_of(found)
    assert sum("linear form" in row.name for row in told) == sum("scorecard" in row.name for row in told) == 3
    assert {row.peer.name for row in told if row.peer is not None} == {
        "LightGBM on pooled raw columns, no privacy", "pooled logistic regression, no privacy",
    }  # fmt: skip
    assert all(row.value is not None and 0.6 < row.value < 0.85 for row in told)
