"""Costs against integrals, 60-digit arithmetic and two other libraries. Reported epsilon never lies below the truth."""

import itertools
import math
import sys

import dp_accounting
import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.accounting import (
    GaussianSpend,
    SampledSpend,
    Spend,
    UnprotectedSpend,
    at_share,
    delta_of,
    epsilon_of,
    mu_of,
    mu_squared_of,
    total_epsilon,
)

MUS = st.floats(1e-4, 20)
EPSILONS = st.floats(0, 50)
DELTAS = st.sampled_from([1e-3, 1e-5, 1e-7, 1e-10, 1e-14])


def exact_delta(mu: float, epsilon: float) -> float:
    """The closed form, word for word, in 80 digits."""
    with mpmath.workdps(80):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        return float(mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m))


def integrated_delta(mu: float, epsilon: float) -> float:
    """Integral of max(0, N(mu, 1) - e^epsilon N(0, 1)): the definition, by the trapezoidal rule."""
    x = np.linspace(epsilon / mu + mu / 2, epsilon / mu + mu / 2 + 15, 400_001)
    gap = np.exp(-((x - mu) ** 2) / 2) - np.exp(epsilon - x**2 / 2)
    return float(np.trapezoid(gap, x)) / math.sqrt(2 * math.pi)


@given(MUS, EPSILONS)
@example(40.0, 0.0)
@example(1e-4, 0.0)
@example(0.5, 30.0)
def test_delta_is_the_closed_form(mu: float, epsilon: float) -> None:
    exact = exact_delta(mu, epsilon)
    assert delta_of(mu, epsilon) == pytest.approx(exact, rel=1e-8, abs=1e-300)


@pytest.mark.parametrize(("mu", "epsilon"), list(itertools.product((0.1, 0.5, 1.666, 4.0), (0.0, 0.3, 1.0, 8.0))))
def test_delta_is_the_integral_of_its_definition(mu: float, epsilon: float) -> None:
    assert delta_of(mu, epsilon) == pytest.approx(integrated_delta(mu, epsilon), rel=1e-6)


@given(st.floats(1e-3, 20), DELTAS)
def test_reported_epsilon_is_never_below_the_exact_one_and_close_above(mu: float, delta: float) -> None:
    reported = epsilon_of(mu, delta)
    assert exact_delta(mu, reported) <= delta
    if reported > 0:
        assert exact_delta(mu, reported * (1 - 1e-6)) > delta


@given(st.floats(1e-3, 50), DELTAS)
def test_granted_mu_is_never_above_the_exact_one_and_close_below(epsilon: float, delta: float) -> None:
    granted = mu_of(epsilon, delta)
    assert exact_delta(granted, epsilon) <= delta
    assert exact_delta(granted * (1 + 1e-6), epsilon) > delta


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(0.5, 0.1422), (1, 0.2681), (2, 0.5016), (3, 0.7191), (4, 0.9249), (8, 1.666)]
)
def test_published_table(epsilon: float, mu: float) -> None:
    assert mu_of(epsilon, 1e-5) == pytest.approx(mu, abs=6e-5)


@given(st.floats(0.05, 10), st.floats(0.05, 10), DELTAS)
def test_more_mu_costs_more(a: float, b: float, delta: float) -> None:
    assert (a <= b) == (epsilon_of(a, delta) <= epsilon_of(b, delta)) or a == pytest.approx(b, rel=1e-9)


def test_ends_of_the_scale() -> None:
    assert epsilon_of(0.0, 1e-5) == 0.0
    assert epsilon_of(1e-7, 1e-5) == 0.0
    assert epsilon_of(math.inf, 1e-5) == math.inf
    assert delta_of(0.0, 0.0) == 0.0
    assert delta_of(math.inf, 3.0) == 1.0
    assert mu_of(0.0, 1e-5) == pytest.approx(2.5066e-5, rel=1e-3)  # delta = erf(mu / sqrt 8)
    assert total_epsilon([], 1e-5) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, math.inf])
