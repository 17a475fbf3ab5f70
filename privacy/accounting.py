"""What releases cost: Gaussian differential privacy in closed form, sampled steps by a Rényi bound.

A spend says what happened; the functions say what it cost. Privacy unit: one person; neighbouring relation:
add or remove one. Everything errs to the safe side: epsilon rounds up, mu rounds down. No scipy: a data
holder has numpy.
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

from privacy.sampled import epsilon_of_curve, gaussian_curve, renyi_curve

_BISECTIONS = 200


@dataclass(frozen=True, slots=True)
class GaussianSpend:
    """Releases that are together exactly `mu`-GDP (Dong, Roth, Su, arXiv:1905.02383) for a person with share 1."""

    mu: float

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise ValueError("requires 0 <= mu < infinity")


@dataclass(frozen=True, slots=True)
class SampledSpend:
    """`steps` noisy sums over Poisson samples; `noise_multiplier` is noise sd / clipping norm, for a person
    with share 1."""

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise ValueError("requires 0 < noise_multiplier < infinity")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError("requires 0 < sampling_rate <= 1")
        if type(self.steps) is not int or self.steps < 1:
            raise ValueError("requires a whole number of steps, at least 1")


@dataclass(frozen=True, slots=True)
class UnprotectedSpend:
    """A release without noise: no bound at all. Every ledger refuses to charge it."""


Spend = GaussianSpend | SampledSpend | UnprotectedSpend


def _mills(x: float) -> float:
    """Normal tail over density at x >= 0, (1 - Phi(x)) / phi(x); never underflows (Abramowitz, Stegun 26.2.14)."""
    if x < 6:
        return math.sqrt(math.pi / 2) * math.exp(x * x / 2) * math.erfc(x / math.sqrt(2))
    tail = x
    for k in range(80, 0, -1):
        tail = x + k / tail
    return 1 / tail


def _log_density(x: float) -> float:
    return -x * x / 2 - math.log(2 * math.pi) / 2


def delta_of(mu: float, epsilon: float) -> float:
    """The least delta with which a `mu`-GDP release is (`epsilon`, delta)-DP, exact up to rounding.

    Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu): Dong, Roth, Su (arXiv:1905.02383), corollary 2.13. Written
    with Mills ratios, because e^eps phi(eps/mu + mu/2) = phi(eps/mu - mu/2), so neither factor can overflow
    or vanish.
    """
    if not (mu >= 0 and epsilon >= 0):
        raise ValueError("requires mu >= 0 and epsilon >= 0")
    if mu == 0 or epsilon == math.inf:
        return 0.0
    if mu == math.inf:
        return 1.0
    near, far = epsilon / mu - mu / 2, epsilon / mu + mu / 2
    density = math.exp(_log_density(near))
    if near >= 0:
        return density * (_mills(near) - _mills(far))
    return max(math.erfc(near / math.sqrt(2)) / 2 - density * _mills(far), 0.0)


def _delta_rounded_up(mu: float, epsilon: float) -> float:
    # The two Mills ratios cancel to about mu² / epsilon of themselves; 1e-14 is 45 units in the last place of
    # each.
    return delta_of(mu, epsilon) * (1 + 1e-12 + 1e-14 * epsilon / mu**2)


def _require_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError("requires 0 < delta < 1")


@lru_cache(maxsize=4096)
def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu, rounded down, whose release is (`epsilon`, `delta`)-DP. Requires epsilon >= 0, 0 < delta < 1."""
    _require_delta(delta)
    if not 0 <= epsilon < math.inf:
        raise ValueError("requires 0 <= epsilon < infinity")
    low, high = 0.0, 1.0
    while _delta_rounded_up(high, epsilon) <= delta:
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if _delta_rounded_up(middle, epsilon) <= delta else (low, middle)
    return low


def epsilon_of(mu: float, delta: float) -> float:
    """The least epsilon, rounded up, at which a `mu`-GDP release is (epsilon, `delta`)-DP; infinite for infinite mu."""
    _require_delta(delta)
    if not mu >= 0:
        raise ValueError("requires mu >= 0")
    if mu == 0 or mu == math.inf:
        return mu
    if _delta_rounded_up(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while _delta_rounded_up(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if _delta_rounded_up(mu, middle) <= delta else (middle, high)
    return high


def at_share(spend: Spend, share: float) -> Spend:
    """What the same release costs a person whose contribution was scaled by `share` in [0, 1]; a share of 0 is free."""
    if not 0 <= share <= 1:
        raise ValueError("requires 0 <= share <= 1")
    if share == 0:
        return GaussianSpend(0.0)
    match spend:
        case GaussianSpend(mu):
            return GaussianSpend(mu * share)
        case SampledSpend(noise_multiplier, sampling_rate, steps):
            # A tiny share may pass the largest float; less noise than there was is the safe side.
            return SampledSpend(min(noise_multiplier / share, sys.float_info.max), sampling_rate, steps)
        case UnprotectedSpend():
            return spend
        case _:
            assert_never(spend)


def shuffled_spend(noise_multiplier: float, epochs: int) -> SampledSpend:
    """What `epochs` passes over shuffled batches cost, where everybody is in exactly one batch of each pass.

    No sampling protects anybody here, so one participation a pass is charged in full. To charge shuffled batches as
    if they had been Poisson samples can claim a twentieth of the true epsilon (Chua et al. 2024, arXiv:2403.17673).
    """
    return SampledSpend(noise_multiplier, 1.0, epochs)


def total_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """Epsilon at `delta` of all `spends` together, an upper bound; infinite if one had no noise.

    Independent Gaussian releases add in mu², exactly; so do sampled ones at sampling rate 1. As soon as one
    is truly sampled, everything is composed in Rényi terms (`privacy.sampled`).
    """
    _require_delta(delta)
    mu_squared = 0.0
    sampled: dict[tuple[float, float], int] = {}
    for spend in spends:
        match spend:
            case GaussianSpend(mu):
                mu_squared += mu**2
            case SampledSpend(noise_multiplier, 1.0, steps):
                mu_squared += (math.sqrt(steps) / noise_multiplier) ** 2
            case SampledSpend(noise_multiplier, sampling_rate, steps):
                kind = (noise_multiplier, sampling_rate)
                sampled[kind] = sampled.get(kind, 0) + steps
            case UnprotectedSpend():
                return math.inf
            case _:
                assert_never(spend)
    if not sampled:
        return epsilon_of(math.sqrt(mu_squared), delta)
    curve = gaussian_curve(mu_squared)
    for (noise_multiplier, sampling_rate), steps in sampled.items():
        curve = curve + renyi_curve(noise_multiplier, sampling_rate, steps)
    return epsilon_of_curve(curve, delta)


def mu_squared_of(spends: Iterable[Spend], delta: float) -> float:
    """The ledger's currency: mu² of all `spends` together.

    Gaussian releases: their sum of mu², exact, whatever `delta`. With sampled ones: the mu² of the Gaussian
    release that has the same `total_epsilon` at this `delta`. That is an upper bound at `delta` only and does
    not add up from release to release, so always convert the whole history at once, never spend by spend.
    """
    spends = tuple(spends)
    if all(isinstance(spend, GaussianSpend) for spend in spends):
        return math.fsum(spend.mu**2 for spend in spends if isinstance(spend, GaussianSpend))
    epsilon = total_epsilon(spends, delta)
    return math.inf if epsilon == math.inf else mu_of(epsilon, delta) ** 2
