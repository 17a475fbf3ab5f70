"""The many-run bounds: exact where the truth is known, no false alarms, and halved noise is caught."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from privacy.accounting import mu_of
from privacy.audit.many_runs import epsilon_above, mu_above

DELTA, RUNS = 1e-5, 2000


def correct_guesses(rng: np.random.Generator, mu: float) -> int:
    took_part = rng.random(RUNS) < 0.5
    scores = rng.normal(size=RUNS) + mu * took_part
    return int(((scores > mu / 2) == took_part).sum())


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_best_rule_is_right_as_often_as_the_bound_says(epsilon: float) -> None:
    mu = mu_of(epsilon, DELTA)
    rng = np.random.default_rng(7)
    accuracy = np.mean([correct_guesses(rng, mu) for _ in range(200)]) / RUNS
    assert accuracy == pytest.approx(stats.norm.cdf(mu / 2), abs=0.003)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_false_alarms_are_as_rare_as_promised(epsilon: float) -> None:
    rng, mu = np.random.default_rng(8), mu_of(epsilon, DELTA)
    counts = [correct_guesses(rng, mu) for _ in range(400)]
    alarms = sum(mu_above(count, RUNS, confidence=0.95) > mu for count in counts)
    # The bound is exact, so up to 20 are expected; 40 would have a chance below 1e-4.
    assert 2 <= alarms <= 40
    assert not any(epsilon_above(count, RUNS, delta=DELTA, confidence=0.95) > epsilon for count in counts)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
@pytest.mark.parametrize(("times", "fewest", "most"), [(1, 0, 0), (2, 8, 10), (10, 10, 10)])
def test_halved_noise_is_caught(epsilon: float, times: float, fewest: int, most: int) -> None:
    rng, claim = np.random.default_rng(9), mu_of(epsilon, DELTA)
    caught = sum(mu_above(correct_guesses(rng, times * claim), RUNS, confidence=0.999) > claim for _ in range(10))
    assert fewest <= caught <= most


def test_randomised_response_shows_its_epsilon() -> None:
    # The right answer with chance e^eps / (1 + e^eps): the worst that epsilon allows.
    chance = np.e / (1 + np.e)
    assert epsilon_above(round(1e6 * chance), 10**6, delta=0.0, confidence=0.5) == pytest.approx(1.0, abs=1e-3)
    assert epsilon_above(10, 10, delta=DELTA, confidence=0.95) == pytest.approx(1.05, abs=0.01)


@pytest.mark.parametrize("correct", [0, 500, 1000])
def test_guessing_no_better_than_a_coin_shows_nothing(correct: int) -> None:
    assert mu_above(correct, RUNS, confidence=0.95) == 0.0
    assert epsilon_above(correct, RUNS, delta=DELTA, confidence=0.95) == 0.0
