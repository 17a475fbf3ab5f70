"""Fixed-point integers of few bits that add up exactly. A value outside the range is an error, never a clip."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MalformedError
from privacy.noise import Vector

Words = NDArray[np.uint64]

FEWEST_BITS, MOST_BITS = 8, 64
FEWEST_BITS_FITTED = 24
"""A fitted grid keeps back at least 2^22 steps, so the rounding of 8 million data holders, half a step each, fits."""

FINEST_STEP_LOG2 = -32
COARSEST_STEP_LOG2_WITHOUT_NOISE = -16
STEPS_PER_DEVIATION_LOG2 = 24
"""The noise has 2^24 to 2^25 steps per standard deviation: what rounding to steps adds to the sensitivity and what
separates the discrete noise from a Gaussian (`privacy.discrete`) both vanish against it. Since the noise is drawn in
whole steps, no low bits are left that could leak (Mironov, CCS 2012)."""

DEVIATIONS_HELD = 1024.0
"""Room kept for noise, in standard deviations of what the whole sum needs. Noise of a thousand data holders that each
add all of it passes that with a chance below e^-500."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Multiples of 2^`step_log2` from -2^(`bits` - 1) steps up to one step below 2^(`bits` - 1).

    Words have 64 bits and are added modulo 2^64, but only the low `bits` bits count. So whatever words others add,
    lawful or not, a decoded sum never lies further than 2^(`bits` - 1) steps from 0.
    """

    step_log2: int
    bits: int

    def __post_init__(self) -> None:
        if not FEWEST_BITS <= self.bits <= MOST_BITS or not -512 <= self.step_log2 <= 512:
            raise MalformedError(
                f"a grid of {self.bits} bits and step 2^{self.step_log2} was found; {FEWEST_BITS} to {MOST_BITS} bits "
                "and a step within 2^-512 to 2^512 are needed: the coordinator must write a plan with a lawful grid"
            )

    @classmethod
    def fit(cls, *, reach: float, deviation: float) -> "Grid":
        """The public grid for sums within `reach`, plus noise of standard deviation `deviation` (0: none).

        It has the fewest bits that hold them with one bit kept back. MalformedError if 64 bits do not.
        """
        _require_lawful(reach, deviation)
        if deviation > 0:
            # frexp gives floor(log2) + 1 exactly, so that every party finds the same step.
            return cls._of_step(math.frexp(deviation)[1] - 1 - STEPS_PER_DEVIATION_LOG2, reach, deviation)
        for step_log2 in range(FINEST_STEP_LOG2, COARSEST_STEP_LOG2_WITHOUT_NOISE):
            if cls(step_log2, MOST_BITS)._holds(reach, 0.0):
                return cls._of_step(step_log2, reach, 0.0)
        return cls._of_step(COARSEST_STEP_LOG2_WITHOUT_NOISE, reach, 0.0)

    @classmethod
    def _of_step(cls, step_log2: int, reach: float, deviation: float) -> "Grid":
        for bits in range(FEWEST_BITS_FITTED, MOST_BITS):
            if (grid := cls(step_log2, bits))._holds(reach, deviation):
                return grid
        widest = cls(step_log2, MOST_BITS)
        widest.require_room(reach=reach, deviation=deviation)
        return widest

    def _holds(self, reach: float, deviation: float) -> bool:
        # One bit is kept back: for the rounding of every holder's own numbers, and for noise a little above the
        # deviation, which rounding calls for.
        try:
            return math.ldexp(reach + DEVIATIONS_HELD * deviation, -self.step_log2) <= 2.0 ** (self.bits - 2)
        except OverflowError:
            return False

    def require_room(self, *, reach: float, deviation: float) -> None:
        """Proof that no sum within `reach`, plus such noise, can leave the range; MalformedError if it could."""
        _require_lawful(reach, deviation)
        if not self._holds(reach, deviation):
            raise MalformedError(
                f"a sum can leave the grid of {self.bits} bits and step 2^{self.step_log2}; it needs more bits, a "
                "coarser step, fewer people or a smaller bound: the coordinator must write another plan"
            )

    def encode(self, values: Vector) -> Words:
        """`values` rounded to the nearest multiple (ties to even), as two's complement words, same shape.

        Raises MalformedError if a value is not finite or out of range.
        """
        # Scaling by a power of two is exact; what overflows becomes infinite and is caught below.
        with np.errstate(over="ignore"):
            steps = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), -self.step_log2))
        edge = 2.0 ** (self.bits - 1)
        if unusable := int(np.count_nonzero(~((steps >= -edge) & (steps < edge)))):
            raise MalformedError(
                f"{unusable} of {steps.size} numbers are not finite or leave the grid of {self.bits} bits and step "
                f"2^{self.step_log2}; the data holder must not send them: its operator should check rows and recipe "
                "settings"
            )
        return steps.astype(np.int64).view(np.uint64)

    def from_steps(self, steps: NDArray[np.int64]) -> Words:
        """Whole `steps`, such as noise, as words of the same shape. MalformedError if one is out of range."""
        if steps.dtype != np.int64:
            raise TypeError("requires steps of type int64")
        last = 2 ** (self.bits - 1) - 1
        if outside := int(np.count_nonzero((steps > last) | (steps < -last - 1))):
            raise MalformedError(
                f"{outside} of {steps.size} whole numbers leave the grid of {self.bits} bits and step "
                f"2^{self.step_log2}; the data holder must not send them: the coordinator must write a plan with a "
                "wider grid"
            )
        return steps.view(np.uint64)

    def decode(self, words: Words) -> Vector:
        """The values of the low `bits` bits of `words`, same shape; rounded to a float's 53 bits."""
        if words.dtype != np.uint64:
            raise TypeError("requires words of type uint64")
        unused = np.uint64(64 - self.bits)
        # Up to the top and back as signed numbers: the sign is extended over the bits that do not count.
        steps = (words << unused).view(np.int64) >> np.int64(unused)
        values: Vector = np.ldexp(steps.astype(np.float64), self.step_log2)
        return values


def _require_lawful(reach: float, deviation: float) -> None:
    if not 0 < reach < math.inf or not 0 <= deviation < math.inf:
        raise ValueError("requires a finite reach > 0 and a finite standard deviation, at least 0")


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
