"""Tails and exact intervals against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from privacy.audit.binomial import binomial_tails, normal_below, normal_quantile, probability_above


@given(st.integers(0, 400), st.floats(1e-6, 1 - 1e-6))
def test_tails_are_those_of_the_binomial(trials: int, probability: float) -> None:
    tails = binomial_tails(trials, probability)
    np.testing.assert_allclose(
        tails, stats.binom.sf(np.arange(-1, trials + 1), trials, probability), rtol=1e-7, atol=1e-280
    )
    assert (np.diff(tails) <= 0).all()


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (10, 10), (553, 1000), (1700, 2000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_bound_is_clopper_and_pearsons(successes: int, trials: int, confidence: float) -> None:
    exact = stats.beta.ppf(1 - confidence, successes, trials - successes + 1) if successes else 0.0
    assert probability_above(successes, trials, confidence) == pytest.approx(exact, rel=1e-9)


@given(st.floats(-35, 8))
def test_normal_distribution(x: float) -> None:
    assert normal_below(x) == pytest.approx(stats.norm.cdf(x), rel=1e-9)


@given(st.floats(1e-300, 1 - 1e-12))
def test_quantiles_undo_it(probability: float) -> None:
    assert normal_below(normal_quantile(probability)) == pytest.approx(probability, rel=1e-9)
    assert normal_quantile(0.0) == -math.inf
    assert normal_quantile(1.0) == math.inf


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 2, 1.0)])
def test_unlawful_arguments_are_refused(successes: int, trials: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="requires"):
        probability_above(successes, trials, confidence)
    with pytest.raises(ValueError, match="requires"):
        binomial_tails(3, 1.0)
    with pytest.raises(ValueError, match="requires"):
        normal_quantile(math.nan)
