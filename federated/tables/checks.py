"""The checks that every row of every kind of table passes. Messages hold row numbers, never a value.

Rows are counted from 1. A row whose subject is not wanted is passed over before any other of its cells is read as
anything, whatever is wrong with it.
"""

from collections.abc import Callable, Container, Sequence

import numpy as np
from numpy.typing import NDArray

from federated.schema import AuditAttribute, CellType, Column, Schema
from federated.tables.numbers import Flags
from federated.tables.problems import Problems, listed
from federated.tables.raw_table import RawTable, Vector
from federated.tables.source import Batch, Source
from privacy.errors import MalformedError


def checked_rows(
    source: Source,
    schema: Schema,
    problems: Problems,
    *,
    only: Container[str] | None,
    advance: Callable[[int], None] | None,
    by_subject: bool,
) -> RawTable:
    """The rows whose subject is in `only` (all when None); of use only if `problems` stays empty.

    In the order of the source, or `by_subject` in that of their subjects. `advance` hears of each batch's rows.
    """
    present = _present(source, schema)
    reader = _Reader(schema, problems, only, present, width=len(source.names))
    source.require_types(schema.subject_column, [name for name in present if name != schema.subject_column])
    for batch in source.batches(present):
        reader.take(batch)
        if advance is not None:
            advance(len(batch))
    if reader.seen == 0:
        raise MalformedError(f"{source.name} has a header and no rows; a data holder needs at least one")
    return reader.table(by_subject=by_subject)


def _present(source: Source, schema: Schema) -> list[str]:
    """The columns to read; MalformedError unless the table has those of the schema, each once, and no other."""
    names = source.names
    if not names:
        raise MalformedError(f"{source.name} is empty; it needs a header and rows")
    inputs = [*(() if schema.subject_column is None else (schema.subject_column,)), *schema.input_columns]
    optional = [schema.outcome.column, *(attribute.column for attribute in schema.audit)]
    known = {*inputs, *optional, *schema.ignored}
    # Unknown names are told by position only: in a file without a header they would be a person's cells.
    unknown = [position for position, name in enumerate(names, start=1) if name not in known]
    missing = [name for name in inputs if name not in names]
    repeated = sorted({name for name in names if name in known and names.count(name) > 1})
    found = []
    if missing:
        found.append(f"columns {missing} are missing")
    if repeated:
        found.append(f"columns {repeated} stand there twice")
    if unknown:
        found.append(f"header cell(s) number {listed(unknown)} are not in the schema")
    if found:
        raise MalformedError(
            f"header of {source.name}: {'; '.join(found)}. {source.header} must hold the column names of schema"
            f" {schema.name!r}; columns that nobody needs go under `ignored` there"
        )
    return [name for name in dict.fromkeys([*inputs, *optional]) if name in names]


class _Reader:
    """The state of one reading: subjects seen, arrays so far, problems."""

    def __init__(
        self, schema: Schema, problems: Problems, only: Container[str] | None, present: Sequence[str], *, width: int
    ) -> None:
        self.schema, self.problems, self.only = schema, problems, only
        self.width = width
        self.seen = 0
        self.subjects: list[str] = []
        self.known: set[str] = set()
        self.columns = [column for column in schema.columns if column.name in present]
        self.parts: dict[str, list[Vector]] = {column.name: [] for column in self.columns}
        self.outcome: list[Vector] | None = [] if schema.outcome.column in present else None

    def take(self, batch: Batch) -> None:
        """Check the batch and keep what is wanted of it."""
        first = self.seen + 1
        self.seen += len(batch)
        rows = self._wanted(batch, first)
        if not rows:
            return
        numbers, kept = [first + row for row in rows], batch.take(rows)
        for column in self.columns:
            values, wrong = kept.numbers(column.name, column.missing)
            self._check(column, values, wrong, numbers)
            self.parts[column.name].append(values)
        if self.outcome is not None:
            values, wrong = kept.numbers(self.schema.outcome.column, ())
            self.outcome.append(self._bad(values, wrong, numbers))

    def _wanted(self, batch: Batch, first: int) -> list[int]:
        """The places in the batch of the rows to keep."""
        name = self.schema.subject_column
        subjects = batch.subjects(name) if name is not None else [str(first + place) for place in range(len(batch))]
        kept, ragged, empty, twice = [], [], [], []
        for place, subject in enumerate(subjects):
            # Asked first, by this one cell: of a row that is not wanted not even the number of cells matters.
            if self.only is not None and subject not in self.only:
                continue
            if place in batch.ragged:
                ragged.append(first + place)
            elif not subject.strip():
                empty.append(first + place)
            elif subject in self.known:
                twice.append(first + place)
            else:
                self.known.add(subject)
                self.subjects.append(subject)
                kept.append(place)
        if ragged:
            self.problems.add("(row)", f"not {self.width} cells", ragged)
        if empty:
            self.problems.add(name or "(row)", "no subject", empty)
        if twice:
            self.problems.add(name or "(row)", "a subject that an earlier row has", twice)
        return kept

    def _check(self, column: Column, values: Vector, wrong: Flags, numbers: list[int]) -> None:
        self._note(column.name, "no number where one is needed", wrong, numbers)
        held = ~np.isnan(values)
        if column.type is CellType.CODE:
            codes = [code.code for code in column.codes]
            self._note(column.name, "a code the schema does not list", held & ~np.isin(values, codes), numbers)
            return
        amount = held if not column.special else held & ~np.isin(values, column.special_codes)
        if column.type is CellType.INTEGER:
            self._note(column.name, "no whole number", amount & (values != np.floor(values)), numbers)
        outside = amount & ((values < column.minimum) | (values > column.maximum))
        self._note(column.name, "outside the hard bounds", outside, numbers)

    def _bad(self, values: Vector, wrong: Flags, numbers: list[int]) -> Vector:
        outcome = self.schema.outcome
        bad = np.isin(values, outcome.bad)
        neither = wrong | ~(bad | np.isin(values, outcome.good))
        self._note(outcome.column, "neither a bad nor a good code", neither, numbers)
        return bad.astype(np.float64)

    def _note(self, column: str, kind: str, where: Flags, numbers: list[int]) -> None:
        if where.any():
            self.problems.add(column, kind, [numbers[index] for index in np.flatnonzero(where).tolist()])

    def table(self, *, by_subject: bool) -> RawTable:
        """Everything kept; nothing of it is kept here any longer."""
        self.known.clear()
        places = sorted(range(len(self.subjects)), key=self.subjects.__getitem__) if by_subject else ()
        order = np.array(places, dtype=np.int64) if by_subject else None

        def whole(parts: list[Vector]) -> Vector:
            cells = np.concatenate(parts) if parts else np.zeros(0)
            parts.clear()  # column by column, so that there are never two of all of them
            return cells if order is None else cells[order]

        sensitive = {attribute.column for attribute in self.schema.audit}
        cells = {name: whole(parts) for name, parts in self.parts.items()}
        return RawTable(
            subjects=tuple(self.subjects if order is None else map(self.subjects.__getitem__, places)),
            columns={name: column for name, column in cells.items() if name not in sensitive},
            outcome=None if self.outcome is None else whole(self.outcome),
            audit={a.id: _groups(a, cells[a.column]) for a in self.schema.audit if a.column in cells},
        )


def _groups(attribute: AuditAttribute, cells: Vector) -> NDArray[np.int64]:
    group_of = np.full(cells.shape, -1, dtype=np.int64)
    for position, group in enumerate(attribute.groups):
        inside = np.isin(cells, group.codes) if group.codes else (cells >= group.at_least) & (cells < group.below)
        group_of[inside] = position
    return group_of
