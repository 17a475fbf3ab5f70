"""Updates that the coordinator may see, made one: their sum, or what a few bad ones among them cannot move far.

Coordinate-wise trimmed mean and median of Yin et al. 2018 (arXiv:1803.01498, definitions 1 and 2), times the number of
data holders, so that a recipe sees a sum whichever the plan names. Both ask every data holder alike, whatever it
holds: they are meant for data holders of about one size, and for rows that are spread evenly. Where sizes or rows
differ much they throw away honest data, and the sum is the better choice.
"""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from federated.trust import Aggregation
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Grid, Words, add_words
from privacy.noise import Vector


def aggregated(words: Mapping[str, Words], grid: Grid, aggregation: Aggregation, *, trimmed: int) -> Vector:
    """What the updates `words`, of one shape (n,), are worth together, in the scale of their sum; shape (n,).

    A trimmed mean leaves out the `trimmed` largest and smallest values of each number. RefusalError if that would
    leave none. Whole numbers on a grid are never NaN, so every value has its place in the order.
    """
    if aggregation is Aggregation.SUM:
        return grid.decode(add_words(words[holder] for holder in sorted(words)))
    values = np.sort(np.stack([grid.decode(words[holder]) for holder in sorted(words)]), axis=0)
    match aggregation:
        case Aggregation.TRIMMED_MEAN:
            if len(values) <= 2 * trimmed:
                raise RefusalError(
                    f"{len(values)} updates are too few to leave out {trimmed} at either end. The coordinator should "
                    "write a plan with more data holders, or one that tolerates fewer drop-outs.",
                    RefusalCode.COHORT,
                )
            middle: Vector = values[trimmed : len(values) - trimmed].mean(axis=0)
        case Aggregation.MEDIAN:
            middle = np.median(values, axis=0)
        case _:
            assert_never(aggregation)
    whole: Vector = middle * len(values)
    return whole
