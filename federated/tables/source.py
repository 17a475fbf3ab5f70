"""What the checks need of any table: its column names, and its rows in batches of cells nobody has looked at yet."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from federated.tables.numbers import Flags
from federated.tables.raw_table import Vector

BATCH_ROWS: Final = 8192


class Batch(Protocol):
    """Consecutive rows. Of a row whose subject is not wanted, nothing else is ever read as anything."""

    ragged: frozenset[int]  # places in the batch of rows with too few or too many cells

    def __len__(self) -> int:
        """How many rows."""
        ...

    def subjects(self, column: str) -> Sequence[str]:
        """Whom each row is about; empty where it does not say."""
        ...

    def take(self, places: Sequence[int]) -> "Batch":
        """The rows at these places, which ascend."""
        ...

    def numbers(self, column: str, missing: Sequence[str]) -> tuple[Vector, Flags]:
        """That column's cells, as `federated.tables.numbers.parse_numbers` gives them; no row may be ragged."""
        ...

    def texts(self, column: str) -> Sequence[str]:
        """That column's cells as CSV would hold them, in the rows that are not ragged."""
        ...


class Source(Protocol):
    """A table that is open for reading."""

    name: str  # of the file, for messages
    names: Sequence[str]  # of the columns, as they stand there
    header: str  # where the names stand, for messages

    def require_types(self, subject: str | None, columns: Sequence[str]) -> None:
        """MalformedError if a column has a type that never holds what it should."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows, with these columns at least."""
        ...
