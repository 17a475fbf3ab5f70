"""Raw tables: CSV cells checked against the schema, in batches. Messages hold row numbers, never a value.

Rows are counted from 1, the header not counted. A row whose subject is not wanted is passed over before any
other of its cells is read as anything, whatever is wrong with it. Only what hides where rows end (text that is not
UTF-8, a quote left open) fails a whole file, whoever's row it is in.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from numpy.typing import NDArray

from federated.schema import AuditAttribute, CellType, Column, Schema
from privacy.errors import MalformedError, UsageError

Vector = NDArray[np.float64]
BATCH_ROWS: Final = 8192
ROWS_NAMED: Final = 5  # row numbers that a message lists before it only counts
NUMBER_LETTERS: Final = frozenset("0123456789+-.eE")


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


@dataclass(frozen=True, slots=True)
class Header:
    """Where the schema's columns stand in the file."""

    width: int
    subject: int | None
    positions: Mapping[str, int]


def read_table(path: Path | str, schema: Schema, *, only: Container[str] | None = None) -> RawTable:
    """The rows of a CSV or CSV.gz file whose subject is in `only` (all when None), every cell checked.

    `only` is asked once for each row, in order; a row too short to name a subject asks for an empty one.
    MalformedError names up to five row numbers per problem and never a value.
    """
    problems = Problems(limit=ROWS_NAMED)
    table = scan_table(Path(path), schema, problems, only=only)
    if problems.counts:
        raise MalformedError(
            f"{Path(path).name} does not fit schema {schema.name!r}: {'; '.join(problems.lines())}."
            " The data holder mends the table, or all parties agree on another schema;"
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
    reader = _Reader(schema, problems, only)
    with opened(path) as stream:
        lines = csv.reader(stream, strict=True)
        header = _header(next(lines, None), schema, path.name)
        for number, batch in _batches(lines):
            reader.take(header, number, batch)
            if advance is not None:
                advance(len(batch))
    if reader.seen == 0:
        raise MalformedError(f"{path.name} has a header and no rows; a data holder needs at least one")
    return reader.table(header)


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as text; what is no CSV text becomes a MalformedError without its content."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        # newline="" leaves CRLF and quoted line ends to csv; utf-8-sig passes over a byte order mark.
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if packed
            else path.open("rt", encoding="utf-8-sig", newline="")
        ) as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MalformedError(f"{path.name} is not a whole gzip file; copy it again from where it came") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give the path of a CSV or CSV.gz file") from None
    except UnicodeDecodeError:
        raise MalformedError(f"{path.name} is not UTF-8 text; export the table as UTF-8 CSV") from None
    except csv.Error:
        raise MalformedError(
            f"{path.name} is not well-formed CSV (a quote left open, a NUL, or a huge field); export it again"
        ) from None


def _batches(lines: Iterator[list[str]]) -> Iterator[tuple[int, list[list[str]]]]:
    """Batches of rows, each with the number of its first row; wholly empty lines are no rows."""
    number = 1
    rows = (row for row in lines if row)
    while batch := list(islice(rows, BATCH_ROWS)):
        yield number, batch
        number += len(batch)


def _header(names: list[str] | None, schema: Schema, origin: str) -> Header:
    if not names:
        raise MalformedError(f"{origin} is empty; it needs a header and rows")
    optional = {schema.outcome.column, *(attribute.column for attribute in schema.audit), *schema.ignored}
    required = [*(() if schema.subject_column is None else (schema.subject_column,)), *schema.input_columns]
    known = {*optional, *required}
    # Unknown names are told by position only: in a file without a header they would be a person's cells.
    unknown = [position for position, name in enumerate(names, start=1) if name not in known]
    missing = [name for name in required if name not in names]
    repeated = sorted({name for name in names if name in known and names.count(name) > 1})
    found = []
    if missing:
        found.append(f"columns {missing} are missing")
    if repeated:
        found.append(f"columns {repeated} stand there twice")
    if unknown:
        found.append(f"header cell(s) number {_listed(unknown)} are not in the schema")
    if found:
        raise MalformedError(
            f"header of {origin}: {'; '.join(found)}. The first line must hold the column names of schema"
            f" {schema.name!r}; columns that nobody needs go under `ignored` there"
        )
    positions = {name: position for position, name in enumerate(names) if name in known}
    subject = None if schema.subject_column is None else positions[schema.subject_column]
    return Header(width=len(names), subject=subject, positions=positions)


