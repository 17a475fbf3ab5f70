"""What the noise itself shows: its variance from below and its independence, from draws that a data holder would send.

Together with an exact transcript (`privacy.audit.transcript`) this is the sharpest audit: the one proves how far a
person can move the sums, the other that the noise they hide in is there, and drawn anew each time.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.int64] | NDArray[np.float64]


def variance_below(draws: Draws, *, confidence: float) -> float:
    """What the variance of normal `draws` with mean 0 is at most, with this confidence.

    The sum of n squares is below n - 2 sqrt(n t) variances with chance at most e^-t (Laurent, Massart 2000,
    lemma 1). Infinite for too few draws.
    """
    n, t = draws.size, -math.log(1 - confidence)
    least = n - 2 * math.sqrt(n * t)
    return float(np.square(draws.astype(np.float64)).sum()) / least if least > 0 else math.inf


def largest_correlation(releases: Sequence[Draws]) -> float:
    """The largest absolute correlation between two of at least two equally long noises; 1 if one is constant."""
    if len(releases) < 2:
        raise ValueError("requires two releases")
    found = 0.0
    for one, other in combinations((release.astype(np.float64) for release in releases), 2):
        scale = math.sqrt(float(one @ one) * float(other @ other))
        found = max(found, abs(float(one @ other)) / scale if scale > 0 else 1.0)
    return found


def correlation_allowed(n: int, pairs: int, *, confidence: float) -> float:
    """What the largest of `pairs` absolute correlations of independent normal noises of length `n` stays below.

    The direction of a noise is uniform on the sphere, and a cap of height r has at most exp(-n r^2 / 2) of it (Ball
    1997, "An elementary introduction to modern convex geometry", lemma 2.2). Noise that is used twice correlates fully.
    """
    return min(1.0, math.sqrt(2 * math.log(2 * pairs / (1 - confidence)) / n))
