"""`fedcredit holder ledger`: the costs that the parties agreed on, and one person's own, with no handle in them."""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.holder.desk import Desk
from clients.holder.init import make_directory
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_told import ledger_of
from clients.holder.node import Holder
from experiments.people import Attitude, Membership
from federated import cli
from federated.messages import Coverage, Enquiry, Letter
from federated.plan import TrainingPlan
from privacy.accounting import GaussianSpend, SampledSpend, epsilon_of
from privacy.consent.budget import tier_of
from privacy.discrete import mu_on_grid
from server.coordinator import Coordinator
from tests.clients.audit.case import Case, usual
from tests.clients.holder.desk_scene import START
from tests.ready import ASTER, AT, Ready

DELTA = 1e-5


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class Scene:
    """A data holder after one run, in a directory of its own."""

    case: Case
    home: Path
    ask: Callable[..., Told]

    @property
    def ready(self) -> Ready:
        return self.case.ready

    @property
    def plan(self) -> TrainingPlan:
        return Coordinator(self.ready.federation.coordinator_directory).plan

    def number_of(self, place: Membership) -> str:
        return self.ready.federation.customer(place.person)

    def one(self, place: Membership, *arguments: str) -> Told:
        return self.ask("--customer", self.number_of(place), *arguments)

    @contextmanager
    def ledger(self) -> Iterator[PrivacyLedger]:
        with Desk.open(self.home) as desk, ledger_of(desk) as ledger:
            yield ledger

    def person(self, *, held_out: bool = False) -> Membership:
        """Somebody with a cap below the plan's epsilon, so that cap and cost differ."""
        caps = self.ready.federation.population.caps
        places = self.ready.measured() if held_out else self.ready.agreeing()
        return next(place for place in places if caps[place.person] < 1)


