"""Discrete Gaussian noise in whole grid steps: an exact sampler, how much of it a release needs, and what it costs
more than a Gaussian would.

Sampler: Canonne, Kamath, Steinke 2020 (arXiv:2004.00010v4), algorithms 2 and 3. Cost: Kairouz, Liu, Steinke 2021
(arXiv:2102.06387), for noise that is a sum of several data holders' draws.
"""

import math
from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.accounting import mu_of
from privacy.errors import MalformedError
from privacy.grid import Words
from privacy.noise import NoiseSource, Vector

LARGEST_VARIANCE: Final = 2**100
_MOST_SCALES = 1024
"""No draw reaches 1,025 times sqrt(variance) + 1, so all stay below 2^61; a sound source gets there with a chance
below e^-1000."""

_MARGIN = 2.0**-40
"""How far a uniform number must lie from a probability for float64 to tell which is larger; closer ones are decided
exactly. The floats below are within 16 units of 2^-53 of the truth (`_acceptance`), so 512 times that is safe."""

_POWERS: Final = np.exp(-np.arange(60.0, 0.0, -1.0))  # e^-60 ... e^-1, ascending
_UNIT: Final = 2.0**-64


def discrete_gaussian(n: int, variance: int, source: NoiseSource) -> NDArray[np.int64]:
    """`n` independent draws with chance proportional to exp(-k^2 / (2 `variance`)) at each whole k, shape (n,).

    Exact, given uniform bytes: every comparison of a uniform number with a probability is decided as if both had all
    their digits. `variance` is in squared grid steps; 0 gives zeros. Raises MalformedError above 2^100. Proposals are
    drawn until enough are accepted, so the time it takes is random too.
    """
    if n < 0 or variance < 0:
        raise ValueError("requires n >= 0 and variance >= 0")
    _require_drawable(variance)
    drawn = np.zeros(n, dtype=np.int64)
    filled = 0
    while variance > 0 and filled < n:
        # About 0.48 of the proposals are accepted.
        some = _accepted_of(2 * (n - filled) + (n - filled) // 4 + 16, variance, source)[: n - filled]
        drawn[filled : filled + some.size] = some
        filled += some.size
    return drawn


def _require_drawable(variance: int) -> None:
    if variance > LARGEST_VARIANCE:
        raise MalformedError(
            f"noise of variance 2^{math.log2(variance):.0f} in squared grid steps was asked for, at most 2^100 can be "
            "drawn; the coordinator must write a plan with a coarser grid"
        )


def _accepted_of(proposals: int, variance: int, source: NoiseSource) -> NDArray[np.int64]:
    # Algorithm 2 draws a discrete Laplace number of scale t = isqrt(variance) + 1: a sign and U + t V, with U uniform
    # below t and kept with chance exp(-U / t), and V geometric, V >= k with chance exp(-k). Algorithm 3 keeps that
    # with chance exp(-(|Y| - variance / t)^2 / (2 variance)). V does not depend on U, so both chances are one.
    words = np.frombuffer(source.random_bytes(24 * proposals), dtype="<u8").astype(np.uint64).reshape(3, proposals)
    scale = math.isqrt(variance) + 1
    wide = words[0] >> np.uint64(1)
    unbiased = wide < np.uint64(2**63 // scale * scale)
    offset = (wide % np.uint64(scale)).astype(np.int64)
    negative = (words[0] & np.uint64(1)).astype(np.bool_)
    multiple = _geometric(words[1], source)
    magnitude = offset + scale * multiple
    uniform = words[2].astype(np.float64) * _UNIT
    gap = uniform - _acceptance(offset, magnitude, variance)
    kept = gap < 0
    for i in np.flatnonzero(np.abs(gap) <= _MARGIN).tolist():
        exponent = _exponent(int(offset[i]), int(magnitude[i]), variance)
        kept[i] = _LazyUniform(int(words[2, i]), source).is_below_exp(exponent)
    kept &= unbiased & ~(negative & (magnitude == 0))  # one zero, not two
    accepted: NDArray[np.int64] = np.where(negative, -magnitude, magnitude)[kept]
    return accepted


def _acceptance(offset: NDArray[np.int64], magnitude: NDArray[np.int64], variance: int) -> Vector:
    # With u = 2^-53 and x the exponent: |X|, variance / t and their difference are rounded, which moves x by at most
    # (11 x + 3) u; times exp(-x) that is at most 6 u. numpy's exp adds at most 4 units in the last place, the uniform
    # number one: 16 u in all is generous.
    scale = math.isqrt(variance) + 1
    centred = magnitude.astype(np.float64) - variance / scale
    return np.asarray(np.exp(-(offset / float(scale) + centred**2 / (2.0 * variance))), dtype=np.float64)


def _exponent(offset: int, magnitude: int, variance: int) -> Fraction:
    scale = math.isqrt(variance) + 1
    return Fraction(offset, scale) + (magnitude - Fraction(variance, scale)) ** 2 / (2 * variance)


def _geometric(words: Words, source: NoiseSource) -> NDArray[np.int64]:
    # A uniform number lies below e^-k with chance e^-k, so the count of such k >= 1 is geometric.
    uniform = words.astype(np.float64) * _UNIT
    nearest = np.searchsorted(_POWERS, uniform - _MARGIN)
    counts = np.asarray(_POWERS.size - nearest, dtype=np.int64)
    for i in np.flatnonzero(nearest != np.searchsorted(_POWERS, uniform + _MARGIN, side="right")).tolist():
        number, count = _LazyUniform(int(words[i]), source), 0
        while number.is_below_exp(Fraction(count + 1)):
            if (count := count + 1) > _MOST_SCALES:
                raise MalformedError(
                    "a draw of noise passed 1,024 times its scale, which random bytes never do; the data holder's "
                    "operator must check where its randomness comes from"
                )
        counts[i] = count
    return counts


class _LazyUniform:
    """A uniform number in [0, 1) of which the first 64 bits are known; more are drawn when a comparison needs them."""

    __slots__ = ("_bits", "_known", "_source")

    def __init__(self, word: int, source: NoiseSource) -> None:
        self._known, self._bits, self._source = word, 64, source

    def is_below_exp(self, exponent: Fraction) -> bool:
        """Whether the number lies below exp(-`exponent`), exactly. Requires exponent >= 0."""
        if exponent == 0:
            return True
        while True:
            # Twenty digits more than the bits have: an undecided comparison is always for want of bits.
            low, high = _exp_bounds(exponent, self._bits // 3 + 20)
            if self._known + 1 <= low * 2**self._bits:
                return True
            if self._known >= high * 2**self._bits:
                return False
            self._known = self._known << 64 | int.from_bytes(self._source.random_bytes(8), "little")
            self._bits += 64


def _exp_bounds(exponent: Fraction, digits: int) -> tuple[Fraction, Fraction]:
    # Decimal's exp is rounded to the nearest number, so one place down and one up enclose the truth.
    down = Context(prec=digits, rounding=ROUND_FLOOR, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
    up = Context(prec=digits, rounding=ROUND_CEILING, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
    numerator, denominator = Decimal(exponent.numerator), Decimal(exponent.denominator)
    smallest = down.exp(up.divide(numerator, denominator).copy_negate())
    largest = up.exp(down.divide(numerator, denominator).copy_negate())
    return Fraction(down.next_minus(smallest)), Fraction(up.next_plus(largest))


_KEPT_BACK: Final = 1e-6
"""Part of epsilon and of delta that pays for the distance between noise on the grid and a Gaussian."""


def mu_on_grid(epsilon: float, delta: float) -> float:
    """The Gaussian mu whose releases on the grid are (`epsilon`, `delta`)-DP; see `excess_is_covered`."""
    return mu_of(epsilon * (1 - _KEPT_BACK), delta * (1 - _KEPT_BACK))


ROWS_PER_BLOCK: Final = 2048
_ROUNDINGS_PER_ROW: Final = 4096


def float_slack(*, people: int, reach: float) -> float:
    """How far rounding can push one number of two neighbouring float64 sums apart, beyond the person's own part.

    A bound for sums over at most `people` rows whose absolute parts add up to at most `reach`, added in blocks of
    2,048 rows. A part passes through at most 2048 + people / 2048 additions, in whatever order, and 4,096 roundings
    are granted to its own computation; each is off by at most 2^-53 of it (Higham 2002, section 4.2).
    """
    if people < 1 or not 0 < reach < math.inf:
        raise ValueError("requires people >= 1 and a finite reach > 0")
    roundings = (ROWS_PER_BLOCK + people // ROWS_PER_BLOCK + 1 + _ROUNDINGS_PER_ROW) * 2.0**-53
    return 2 * reach * roundings / (1 - roundings)


def noise_variance(*, sensitivity: float, mu: float, length: int, step_log2: int, slack: float) -> int:
    """The variance, in squared steps of 2^`step_log2`, that makes `length` rounded numbers `mu`-GDP; rounded up.

    `sensitivity` is the L2 norm of what one person adds before rounding. Rounding to the nearest step moves two
    numbers apart by at most one more step, and floats by at most `slack` (`float_slack`), each number: sqrt(`length`)
    times both in L2. MalformedError above 2^100.
    """
    if not 0 < mu < math.inf:
        raise ValueError("requires a finite mu > 0")
    own, rounding = _steps_moved(sensitivity, length, step_log2, slack)
    variance = math.ceil(Fraction((own + rounding) * (1 + 1e-12) / mu) ** 2)  # 1e-12 covers the roundings here
    _require_drawable(variance)
    return variance


def _steps_moved(sensitivity: float, length: int, step_log2: int, slack: float) -> tuple[float, float]:
    # By a person's own part, and by rounding. Only operations that IEEE 754 rounds correctly, so that every party
    # finds the same numbers; 1e-9 covers a sensitivity that was itself computed in floats.
    if not (0 < sensitivity < math.inf and length >= 1 and 0 <= slack < math.inf):
        raise ValueError("requires a finite sensitivity > 0, length >= 1 and a finite slack >= 0")
    own = math.ldexp(sensitivity * (1 + 1e-9), -step_log2)
    return own, math.sqrt(length) * (1 + math.ldexp(slack, -step_log2))


def share_on_grid(share: Vector, *, sensitivity: float, length: int, step_log2: int, slack: float) -> Vector:
    """What to multiply people's parts by, so that each costs at most its `share` of the release's mu; same shape.

    Rounding moves the numbers of a tiny part as far as those of a whole one. `noise_variance` covers that for a
    share of 1; a smaller one must keep it back from the part itself. 0 where rounding alone would cost more: such
    people must be left out, their rows too.
    """
    own, rounding = _steps_moved(sensitivity, length, step_log2, slack)
    whole = np.asarray(share, dtype=np.float64)
    kept: Vector = np.clip(whole - (1 - whole) * rounding / own, 0.0, whole)
    return kept


def grid_excess(releases: Iterable[tuple[int, int, int]], *, epsilon: float, delta: float) -> tuple[float, float]:
    """The extra epsilon and delta of noise on the grid over the Gaussian noise of the same variance, upper bounds.

    Each release is (length, variance of each holder's draw, number of holders that drew). Let the releases be
    (`epsilon`, `delta`)-DP with a Gaussian of the whole variance V that is rounded to whole steps, which costs
    nothing more; P is the chance of a number with the sum of draws, Q with the rounded Gaussian.

    1. The sum of n draws of variance v and one draw of variance n v: log ratios within
       10 sum_{k=1}^{n-1} exp(-2 pi^2 v k / (k + 1)) (Kairouz, Liu, Steinke 2021, theorem 1 and corollary 12).
    2. One draw of variance V: with u in [-1/2, 1/2], Q(k) / P(k) = Z E[exp(-u^2 / 2V) cosh(k u / V)], where
       1 <= Z = sum_j exp(-2 pi^2 V j^2) <= 1 + 3 exp(-2 pi^2 V) (Poisson summation). Hence P <= exp(1 / 24V) Q
       everywhere (Jensen), and Q <= Z exp(k^2 / 24V^2) P, since sinh(x) / x <= exp(x^2 / 6).
    3. Outside |k| <= m sqrt(V) there is at most Q-mass exp(-(m - 1 / (2 sqrt(V)))^2 / 2) per number.

    With P <= e^a Q, and Q <= e^b P but for mass r, over all numbers, releases on the grid are
    (epsilon + a + b, e^a (delta + e^epsilon r))-DP; likelihoods of later releases given earlier ones multiply.
    """
    releases = tuple(releases)
    if not releases or not all(length >= 1 and each >= 1 and holders >= 1 for length, each, holders in releases):
        raise ValueError("requires releases with length, variance and holders >= 1")
    if not (0 <= epsilon < 700 and 0 < delta < 1):
        raise ValueError("requires 0 <= epsilon < 700 and 0 < delta < 1")
    numbers = sum(length for length, _, _ in releases)
    # The mass outside is then at most a billionth of delta.
    deviations = math.sqrt(2 * (math.log(numbers) + epsilon - math.log(delta) + math.log(1e9)))
    above, below = 0.0, 0.0
    for length, each, holders in releases:
        whole = each * holders
        summing = 10 * math.fsum(math.exp(-2 * math.pi**2 * each * k / (k + 1)) for k in range(1, holders))
        reached = deviations + 1 / (2 * math.sqrt(whole))
        above += length * (summing + 1 / (24 * whole))
        below += length * (summing + reached**2 / (24 * whole) + math.log1p(3 * math.exp(-2 * math.pi**2 * whole)))
    # The last factors cover the roundings of this very sum.
    outside = numbers * math.exp(epsilon - deviations**2 / 2) * (1 + 1e-9)
    return (above + below) * (1 + 1e-9), math.expm1(above) * delta * (1 + 1e-9) + math.exp(above) * outside


def excess_is_covered(releases: Iterable[tuple[int, int, int]], *, epsilon: float, delta: float) -> bool:
    """Whether `releases` with noise for `mu_on_grid(epsilon, delta)` in all are (`epsilon`, `delta`)-DP."""
    extra_epsilon, extra_delta = grid_excess(
        releases, epsilon=epsilon * (1 - _KEPT_BACK), delta=delta * (1 - _KEPT_BACK)
    )
    return extra_epsilon <= _KEPT_BACK * epsilon and extra_delta <= _KEPT_BACK * delta
