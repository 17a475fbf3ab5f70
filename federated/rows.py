"""Encoded rows on their way into a recipe: numbers only, checked once, so that no sum can be poisoned by one cell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MalformedError

LARGEST_CELL = 2.0**100
"""Larger cells are refused: their squares would overflow where rows are clipped. No bounded schema makes one."""


def _refuse(found: str) -> MalformedError:
    return MalformedError(
        f"encoded rows: {found}; the data holder's operator must check the table against the schema, then run again"
    )


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRows:
    """Rows of the permitted subjects of one data holder, one row a person.

    `x` shape (n, p), finite; `bad` shape (n,), 0 or 1; `share` shape (n,), each in [0, 1]: how much of the
    unit bound this person's consent lends to this data holder. n may be 0. Raises MalformedError, naming
    counts, never values.
    """

    x: NDArray[np.float64]
    bad: NDArray[np.float64]
    share: NDArray[np.float64]

    def __post_init__(self) -> None:
        x, bad, share = (np.asarray(a, dtype=np.float64).view() for a in (self.x, self.bad, self.share))
        if x.ndim != 2 or bad.shape != (len(x),) or share.shape != (len(x),):
            raise _refuse(f"shapes {x.shape}, {bad.shape} and {share.shape} do not belong together")
        # `not (<=)` also catches NaN.
        if unusable := int(np.count_nonzero(~(np.abs(x) <= LARGEST_CELL).all(axis=1))):
            raise _refuse(f"{unusable} of {len(x)} rows have a cell that is not finite or is beyond 2^100")
        if unusable := int(np.count_nonzero((bad != 0) & (bad != 1))):
            raise _refuse(f"{unusable} of {len(x)} outcomes are neither 0 nor 1")
        if unusable := int(np.count_nonzero(~((share >= 0) & (share <= 1)))):
            raise _refuse(f"{unusable} of {len(x)} shares are outside 0 to 1")
        for name, array in (("x", x), ("bad", bad), ("share", share)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.bad)

    @property
    def width(self) -> int:
        """Number of encoded columns, p."""
        return int(self.x.shape[1])
