"""What one person changed in a whole transcript of noisy sums, exactly: no statistics, no chance.

A run is mu-GDP for a person if in every round, whatever was released before, the person moves the exact sum by some
vector c and the sum carries independent Gaussian noise of variance v, and the |c|^2 / v add up to at most mu^2
(Dong, Roth, Su, arXiv:1905.02383, theorem 2.7 and corollary 3.3; Smith, Thakurta 2022, arXiv:2210.17520, for rounds
that are chosen by what was released before).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.grid import Words


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One release on its grid, before noise: with the person, without, and the noise's variance in squared steps."""

    with_person: Words
    without: Words
    variance: int

    def change(self) -> NDArray[np.int64]:
        """What the person moved, in whole grid steps, shape (length,)."""
        if self.with_person.dtype != np.uint64 or self.without.dtype != np.uint64:
            raise TypeError("requires words of type uint64")
        return (self.with_person - self.without).view(np.int64)


def mu_squared(steps: Iterable[Step]) -> float:
    """The sum of |change|^2 / variance; infinite for a change that no noise hides."""
    total = 0.0
    for step in steps:
        moved = float(np.square(step.change().astype(np.float64)).sum())
        if moved > 0:
            total += moved / step.variance if step.variance > 0 else float("inf")
    return total
