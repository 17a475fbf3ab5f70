"""Local steps at one data holder: how many, who is in a batch, what they cost, and which are lawful."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.accounting import SampledSpend, Spend, UnprotectedSpend
from privacy.errors import MalformedError
from privacy.noise import NoiseSource, Vector
from privacy.sampled import noise_multiplier_for

Places = NDArray[np.intp]

SMALLEST_CLIPPING_NORM: Final = 1e-6
LARGEST_CLIPPING_NORM: Final = 1e6
"""Outside, clipped gradients or their squares could leave the range in which floats, also those of 32 bits, keep all
their bits: of a norm among the subnormal ones, a gradient of four equal numbers is longer than it was clipped to."""

SMALLEST_LEARNING_RATE: Final = 1e-6
LARGEST_LEARNING_RATE: Final = 1e6

LARGEST_TOLD: Final = 2.0**10
"""No number of a vector that is worked out in 32 bits is larger when a data holder is told it: the larger the numbers,
the more the rounding of everybody's gradient can depend on who else is in a batch."""


def lawful_steps(learning_rate: float, clipping_norm: float) -> bool:
    """Whether a recipe may take such steps."""
    return (
        SMALLEST_LEARNING_RATE <= learning_rate <= LARGEST_LEARNING_RATE
        and SMALLEST_CLIPPING_NORM <= clipping_norm <= LARGEST_CLIPPING_NORM
    )


LAWFUL_STEPS: Final = (
    f"a learning rate from {SMALLEST_LEARNING_RATE:g} to {LARGEST_LEARNING_RATE:g} and a clipping norm from "
    f"{SMALLEST_CLIPPING_NORM:g} to {LARGEST_CLIPPING_NORM:g}"
)


def require_small(told: Vector) -> None:
    """MalformedError unless every number of what was told lies within 2^10."""
    if not (np.abs(told) <= LARGEST_TOLD).all():
        raise MalformedError(
            f"the instruction has a number beyond {LARGEST_TOLD:g}, which no vector that learns needs; the coordinator "
            "should plan a smaller learning rate"
        )


@lru_cache(maxsize=256)
def _noise_multiplier(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    return noise_multiplier_for(epsilon, delta, sampling_rate=sampling_rate, steps=steps)


@dataclass(frozen=True, slots=True)
class StepSchedule:
    """How many steps a data holder takes, how people are drawn for them, and how much noise they need.

    `batch_size` is the expected size of a Poisson batch; an epoch is as many steps as make one pass in expectation.
    `epsilon` and `delta` hold for all `epochs` of a whole run of one data holder, whatever its number of rows;
    `epsilon` None is NOT PRIVATE. A shuffled pass over the rows is not offered: no proof makes it cheaper than using
    everybody in every step, so it would have to be charged without the gain from sampling, and implementations that
    charge it as if batches were Poisson claim 0.98 for what costs 19.
    """

    batch_size: int
    epochs: int
    epsilon: float | None
    delta: float

    def sampling_rate(self, rows: int) -> float:
        """Chance of one person to be in one step at a data holder with `rows` rows."""
        return min(1.0, self.batch_size / max(rows, 1))

    def steps_per_epoch(self, rows: int) -> int:
        """Steps in which a person is drawn once in expectation."""
        return max(1, math.ceil(rows / self.batch_size))

    def noise_multiplier(self, rows: int) -> float:
        """Enough for the steps of ALL epochs together to meet epsilon and delta; 0 without noise."""
        if self.epsilon is None:
            return 0.0
        steps = self.epochs * self.steps_per_epoch(rows)
        return _noise_multiplier(self.epsilon, self.delta, self.sampling_rate(rows), steps)

    def spend(self, rows: int, *, epochs: int) -> Spend:
        """The steps of so many epochs. The ledger adds up those of all rounds: it is the accountant that is carried."""
        if self.epsilon is None:
            return UnprotectedSpend()
        return SampledSpend(self.noise_multiplier(rows), self.sampling_rate(rows), epochs * self.steps_per_epoch(rows))


def poisson_batch(rows: int, sampling_rate: float, chance: NoiseSource) -> Places | None:
    """The places of the people who are in, each independently at `sampling_rate` (never above it); None for everybody.

    Requires 0 < sampling_rate <= 1. One byte decides about most people; who ties gets 64 further bits, so the rate is
    met to 2^-72.
    """
    if sampling_rate == 1:
        return None
    # Exact: a float times a power of two.
    first, rest = divmod(int(sampling_rate * 2.0**72), 2**64)
    drawn = np.frombuffer(chance.random_bytes(rows), dtype=np.uint8)
    places = np.flatnonzero(drawn <= first)
    ties = np.flatnonzero(drawn[places] == first)
    further = np.frombuffer(chance.random_bytes(8 * len(ties)), dtype="<u8")
    return np.delete(places, ties[further >= np.uint64(rest)])
