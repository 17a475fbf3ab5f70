"""One person in several releases: measured figures, and simulation of the sums themselves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.accounting import epsilon_of, mu_of
from privacy.composition import mu_of_runs, mu_with_own_noise, mu_with_shared_noise

DELTA = 1e-5
MU = mu_of(1.0, DELTA)
SHARES = st.lists(st.floats(0, 1), max_size=6)


@pytest.mark.parametrize(
    ("holders", "own", "shared"), [(1, 1.00, 1.00), (2, 1.47, 2.15), (3, 1.83, 3.41), (5, 2.44, 6.17)]
)
def test_one_person_at_several_data_holders_with_unsplit_rows(holders: int, own: float, shared: float) -> None:
    assert epsilon_of(mu_with_own_noise(MU, [1.0] * holders), DELTA) == pytest.approx(own, abs=0.006)
    assert epsilon_of(mu_with_shared_noise(MU, [1.0] * holders), DELTA) == pytest.approx(shared, abs=0.006)


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5], [0.2, 0.3, 0.5], [0.2] * 5, [0.25, 0.5]])
def test_shares_that_sum_to_at_most_1_cost_at_most_one_release(shares: list[float]) -> None:
    epsilon = epsilon_of(mu_with_shared_noise(MU, shares), DELTA)
    assert epsilon <= 1.0 + 1e-9
    assert epsilon == pytest.approx(epsilon_of(MU * sum(shares), DELTA))


@pytest.mark.parametrize(("runs", "epsilon"), [(1, 1.00), (2, 1.47), (4, 2.15), (12, 4.02), (52, 9.59)])
def test_retraining_is_another_release_each_time(runs: int, epsilon: float) -> None:
    assert epsilon_of(mu_of_runs([MU] * runs), DELTA) == pytest.approx(epsilon, abs=0.006)


@given(SHARES)
def test_shared_noise_never_costs_less_than_own_noise(shares: list[float]) -> None:
    # In the sum the person's parts may point the same way; alone, each is hidden by a noise of its own.
    assert mu_with_own_noise(MU, shares) <= mu_with_shared_noise(MU, shares) * (1 + 1e-12) + 1e-300


def test_the_formulas_are_the_distances_between_the_released_sums() -> None:
    shares, direction = np.array([0.9, 0.4, 0.7]), np.array([0.6, 0.0, 0.8])
    deviation = 1 / MU
    moved = shares[:, None] * direction  # by the person, at each data holder
    separate = math.sqrt(float((moved**2).sum())) / deviation
    together = float(np.linalg.norm(moved.sum(axis=0))) / deviation
    assert mu_with_own_noise(MU, shares.tolist()) == pytest.approx(separate)
    assert mu_with_shared_noise(MU, shares.tolist()) == pytest.approx(together)


@pytest.mark.parametrize("shares", [[1.1], [-0.1], [math.nan]])
def test_unlawful_shares_are_refused(shares: list[float]) -> None:
    for function in (mu_with_own_noise, mu_with_shared_noise):
        with pytest.raises(ValueError, match="shares"):
            function(MU, shares)
        with pytest.raises(ValueError, match="mu"):
            function(math.nan, [0.5])
    with pytest.raises(ValueError, match="mu"):
        mu_of_runs([0.1, math.inf])
