"""The one-run bounds: against naive arithmetic and a linear program, and never above the truth where it is known."""

import math

import numpy as np
import pytest
from scipy import optimize, stats  # type: ignore[import-untyped]

from privacy.accounting import epsilon_of, mu_of
from privacy.audit.one_run import Guesses, chance_under_epsilon, chance_under_mu, epsilon_above, guess, mu_above

DELTA = 1e-5


@pytest.mark.parametrize(
    "guesses", [Guesses(60, 100, 200), Guesses(100, 100, 1000), Guesses(3, 4, 4), Guesses(0, 5, 9)]
)
@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.5, 1e-5), (2.0, 1e-3)])
def test_chance_under_epsilon_is_the_published_formula(guesses: Guesses, epsilon: float, delta: float) -> None:
    v, r = guesses.correct, guesses.made
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))

    def tail(at: int) -> float:
        return float(stats.binom.sf(at - 1, r, chance))

    steepest = max(((tail(v - i) - tail(v)) / i for i in range(1, v + 1)), default=0.0)
    expected = min(1.0, tail(v) + 2 * guesses.canaries * delta * steepest)
    assert chance_under_epsilon(guesses, epsilon, delta) == pytest.approx(expected, rel=1e-7)


def largest_tail(guesses: Guesses, mu: float) -> float:
    """The same maximum by a linear program: the concave bound is the lower envelope of its tangents."""
    made, m = guesses.made, guesses.canaries
    i = np.arange(made + 1)
    rows, limits = [], []
    for v in range(1, made + 1):
        left = np.where(i >= v, i, 0) / m
        right = np.where(i >= v - 1, made - i, 0) / m
        for x in stats.norm.cdf(np.linspace(-6, 6, 241)):
            z = stats.norm.ppf(x)
            slope = math.exp(-mu * z - mu * mu / 2)  # of Phi(Phi^-1(x) + mu)
            rows.append(left - slope * right)
            limits.append(stats.norm.cdf(z + mu) - slope * x)
    found = optimize.linprog(
        -(i >= guesses.correct).astype(float), A_ub=np.array(rows), b_ub=limits, A_eq=np.ones((1, made + 1)), b_eq=[1.0]
    )
    assert found.status == 0
    return -float(found.fun)


@pytest.mark.parametrize("guesses", [Guesses(9, 10, 10), Guesses(7, 10, 25), Guesses(12, 12, 30), Guesses(15, 20, 40)])
@pytest.mark.parametrize("mu", [0.0, 0.2681, 1.0])
def test_chance_under_mu_is_the_optimum_of_its_linear_program(guesses: Guesses, mu: float) -> None:
    exact, approximate = chance_under_mu(guesses, mu), largest_tail(guesses, mu)
    # The program has finitely many tangents, so it allows a little more.
    assert exact <= approximate + 1e-6
    assert exact == pytest.approx(approximate, rel=0.02, abs=1e-4)


def run(rng: np.random.Generator, canaries: int, made: int, mu: float) -> Guesses:
    took_part = rng.random(canaries) < 0.5
    return guess(rng.normal(size=canaries) + mu * took_part, took_part, made)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
@pytest.mark.parametrize("made", [50, 200, 1000])
def test_no_false_alarm_for_the_gaussian_mechanism(epsilon: float, made: int) -> None:
    rng, mu = np.random.default_rng(made), mu_of(epsilon, DELTA)
    alarms = [
        (mu_above(g, confidence=0.95) > mu, epsilon_above(g, delta=DELTA, confidence=0.95) > epsilon)
        for g in (run(rng, 1000, made, mu) for _ in range(40))
    ]
    # At 95 % each, 2 of 40 are expected at most; both bounds are far from tight.
    assert np.sum(alarms, axis=0).max() <= 2


@pytest.mark.parametrize(("times", "caught"), [(1, False), (10, True)])
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_a_tenth_of_the_noise_is_caught(times: float, caught: bool, epsilon: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        bound = mu_above(run(rng, 1000, 200, times * mu_of(epsilon, DELTA)), confidence=0.999)
        assert (epsilon_of(bound, DELTA) > epsilon) == caught


def test_the_chance_never_falls_as_more_is_claimed() -> None:
    guesses = Guesses(140, 200, 1000)
    by_mu = [chance_under_mu(guesses, mu) for mu in (0.0, 0.1, 0.3, 1.0, 3.0)]
    by_epsilon = [chance_under_epsilon(guesses, epsilon, DELTA) for epsilon in (0.0, 0.1, 0.5, 1.0, 3.0)]
    for chances in (by_mu, by_epsilon):
        assert chances == sorted(chances)
        assert chances[0] < 1e-3
        assert chances[-1] > 0.99


@pytest.mark.parametrize("guesses", [Guesses(140, 200, 1000), Guesses(20, 20, 100)])
def test_the_bounds_are_where_the_chance_passes_the_confidence(guesses: Guesses) -> None:
    mu, epsilon = mu_above(guesses, confidence=0.95), epsilon_above(guesses, delta=DELTA, confidence=0.95)
    assert chance_under_mu(guesses, mu * 0.999) <= 0.05 <= chance_under_mu(guesses, mu * 1.001)
    assert chance_under_epsilon(guesses, epsilon * 0.999, DELTA) <= 0.05
    assert chance_under_epsilon(guesses, epsilon * 1.001, DELTA) >= 0.05


def test_guessing_no_better_than_a_coin_shows_nothing() -> None:
    for guesses in (Guesses(100, 200, 1000), Guesses(0, 10, 10)):
        assert mu_above(guesses, confidence=0.95) == 0.0
        assert epsilon_above(guesses, delta=DELTA, confidence=0.95) == 0.0


def test_guesses_take_the_highest_and_the_lowest_scores() -> None:
    scores = np.array([5.0, -3.0, 0.1, 2.0, -1.0, 0.0])
    took_part = np.array([True, False, False, False, True, True])
    assert guess(scores, took_part, 2) == Guesses(2, 2, 6)
    assert guess(scores, took_part, 4) == Guesses(2, 4, 6)
    for made in (0, 3, 8):
        with pytest.raises(ValueError, match="even"):
            guess(scores, took_part, made)


@pytest.mark.parametrize(("correct", "made", "canaries"), [(-1, 2, 2), (3, 2, 2), (1, 3, 2), (0, 0, 2)])
def test_unlawful_guesses_cannot_be_made(correct: int, made: int, canaries: int) -> None:
    with pytest.raises(ValueError, match="requires"):
        Guesses(correct, made, canaries)
    with pytest.raises(ValueError, match="requires"):
        chance_under_mu(Guesses(1, 2, 2), -1.0)
    with pytest.raises(ValueError, match="requires"):
        mu_above(Guesses(1, 2, 2), confidence=1.0)
