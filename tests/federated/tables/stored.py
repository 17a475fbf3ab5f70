"""One table of typed cells, stored as CSV, as Parquet and behind a query."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as arrow
from pyarrow import parquet

from tests.federated.schema_samples import COLUMNS, write
from tests.federated.test_table import GOOD

Cell = int | float | str | None
GOOD_CELLS: dict[str, Cell] = dict(zip(COLUMNS, ["s1", 44, 1234.5, 3, -2, 0, 77.25, -30, 2, "plain", 1], strict=True))


def good_row(**cells: Any) -> dict[str, Any]:
    """A row that fits the sample schema, but for these cells."""
    return GOOD_CELLS | cells


def as_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as CSV; an empty cell is an empty text."""
    return write(path, [["" if row[name] is None else str(row[name]) for name in COLUMNS] for row in rows])


def as_parquet(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """Arrow arrays, or lists whose type Arrow finds out, as Parquet."""
    parquet.write_table(arrow.table(dict(columns)), path, **options)
    return path


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The cells by column."""
    return {name: [row[name] for row in rows] for name in COLUMNS}


def as_database(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows in table `loans` of a SQLite file, whose columns hold cells of any type."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE loans ({', '.join(json.dumps(name) for name in COLUMNS)})")
        cells = [[row[name] for name in COLUMNS] for row in rows]
        database.executemany(f"INSERT INTO loans VALUES ({', '.join('?' * len(COLUMNS))})", cells)  # noqa: S608
    return path


def as_query(
    path: Path, url: str, query: str = "SELECT * FROM loans", *, batch_rows: int = 100, mode: int = 0o600
) -> Path:
    """The settings of a query."""
    path.write_text(
        f"version = 1\nurl = {json.dumps(url)}\nquery = {json.dumps(query)}\nbatch_rows = {batch_rows}\n",
        encoding="utf-8",
    )
    path.chmod(mode)
    return path


assert [str(cell) for cell in GOOD_CELLS.values()] == GOOD