class _Reader:
    """The state of one reading: subjects seen, arrays so far, problems."""

    def __init__(self, schema: Schema, problems: Problems, only: Container[str] | None) -> None:
        self.schema = schema
        self.problems = problems
        self.only = only
        self.seen = 0
        self.subjects: list[str] = []
        self.known: set[str] = set()
        self.parts: dict[str, list[Vector]] = {column.name: [] for column in schema.columns}
        self.outcome: list[Vector] = []

    def take(self, header: Header, first: int, batch: list[list[str]]) -> None:
        """Check and keep one batch, whose first row has the number `first`."""
        self.seen += len(batch)
        kept = self._wanted(header, enumerate(batch, start=first))
        if not kept:
            return
        numbers = [number for number, _ in kept]
        cells = list(zip(*(row for _, row in kept), strict=True))
        for column in self.schema.columns:
            if column.name in header.positions:
                self.parts[column.name].append(self._cells(column, cells[header.positions[column.name]], numbers))
        if self.schema.outcome.column in header.positions:
            self.outcome.append(self._outcome(cells[header.positions[self.schema.outcome.column]], numbers))

    def _wanted(self, header: Header, numbered: Iterable[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
        kept, ragged, empty, twice = [], [], [], []
        for number, row in numbered:
            subject = _subject(header, number, row)
            # Asked first, by this one cell: of a row that is not wanted not even the number of cells matters.
            if self.only is not None and subject not in self.only:
                continue
            if len(row) != header.width:
                ragged.append(number)
            elif not subject.strip():
                empty.append(number)
            elif subject in self.known:
                twice.append(number)
            else:
                self.known.add(subject)
                self.subjects.append(subject)
                kept.append((number, row))
        name = self.schema.subject_column or "(row)"
        if ragged:
            self.problems.add("(row)", f"not {header.width} cells", ragged)
        if empty:
            self.problems.add(name, "no subject", empty)
        if twice:
            self.problems.add(name, "a subject that an earlier row has", twice)
        return kept

    def _cells(self, column: Column, texts: Sequence[str], numbers: list[int]) -> Vector:
        values, wrong = parse_numbers(texts, column.missing)
        self._note(column.name, "no number where one is needed", wrong, numbers)
        held = ~np.isnan(values)
        if column.type is CellType.CODE:
            listed = [code.code for code in column.codes]
            self._note(column.name, "a code the schema does not list", held & ~np.isin(values, listed), numbers)
            return values
        amount = held if not column.special else held & ~np.isin(values, column.special_codes)
        if column.type is CellType.INTEGER:
            self._note(column.name, "no whole number", amount & (values != np.floor(values)), numbers)
        outside = amount & ((values < column.minimum) | (values > column.maximum))
        self._note(column.name, "outside the hard bounds", outside, numbers)
        return values

    def _outcome(self, texts: Sequence[str], numbers: list[int]) -> Vector:
        outcome = self.schema.outcome
        values, wrong = parse_numbers(texts, ())
        bad = np.isin(values, outcome.bad)
        self._note(
            outcome.column,
            "neither a bad nor a good code",
            wrong | ~(bad | np.isin(values, outcome.good)),
            numbers,
        )
        return bad.astype(np.float64)

    def _note(self, column: str, kind: str, where: NDArray[np.bool_], numbers: list[int]) -> None:
        if where.any():
            self.problems.add(column, kind, [numbers[index] for index in np.flatnonzero(where).tolist()])

    def table(self, header: Header) -> RawTable:
        """Everything kept so far."""
        sensitive = {attribute.column for attribute in self.schema.audit}
        whole = {
            name: np.concatenate(parts) if parts else np.zeros(0)
            for name, parts in self.parts.items()
            if name in header.positions
        }
        has_outcome = self.schema.outcome.column in header.positions
        return RawTable(
            subjects=tuple(self.subjects),
            columns={name: cells for name, cells in whole.items() if name not in sensitive},
            outcome=(np.concatenate(self.outcome) if self.outcome else np.zeros(0)) if has_outcome else None,
            audit={a.id: _groups(a, whole[a.column]) for a in self.schema.audit if a.column in whole},
        )


def _subject(header: Header, number: int, row: list[str]) -> str:
    """Whom a row is about; empty where it is too short to say."""
    if header.subject is None:
        return str(number)
    return row[header.subject] if header.subject < len(row) else ""


def parse_numbers(texts: Sequence[str], missing: Sequence[str]) -> tuple[Vector, NDArray[np.bool_]]:
    """The cells as numbers and which of them are none; a missing marker is NaN and not wrong.

    Only plain decimal notation counts: `nan`, `inf`, `1_000`, spaces, numbers past the float range are wrong.
    """
    markers = frozenset(missing)
    if set("".join(texts)) <= NUMBER_LETTERS and "" not in texts and not markers:
        try:
            values = np.array(texts, dtype=np.str_).astype(np.float64)
        except ValueError:
            pass
        else:
            wrong = ~np.isfinite(values)
            values[wrong] = np.nan
            return values, wrong
    values = np.full(len(texts), np.nan)
    wrong = np.zeros(len(texts), dtype=np.bool_)
    for index, text in enumerate(texts):
        if text in markers:
            continue
        try:
            value = float(text) if set(text) <= NUMBER_LETTERS else np.nan
        except ValueError:
            value = np.nan
        wrong[index] = not np.isfinite(value)
        values[index] = value if np.isfinite(value) else np.nan
    return values, wrong


def _groups(attribute: AuditAttribute, cells: Vector) -> NDArray[np.int64]:
    group_of = np.full(cells.shape, -1, dtype=np.int64)
    for position, group in enumerate(attribute.groups):
        inside = np.isin(cells, group.codes) if group.codes else (cells >= group.at_least) & (cells < group.below)
        group_of[inside] = position
    return group_of


def _rows(shown: Sequence[int], count: int) -> str:
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f"row{'s' if count > 1 else ''} {', '.join(str(number) for number in shown)}{more}"


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:ROWS_NAMED])
    return shown if len(numbers) <= ROWS_NAMED else f"{shown} and {len(numbers) - ROWS_NAMED} more"
