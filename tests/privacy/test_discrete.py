"""Draws of discrete noise against their law: fractions, 50-digit arithmetic, a literal transcription of the published
algorithms, and digits that floats do not have."""

import itertools
import math
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from privacy import discrete
from privacy.discrete import discrete_gaussian
from privacy.errors import MalformedError
from privacy.noise import SecureNoise, SeededNoise

Floats = NDArray[np.float64]
VARIANCES = st.one_of(st.integers(1, 300), st.integers(1, 2**100), st.integers(0, 100).map(lambda k: 2**k))
WIDE = 2**48


def seeded(label: str) -> SeededNoise:
    return SeededNoise(11, label)


class Scripted(SeededNoise):
    """A source whose next bytes are written down."""

    def __init__(self, content: bytes) -> None:
        super().__init__(0, "")
        self._content = content

    def random_bytes(self, n: int) -> bytes:
        taken, self._content = self._content[:n], self._content[n:]
        assert len(taken) == n
        return taken


# The law of the draws ------------------------------------------------------------------------------------------------


def law(variance: int, reach: int) -> Floats:
    """Chance of each of -reach..reach, from the definition in 50 digits."""
    with mpmath.workdps(50):
        half = [mpmath.exp(-mpmath.mpf(k * k) / (2 * variance)) for k in range(2 * reach)]
        total = 2 * mpmath.fsum(half) - 1
        return np.array([float(half[abs(k)] / total) for k in range(-reach, reach + 1)])


def fits(draws: NDArray[np.int64], variance: int) -> float:
    """P-value of a chi-square test; both tails are one cell each, expected at least 5 times."""
    reach = 12 * math.isqrt(variance) + 12
    expected = law(variance, reach) * draws.size
    counts = np.bincount(draws + reach, minlength=2 * reach + 1)
    cells = np.searchsorted(np.cumsum(expected), np.arange(5, draws.size - 5, 5))
    cuts = np.unique(cells)
    seen, due = (np.add.reduceat(values, np.append(0, cuts[:-1] + 1)) for values in (counts, expected))
    return float(stats.chisquare(seen, due * seen.sum() / due.sum()).pvalue)


@pytest.mark.parametrize("variance", [1, 2, 3, 9, 100, 1000])
def test_draws_have_exactly_the_law_asked_for(variance: int) -> None:
    assert fits(discrete_gaussian(200_000, variance, seeded("law")), variance) > 1e-3


class Literal:
    """Canonne, Kamath, Steinke 2020 (arXiv:2004.00010v4), algorithms 1 to 3, line by line."""

    def __init__(self, seed: int) -> None:
        self._chance = np.random.default_rng(seed)

    def _below(self, n: int) -> int:
        return int(self._chance.integers(n))

    def _bernoulli(self, p: Fraction) -> bool:
        return self._below(p.denominator) < p.numerator

    def bernoulli_exp(self, exponent: Fraction) -> bool:
        while exponent > 1:
            if not self.bernoulli_exp(Fraction(1)):
                return False
            exponent -= 1
        k = 1
        while self._bernoulli(exponent / k):
            k += 1
        return k % 2 == 1

    def laplace(self, scale: int) -> int:
        while True:
            offset = self._below(scale)
            if not self.bernoulli_exp(Fraction(offset, scale)):
                continue
            multiple = 0
            while self.bernoulli_exp(Fraction(1)):
                multiple += 1
            magnitude = offset + scale * multiple
            negative = self._below(2) == 1
            if not (negative and magnitude == 0):
                return -magnitude if negative else magnitude

    def gaussian(self, variance: int) -> int:
        scale = math.isqrt(variance) + 1
        while True:
            drawn = self.laplace(scale)
            if self.bernoulli_exp((abs(drawn) - Fraction(variance, scale)) ** 2 / (2 * variance)):
                return drawn


