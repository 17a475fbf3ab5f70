"""Fixed-point integers modulo 2^64 that add up exactly. A value outside the range is an error, never a clip."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MalformedError
from privacy.noise import Vector

Words = NDArray[np.uint64]

FINEST_STEP_LOG2 = -32
COARSEST_STEP_LOG2_WITHOUT_NOISE = -16
STEPS_PER_DEVIATION_LOG2 = 16
"""Steps are 2^-16 of the noise standard deviation: coarse against a float's last bits, which would leak
through fine steps (Mironov, CCS 2012), yet far below the noise."""

DEVIATIONS_HELD = 1024.0
"""Room kept for noise, in standard deviations of the whole sum. One holder's share is at most 8.58 of its own
(`privacy.noise`), so K holders stay within 8.58 sqrt(K): enough for 14,000 holders with certainty."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Multiples of 2^`step_log2`, as two's complement words of `bits` bits. Only 64 bits are supported."""

    step_log2: int
    bits: int = 64

    def __post_init__(self) -> None:
        if self.bits != 64 or not -512 <= self.step_log2 <= 512:
            raise MalformedError(
                "the grid has not 64 bits or its step is beyond 2^512; the coordinator must write a plan with a "
                "lawful grid"
            )

    @classmethod
    def fit(cls, *, people: int, bound: float, standard_deviation: float) -> "Grid":
        """The public grid for a sum over at most `people` of values within `bound`, plus noise of that
        deviation.

        Raises MalformedError if no grid is both wide and fine enough.
        """
        if not 0 <= standard_deviation < math.inf:
            raise ValueError("requires a finite standard deviation, at least 0")
        if standard_deviation > 0:
            grid = cls(math.floor(math.log2(standard_deviation)) - STEPS_PER_DEVIATION_LOG2)
            grid.require_room(people=people, bound=bound, standard_deviation=standard_deviation)
            return grid
        for step_log2 in range(FINEST_STEP_LOG2, COARSEST_STEP_LOG2_WITHOUT_NOISE):
            if cls(step_log2)._holds(_reach(people, bound, 0.0)):
                return cls(step_log2)
        grid = cls(COARSEST_STEP_LOG2_WITHOUT_NOISE)
        grid.require_room(people=people, bound=bound, standard_deviation=0.0)
        return grid

    def _holds(self, reach: float) -> bool:
        # One bit is kept back for the rounding of every holder's own numbers.
        return math.ldexp(reach, -self.step_log2) <= 2.0 ** (self.bits - 2)

    def require_room(self, *, people: int, bound: float, standard_deviation: float) -> None:
        """Proof that no sum over at most `people` can leave the range; MalformedError if it could."""
        if not self._holds(_reach(people, bound, standard_deviation)):
            raise MalformedError(
                f"a sum over {people} people can leave the grid of step 2^{self.step_log2}; it needs a coarser step "
                "or a smaller bound: the coordinator must write another plan"
            )

    def encode(self, values: Vector) -> Words:
        """`values` rounded to the nearest multiple (ties to even), as words, same shape.

        Raises MalformedError if a value is not finite or out of range.
        """
        # Scaling by a power of two is exact; what overflows becomes infinite and is caught below.
        with np.errstate(over="ignore"):
            steps = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), -self.step_log2))
        if unusable := int(np.count_nonzero(~((steps >= -(2.0**63)) & (steps < 2.0**63)))):
            raise MalformedError(
                f"{unusable} of {steps.size} numbers are not finite or leave the grid of step 2^{self.step_log2}; the "
                "data holder must not send them: its operator should check rows and recipe settings"
            )
        return steps.astype(np.int64).view(np.uint64)

    def decode(self, words: Words) -> Vector:
        """The values of `words`, same shape; rounded to a float's 53 bits."""
        if words.dtype != np.uint64:
            raise TypeError("requires words of type uint64")
        values: Vector = np.ldexp(words.view(np.int64).astype(np.float64), self.step_log2)
        return values


def _reach(people: int, bound: float, standard_deviation: float) -> float:
    if people < 1 or not 0 < bound < math.inf:
        raise ValueError("requires people >= 1 and a finite bound > 0")
    return people * bound + DEVIATIONS_HELD * standard_deviation


def add_words(vectors: Iterable[Words]) -> Words:
    """The sum modulo 2^64 of at least one vector; all of one shape, or MalformedError."""
    total: Words | None = None
    for vector in vectors:
        if vector.dtype != np.uint64:
            raise TypeError("requires words of type uint64")
        if total is None:
            total = vector.copy()
        elif vector.shape != total.shape:
            raise MalformedError(
                f"a masked vector has shape {vector.shape}, {total.shape} was needed; the coordinator must abort the "
                "round"
            )
        else:
            total += vector
    if total is None:
        raise MalformedError("no vector to add up; the coordinator must wait for the cohort or abort the round")
    return total
