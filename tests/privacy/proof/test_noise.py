"""The noise that a data holder adds: as much as its release needs, normal, centred, and another one every time."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from clients.audit.privacy_audits import recipes_at
from clients.audit.privacy_harness import Target, made_up_encoder, target
from clients.holder.release import noisy_words
from federated.trust import TrustModel
from privacy.audit.noise import correlation_allowed, largest_correlation, variance_below
from privacy.noise import SeededNoise

WIDTH = 60


@pytest.fixture(scope="module")
def of() -> Target:
    return target(recipes_at(1.0)[0], made_up_encoder(WIDTH))


def noise(of: Target, number: int, label: str, variance: int | None = None) -> NDArray[np.int64]:
    shape = of.shape(number)
    words = noisy_words(
        shape, np.zeros(shape.length), shape.variance if variance is None else variance, SeededNoise(2, label)
    )
    return words.view(np.int64)


def in_deviations(of: Target) -> NDArray[np.float64]:
    return np.concatenate(
        [noise(of, number, f"{number}") / math.sqrt(of.shape(number).variance) for number in of.rounds]
    )


def test_the_variance_in_steps_is_sensitivity_over_mu_in_the_release_s_own_unit(of: Target) -> None:
    for number in of.rounds:
        shape = of.shape(number)
        deviation = math.sqrt(shape.variance) * 2.0**shape.grid.step_log2
        needed = of.recipe.sensitivity(number) / of.recipe.mu(number)
        assert needed <= deviation <= needed * 1.001


def test_there_is_as_much_noise_as_is_needed_and_no_more(of: Target) -> None:
    drawn = in_deviations(of)
    assert variance_below(drawn, confidence=0.999) >= 1
    assert float((drawn**2).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / len(drawn)))


def test_it_is_centred_and_normal(of: Target) -> None:
    drawn = in_deviations(of)
    assert abs(drawn.mean()) <= 4 / math.sqrt(len(drawn))
    assert stats.kstest(drawn, "norm").pvalue > 1e-3


def test_noise_of_one_round_says_nothing_about_another(of: Target) -> None:
    rounds = [noise(of, number, f"{number}") for number in of.rounds if number > 2]
    assert len({len(one) for one in rounds}) == 1
    allowed = correlation_allowed(len(rounds[0]), math.comb(len(rounds), 2), confidence=0.999)
    assert largest_correlation(rounds) < allowed


@pytest.mark.parametrize(("members", "dropouts"), [(2, 0), (5, 1), (10, 3)])
def test_enough_is_left_whoever_leaves(of: Target, members: int, dropouts: int) -> None:
    drawn = []
    for number in of.rounds:
        shape = of.shape(number)
        each = shape.holder_variance(TrustModel.SHARED_NOISE, members=members, dropouts_tolerated=dropouts)
        assert each * (members - dropouts) >= shape.variance
        left = [noise(of, number, f"{holder}/{number}", each) for holder in range(members - dropouts)]
        drawn.append(np.sum(left, axis=0) / math.sqrt(shape.variance))
    assert variance_below(np.concatenate(drawn), confidence=0.999) >= 1


def test_a_coordinator_that_adds_the_noise_itself_gets_exact_sums(of: Target) -> None:
    shape = of.shape(1)
    assert shape.holder_variance(TrustModel.COORDINATOR_NOISE, members=5, dropouts_tolerated=1) == 0
    assert not noise(of, 1, "none", 0).any()
