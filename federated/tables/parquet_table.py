"""Parquet tables: typed cells, turned into numbers only in the rows that are wanted.

Arrow unpacks whole columns of a batch, and only those that the schema reads; what is no table of its kind, or has a
broken page in one of them, fails the whole file, whoever's row it is in.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
from pyarrow import compute, parquet
from pyarrow import types as kinds

from federated.tables.csv_table import KINDS
from federated.tables.numbers import Flags, mark_missing, parse_numbers, text_of
from federated.tables.raw_table import Vector
from federated.tables.source import BATCH_ROWS, Batch
from privacy.errors import MalformedError, UsageError

_BUFFER_BYTES: Final = 1 << 20  # of each column: without it a whole row group of the file is held


@contextmanager
def opened_parquet(path: Path) -> Iterator["ParquetSource"]:
    """The table in a Parquet file; what is none becomes a MalformedError without its content."""
    try:
        with path.open("rb"):
            pass  # a file that cannot be opened is one mistake, a file that is no Parquet another
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give the path of a {KINDS}") from None
    try:
        with parquet.ParquetFile(str(path), buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield ParquetSource(path.name, file)
    # OSError is also what pyarrow raises for a page that cannot be unpacked.
    except (arrow.ArrowException, OSError, UnicodeDecodeError):
        raise MalformedError(f"{path.name} is not a whole Parquet file of readable cells; export it again") from None


class ParquetSource:
    """A Parquet table behind its own schema."""

    header = "The names of its columns"

    def __init__(self, name: str, file: Any) -> None:
        self.name, self._file = name, file
        self.names: Sequence[str] = tuple(file.schema_arrow.names)

    def require_types(self, subject: str | None, columns: Sequence[str]) -> None:
        """MalformedError unless subjects are whole numbers or texts, and other cells numbers, texts or booleans."""
        types = self._file.schema_arrow
        found = [f"{name!r} holds {_type_of(types, name)}" for name in columns if not _numeric(_type_of(types, name))]
        if found:
            raise MalformedError(
                f"{self.name}: {'; '.join(found)}, where numbers are needed. The data holder should export these "
                "columns as integers, floating-point or decimal numbers, booleans or texts"
            )
        if subject is not None and not _names_people(_type_of(types, subject)):
            raise MalformedError(
                f"{self.name}: {subject!r} holds {_type_of(types, subject)}, and a column that says whom a row is "
                "about must hold integers or texts: other types have several spellings of one customer number. The "
                "data holder should export it as text"
            )

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows, with these columns only."""
        for batch in self._file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns), use_threads=False):
            yield _ParquetBatch(batch)


class _ParquetBatch:
    ragged: frozenset[int] = frozenset()

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def subjects(self, column: str) -> list[str]:
        return _texts(self._batch.column(column))

    def take(self, places: Sequence[int]) -> "_ParquetBatch":
        if len(places) == len(self):
            return self
        return _ParquetBatch(self._batch.take(arrow.array(places, type=arrow.int64())))

    def numbers(self, column: str, missing: Sequence[str]) -> tuple[Vector, Flags]:
        return _numbers(self._batch.column(column), missing)

    def texts(self, column: str) -> list[str]:
        return _texts(self._batch.column(column))


def _numbers(cells: Any, missing: Sequence[str]) -> tuple[Vector, Flags]:
    cells = _plain(cells)
    if _is_text(cells.type) or kinds.is_null(cells.type):
        return parse_numbers(_texts(cells), missing)
    empty = np.asarray(cells.is_null().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if kinds.is_decimal(cells.type):
        # By their texts: Arrow's own way from decimals to floats is not always rounded to the nearest.
        values = np.array([text or "0" for text in _texts(cells)], dtype=np.str_).astype(np.float64)
    else:
        held = cells.fill_null(False if kinds.is_boolean(cells.type) else 0).to_numpy(zero_copy_only=False)
        values = _widened(held)
    return mark_missing(values, empty, missing)


def _widened(held: Any) -> Vector:
    """The same numbers as float64: a shorter float is the number that it is written as, 0.1 and not 0.10000000149."""
    if held.dtype in (np.float16, np.float32):
        held = held.astype(np.str_)
    return np.array(held, dtype=np.float64)


def _texts(cells: Any) -> list[str]:
    """The cells as CSV would hold them."""
    cells = _plain(cells)
    if kinds.is_float16(cells.type) or kinds.is_float32(cells.type):
        held = cells.fill_null(0).to_numpy(zero_copy_only=False).astype(np.str_).tolist()
        return ["" if empty else str(text) for text, empty in zip(held, cells.is_null().to_pylist(), strict=True)]
    if not (_numeric(cells.type)):
        return ["" if empty else "?" for empty in cells.is_null().to_pylist()]
    if kinds.is_integer(cells.type):
        cells = compute.cast(cells, arrow.string())
    return [text_of(cell) for cell in cells.to_pylist()]


def _plain(cells: Any) -> Any:
    return cells.dictionary_decode() if kinds.is_dictionary(cells.type) else cells


def _type_of(types: Any, column: str) -> Any:
    """The type of that column's cells, whether they stand there or in a dictionary beside it."""
    found = types.field(column).type
    return found.value_type if kinds.is_dictionary(found) else found


def _is_text(kind: Any) -> bool:
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def _names_people(kind: Any) -> bool:
    return bool(_is_text(kind) or kinds.is_integer(kind) or kinds.is_null(kind))


def _numeric(kind: Any) -> bool:
    """Whether cells of that type can be numbers."""
    return bool(_names_people(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_boolean(kind))
