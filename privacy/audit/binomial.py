"""Tails of the binomial and the normal distribution, and the exact lower bound on a probability."""

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_STANDARD = NormalDist()
_BISECTIONS = 60


def normal_below(x: float) -> float:
    """Phi(x), to full relative accuracy in the lower tail too."""
    return math.erfc(-x / math.sqrt(2)) / 2


def normal_quantile(probability: float) -> float:
    """The x with Phi(x) = `probability`; infinite at 0 and 1 (Wichura 1988, algorithm AS 241)."""
    if not 0 <= probability <= 1:
        raise ValueError("requires a probability")
    if probability in (0.0, 1.0):
        return math.copysign(math.inf, probability - 0.5)
    return _STANDARD.inv_cdf(probability)


@lru_cache(maxsize=64)
def _log_choose(trials: int) -> NDArray[np.float64]:
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    made: NDArray[np.float64] = log_factorial[-1] - log_factorial - log_factorial[::-1]
    made.setflags(write=False)
    return made


def binomial_tails(trials: int, probability: float) -> NDArray[np.float64]:
    """P[W >= v] for v = 0 .. trials + 1, shape (trials + 2,), of W ~ Binomial(`trials`, `probability`).

    Requires 0 < probability < 1.
    """
    if trials < 0 or not 0 < probability < 1:
        raise ValueError("requires trials >= 0 and 0 < probability < 1")
    v = np.arange(trials + 1)
    density = np.exp(_log_choose(trials) + v * math.log(probability) + (trials - v) * math.log1p(-probability))
    # From the far end, so that small tails are sums of small numbers.
    tails = np.concatenate([np.cumsum(density[::-1])[::-1], [0.0]])
    return np.asarray(np.minimum(tails, 1.0), dtype=np.float64)


def probability_above(successes: int, trials: int, confidence: float) -> float:
    """What the chance of a success is at least, with this confidence (Clopper, Pearson 1934, one-sided, exact)."""
    if not (0 <= successes <= trials and trials >= 1 and 0 < confidence < 1):
        raise ValueError("requires 0 <= successes <= trials, trials >= 1 and 0 < confidence < 1")
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        unlikely = binomial_tails(trials, middle)[successes] <= 1 - confidence
        low, high = (middle, high) if unlikely else (low, middle)
    return low
