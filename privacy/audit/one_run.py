"""What one run shows: coins decided which of many canaries took part, and the auditor guesses the coins.

The canaries share a run, so the number of right guesses is not binomial; the two papers below bound it all the same.
How many guesses are made must be fixed before the run; which canaries they are about may depend on it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.audit.binomial import binomial_tails, normal_below, normal_quantile

_BISECTIONS = 40
_LARGEST_MU = 64.0
_LARGEST_EPSILON = 64.0


@dataclass(frozen=True, slots=True)
class Guesses:
    """`correct` of `made` guesses about `canaries` fair coins were right; about the other canaries none was made."""

    correct: int
    made: int
    canaries: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries or self.made < 1:
            raise ValueError("requires 0 <= correct <= made <= canaries and at least one guess")


def guess(scores: NDArray[np.float64], took_part: NDArray[np.bool_], made: int) -> Guesses:
    """The guesses of an auditor who takes the highest `made` / 2 scores for members and the lowest for others.

    `scores` and `took_part` have shape (canaries,); `made` is even.
    """
    if scores.shape != took_part.shape or scores.ndim != 1 or made % 2 or not 2 <= made <= len(scores):
        raise ValueError("requires one score a canary, and an even number of guesses")
    order = np.argsort(scores, kind="stable")
    correct = int(took_part[order[-made // 2 :]].sum() + (~took_part[order[: made // 2]]).sum())
    return Guesses(correct, made, len(scores))


def chance_under_epsilon(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Bound on the chance of so many right guesses if the run is (`epsilon`, `delta`)-DP.

    f(v) + 2 m delta max_i (f(v - i) - f(v)) / i with f the tail of Binomial(guesses, e^eps / (e^eps + 1)):
    Steinke, Nasr, Jagielski 2023 (arXiv:2305.08846), theorem 5.2.
    """
    if not (epsilon >= 0 and 0 <= delta < 1):
        raise ValueError("requires epsilon >= 0 and 0 <= delta < 1")
    v = guesses.correct
    tail = binomial_tails(guesses.made, 1 / (1 + math.exp(-epsilon)))
    if v == 0:
        return 1.0
    i = np.arange(1, v + 1)
    steepest = float(((tail[v - i] - tail[v]) / i).max())
    return min(1.0, float(tail[v]) + 2 * guesses.canaries * delta * steepest)


def chance_under_mu(guesses: Guesses, mu: float) -> float:
    """Bound on the chance of so many right guesses if the run is `mu`-GDP, to 1e-9.

    With p_i the chance of exactly i right guesses of c about m canaries, flipping one coin at a time gives, for
    every v, sum_{i >= v} i p_i / m <= F(sum_{i >= v - 1} (c - i) p_i / m) with F(x) = Phi(Phi^-1(x) + mu): the
    largest tail that leaves the p_i a sum of at most 1 is the bound (Mahloujifar, Melis, Chaudhuri 2024,
    arXiv:2410.22235; here for fair coins).
    """
    if not 0 <= mu < math.inf:
        raise ValueError("requires 0 <= mu < infinity")
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _least_mass(guesses, mu, middle) <= 1 else (low, middle)
    return high


def _least_mass(guesses: Guesses, mu: float, tail: float) -> float:
    """The least sum of all p_i if those from `correct` on sum to `tail`.

    All of the tail stands at `correct` and every p_i below is as small as its condition allows: mass that is moved
    down a place loosens every condition further down.
    """
    made, canaries = guesses.made, guesses.canaries
    mass = tail
    right, wrong = tail * guesses.correct / canaries, tail * (made - guesses.correct) / canaries
    for i in range(guesses.correct - 1, -1, -1):
        # The condition for v = i + 1 wants this much on its right-hand side.
        needed = normal_below(normal_quantile(min(right, 1.0)) - mu)
        more = max(0.0, needed - wrong) * canaries / (made - i)
        mass += more
        if mass > 1:
            return mass
        right += more * i / canaries
        wrong += more * (made - i) / canaries
    return mass


def epsilon_above(guesses: Guesses, *, delta: float, confidence: float) -> float:
    """With this confidence the run is not (epsilon, `delta`)-DP for any smaller epsilon; 0 if nothing is shown."""
    _require(confidence)
    low, high = 0.0, _LARGEST_EPSILON
    if chance_under_epsilon(guesses, 0.0, delta) > 1 - confidence:
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        unlikely = chance_under_epsilon(guesses, middle, delta) <= 1 - confidence
        low, high = (middle, high) if unlikely else (low, middle)
    return low


def mu_above(guesses: Guesses, *, confidence: float) -> float:
    """With this confidence the run is not mu-GDP for any smaller mu; 0 if nothing is shown."""
    _require(confidence)
    low, high = 0.0, _LARGEST_MU
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        unlikely = _least_mass(guesses, middle, 1 - confidence) > 1
        low, high = (middle, high) if unlikely else (low, middle)
    return low


def _require(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError("requires 0 < confidence < 1")
