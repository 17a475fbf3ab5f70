"""Benchmarks tell what they measured, against what, and a missed target is missed; baselines are as good as can be."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from click.testing import CliRunner
from dp_accounting import pld
from hypothesis import given
from hypothesis.strategies import booleans, floats
from numpy.typing import NDArray
from rich.console import Console

from experiments import baselines, bench_cli
from experiments.benchmarks import accuracy as measured
from experiments.benchmarks.accuracy import AccuracySettings, Job, run_job
from experiments.benchmarks.accuracy_rows import ADDITIVE_TARGETS, LINEAR_TARGETS, rows_of
from experiments.benchmarks.bed import Layout, alike, by_outcome, by_size, load_bed
from experiments.benchmarks.contenders import DEFAULT
from experiments.benchmarks.gaps import gap_to_central
from experiments.benchmarks.jobs import on_one_thread
from experiments.benchmarks.rows import BenchRow, Peer, rows_json, table_of, write_rows
from federated.model import probability_of
from privacy.accounting import epsilon_of
from privacy.errors import UsageError

FIELDS = {"name", "value", "unit", "setting", "target", "higher_is_better", "met", "peer"}
PEOPLE = 1500
HOLDERS = 4
LAYOUTS = (alike, by_size, by_outcome)
Spread = Callable[[NDArray[np.float64], int, int], Layout]
figure = floats(-1e6, 1e6)


def row(value: float | None, target: float | None = None, *, higher: bool = True) -> BenchRow:
    return BenchRow("a figure", value, "AUC", "made up", target, higher_is_better=higher, peer=Peer("others", 0.5))


def shown(rows: list[BenchRow]) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table_of(rows, "Title"))
    return captured.get()


@given(value=figure, target=figure, higher=booleans())
def test_a_target_is_met_on_its_better_side_and_at_it(value: float, target: float, higher: bool) -> None:
    mirrored = row(-value, -target, higher=not higher)
    assert row(value, target, higher=higher).met is mirrored.met is ((value - target) * (1 if higher else -1) >= 0)
    assert row(target, target, higher=higher).met is True


def test_an_unknown_figure_meets_no_target_and_stays_unknown() -> None:
    assert row(None, 0.7).met is False
    assert row(None).met is None
    assert json.loads(rows_json([row(None)]))[0]["value"] is None
    assert "unknown" in shown([row(None)])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_number_is_no_figure(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        row(wrong)
    with pytest.raises(ValueError, match="finite"):
        row(0.5, wrong)


def test_a_missed_target_is_shown_as_missed(tmp_path: Path) -> None:
    rows = [row(0.7, 0.8), row(0.002, 0.001, higher=False)]
    assert shown(rows).count("MISSED") == 2
    assert "MISSED" not in shown([row(0.9, 0.8), row(0.9)])
    assert [told["met"] for told in json.loads(write_rows(rows, "name", tmp_path / "new").read_text())] == [False] * 2
    assert bench_cli._verdict([*rows, row(0.9, 0.8), row(0.9)]) == "1 of 3 targets met, 2 MISSED"


def test_what_is_left_out_of_the_table_is_written_and_never_missed_in_silence() -> None:
    quiet = replace(row(0.9, 0.8), name="a detail", in_table=False)
    assert "a detail" not in shown([row(0.5), quiet])
    assert "1 further figures" in shown([row(0.5), quiet])
    assert "a detail" in shown([row(0.5), replace(quiet, value=0.1)])
    assert [told["name"] for told in json.loads(rows_json([row(0.5), quiet]))] == ["a figure", "a detail"]


def test_rows_go_to_a_directory_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--out"):
        write_rows([row(0.5)], "name", tmp_path / "file")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """One real run of the command on a cut, in two worker processes."""
    out = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 2)
        done = CliRunner().invoke(
            bench_cli.bench, ["accuracy", "--splits", "1", "--people", str(PEOPLE), "--out", str(out), "--json"]
        )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert json.loads((out / "accuracy.json").read_text()) == told
    assert "accuracy" in done.stderr  # the progress
    return list(told)


def test_every_row_of_a_run_keeps_the_contract(run: list[dict[str, object]]) -> None:
    assert len(run) > 15
    assert all(set(told) == FIELDS and told["setting"] and told["unit"] == "AUC" for told in run)
    assert len({str(told["name"]) for told in run}) == len(run)
    for told in run:
        value = told["value"]
        if str(told["name"]).startswith("spread over splits"):
            assert value is None  # one split has no spread
        elif not str(told["name"]).startswith(("spread", "label skew, gap", "size skew, gap")):
            assert isinstance(value, float)
            assert 0.4 < value < 0.9
            assert f"{PEOPLE:,} people only" in str(told["setting"])


def test_every_promise_is_in_a_run_with_its_target_and_a_peer(run: list[dict[str, object]]) -> None:
    promised = {str(told["name"]): told for told in run if told["target"] is not None}
    targets = sorted([*LINEAR_TARGETS.values(), *ADDITIVE_TARGETS.values(), 0.001, 0.001])
    assert sorted(float(str(told["target"])) for told in promised.values()) == targets
    for name, told in promised.items():
        better = float(str(told["value"])) - float(str(told["target"]))
        assert told["met"] is ((better >= 0) == told["higher_is_better"] or better == 0)
        assert told["peer"] is not None or name.startswith("size skew")
    assert sum("NOT PRIVATE" in str(told["setting"]) for told in run) == 2
    assert sum("seeded" in str(told["setting"]) for told in run) == 2  # the two gaps, and nothing else


def test_rows_average_the_splits() -> None:
    settings = AccuracySettings(splits=2, holders=HOLDERS, draws=2)
    names = ["linear without noise", "additive without noise", "pooled", "boosted", "alone", "central", "usual",
             "usual raw", "usual label skew", "linear label skew", "additive label skew", "gap size skew",
             "gap label skew", "draw 0", "draw 1"]  # fmt: skip
    names += [f"{kind} {epsilon:g}" for kind in ("linear", "additive") for epsilon in measured.EPSILONS]
    first, second = dict.fromkeys(names, 0.7), dict.fromkeys(names, 0.8)
    first["draw 1"], second["gap label skew"], first["gap label skew"] = 0.9, 0.002, 0.0005
    rows = {told.name: told for told in rows_of([first, second], settings)}
    linear = rows["the linear form, federated and private, epsilon 1"]
    assert linear.value == pytest.approx(0.75)
    assert linear.met is False
    # The worst split counts: an average would hide it.
    assert rows["label skew, gap to the central result"].value == 0.002
    assert rows["label skew, gap to the central result"].met is False
    assert rows["spread over noise, the linear form, epsilon 1"].value == pytest.approx(0.2 / math.sqrt(2))


@pytest.mark.parametrize("spread", LAYOUTS)
@pytest.mark.parametrize("split", [0, 1])
def test_everybody_trained_on_counts_once_and_nobody_held_out_does(spread: Spread, split: int) -> None:
    bed = load_bed(PEOPLE)
    layout = spread(bed.bad, HOLDERS, split)
    total, places = np.zeros(PEOPLE), np.zeros(PEOPLE)
    for people, shares in zip(layout.people, layout.shares, strict=True):
        assert len(set(people.tolist())) == len(people)  # at two data holders, not twice at one
        total[people] += shares
        places[people] += 1
    np.testing.assert_allclose(total, ~layout.held_out)
    assert 0.05 < (places == 2).mean() / (places > 0).mean() < 0.15
    assert layout.held_out.mean() == pytest.approx(0.25, abs=0.01)
    assert bed.bad[layout.held_out].mean() == pytest.approx(bed.bad.mean(), abs=0.002)


def test_data_holders_alike_are_of_one_size_and_others_are_not() -> None:
    bed = load_bed(None)
    sizes = [len(people) for people in alike(bed.bad, 10, 0).people]
    assert max(sizes) < 1.05 * min(sizes)
    unlike = [len(people) for people in by_size(bed.bad, 10, 0).people]
    assert max(unlike) > 5 * min(unlike)


def test_outcomes_are_unlike_under_label_skew_only() -> None:
    bed = load_bed(None)

    def rates(layout: Layout) -> list[float]:
        return [float(bed.bad[people].mean()) for people in layout.people if len(people) > 200]

    assert np.ptp(rates(alike(bed.bad, 10, 0))) < 0.05
    assert np.ptp(rates(by_size(bed.bad, 10, 0))) < 0.08
    assert np.ptp(rates(by_outcome(bed.bad, 10, 0))) > 0.3


@pytest.mark.parametrize("spread", LAYOUTS)
def test_the_gap_to_the_central_result_is_rounding_and_sees_a_person_counted_twice(spread: Spread) -> None:
    bed = load_bed(PEOPLE)
    layout = spread(bed.bad, HOLDERS, 0)
    assert gap_to_central(bed, DEFAULT, layout, 1) < 1e-6
    twice = replace(layout, shares=tuple(np.ones(len(shares)) for shares in layout.shares))
    assert gap_to_central(bed, DEFAULT, twice, 1) > 1e-4


def test_usual_settings_run_in_this_process_and_leave_its_threads_alone() -> None:
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]  # scikit-learn brings it

    settings = AccuracySettings(splits=1, holders=HOLDERS, people=600)
    before = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    value = on_one_thread(run_job, settings, Job.USUAL, 0)["usual"]
    after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    assert 0.4 < value < 0.9
    assert all(after[path] == threads for path, threads in before.items() if "torch" not in path)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("rows", [20, 64, 100, 1000, 8000])
def test_the_usual_noise_is_enough_and_hardly_more(epsilon: float, rows: int) -> None:
    recipe = baselines.usual_recipe(load_bed(PEOPLE).schema, width=3, epsilon=epsilon, delta=1e-5)
    noise_multiplier = recipe.schedule.noise_multiplier(rows)
    steps = baselines.USUAL_EPOCHS * max(1, math.ceil(rows / baselines.USUAL_BATCH))
    if rows <= baselines.USUAL_BATCH:  # everybody is in every step
        spent = epsilon_of(math.sqrt(steps) / noise_multiplier, 1e-5)
    else:
        accountant = pld.PLDAccountant()
        step = dp_accounting.GaussianDpEvent(noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(recipe.schedule.sampling_rate(rows), step), steps)
        spent = accountant.get_epsilon(1e-5)
    assert spent <= epsilon
    # Compared at 1; far from it, or at a large data holder, a Rényi bound is looser.
    assert spent >= (0.96 if epsilon <= 1 else 0.87) * epsilon


def test_pooled_logistic_regression_is_at_the_optimum() -> None:
    bed = load_bed(PEOPLE)
    model = baselines.pooled(bed.x, bed.bad, bed.schema.digest)
    residual = probability_of(model.log_odds(bed.x)) - bed.bad
    # First-order conditions of sum of losses + |coefficients|^2 / 2, the intercept free.
    np.testing.assert_allclose(residual @ bed.x + model.coefficients, 0, atol=1e-3)
    assert abs(residual.sum()) < 1e-3


def test_the_group_alone_runs_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(out: Path, quiet: bool) -> list[BenchRow]:
        return [row(0.5, 0.8)]

    for name in bench_cli.BENCHMARKS:
        monkeypatch.setitem(bench_cli.BENCHMARKS, name, measure)
    done = CliRunner().invoke(bench_cli.bench, ["--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert sorted(told) == ["accuracy", "consent", "deployment", "training"]
    assert [[row["met"] for row in rows] for rows in told.values()] == [[False]] * 4


def test_help_has_an_example_and_options_in_the_wrong_place_are_told() -> None:
    for arguments in (["--help"], ["accuracy", "--help"]):
        assert "Example: fedcredit bench accuracy" in CliRunner().invoke(bench_cli.bench, arguments).output
    assert "Example: fedcredit bench training" in CliRunner().invoke(bench_cli.bench, ["training", "--help"]).output
    done = CliRunner().invoke(bench_cli.bench, ["--json", "accuracy"])
    assert done.exit_code == 2
    assert "after the name" in done.output
