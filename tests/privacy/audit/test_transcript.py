"""Exact losses by hand, and against the likelihood ratio of the noise itself."""

import math

import numpy as np
import pytest

from privacy.audit.transcript import Step, mu_squared
from privacy.grid import Words


def words(*steps: int) -> Words:
    return np.array(steps, dtype=np.int64).view(np.uint64)


def test_squares_over_variances_add_up() -> None:
    steps = [Step(words(3, -4), words(0, 0), 25), Step(words(10), words(12), 16)]
    assert mu_squared(steps) == pytest.approx(1.0 + 0.25)
    assert mu_squared([]) == 0.0


def test_differences_wrap_like_the_sums_do() -> None:
    assert mu_squared([Step(words(-(2**63)), words(2**63 - 1), 1)]) == 1.0


def test_what_no_noise_hides_costs_everything_and_nothing_costs_nothing() -> None:
    assert mu_squared([Step(words(1), words(0), 0)]) == math.inf
    assert mu_squared([Step(words(5), words(5), 0)]) == 0.0


def test_it_is_the_squared_distance_of_two_gaussians() -> None:
    # The privacy loss of N(c, v) against N(0, v) has mean |c|^2 / 2v: here by simulation.
    rng, change, variance = np.random.default_rng(0), np.array([30.0, -40.0]), 10_000
    seen = change + rng.normal(scale=math.sqrt(variance), size=(200_000, 2))
    losses = ((seen**2).sum(axis=1) - ((seen - change) ** 2).sum(axis=1)) / (2 * variance)
    assert 2 * losses.mean() == pytest.approx(mu_squared([Step(words(30, -40), words(0, 0), variance)]), abs=0.01)


def test_other_words_are_a_programmers_error() -> None:
    with pytest.raises(TypeError, match="uint64"):
        Step(np.zeros(1, dtype=np.int64), words(0), 1).change()
