"""What did not fit in a table: row numbers and counts, never a value."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

ROWS_NAMED: Final = 5  # row numbers that a message lists before it only counts


@dataclass(slots=True)
class Problems:
    """What did not fit, by column and kind: row numbers and a count, never a value."""

    limit: int
    rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, column: str, kind: str, rows: Sequence[int]) -> None:
        """Note that these rows have this problem in this column."""
        key = (column, kind)
        kept = self.rows.setdefault(key, [])
        kept.extend(rows[: max(0, self.limit - len(kept))])
        self.counts[key] = self.counts.get(key, 0) + len(rows)

    def found(self) -> list[tuple[str, str, list[int], int]]:
        """Column, kind, first row numbers, count of rows: grouped by column, in the order they were found."""
        order = {column: None for column, _ in self.counts}
        return [
            (column, kind, self.rows[column, kind], count)
            for wanted in order
            for (column, kind), count in self.counts.items()
            if column == wanted
        ]

    def lines(self) -> list[str]:
        """One phrase per column and kind."""
        return [f"{column}: {kind} in {_rows(rows, count)}" for column, kind, rows, count in self.found()]


def listed(numbers: Sequence[int]) -> str:
    """The first few of these numbers, and how many more there are."""
    shown = ", ".join(str(number) for number in numbers[:ROWS_NAMED])
    return shown if len(numbers) <= ROWS_NAMED else f"{shown} and {len(numbers) - ROWS_NAMED} more"


def _rows(shown: Sequence[int], count: int) -> str:
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f"row{'s' if count > 1 else ''} {', '.join(str(number) for number in shown)}{more}"
