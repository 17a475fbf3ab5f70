"""Raw tables: the checked cells of a data holder's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RawTable:
    """Checked cells, every array of shape (n,). NaN in `columns` means missing; special codes stand as
    numbers.

    `outcome` is 1 for bad, 0 for good, None where the table has no such column. `audit` holds the position of
    the person's group, -1 for none; an audit column that the table lacks has no entry.
    """

    subjects: tuple[str, ...]
    columns: Mapping[str, Vector]
    outcome: Vector | None
    audit: Mapping[str, NDArray[np.int64]]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "RawTable":
        """These rows, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return RawTable(
            subjects=tuple(self.subjects[index] for index in chosen.tolist()),
            columns={name: cells[chosen] for name, cells in self.columns.items()},
            outcome=None if self.outcome is None else self.outcome[chosen],
            audit={name: groups[chosen] for name, groups in self.audit.items()},
        )