def test_unlawful_deltas_are_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        epsilon_of(1.0, delta)
    with pytest.raises(ValueError, match="delta"):
        mu_of(1.0, delta)
    with pytest.raises(ValueError, match="delta"):
        total_epsilon([], delta)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianSpend(-1.0),
        lambda: GaussianSpend(math.nan),
        lambda: GaussianSpend(math.inf),
        lambda: SampledSpend(0.0, 0.1, 1),
        lambda: SampledSpend(math.nan, 0.1, 1),
        lambda: SampledSpend(1.0, 0.0, 1),
        lambda: SampledSpend(1.0, 1.1, 1),
        lambda: SampledSpend(1.0, math.nan, 1),
        lambda: SampledSpend(1.0, 0.1, 0),
        lambda: SampledSpend(1.0, 0.1, True),
        lambda: SampledSpend(1.0, 0.1, 1.5),  # type: ignore[arg-type]
        lambda: at_share(GaussianSpend(1.0), 1.1),
        lambda: at_share(GaussianSpend(1.0), math.nan),
    ],
)
def test_unlawful_spends_cannot_be_made(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match="requires"):
        make()


@given(st.lists(st.floats(0, 2), max_size=8), DELTAS)
def test_gaussian_releases_add_in_mu_squared(mus: list[float], delta: float) -> None:
    together = math.sqrt(math.fsum(mu**2 for mu in mus))
    assert total_epsilon([GaussianSpend(mu) for mu in mus], delta) == pytest.approx(
        epsilon_of(together, delta), rel=1e-9
    )
    assert mu_squared_of([GaussianSpend(mu) for mu in mus], delta) == pytest.approx(together**2)


@pytest.mark.parametrize(("runs", "epsilon"), [(2, 1.47), (4, 2.15), (12, 4.02), (52, 9.59)])
def test_retraining_costs_what_was_measured_elsewhere(runs: int, epsilon: float) -> None:
    assert total_epsilon([GaussianSpend(mu_of(1.0, 1e-5))] * runs, 1e-5) == pytest.approx(epsilon, abs=0.006)


@given(st.floats(0, 1), st.floats(0.1, 3))
def test_a_share_scales_mu(share: float, mu: float) -> None:
    assert at_share(GaussianSpend(mu), share) == GaussianSpend(mu * share)
    expected: Spend = SampledSpend(min(mu / share, sys.float_info.max), 0.1, 5) if share else GaussianSpend(0.0)
    assert at_share(SampledSpend(mu, 0.1, 5), share) == expected


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_smallest_share_costs_next_to_nothing_and_breaks_nothing(rate: float) -> None:
    assert total_epsilon([at_share(SampledSpend(1.0, rate, 5), 5e-324)], 1e-5) < 1e-2


def test_no_noise_costs_everything() -> None:
    assert total_epsilon([GaussianSpend(0.1), UnprotectedSpend()], 1e-5) == math.inf
    assert mu_squared_of([UnprotectedSpend()], 1e-5) == math.inf
    assert at_share(UnprotectedSpend(), 0.5) == UnprotectedSpend()
    assert at_share(UnprotectedSpend(), 0.0) == GaussianSpend(0.0)


def test_full_batches_are_charged_in_closed_form() -> None:
    full = total_epsilon([SampledSpend(10.0, 1.0, 4)], 1e-5)
    assert full == pytest.approx(epsilon_of(0.2, 1e-5))


@pytest.mark.parametrize("mu", [0.1422, 0.5016, 1.666])
def test_gaussian_cost_against_privacy_loss_distributions(mu: float) -> None:
    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(1 / mu))
    assert epsilon_of(mu, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize(
    ("noise_multiplier", "sampling_rate", "steps"),
    [(2.18, 0.064, 48), (1.1, 0.01, 1000), (1.5, 0.003, 5000), (5.0, 0.3, 100)],
)
def test_mixed_cost_is_above_the_exact_one_and_at_most_40_per_cent(
    noise_multiplier: float, sampling_rate: float, steps: int
) -> None:
    accountant = PLDAccountant()
    step = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    accountant.compose(dp_accounting.GaussianDpEvent(1 / 0.2))
    exact = accountant.get_epsilon(1e-5)
    spends: list[Spend] = [SampledSpend(noise_multiplier, sampling_rate, steps), GaussianSpend(0.2)]
    assert exact <= total_epsilon(spends, 1e-5) <= 1.4 * exact
    # The ledger's currency says the same thing.
    assert epsilon_of(math.sqrt(mu_squared_of(spends, 1e-5)), 1e-5) == pytest.approx(total_epsilon(spends, 1e-5))


def test_splitting_steps_between_spends_changes_nothing() -> None:
    whole = total_epsilon([SampledSpend(1.1, 0.02, 300)], 1e-6)
    assert total_epsilon([SampledSpend(1.1, 0.02, 100)] * 3, 1e-6) == pytest.approx(whole)
    assert total_epsilon([SampledSpend(1.1, 0.02, 100)], 1e-6) < whole
