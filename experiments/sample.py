"""What an experiment on public data may look at: the permitted rows of all data holders, each person once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.holder.gate import PermittedRows
from clients.holder.node import Holder
from federated.encoder import Encoder
from federated.rows import EncodedRows
from federated.table import RawTable
from privacy.consent.record import Purpose


@dataclass(frozen=True, slots=True)
class Sample:
    """Permitted rows as each data holder has them, and encoded for all of them together, each person once."""

    parts: tuple[EncodedRows, ...]  # one a data holder
    tables: tuple[RawTable, ...]  # one a data holder
    once: tuple[NDArray[np.bool_], ...]  # per data holder: rows of people not seen at an earlier one

    @property
    def x(self) -> NDArray[np.float64]:
        """Encoded rows (n, p) of each person once."""
        return np.vstack([part.x[once] for part, once in zip(self.parts, self.once, strict=True)])

    @property
    def bad(self) -> NDArray[np.float64]:
        """Outcomes (n,) of each person once; 1 is bad."""
        return np.concatenate([part.bad[once] for part, once in zip(self.parts, self.once, strict=True)])

    def audit(self, attribute: str) -> NDArray[np.int64]:
        """Group (n,) of each person in an audit attribute; -1 for none."""
        return np.concatenate(
            [table.audit[attribute][once] for table, once in zip(self.tables, self.once, strict=True)]
        )

    def of_each(self, scores: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Scores (n,) of each person once, from each data holder's scores of its rows."""
        return np.concatenate([part[once] for part, once in zip(scores, self.once, strict=True)])


def permitted_sample(holders: Sequence[Holder], run: str, purpose: Purpose, encoder: Encoder) -> Sample:
    """The sample that the gates of `holders` permitted for `purpose` in a run they all joined."""
    permitted = [holder.permitted(holder.run_named(run), purpose) for holder in holders]
    seen: set[str] = set()
    once = []
    for rows in permitted:
        # Customer numbers are the data set's own, the same everywhere: only an experiment can match people so.
        once.append(np.array([subject not in seen for subject in rows.table.subjects], dtype=np.bool_))
        seen.update(rows.table.subjects)
    parts = tuple(EncodedRows(encoder.encode(rows.table), rows.outcome, rows.shares) for rows in permitted)
    return Sample(parts, tuple(rows.table for rows in permitted), tuple(once))


def refusals_of(permitted: Sequence[PermittedRows]) -> dict[str, int]:
    """How many rows the gates left unread, by reason, over all data holders."""
    total: dict[str, int] = {}
    for rows in permitted:
        for reason, count in rows.refusals.items():
            total[reason] = total.get(reason, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))
