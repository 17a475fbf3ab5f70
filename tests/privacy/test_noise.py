"""Noise is normal, independent, unpredictable when it protects and repeatable only when it does not."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from privacy.noise import LARGEST_DEVIATION, NoiseSource, SecureNoise, SeededNoise

N = 200_000


def seeded(label: str) -> SeededNoise:
    return SeededNoise(7, label)


def test_draws_are_normal() -> None:
    draws = seeded("normal").gaussian(N, 1.0)
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert abs(draws.mean()) < 5 / math.sqrt(N)
    assert draws.std() == pytest.approx(1, abs=5 / math.sqrt(2 * N))
    assert stats.kurtosis(draws) == pytest.approx(0, abs=5 * math.sqrt(24 / N))


def test_tails_are_as_heavy_as_they_must_be() -> None:
    draws = np.abs(seeded("tails").gaussian(N, 1.0))
    for limit in (2.0, 3.0, 4.0):
        expected = N * 2 * stats.norm.sf(limit)
        assert np.count_nonzero(draws > limit) == pytest.approx(expected, abs=5 * math.sqrt(expected))


@pytest.mark.parametrize("lag", [1, 2, N // 2])
def test_neighbours_and_pairs_are_independent(lag: int) -> None:
    # N // 2 is the distance of the two numbers that come from one pair of uniforms.
    draws = seeded("independent").gaussian(N, 1.0)
    for one, other in ((draws[:-lag], draws[lag:]), (draws[:-lag] ** 2, draws[lag:] ** 2)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(N - lag)


def test_standard_deviation_scales() -> None:
    np.testing.assert_allclose(seeded("a").gaussian(999, 3.5), 3.5 * seeded("a").gaussian(999, 1.0))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1275])
def test_exactly_as_many_as_asked(n: int) -> None:
    assert seeded("n").gaussian(n, 1.0).shape == (n,)
    assert (seeded("n").gaussian(n, 0.0) == 0).all()


@pytest.mark.parametrize("deviation", [-1.0, math.nan, math.inf])
def test_unlawful_deviations_are_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        SecureNoise().gaussian(3, deviation)


def test_a_source_never_repeats_itself_from_call_to_call() -> None:
    for source in (SecureNoise(), seeded("rounds")):
        rounds = [source.gaussian(2000, 1.0) for _ in range(4)]
        for one, other in itertools.combinations(rounds, 2):
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(2000)


def test_secure_sources_differ_and_seeded_ones_differ_by_seed_and_label() -> None:
    sources: list[NoiseSource] = [
        SecureNoise(),
        SecureNoise(),
        SeededNoise(1, "a"),
        SeededNoise(1, "b"),
        SeededNoise(2, "a"),
        SeededNoise(12, ""),
    ]
    assert len({source.random_bytes(16) for source in sources}) == len(sources)
    assert SeededNoise(1, "a").random_bytes(64) == SeededNoise(1, "a").random_bytes(64)


def test_only_the_secure_source_calls_itself_private() -> None:
    assert SecureNoise().is_private
    assert not SeededNoise(1, "a").is_private


def test_shared_randomness_is_neither_used_nor_touched() -> None:
    before = np.random.get_state(legacy=False)
    np.random.seed(1)
    one = SecureNoise().gaussian(100, 1.0)
    np.random.seed(1)
    assert (one != SecureNoise().gaussian(100, 1.0)).any()
    np.random.set_state(before)


def test_the_stated_largest_deviation_is_the_true_one() -> None:
    # The smallest uniform is 2^-53, and a cosine is at most 1.
    assert math.sqrt(-2 * math.log(2.0**-53)) == pytest.approx(LARGEST_DEVIATION)
    assert np.abs(SecureNoise().gaussian(N, 1.0)).max() < LARGEST_DEVIATION