@pytest.fixture
def scene(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Scene:
    case, home = usual(), tmp_path / ASTER
    shutil.copytree(case.ready.home(), home)

    def ask(*arguments: object) -> Told:
        monkeypatch.setattr(
            sys, "argv", ["fedcredit", "holder", "ledger", "--directory", str(home), *map(str, arguments)]
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return Told(exited.value.code, captured.out, captured.err)

    return Scene(case, home, ask)


def test_every_release_is_told_with_its_cost_and_how_it_was_accounted_for(scene: Scene) -> None:
    facts = scene.ask("--json").facts
    assert (facts["unit"], facts["neighbouring"]) == ("one person", "add or remove one person")
    assert facts["stays_in_the_house"] is True
    releases, run = facts["releases"], scene.case.outcome.run
    assert [release["release"] for release in releases] == [f"{run}/{stage}" for stage in range(1, 6)]
    assert [release["what"] for release in releases] == [
        *(f"round {number} of 4" for number in range(1, 5)), "measurement on held-out people",
    ]  # fmt: skip
    # By the plan alone: the rounds add up to its epsilon, and the measurement is the other one.
    rounds = math.sqrt(math.fsum(release["mu"] ** 2 for release in releases[:4]))
    assert rounds == pytest.approx(mu_on_grid(1.0, DELTA), rel=1e-9)
    assert releases[4]["epsilon"] == pytest.approx(1.0, rel=1e-5)
    for release in releases:
        assert release["epsilon"] == epsilon_of(release["mu"], DELTA)
        assert (release["delta"], release["plan"]) == (DELTA, "small")
        assert "Gaussian" in release["accountant"]
        assert release["excludes"]
    people = [release["people"] for release in releases]
    assert people == [len(scene.ready.agreeing())] * 4 + [len(scene.ready.measured())]
    with scene.ledger() as ledger:
        handles = [handle for release in releases for handle in ledger.subjects_of(release["release"])]
        most = max(math.fsum((spend.mu * share) ** 2 for spend, share in ledger.spends(handle)) for handle in handles)  # type: ignore[union-attr]
    assert facts["totals"]["most_spent"]["epsilon"] == epsilon_of(math.sqrt(most), DELTA)
    assert (facts["totals"]["releases"], facts["totals"]["runs"]) == (5, 1)


def test_the_same_in_words(scene: Scene) -> None:
    told = scene.ask()
    assert told.code == 0, told.err
    text = " ".join(told.out.split())
    for words in (
        f"run {scene.case.outcome.run} of plan small, fixed_hessian, shared_noise",
        "round 1 of 4: mu ",
        "measurement on held-out people: mu 0.2681, epsilon 1 at delta 1e-05; ",
        "together, for a person in 4 rounds: mu 0.2681, epsilon 1 at delta 1e-05",
        "accounted by: ",
        "not covered: ",
        "neighbouring relation: add or remove one person",
        "In all, releases: 5, runs: 1. The person who has spent most: mu 0.2681, epsilon 1 at delta 1e-05.",
    ):
        assert words in text, (words, told.out)


@pytest.mark.parametrize("held_out", [False, True])
def test_one_person_sees_what_was_spent_of_the_cap_and_what_is_left(scene: Scene, held_out: bool) -> None:
    place = scene.person(held_out=held_out)
    facts = scene.one(place, "--json").facts
    tier = tier_of(float(scene.ready.federation.population.caps[place.person]))
    share = place.share_milli / 1000
    assert tier is not None
    train, validate = facts["caps"]
    assert (train["purpose"], validate["purpose"]) == ("train", "validate")
    allowed = share * mu_on_grid(tier, DELTA)
    for cap in (train, validate):
        assert (cap["cap"]["tier"], cap["cap"]["share"], cap["cap"]["delta"]) == (tier, share, pytest.approx(DELTA))
        assert cap["allowed"]["mu"] == pytest.approx(allowed, rel=1e-9)
        # The cap covers two runs and a hundredth for being counted, and there was one run.
        spent = allowed * math.sqrt(0.99 / 2)
        assert cap["spent"]["mu"] == pytest.approx(spent, rel=1e-6)
        assert cap["left"]["mu"] == pytest.approx(allowed * math.sqrt(1 - 0.99 / 2), rel=1e-6)
        assert cap["spent"]["epsilon"] == pytest.approx(epsilon_of(spent, DELTA), rel=1e-5)
        assert cap["counted"] == {"mu": 0.0, "epsilon": 0.0, "delta": pytest.approx(DELTA)}
    (run,) = facts["runs"]
    assert (run["run"], run["releases"]) == (scene.case.outcome.run, 1 if held_out else 4)
    assert run["epsilon"] == pytest.approx(train["spent"]["epsilon"], rel=1e-5)
    told = scene.one(place)
    assert "train: cap epsilon" in told.out
    assert f"share {share:g}" in told.out


def test_who_was_charged_nothing_and_who_has_no_budget_is_told_so(scene: Scene) -> None:
    for attitude in (Attitude.SILENT, Attitude.FROZE, Attitude.WITHDREW, Attitude.SCORE_ONLY):
        for place in scene.ready.with_attitude(attitude)[:1]:
            told = scene.one(place)
            assert told.code == 0, told.err
            assert told.out.count("grants no budget now") == 2
            assert "Nothing was charged to this person." in told.out
            assert [cap["cap"] for cap in scene.one(place, "--json").facts["caps"]] == [None, None]


def test_no_output_holds_a_handle_a_key_or_the_customers_number(scene: Scene) -> None:
    place = scene.person()
    texts = [scene.ask().out, scene.ask("--json").out, scene.one(place).out, scene.one(place, "--json").out]
    handles = {handle.hex() for handle in scene.ready.federation.handles.values()}
    for text in texts:
        assert len(text) > 200
        assert not re.search(r"[0-9a-f]{64}", text)
        assert not any(handle[:16] in text for handle in handles)
    assert not any(f'"{scene.number_of(place)}"' in text for text in texts)


def test_a_stranger_is_refused_and_help_shows_an_example(scene: Scene) -> None:
    told = scene.ask("--customer", "nobody-here")
    assert (told.code, told.out) == (3, "")
    assert "not linked" in told.err
    told = scene.ask("--help")
    assert "Example: fedcredit holder ledger --customer 4711" in told.out


def test_a_run_whose_plan_is_not_kept_here_is_told_by_mu_alone(scene: Scene) -> None:
    handle = scene.ready.federation.handles[scene.person()]
    with scene.ledger() as ledger:
        ledger.charge(f"{'0' * 32}/1", GaussianSpend(0.125), {handle: 1.0}, {handle: 9.0})
        ledger.charge(f"{'1' * 32}/7", SampledSpend(2.0, 0.1, 3), {handle: 1.0}, {handle: 9.0}, delta=DELTA)
    facts = scene.ask("--json").facts["releases"][-2:]
    assert [(fact["mu"], fact["epsilon"], fact["what"]) for fact in facts] == [
        (0.125, None, "release 1"), (None, None, "release 7"),
    ]  # fmt: skip
    text = scene.ask().out
    assert f"run {'0' * 32}, whose plan is not kept here" in text
    assert "release 1: mu 0.125; the plan, which names delta, is not kept here" in text
    assert scene.one(scene.person()).code == 0


def test_a_ledger_that_was_restored_is_not_told_as_if_it_were_whole(scene: Scene) -> None:
    for path in scene.home.glob("ledger.db*"):
        path.unlink()
    told = scene.ask()
    assert (told.code, told.out) == (5, "")


def test_a_desk_that_has_joined_no_run_says_so(scene: Scene) -> None:
    shutil.rmtree(scene.home)
    make_directory(scene.home, START)
    told = scene.ask()
    assert told.code == 0, told.err
    assert "Nothing was ever charged here." in told.out
    assert scene.ask("--json").facts["totals"] == {
        "releases": 0, "runs": 0, "most_spent": {"mu": None, "epsilon": None, "delta": None},
    }  # fmt: skip


def test_counts_before_runs_are_told_with_their_cost_and_what_was_said(scene: Scene) -> None:
    opening = scene.ready.opening()
    asked = Letter(Enquiry(opening.plan, opening.plan_signature, {**opening.checkpoints, "birch-telecom": "x"}, {}))
    with closing(Holder(scene.home, scene.ready.registry)) as holder:
        answer = holder.answer(asked, at=AT).header
        assert isinstance(answer, Coverage), answer
        counted = holder.ledger.subjects_of(f"coverage/{answer.run}")
    facts = scene.ask("--json").facts
    count = facts["releases"][-1]
    assert (count["run"], count["plan"], count["delta"]) == (answer.run, "small", DELTA)
    assert count["what"] == "count of the people who may be trained on"
    assert (count["mu"], count["told"], count["people"]) == (0.01, answer.count, len(counted))
    assert count["epsilon"] == epsilon_of(0.01, DELTA)
    assert [release["told"] for release in facts["releases"][:-1]] == [None] * 5
    text = " ".join(scene.ask().out.split())
    assert f"run {answer.run} of plan small, which was asked about and not joined" in text
    assert f"people charged; told, with noise: {answer.count}" in text
    place = next(
        place for place in scene.ready.agreeing() if scene.ready.federation.handles[place] in counted
    )  # fmt: skip
    (train, _) = scene.one(place, "--json").facts["caps"]
    assert train["counted"]["mu"] == pytest.approx(0.01)
    assert "of that on being counted" in scene.one(place).out
