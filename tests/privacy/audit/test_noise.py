"""Bounds on variance and correlation: never violated by honest noise more often than promised, and sharp for faults."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from privacy.audit.noise import correlation_allowed, largest_correlation, variance_below
from privacy.discrete import discrete_gaussian
from privacy.noise import SeededNoise

VARIANCE = 2**50
N = 4000


def draws(label: int, n: int = N, variance: int = VARIANCE) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return discrete_gaussian(n, variance, SeededNoise(3, str(label)))


def test_the_variance_is_bounded_by_a_chi_squared_tail() -> None:
    n, confidence = 500, 0.95
    exact = stats.chi2.ppf(1 - confidence, n)
    sample = draws(0, n)
    bound = variance_below(sample, confidence=confidence)
    assert bound >= float((sample.astype(float) ** 2).sum()) / exact
    assert bound <= 1.1 * float((sample.astype(float) ** 2).sum()) / exact


def test_honest_noise_is_not_accused_and_halved_noise_is() -> None:
    for label in range(50):
        assert variance_below(draws(label), confidence=0.999) >= VARIANCE
    assert variance_below(draws(0, variance=VARIANCE // 4), confidence=0.999) < VARIANCE / 3
    assert variance_below(draws(0, 3), confidence=0.999) == np.inf


def test_independent_noises_correlate_little_and_a_repeated_one_fully() -> None:
    independent = [draws(label) for label in range(10)]
    allowed = correlation_allowed(N, 45, confidence=0.999)
    assert largest_correlation(independent) < allowed < 0.1
    assert largest_correlation([*independent, independent[4]]) == pytest.approx(1.0)
    assert largest_correlation([independent[0], -independent[0]]) == pytest.approx(1.0)
    assert largest_correlation([independent[0], 0 * independent[0]]) == 1.0


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_the_correlation_allowed_covers_the_exact_distribution(n: int) -> None:
    for confidence in (0.9, 0.999):
        r = correlation_allowed(n, 1, confidence=confidence)
        # A squared cosine between independent directions is Beta(1/2, (n - 1) / 2).
        assert stats.beta.sf(r**2, 0.5, (n - 1) / 2) <= 1 - confidence


def test_one_release_has_nothing_to_correlate_with() -> None:
    with pytest.raises(ValueError, match="two"):
        largest_correlation([draws(0)])
