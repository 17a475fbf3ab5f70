"""Four accountants about the same spends: closed form, our Rényi bound, dp-accounting's, and Opacus' PRV."""

import ast
import math
import re
import subprocess
import sys
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant

from federated.loss_distribution import total_epsilon_pld
from privacy.accounting import (
    GaussianSpend,
    SampledSpend,
    Spend,
    UnprotectedSpend,
    epsilon_of,
    mu_of,
    shuffled_spend,
    total_epsilon,
)
from privacy.sampled import ORDERS, noise_multiplier_for

ROOT = Path(__file__).parent.parent.parent
DELTA = 1e-5
SAMPLED = [(1.1, 0.01, 1000), (2.175, 0.064, 48), (4.0, 0.5, 20), (1.5, 0.003, 5000)]
"""Where people train; PRV hangs far outside."""


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_full_batches_in_closed_form_and_by_loss_distribution(epsilon: float) -> None:
    mu = mu_of(epsilon, DELTA)
    parts: list[Spend] = [GaussianSpend(mu * math.sqrt(part)) for part in (0.05, 0.095, *[0.855 / 8] * 8)]
    assert total_epsilon(parts, DELTA) == pytest.approx(epsilon, rel=1e-9)
    # Rounded up to a grid of 1e-4 in each kind of release.
    assert epsilon - 1e-9 <= total_epsilon_pld(parts, DELTA) <= epsilon * 1.001 + 1e-3


@pytest.mark.parametrize("steps", SAMPLED)
def test_sampled_steps_by_four_accountants(steps: tuple[float, float, int]) -> None:
    noise_multiplier, sampling_rate, count = steps
    spend = SampledSpend(*steps)
    event = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    theirs = RdpAccountant(list(ORDERS))
    theirs.compose(event, count)
    prv = PRVAccountant()
    prv.history = [steps]
    renyi, pld = total_epsilon([spend], DELTA), total_epsilon_pld([spend], DELTA)
    assert renyi == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-6)
    assert pld == pytest.approx(prv.get_epsilon(DELTA, eps_error=0.01), rel=0.02)
    assert pld <= renyi <= 1.45 * pld


def test_gaussian_and_sampled_spends_together() -> None:
    spends: list[Spend] = [GaussianSpend(0.2), SampledSpend(1.1, 0.01, 1000), GaussianSpend(0.1), GaussianSpend(0.1)]
    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(1 / math.sqrt(0.06)))
    step = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1))
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, 1000))
    together = total_epsilon_pld(spends, DELTA)
    assert together == pytest.approx(accountant.get_epsilon(DELTA), rel=2e-3)
    assert max(total_epsilon_pld(spends[:1], DELTA), total_epsilon_pld(spends[1:2], DELTA)) < together
    assert together <= total_epsilon(spends, DELTA)


def test_splitting_steps_between_spends_changes_nothing() -> None:
    whole = total_epsilon_pld([SampledSpend(1.1, 0.02, 300)], DELTA)
    assert total_epsilon_pld([SampledSpend(1.1, 0.02, 100)] * 3, DELTA) == pytest.approx(whole, rel=1e-6)


def test_ends_of_the_scale() -> None:
    assert total_epsilon_pld([], DELTA) == 0.0
    assert total_epsilon_pld([GaussianSpend(0.0)], DELTA) == 0.0
    assert total_epsilon_pld([GaussianSpend(0.1), UnprotectedSpend()], DELTA) == math.inf
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="delta"):
            total_epsilon_pld([], delta)


def test_a_full_batch_is_the_gaussian_mechanism_here_too() -> None:
    assert total_epsilon_pld([SampledSpend(10.0, 1.0, 4)], DELTA) == pytest.approx(epsilon_of(0.2, DELTA), rel=1e-3)


def test_shuffled_batches_charged_as_poisson_hide_nineteen_twentieths() -> None:
    # Opacus' usual example on 22,500 people: batches of 64, 10 epochs, and the noise it chose for epsilon 0.98.
    people, batch, epochs, noise_multiplier = 22_500, 64, 10, 0.946
    as_if = SampledSpend(noise_multiplier, batch / people, epochs * math.ceil(people / batch))
    prv = PRVAccountant()
    prv.history = [(noise_multiplier, as_if.sampling_rate, as_if.steps)]
    assert prv.get_epsilon(DELTA, eps_error=0.01) == pytest.approx(0.98, abs=0.01)
    assert total_epsilon_pld([as_if], DELTA) == pytest.approx(0.98, abs=0.02)
    honest = shuffled_spend(noise_multiplier, epochs)
    assert total_epsilon([honest], DELTA) == pytest.approx(19, abs=0.5)
    assert total_epsilon_pld([honest], DELTA) == pytest.approx(total_epsilon([honest], DELTA), rel=1e-3)


def test_the_noise_that_a_plan_asks_for_is_enough_by_every_accountant() -> None:
    noise_multiplier = noise_multiplier_for(3.0, DELTA, sampling_rate=0.05, steps=200)
    spend = SampledSpend(noise_multiplier, 0.05, 200)
    prv = PRVAccountant()
    prv.history = [(noise_multiplier, 0.05, 200)]
    assert total_epsilon_pld([spend], DELTA) <= total_epsilon([spend], DELTA) <= 3.0
    assert prv.get_epsilon(DELTA, eps_error=0.01) <= 3.0


def test_nothing_here_imports_it_before_a_cost_is_asked_for() -> None:
    code = "import sys, federated.loss_distribution\nsys.exit('dp_accounting' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CENTRAL_LIMIT = re.compile(r"GaussianAccountant|compute_eps_poisson|compute_eps_uniform|compute_mu_poisson|\bgdp\b")


def _names_and_texts(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found |= {name, other or ""}
            case ast.ImportFrom(module=str(name)):
                found.add(name)
            case ast.Constant(value=str(name)) if " " not in name:  # prose may warn of it
                found.add(name)
    return found


@pytest.mark.parametrize(
    "line",
    [
        "from opacus.accountants import GaussianAccountant",
        "import opacus.accountants.analysis.gdp as g",
        "make_private(accountant='gdp')",
        "analysis.gdp.compute_eps_poisson(1)",
    ],
)
def test_the_search_for_the_central_limit_accountant_finds_it(line: str) -> None:
    assert any(map(CENTRAL_LIMIT.search, _names_and_texts(ast.parse(line))))


def test_the_central_limit_accountant_is_nowhere() -> None:
    sources = [
        path
        for room in ("privacy", "federated", "clients", "server", "experiments")
        for path in (ROOT / room).rglob("*.py")
    ]
    assert len(sources) > 50
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if any(map(CENTRAL_LIMIT.search, _names_and_texts(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == set()
