from math import erf, exp, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.budget import TIERS, aggregation_share, allowance_mu_squared, set_aside, tier_of
from privacy.discrete import mu_on_grid
from privacy.errors import MalformedError
from tests.privacy.consent.samples import budget

PLAN: dict[str, Any] = {"plan_mu": 0.2681, "delta": 1e-5, "releases_per_window": 1}
shares = st.integers(1, 1000)
caps = st.integers(1, 9000)


def exact_delta(epsilon: float, mu: float) -> float:
    """delta of mu-Gaussian differential privacy at `epsilon` (arXiv:1905.02383, corollary 2.13)."""

    def below(x: float) -> float:
        return (1 + erf(x / sqrt(2))) / 2

    return below(-epsilon / mu + mu / 2) - exp(epsilon) * below(-epsilon / mu - mu / 2)


@given(st.floats(0, 100))
def test_caps_round_down_to_a_tier(epsilon: float) -> None:
    tier = tier_of(epsilon)
    if tier is None:
        assert epsilon < 0.25
    else:
        assert tier in TIERS
        assert tier <= epsilon
        assert epsilon < 2 * tier or tier == 8


@pytest.mark.parametrize(("epsilon", "tier"), [(0.249, None), (0.25, 0.25), (0.999, 0.5), (1, 1), (8, 8), (99, 8)])
def test_tiers_at_their_edges(epsilon: float, tier: float | None) -> None:
    assert tier_of(epsilon) == tier


@given(shares, caps, st.floats(0.01, 5), st.integers(1, 50))
def test_a_window_full_of_releases_never_passes_the_allowance(
    share: int, eps_milli: int, plan_mu: float, releases: int
) -> None:
    own = budget(share_milli=share, eps_milli=eps_milli)
    factor = aggregation_share(own, plan_mu=plan_mu, delta=1e-5, releases_per_window=releases)
    assert 0 <= factor <= share / 1000
    # A hundredth is left for being counted, however many releases there are.
    assert releases * (factor * plan_mu) ** 2 + allowance_mu_squared(own) / 100 <= allowance_mu_squared(own) * (
        1 + 1e-12
    )


@given(caps.filter(lambda cap: cap >= 250), st.integers(-9, -4))
def test_shares_that_sum_to_one_cost_a_person_no_more_than_the_cap(eps_milli: int, delta_log10: int) -> None:
    at_three = [budget(share_milli=s, eps_milli=eps_milli, delta_log10=delta_log10) for s in (500, 300, 200)]
    # With shared noise the contributions of one person add up before the noise does: shares add, not squares.
    mu = sum(sqrt(allowance_mu_squared(one)) for one in at_three)
    assert exact_delta(eps_milli / 1000, mu) <= 10.0**delta_log10 * (1 + 1e-6)


def test_the_designs_figures() -> None:
    # mu at delta 1e-5 for epsilon 0.5, 1, 2, 4 and 8, as measured for the privacy design
    for epsilon, mu in ((0.5, 0.1422), (1, 0.2681), (2, 0.5016), (4, 0.9249), (8, 1.666)):
        allowed = allowance_mu_squared(budget(share_milli=1000, eps_milli=int(epsilon * 1000)))
        assert sqrt(allowed) == pytest.approx(mu, rel=5e-4)


def test_a_cap_at_or_above_the_plans_gives_the_whole_share_and_a_smaller_one_less() -> None:
    assert aggregation_share(budget(share_milli=1000, eps_milli=2000), **PLAN) == 1.0
    assert aggregation_share(budget(share_milli=400, eps_milli=2000), **PLAN) == 0.4
    halved = aggregation_share(budget(share_milli=1000, eps_milli=500), **PLAN)
    assert halved == pytest.approx(0.1422 / 0.2681 * sqrt(1 - 1 / 100), rel=1e-3)
    four = aggregation_share(budget(share_milli=1000, eps_milli=500), **(PLAN | {"releases_per_window": 4}))
    assert four == pytest.approx(halved / 2)


def test_a_cap_of_the_plans_own_epsilon_gives_all_but_half_a_hundredth_of_the_share() -> None:
    # mu_on_grid(1, 1e-5) is the whole budget of cap and plan alike; sqrt(0.99) = 0.99498743710662.
    same = PLAN | {"plan_mu": mu_on_grid(1.0, 1e-5)}
    assert aggregation_share(budget(share_milli=1000, eps_milli=1000), **same) == pytest.approx(0.99498743710662)
    assert aggregation_share(budget(share_milli=300, eps_milli=1000), **same) == pytest.approx(0.3 * 0.99498743710662)


@given(st.floats(0, 10), st.floats(0, 10))
def test_what_runs_must_leave_is_a_hundredth_or_what_was_counted_already(allowance: float, counted: float) -> None:
    (kept,) = set_aside(np.array([allowance]), np.array([counted]))
    assert kept == pytest.approx(allowance / 100 if allowance > 100 * counted else counted)


def test_a_cap_below_the_tiers_cannot_take_part() -> None:
    own = budget(eps_milli=249)
    assert aggregation_share(own, **PLAN) == 0.0
    assert allowance_mu_squared(own) == 0.0


def test_a_stricter_delta_of_the_record_gives_less_whatever_the_plans() -> None:
    loose, strict = budget(eps_milli=500), budget(eps_milli=500, delta_log10=-8)
    assert aggregation_share(strict, **PLAN) < aggregation_share(loose, **PLAN)
    assert aggregation_share(strict, **PLAN) == aggregation_share(strict, **(PLAN | {"delta": 1e-8}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan_mu": 0.0},
        {"plan_mu": -1.0},
        {"plan_mu": float("inf")},
        {"plan_mu": float("nan")},
        {"delta": 0.0},
        {"delta": 1.0},
        {"releases_per_window": 0},
    ],
    ids=str,
)
def test_a_plan_without_privacy_or_releases_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        aggregation_share(budget(), **(PLAN | wrong))
