"""One table is one table, whether it comes as CSV, as Parquet or from a database."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.table import Problems, RawTable, scan_table, table_texts
from tests.federated.schema_samples import COLUMNS, sample
from tests.federated.tables.stored import as_csv, as_database, as_parquet, as_query, columns_of, good_row

# A type of Arrow, and the cells that a column of that type may hold. SQLite has no NaN and no number past 64 bits.
_WHOLE = st.integers(-(2**63), 2**63 - 1)
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "whole": (arrow.int64(), st.one_of(st.integers(-10, 130), _WHOLE)),
    "short": (arrow.int8(), st.integers(-10, 100)),
    "floating": (arrow.float64(), st.floats(allow_nan=False)),
    "half": (arrow.float64(), st.integers(-9, 260).map(lambda number: number / 2)),
    "text": (arrow.string(), st.one_of(st.integers(-3, 120).map(str), st.sampled_from(["", "NA", "?", "x1", " 1"]))),
    "large text": (arrow.large_string(), st.floats(-1e6, 1e6).map(str)),
    "dictionary": (arrow.dictionary(arrow.int8(), arrow.string()), st.sampled_from(["0", "1", "2", "3", "NA"])),
    "nothing": (arrow.null(), st.none()),
}
SUBJECTS = {"whole": (arrow.int32(), st.integers(-3, 40)), "text": (arrow.string(), st.text("ab 1,", max_size=3))}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with good and bad cells, and the same as Arrow arrays."""
    count = draw(st.integers(1, 8))
    columns, arrays = {}, {}
    for name in COLUMNS:
        kind, cells = draw(st.sampled_from(list((SUBJECTS if name == "key" else KINDS).values())))
        columns[name] = draw(st.lists(st.one_of(cells, cells, cells, st.none()), min_size=count, max_size=count))
        arrays[name] = arrow.array(columns[name], type=kind)
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)], arrays


def scanned(path: Path, only: set[str] | None) -> tuple[RawTable, Problems]:
    problems = Problems(limit=100)
    return scan_table(path, sample(), problems, only=only), problems


def assert_same(one: RawTable, other: RawTable) -> None:
    assert one.subjects == other.subjects
    assert one.columns.keys() == other.columns.keys()
    assert one.audit.keys() == other.audit.keys()
    assert one.outcome is not None
    assert other.outcome is not None
    assert one.outcome.tobytes() == other.outcome.tobytes()
    for name, cells in one.columns.items():
        assert cells.tobytes() == other.columns[name].tobytes(), name
    for name, groups in one.audit.items():
        assert groups.tobytes() == other.audit[name].tobytes(), name


def by_subject(table: RawTable) -> RawTable:
    return table.take(sorted(range(len(table.subjects)), key=lambda row: table.subjects[row]))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=tables(), group=st.integers(1, 5), batch_rows=st.integers(1, 5), data=st.data())
def test_three_ways_to_store_a_table_give_the_same_rows_and_the_same_problems(
    tmp_path: Path, table: tuple[list[dict[str, Any]], dict[str, Any]], group: int, batch_rows: int, data: st.DataObject
) -> None:
    rows, arrays = table
    people = sorted({"" if row["key"] is None else str(row["key"]) for row in rows})
    only = data.draw(st.one_of(st.none(), st.sets(st.sampled_from(people))))
    as_database(tmp_path / "t.db", rows)
    plain, wrong = scanned(as_csv(tmp_path / "t.csv", rows), only)
    packed, wrong_packed = scanned(as_parquet(tmp_path / "t.parquet", arrays, row_group_size=group), only)
    asked, wrong_asked = scanned(as_query(tmp_path / "t.sql.toml", "sqlite:///t.db", batch_rows=batch_rows), only)
    # Which problem is found first depends on how many rows are looked at together.
    assert sorted(wrong.found()) == sorted(wrong_packed.found()) == sorted(wrong_asked.found())
    assert_same(plain, packed)
    assert_same(by_subject(plain), asked)


@pytest.mark.parametrize("name", ["late1", "home", "bill1", "bill2", "bad", "age"])
def test_an_empty_cell_is_never_nought(tmp_path: Path, name: str) -> None:
    """NULL is missing where the schema says that an empty text is, and wrong elsewhere, as in CSV."""
    rows = [good_row(), good_row(key="s2", **{name: None})]
    as_database(tmp_path / "t.db", rows)
    allowed = name in {"late1", "bill1", "age"}
    for path in (
        as_csv(tmp_path / "t.csv", rows),
        as_parquet(tmp_path / "t.parquet", columns_of(rows)),
        as_query(tmp_path / "t.sql.toml", "sqlite:///t.db"),
    ):
        table, problems = scanned(path, None)
        assert [found[0] for found in problems.found()] == ([] if allowed else [name])
        if name == "age":
            assert table.audit["age"].tolist() == [1, -1]
        elif name != "bad":
            assert np.isnan(table.columns[name][1])


@pytest.mark.parametrize("number", [4711, 0, -1, 2**40])
def test_a_customer_number_is_its_digits(tmp_path: Path, number: int) -> None:
    rows = [good_row(key=number)]
    as_database(tmp_path / "t.db", rows)
    for path in (
        as_csv(tmp_path / "t.csv", rows),
        as_parquet(tmp_path / "t.parquet", columns_of(rows)),
        as_query(tmp_path / "t.sql.toml", "sqlite:///t.db"),
    ):
        assert scanned(path, {str(number)})[0].subjects == (str(number),)


def test_the_texts_of_a_table_are_those_of_its_csv(tmp_path: Path) -> None:
    rows = [good_row(key="ä", note=None), good_row(key="s2", limit=0.1, bill1=None)]
    as_database(tmp_path / "t.db", rows)
    for path in (
        as_csv(tmp_path / "t.csv", rows),
        as_parquet(tmp_path / "t.parquet", columns_of(rows)),
        as_query(tmp_path / "t.sql.toml", "sqlite:///t.db"),
    ):
        with table_texts(path) as (names, lines):
            assert names == COLUMNS
            told = list(lines)
        assert [line[0] for line in told] == ["ä", "s2"]
        assert told[0][COLUMNS.index("note")] == ""
        assert [float(line[COLUMNS.index("limit")]) for line in told] == [1234.5, 0.1]
        assert told[1][COLUMNS.index("bill1")] == ""


@given(st.decimals(-1e6, 1e6, allow_nan=False, places=7))
def test_a_decimal_is_the_float_nearest_to_it(number: Decimal) -> None:
    from federated.tables.numbers import numbers_of

    values, wrong = numbers_of([number, None, str(number)], ("",))
    assert values[0] == float(str(number)) == values[2]
    assert np.isnan(values[1])
    assert wrong.tolist() == [False, False, False]
