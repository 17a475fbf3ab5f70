"""`fedcredit audit privacy`: silent about the code as it is, and loud about every fault that it claims to see."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import clients.holder.release
import federated.recipes.unit_rows
from clients.audit import privacy_audits
from clients.audit.cli import audit
from clients.audit.privacy_audits import (
    Finding,
    independence_audit,
    many_run_audit,
    noise_audit,
    one_run_audit,
    recipes_at,
    transcript_audit,
)
from clients.audit.privacy_harness import Target, made_up_encoder, target
from clients.audit.privacy_report import PrivacyReport, read_claims
from federated.recipes.base import RecipeName
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.gradient_descent import GradientDescent
from federated.releases import shape_of_measurement
from federated.rows import EncodedRows
from privacy.discrete import discrete_gaussian
from privacy.errors import TamperingError, UsageError
from privacy.noise import NoiseSource, SeededNoise

CLAIMS = [1.0, 3.0]


class Chances:
    """Seeded, and never the same noise twice: every call gets a stream of its own."""

    def __init__(self, seed: int = 1) -> None:
        self.seed, self.calls = seed, 0

    def __call__(self, label: str) -> NoiseSource:
        self.calls += 1
        return SeededNoise(self.seed, f"{self.calls}/{label}")


def default(epsilon: float, width: int = 6) -> Target:
    return target(recipes_at(epsilon)[0], made_up_encoder(width))


def with_noise_times(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def faulty(n: int, variance: int, source: NoiseSource) -> NDArray[np.int64]:
        return discrete_gaussian(n, int(variance * factor**2), source)

    monkeypatch.setattr(clients.holder.release, "discrete_gaussian", faulty)


@pytest.mark.parametrize("epsilon", CLAIMS)
@pytest.mark.parametrize("number", range(len(recipes_at(1.0))))
def test_every_recipe_uses_nearly_all_of_its_budget_and_no_more(epsilon: float, number: int) -> None:
    settings = recipes_at(epsilon)[number]
    found = transcript_audit(target(settings, made_up_encoder(6)), Chances())
    assert not found.contradicted
    assert found.shown is not None
    assert 0.98 * epsilon < found.shown <= epsilon


def test_every_recipe_with_noise_on_its_sums_is_audited() -> None:
    without = {RecipeName.LOCAL_SGD, RecipeName.OPACUS_FEDAVG}
    assert {settings.name for settings in recipes_at(1.0)} == set(RecipeName) - without


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", CLAIMS)
def test_the_code_as_it_is_is_not_accused(epsilon: float) -> None:
    assert not noise_audit(default(epsilon, 100), Chances()).contradicted
    assert not independence_audit(default(epsilon, 100), Chances()).contradicted
    assert not many_run_audit(default(epsilon), 300, Chances()).contradicted
    assert not one_run_audit(default(epsilon, 300), Chances()).contradicted


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", CLAIMS)
def test_halved_noise_is_seen_in_the_noise_and_in_many_runs(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with_noise_times(monkeypatch, 0.5)
    found = noise_audit(default(epsilon, 100), Chances())
    assert found.contradicted
    assert found.shown is not None
    assert found.shown > 1.7 * epsilon
    assert many_run_audit(default(epsilon), 1000, Chances()).contradicted


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", CLAIMS)
def test_a_tenth_of_the_noise_is_seen_by_everything_that_looks_at_noise(
    epsilon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_noise_times(monkeypatch, 0.1)
    assert noise_audit(default(epsilon, 100), Chances()).contradicted
    assert many_run_audit(default(epsilon), 200, Chances()).contradicted
    assert one_run_audit(default(epsilon, 400), Chances()).contradicted


def test_rows_that_nothing_bounds_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unbounded(vectors: NDArray[np.float64], _: float) -> NDArray[np.float64]:
        return np.clip(vectors, -9.0, 9.0)

    monkeypatch.setattr(federated.recipes.unit_rows, "clip_to_norm", unbounded)
    found = transcript_audit(default(1.0), Chances())
    assert found.contradicted
    assert found.shown is not None
    assert found.shown > 1.1


def test_a_sensitivity_that_is_a_hundredth_too_small_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = GradientDescent.sensitivity
    monkeypatch.setattr(GradientDescent, "sensitivity", lambda self, number: 0.99 * original(self, number))
    assert transcript_audit(target(recipes_at(1.0)[2], made_up_encoder(6)), Chances()).contradicted


@pytest.mark.slow
def test_a_budget_that_every_round_spends_in_full_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FixedHessian, "_part", lambda *_: 1.0)
    assert transcript_audit(default(1.0), Chances()).contradicted
    assert many_run_audit(default(1.0), 200, Chances()).contradicted
    assert one_run_audit(default(1.0, 600), Chances()).contradicted


def test_shares_that_count_for_nothing_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FixedHessian.contribution

    def unweighted(self: FixedHessian, number: int, instruction: Any, rows: EncodedRows, **rest: Any) -> Any:
        return original(self, number, instruction, EncodedRows(rows.x, rows.bad, np.ones(len(rows))), **rest)

    monkeypatch.setattr(FixedHessian, "contribution", unweighted)
    assert transcript_audit(default(1.0), Chances()).contradicted


def test_noise_that_is_used_twice_is_seen_by_nothing_else() -> None:
    def same(_: str) -> NoiseSource:
        return SeededNoise(1, "always")

    assert independence_audit(default(1.0, 100), same).contradicted
    assert not many_run_audit(default(1.0), 200, Chances()).contradicted


def test_fewer_drop_outs_in_the_arithmetic_than_in_the_plan_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from federated.releases import Shape

    def careless(self: Shape, trust: Any, *, members: int, dropouts_tolerated: int) -> int:  # forgets drop-outs
        return self.variance // members

    assert not noise_audit(default(1.0, 100), Chances()).contradicted
    monkeypatch.setattr(Shape, "holder_variance", careless)
    assert noise_audit(default(1.0, 100), Chances()).contradicted


def one(**changes: Any) -> Finding:
    return Finding(**{"audit": "noise", "recipe": "r", "claim": 1.0, "shown": 0.9, "contradicted": False, "note": "n",
                      **changes})  # fmt: skip


def test_the_report_says_what_was_found_and_what_cannot_be() -> None:
    good, bad = PrivacyReport((one(), one(shown=None)), 100), PrivacyReport((one(), one(contradicted=True)), 100)
    good.raise_if_contradicted()
    assert "none contradicts the claim" in " ".join(good.text().split())
    assert "never prove one" in " ".join(good.text().split())
    assert "CONTRADICTED" in bad.text()
    assert bad.to_json()["contradictions"] == 1
    with pytest.raises(TamperingError, match="1 of 2 audits contradict the claim: noise"):
        bad.raise_if_contradicted()


@pytest.mark.parametrize("text", ["", "x", "1,,3", "0.01", "9", "nan", "inf"])
def test_other_claims_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--claims"):
        read_claims(text)
    assert read_claims("1,3") == [1.0, 3.0]


def _few(_: float, __: int, chances: Callable[[str], NoiseSource], clock: Callable[[], float]) -> list[Finding]:
    return [transcript_audit(default(1.0), chances), one(seconds=clock())]


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy_audits, "all_audits", _few)
    done = CliRunner().invoke(audit, ["privacy", "--claims", "1", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [found["audit"] for found in told["findings"]] == ["exact transcript", "noise"]
    monkeypatch.setattr(privacy_audits, "all_audits", lambda *_: [one(contradicted=True)])
    failed = CliRunner().invoke(audit, ["privacy", "--claims", "1"])
    assert isinstance(failed.exception, TamperingError)
    assert "CONTRADICTED" in failed.stdout


def test_a_releaser_whose_chance_is_seeded_alike_ends_the_command_with_5(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_two(epsilon: float, _: int, chances: Callable[[str], NoiseSource], __: object) -> list[Finding]:
        wide = default(epsilon, 100)
        return [noise_audit(wide, chances), independence_audit(wide, chances)]

    monkeypatch.setattr(privacy_audits, "all_audits", only_two)
    # What `Releaser` calls for every release.
    monkeypatch.setattr(clients.holder.release, "chance_of", lambda *_: SeededNoise(0, "same"))
    done = CliRunner().invoke(audit, ["privacy", "--claims", "1"])
    assert isinstance(done.exception, TamperingError)
    assert "independent noise" in str(done.exception)
    assert done.exception.exit_code == 5


def test_a_measurement_with_too_little_noise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not noise_audit(default(1.0), Chances()).contradicted

    def careless(plan: Any) -> Any:
        return replace(shape_of_measurement(plan), variance=shape_of_measurement(plan).variance // 2)

    monkeypatch.setattr(privacy_audits, "shape_of_measurement", careless)
    assert noise_audit(default(1.0), Chances()).contradicted


@pytest.mark.slow
def test_the_whole_command_on_this_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seeded, or it would fail once in two hundred times.
    chances = Chances()
    monkeypatch.setattr(clients.holder.release, "SecureNoise", lambda: chances("secure"))
    monkeypatch.setattr(privacy_audits, "CANARIES", 300)  # a quarter of the time, on a machine that runs all tests
    done = CliRunner().invoke(audit, ["privacy", "--claims", "1", "--runs", "200"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count(" holds ") == 9
