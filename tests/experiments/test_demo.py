"""The demo: repeatable with a seed, honest about consent, and its directory is never half of anything."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from clients.holder import permits
from clients.holder.gate import Decisions, Question
from experiments.demo import DemoSettings, run_demo
from experiments.demo_cli import WRITTEN, _Bars, replacing
from experiments.demo_cli import demo as demo_command
from experiments.report.figures import report_json
from experiments.report.page import write_report
from experiments.report.values import DemoResult
from federated.recipes.base import RecipeName
from federated.trust import TrustModel
from privacy.consent.projection import ALLOW
from privacy.errors import RefusalError, UsageError
from server.rounds import no_progress
from tests.experiments.small_table import SCHEMA, small_table
from tests.ready import state_of

PEOPLE = 900


@dataclass(frozen=True)
class Demo:
    result: DemoResult
    out: Path


def demo(
    directory: Path,
    name: str,
    *,
    seed: int | None = 5,
    recipe: RecipeName | None = None,
    trust: TrustModel = TrustModel.SHARED_NOISE,
) -> Demo:
    table = directory / "table.csv"
    if not table.exists():
        small_table(table, PEOPLE)
    out = directory / name
    out.mkdir()
    settings = DemoSettings(
        out=out,
        schema=SCHEMA,
        table=table,
        holders=2,
        epsilon=1.0,
        recipe=recipe,
        trust=trust,
        seed=seed,
        deploy=False,
    )
    return Demo(run_demo(settings, no_progress), out)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return demo(tmp_path_factory.mktemp("demo"), "first")


def test_one_seed_gives_one_bundle_whatever_the_directory_and_another_seed_another(first: Demo) -> None:
    again = demo(first.out.parent, "again")
    assert state_of(again.out / "bundle") == state_of(first.out / "bundle")
    assert len(state_of(first.out / "bundle")) >= 7

    def facts(one: Demo) -> object:
        read = json.loads(report_json(replace(one.result, seconds=0.0)))
        return {name: read[name] for name in ("consent", "metrics", "privacy", "rows", "not_private")}

    assert facts(again) == facts(first)
    # Sealing draws from the operating system also under a seed, so that runs are told apart.
    assert again.result.digests["run"] != first.result.digests["run"]
    shutil.rmtree(again.out)
    private = demo(first.out.parent, "private", seed=None)
    assert state_of(private.out / "bundle") != state_of(first.out / "bundle")
    assert private.result.not_private is False
    assert json.loads((private.out / "bundle" / "privacy.json").read_bytes())["not_private"] is False


def test_a_withdrawal_is_one_person_fewer_and_nobody_is_used_without_consent(first: Demo) -> None:
    result = first.result
    assert result.consent.rows_used_without_consent == 0
    withdrawal = result.withdrawal
    assert withdrawal is not None
    assert withdrawal.people == 1
    assert withdrawal.after.people_used == withdrawal.before.people_used - 1
    assert withdrawal.after.people_permitted == withdrawal.before.people_permitted - 1
    assert withdrawal.after.lane_size == withdrawal.before.lane_size + 1
    assert withdrawal.after.run != withdrawal.before.run


def test_rows_add_up(first: Demo) -> None:
    consent = first.result.consent
    assert consent.subjects == PEOPLE
    assert consent.rows_permitted + sum(consent.refusals.values()) == consent.rows_held > PEOPLE
    assert sum(holder.rows for holder in first.result.holders) == consent.rows_held
    assert sum(spent.people for spent in first.result.epsilon_spent) == PEOPLE
    assert max(spent.epsilon for spent in first.result.epsilon_spent) <= 1.0 + 1e-9


def test_the_report_goes_where_it_is_told_and_names_no_customer(first: Demo, tmp_path: Path) -> None:
    write_report(first.result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} | {"bundle", "federation"} == WRITTEN
    text = (tmp_path / "report.html").read_text() + (tmp_path / "report.json").read_text()
    assert "NOT PRIVATE" in text
    assert "KD-" not in text


def test_a_gate_that_lets_everybody_in_is_told_by_the_demos_own_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_gate(question: Question) -> Decisions:
        people = len(question.links)
        return Decisions(question.links, np.full(people, ALLOW, np.uint8), np.ones(people), np.full(people, np.inf))

    monkeypatch.setattr(permits, "decide_all", open_gate)
    result = demo(tmp_path, "broken").result
    # Everybody without consent in each of 10 rounds or the measurement, in two runs.
    assert result.consent.rows_used_without_consent is not None
    assert result.consent.rows_used_without_consent > 500
    assert result.consent.refusals == {}


def finished(out: Path, text: str) -> None:
    for name in ("bundle", "federation"):
        (out / name).mkdir(parents=True)
        (out / name / "file").write_text(text)
    (out / "report.html").write_text(text)
    (out / "report.json").write_text(text)


def test_a_new_demo_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "demo"
    for text in ("old", "new"):
        with replacing(out) as building:
            finished(building, text)
    assert (out / "report.json").read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left on device")])
def test_a_demo_that_ends_early_leaves_the_old_one_whole(tmp_path: Path, error: type[BaseException] | OSError) -> None:
    out = tmp_path / "demo"
    finished(out, "old")
    before = state_of(tmp_path)
    expected = RefusalError if isinstance(error, OSError) else error
    with pytest.raises(expected), replacing(out) as building:  # noqa: PT012
        (building / "report.json").write_text("new")
        raise error
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("move", [1, 2])
def test_an_interruption_between_the_two_moves_brings_the_old_one_back(
    tmp_path: Path, move: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    finished(out, "old")
    before = state_of(tmp_path)
    replace_path: Callable[[Path, Path], Path] = Path.replace
    moves = 0

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == move:
            raise KeyboardInterrupt
        return replace_path(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(out) as building:
        finished(building, "new")
    assert state_of(tmp_path) == before


def test_a_demo_killed_between_the_two_moves_is_brought_back_by_the_next_one(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    finished(out, "old")
    out.rename(tmp_path / ".demo.before")
    with pytest.raises(KeyboardInterrupt), replacing(out):  # noqa: PT012
        assert (out / "report.json").read_text() == "old"
        raise KeyboardInterrupt
    assert (out / "bundle" / "file").read_text() == "old"


@pytest.mark.parametrize("foreign", ["thesis.tex", ".git", "report.txt"])
@pytest.mark.parametrize("with_report", [True, False])
def test_a_directory_with_anything_else_is_never_replaced(tmp_path: Path, foreign: str, with_report: bool) -> None:
    out = tmp_path / "demo"
    if with_report:
        finished(out, "old")
    else:
        out.mkdir()
    (out / foreign).write_text("years of work")
    before = state_of(tmp_path)
    with pytest.raises(UsageError, match="--out"), replacing(out):
        pass
    assert state_of(tmp_path) == before


def test_an_empty_directory_may_be_filled_and_a_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with replacing(tmp_path / "empty") as building:
        finished(building, "new")
    assert (tmp_path / "empty" / "report.json").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file"), replacing(tmp_path / "file"):
        pass
    with pytest.raises(RefusalError), replacing(tmp_path / "file" / "below"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_the_current_directory_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with replacing(Path()) as building:
        finished(building, "new")
    assert (tmp_path / "here" / "report.json").read_text() == "new"


def test_what_a_data_holder_logs_stands_above_the_bars_and_not_between(capsys: pytest.CaptureFixture[str]) -> None:
    with _Bars() as bars:
        bars.show("training", 1, 2)
        logging.getLogger("clients.holder.node").warning("%s refuses (%s): %s", "aster-bank", "budget", "it is spent")
        bars.show("training", 2, 2)
    captured = capsys.readouterr()
    assert "aster-bank refuses (budget): it is spent" in " ".join(captured.err.split())
    assert captured.err.count("training") >= 1
    assert captured.out == ""
    assert logging.getLogger("clients").handlers == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "trust"),
    [(RecipeName.LOCAL_SGD, TrustModel.HOLDER_NOISE), (RecipeName.SUFFICIENT_STATISTICS, TrustModel.COORDINATOR_NOISE)],
)
def test_any_recipe_and_trust_model_can_be_told(tmp_path: Path, recipe: RecipeName, trust: TrustModel) -> None:
    told = demo(tmp_path, "other", recipe=recipe, trust=trust).result
    assert told.privacy.epsilon == 1
    assert told.privacy.second_epsilon is not None
    assert 0.5 < told.privacy.second_epsilon <= 1
    assert told.privacy.reason == "Asked for by name."
    assert told.consent.rows_used_without_consent == 0


@pytest.mark.parametrize("name", [*RecipeName, "auto"])
def test_recipes_are_asked_for_by_the_names_that_plans_have(name: str) -> None:
    """The command gets as far as what is wrong beside the name."""
    arguments = ["--recipe", str(name), "--trust", "holder_noise", "--schema", str(SCHEMA)]
    failed = CliRunner().invoke(demo_command, arguments)
    assert isinstance(failed.exception, UsageError)
    assert "go together" in str(failed.exception)
