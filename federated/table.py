"""A data holder's table, read in batches and checked against the schema, wherever its rows come from.

What the end of the file's name says: `.parquet`, `.sql.toml` (the settings of a query), and CSV or CSV.gz otherwise.
Rows are counted from 1, a header not counted.
"""

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from federated.schema import Schema
from federated.tables.checks import checked_rows
from federated.tables.csv_table import opened, opened_csv
from federated.tables.numbers import parse_numbers
from federated.tables.problems import ROWS_NAMED, Problems
from federated.tables.raw_table import RawTable, Vector
from federated.tables.source import BATCH_ROWS, Source
from federated.tables.sql_settings import how_counted, is_query, load_sql_settings
from privacy.errors import MalformedError, UsageError

__all__ = [
    "BATCH_ROWS", "Problems", "RawTable", "Vector", "how_counted", "is_query", "opened", "parse_numbers",
    "read_table", "scan_table", "table_texts",
]  # fmt: skip


def read_table(path: Path | str, schema: Schema, *, only: Container[str] | None = None) -> RawTable:
    """The rows of a table whose subject is in `only` (all when None), every cell checked.

    `only` is asked once for each row, in order; a row too short to name a subject asks for an empty one. The rows of
    a query stand in the order of their subjects, so that every reading of the same rows gives the same sums.
    MalformedError names up to five row numbers per problem and never a value.
    """
    path, problems = Path(path), Problems(limit=ROWS_NAMED)
    table = scan_table(path, schema, problems, only=only)
    if problems.counts:
        raise MalformedError(
            f"{path.name} does not fit schema {schema.name!r}: {'; '.join(problems.lines())}."
            f"{how_counted(path)} The data holder mends the table, or all parties agree on another schema;"
            " `fedcredit schema check` lists everything"
        )
    return table


def scan_table(
    path: Path,
    schema: Schema,
    problems: Problems,
    *,
    only: Container[str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> RawTable:
    """As `read_table`, but problems are collected in `problems`; the table is of use only without any."""
    with _opened_source(path) as source:
        return checked_rows(source, schema, problems, only=only, advance=advance, by_subject=is_query(path))


@contextmanager
def table_texts(path: Path) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The column names of a table, and its rows as the texts that a CSV file would hold; nothing is checked.

    Rows with too few or too many cells are left out. A cell that is neither a number nor a text is "?".
    """
    with _opened_source(path) as source:
        names = list(source.names)

        def rows() -> Iterator[list[str]]:
            for batch in source.batches(names):
                yield from (list(row) for row in zip(*(batch.texts(name) for name in names), strict=True))

        yield names, rows()


def _opened_source(path: Path) -> AbstractContextManager[Source]:
    # Imported when a table is of their kind: whoever has CSV files needs neither package.
    try:
        if path.name.lower().endswith(".parquet"):
            extra = "parquet"
            from federated.tables.parquet_table import opened_parquet

            return opened_parquet(path)
        if is_query(path):
            extra = "sql"
            from federated.tables.sql_table import opened_sql

            return opened_sql(load_sql_settings(path))
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path.name} needs {error.name}, which is not installed; run: pip install 'fedcredit[{extra}]'"
        ) from None
    return opened_csv(path)