@pytest.mark.parametrize("variance", [2, 9])
def test_the_published_algorithm_draws_the_same(variance: int) -> None:
    literal = Literal(variance)
    slow = np.array([literal.gaussian(variance) for _ in range(6000)])
    assert fits(slow, variance) > 1e-3
    fast = discrete_gaussian(60_000, variance, seeded("published"))
    reach = 3 * math.isqrt(variance)
    table = [np.bincount(np.clip(draws, -reach, reach) + reach) for draws in (slow, fast)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


@given(VARIANCES, st.data())
def test_proposals_and_acceptance_multiply_to_the_law_exactly(variance: int, data: st.DataObject) -> None:
    # Chance of proposing (U, V) is proportional to exp(-V); times exp(-exponent) it must be exp(-X^2 / 2 variance).
    scale = math.isqrt(variance) + 1
    offset, multiple = data.draw(st.integers(0, scale - 1)), data.draw(st.integers(0, 60))
    magnitude = offset + scale * multiple
    exponent = discrete._exponent(offset, magnitude, variance)
    assert exponent >= 0
    assert exponent + multiple == Fraction(magnitude**2, 2 * variance) + Fraction(variance, 2 * scale**2)


@settings(max_examples=400)
@given(VARIANCES, st.data())
@example(2**100, None)
def test_floats_are_within_the_certified_error(variance: int, data: st.DataObject | None) -> None:
    scale = math.isqrt(variance) + 1
    offset, multiple = scale - 1, 3
    if data is not None:
        offset, multiple = data.draw(st.integers(0, scale - 1)), data.draw(st.integers(0, 60))
    magnitude = offset + scale * multiple
    (found,) = discrete._acceptance(np.array([offset]), np.array([magnitude]), variance)
    exponent = discrete._exponent(offset, magnitude, variance)
    with mpmath.workdps(60):
        true = mpmath.exp(-mpmath.mpf(exponent.numerator) / exponent.denominator)
        assert abs(mpmath.mpf(float(found)) - true) < 2.0**-49


def test_the_powers_are_within_it_too() -> None:
    with mpmath.workdps(40):
        for power, k in zip(discrete._POWERS, range(60, 0, -1), strict=True):
            assert abs(mpmath.mpf(float(power)) - mpmath.exp(-k)) < 2.0**-52
    assert discrete._MARGIN >= 2.0**-49 * 256


def test_offsets_that_would_favour_some_numbers_are_drawn_again() -> None:
    # 2^63 is no multiple of 2^50 + 1: the words beyond the last whole multiple would make small offsets likelier.
    scale = 2**50 + 1
    last = 2**63 // scale * scale - 1
    for wide, kept in ((0, [0]), (last, [scale - 1]), (last + 1, []), (2**63 - 1, [])):
        for negative in (0, 1):
            words = (2 * wide + negative, 2**63, 0)
            source = Scripted(b"".join(word.to_bytes(8, "little") for word in words))
            drawn = discrete._accepted_of(1, 2**100, source).tolist()
            assert drawn == ([] if negative and wide == 0 else [-one if negative else one for one in kept])


def test_wide_draws_have_the_moments_of_a_gaussian() -> None:
    n = 200_000
    draws = discrete_gaussian(n, WIDE, seeded("wide")) / math.sqrt(WIDE)
    assert abs(draws.mean()) < 4 / math.sqrt(n)
    assert draws.var() == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    assert stats.kurtosis(draws) == pytest.approx(0, abs=4 * math.sqrt(24 / n))
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    for lag in (1, 2, 3):
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 4 / math.sqrt(n)


@pytest.mark.parametrize("variance", [WIDE, WIDE - 1, 3 * 2**49 + 12_345, 2**100])
def test_low_digits_of_wide_draws_are_uniform(variance: int) -> None:
    # A step of the noise that is coarser than one, or a favoured residue, shows here.
    draws = discrete_gaussian(60_000, variance, seeded("digits"))
    for modulus in (2, 10, 64):
        assert stats.chisquare(np.bincount(draws % modulus, minlength=modulus)).pvalue > 1e-4
    assert np.std(draws / math.sqrt(variance)) == pytest.approx(1, abs=0.015)
    assert np.abs(draws).max() < 2**62


def test_draws_are_independent_of_how_many_are_asked_for() -> None:
    source = seeded("calls")
    pieces = np.concatenate([discrete_gaussian(n, 9, source) for n in (1, 0, 7, 20_000, 3, 30_000)])
    assert pieces.shape == (50_011,)
    assert fits(pieces, 9) > 1e-3
    assert not np.array_equal(discrete_gaussian(50, WIDE, source), discrete_gaussian(50, WIDE, source))
    assert not np.array_equal(discrete_gaussian(50, WIDE, SecureNoise()), discrete_gaussian(50, WIDE, SecureNoise()))


@pytest.mark.parametrize(("holders", "dropouts"), [(5, 1), (10, 3), (3, 0)])
def test_whoever_leaves_the_sum_has_the_variance_wanted(holders: int, dropouts: int) -> None:
    n, wanted = 30_000, 2**50 + 1
    each = -(-wanted // (holders - dropouts))
    draws = [discrete_gaussian(n, each, seeded(f"holder {k}")) for k in range(holders)]
    for left in itertools.islice(itertools.combinations(draws, holders - dropouts), 6):
        total = np.sum(left, axis=0) / math.sqrt(wanted)
        assert total.var() == pytest.approx(1, abs=4 * math.sqrt(2 / n))


def test_no_noise_and_too_much_noise() -> None:
    assert discrete_gaussian(3, 0, seeded("none")).tolist() == [0, 0, 0]
    for variance in (0, 1):
        nothing = discrete_gaussian(0, variance, seeded("none"))
        assert nothing.shape == (0,)
        assert nothing.dtype == np.int64
    with pytest.raises(MalformedError, match="at most 2\\^100"):
        discrete_gaussian(3, 2**100 + 1, seeded("none"))
    for n, variance in ((-1, 1), (1, -1)):
        with pytest.raises(ValueError, match="requires"):
            discrete_gaussian(n, variance, seeded("none"))


def test_a_broken_source_is_noticed_rather_than_waited_for() -> None:
    with pytest.raises(MalformedError, match="randomness"):
        discrete_gaussian(1, 4, Scripted(bytes(100_000)))


# Comparisons that floats cannot decide -------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [1.0, 2.0**-4])
@pytest.mark.parametrize("variance", [1, 9, 100, WIDE, 2**100])
def test_exact_comparisons_decide_as_floats_do(monkeypatch: pytest.MonkeyPatch, variance: int, margin: float) -> None:
    by_floats = discrete_gaussian(150, variance, seeded("slow"))
    decided = 0
    truly = discrete._LazyUniform.is_below_exp

    def counted(number: discrete._LazyUniform, exponent: Fraction) -> bool:
        nonlocal decided
        decided += 1
        return truly(number, exponent)

    monkeypatch.setattr(discrete, "_MARGIN", margin)
    monkeypatch.setattr(discrete._LazyUniform, "is_below_exp", counted)
    np.testing.assert_array_equal(discrete_gaussian(150, variance, seeded("slow")), by_floats)
    assert decided > (600 if margin == 1 else 60)


def digits_of_exp(exponent: Fraction, bits: int) -> int:
    """The first `bits` binary digits of exp(-exponent), as a whole number."""
    with mpmath.workprec(bits + 64):
        power = mpmath.exp(-mpmath.mpf(exponent.numerator) / exponent.denominator)
        return int(mpmath.floor(power * mpmath.mpf(2) ** bits))


@given(st.fractions(Fraction(1, 10**12), 40, max_denominator=10**15), st.integers(1, 4), st.sampled_from([-1, 1]))
@example(Fraction(1, 2**100), 3, 1)
@example(Fraction(2**90 + 1, 2**85), 2, -1)
def test_equal_first_digits_are_decided_by_more(exponent: Fraction, more: int, side: int) -> None:
    # The uniform number agrees with the probability in all digits but the last it will be shown.
    digits = digits_of_exp(exponent, 64 * (more + 1))
    number = digits + side
    pieces = [(number >> 64 * k) % 2**64 for k in range(more, -1, -1)]
    source = Scripted(b"".join(piece.to_bytes(8, "little") for piece in pieces[1:]))
    assert discrete._LazyUniform(pieces[0], source).is_below_exp(exponent) == (side < 0)


def test_a_certain_event_needs_no_digits() -> None:
    assert discrete._LazyUniform(2**64 - 1, Scripted(b"")).is_below_exp(Fraction(0))


def test_digits_once_drawn_are_kept_for_the_next_comparison() -> None:
    digits = digits_of_exp(Fraction(1), 128)
    known, fresh = digits >> 64, digits % 2**64
    number = discrete._LazyUniform(known, Scripted((fresh - 1).to_bytes(8, "little")))
    assert number.is_below_exp(Fraction(1))
    assert number.is_below_exp(Fraction(1))  # the script is at its end: nothing more may be drawn


@given(st.fractions(0, 60, max_denominator=10**9), st.integers(20, 80))
def test_bounds_enclose_the_exponential_tightly(exponent: Fraction, digits: int) -> None:
    low, high = discrete._exp_bounds(exponent, digits)
    with mpmath.workdps(digits + 40):
        true = mpmath.exp(-mpmath.mpf(exponent.numerator) / exponent.denominator)
        bounds = [mpmath.mpf(bound.numerator) / bound.denominator for bound in (low, high)]
        assert bounds[0] < true < bounds[1]
        # The exponent's own rounding counts as often as the exponent is large.
        assert bounds[1] - bounds[0] < true * (float(exponent) + 1) * mpmath.mpf(10) ** (2 - digits)
