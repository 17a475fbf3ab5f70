import datetime
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest

from federated.schema import Schema
from federated.schema_draft import draft_schema
from federated.schema_toml import parse_schema
from federated.table import BATCH_ROWS, Vector, read_table
from federated.tables.numbers import Flags
from privacy.errors import MalformedError, UsageError
from tests.federated.schema_samples import COLUMNS, TEXT, sample
from tests.federated.tables.stored import as_csv, as_parquet, columns_of, good_row

SECRET = 731945  # stands for a cell's value; must never come back in a message


def stored(tmp_path: Path, rows: list[dict[str, Any]], **arrays: Any) -> Path:
    return as_parquet(tmp_path / "t.parquet", columns_of(rows) | arrays)


def test_every_type_that_can_be_a_number_is_read_as_one(tmp_path: Path) -> None:
    rows = [good_row(), good_row(key="s2")]
    for array in (
        arrow.array([7, 12], arrow.uint64()),
        arrow.array([7, 12], arrow.float16()),
        arrow.array([7, 12], arrow.float32()),
        arrow.array([Decimal("7.00"), Decimal("12.00")], arrow.decimal128(9, 2)),
        arrow.array([Decimal("7"), Decimal("12")], arrow.decimal256(60, 4)),
        arrow.array(["7", "12.0"], arrow.string()).dictionary_encode(),
        arrow.array([7, 12], arrow.int16()).dictionary_encode(),
    ):
        table = read_table(stored(tmp_path, rows, bill2=array), sample())
        np.testing.assert_array_equal(table.columns["bill2"], [7, 12])
    flags = read_table(stored(tmp_path, rows, bad=arrow.array([True, False])), sample())
    np.testing.assert_array_equal(flags.outcome, [1, 0])


@pytest.mark.parametrize("text", ["0.1", "16777216", "1e-7", "-333333.34", "0.3000001"])
def test_a_short_float_is_the_number_that_csv_would_show(tmp_path: Path, text: str) -> None:
    """Widened as it is, 0.1 would be 0.10000000149 and above a hard bound of 0.1."""
    array = arrow.array([float(text)], arrow.float32())
    table = read_table(stored(tmp_path, [good_row()], bill2=array), _wide(sample()))
    assert table.columns["bill2"][0] == float(text)


def _wide(schema: Schema) -> Schema:
    return parse_schema(TEXT.replace("minimum = -1e6\nmaximum = 1e6", "minimum = -1e9\nmaximum = 1e9"), schema.name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), float(SECRET) * 100])
def test_a_wrong_number_is_told_by_row_and_column(tmp_path: Path, value: float) -> None:
    rows = [good_row(), good_row(key="s2", bill1=0.5), good_row(key="s3", bill1=value)]
    with pytest.raises(MalformedError, match=r"bill1: .*row 3\b") as raised:
        read_table(stored(tmp_path, rows), sample())
    assert str(SECRET) not in str(raised.value)


def test_a_missing_marker_that_is_a_number_is_known_by_its_value(tmp_path: Path) -> None:
    schema = parse_schema(TEXT.replace('missing = ["?"]', 'missing = ["?", "-1"]'), "x")
    for array in ([2, -1], [2.0, -1.0], ["2", "-1"], [Decimal("2.0"), Decimal("-1.0")]):
        table = read_table(stored(tmp_path, [good_row(), good_row(key="s2")], home=array), schema)
        np.testing.assert_array_equal(table.columns["home"], [2, np.nan])


UNREADABLE = {
    "a timestamp": arrow.array([datetime.datetime(2026, 1, 1)], arrow.timestamp("ms")),  # noqa: DTZ001 (Arrow's)
    "a date": arrow.array([datetime.date(2026, 1, 1)]),
    "bytes": arrow.array([b"731945"]),
    "a list": arrow.array([[SECRET]]),
    "a struct": arrow.array([{"inner": SECRET}]),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["bill2", "bad", "age", "key"])
def test_a_column_of_another_type_is_named(tmp_path: Path, kind: str, name: str) -> None:
    path = stored(tmp_path, [good_row()], **{name: UNREADABLE[kind]})
    with pytest.raises(MalformedError, match=rf"t\.parquet: '{name}' holds .*export") as raised:
        read_table(path, sample(), only=())  # told before any row is looked at
    assert str(SECRET) not in str(raised.value)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_column_that_nobody_needs_may_hold_anything(tmp_path: Path, kind: str) -> None:
    assert read_table(stored(tmp_path, [good_row()], note=UNREADABLE[kind]), sample()).subjects == ("s1",)


@pytest.mark.parametrize("array", [[4711.0], [True], [Decimal(4711)]])
def test_a_customer_number_with_several_spellings_is_refused(tmp_path: Path, array: list[Any]) -> None:
    with pytest.raises(MalformedError, match=r"'key' holds \w+.* as text") as raised:
        read_table(stored(tmp_path, [good_row()], key=array), sample())
    assert "4711" not in str(raised.value)


def test_of_an_unwanted_row_no_cell_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to find that it is no text at all."""
    from federated.tables import parquet_table

    broken = arrow.Array.from_buffers(
        arrow.string(), 2, [None, arrow.array([0, 1, 2], arrow.int32()).buffers()[1], arrow.py_buffer(b"\xff7")]
    )
    path = stored(tmp_path, [good_row(), good_row(key="s2")], bill2=broken)
    seen: list[int] = []
    original = parquet_table._numbers

    def watched(cells: Any, missing: Sequence[str]) -> tuple[Vector, Flags]:
        seen.append(len(cells))
        return original(cells, missing)

    monkeypatch.setattr(parquet_table, "_numbers", watched)
    table = read_table(path, sample(), only={"s2"})
    assert table.subjects == ("s2",)
    assert table.columns["bill2"].tolist() == [7]
    assert set(seen) == {1}
    seen.clear()
    assert read_table(path, sample(), only=()).subjects == ()
    assert seen == []
    with pytest.raises(MalformedError, match="readable cells"):
        read_table(path, sample())


def test_each_subject_is_asked_for_once_and_in_order(tmp_path: Path) -> None:
    class Asked(list[str]):
        def __contains__(self, key: object) -> bool:
            self.append(str(key))
            return True

    asked = Asked()
    read_table(stored(tmp_path, [good_row(key=9), good_row(key=3)]), sample(), only=asked)
    assert list(asked) == ["9", "3"]


def test_rows_keep_their_number_across_batches_and_row_groups(tmp_path: Path) -> None:
    count = 2 * BATCH_ROWS + 10
    columns = {name: [cell] * count for name, cell in good_row().items()}
    columns["key"] = [f"s{number}" for number in range(count)]
    columns["key"][BATCH_ROWS + 6] = "s0"
    path = as_parquet(tmp_path / "t.parquet", columns, row_group_size=5000)
    with pytest.raises(MalformedError, match=rf"earlier row has in row {BATCH_ROWS + 7}\b"):
        read_table(path, sample())


def test_without_a_column_of_subjects_the_number_of_the_row_is_one(tmp_path: Path) -> None:
    schema = parse_schema(TEXT.replace('from = "column"\ncolumn = "key"', 'from = "row_number"'), "x")
    columns = columns_of([good_row(), good_row(late1=5)])
    del columns["key"]
    assert read_table(as_parquet(tmp_path / "t.parquet", columns), schema, only={"2"}).columns["late1"].tolist() == [5]


def test_names_with_dots_are_names(tmp_path: Path) -> None:
    text = TEXT.replace('"bill1"', '"bill.1"').replace("columns.bill1", 'columns."bill.1"')
    columns = columns_of([good_row()])
    columns["bill.1"] = columns.pop("bill1")
    assert read_table(as_parquet(tmp_path / "t.parquet", columns), parse_schema(text, "x")).subjects == ("s1",)


def test_the_columns_must_be_the_schemas(tmp_path: Path) -> None:
    columns = columns_of([good_row()])
    with pytest.raises(MalformedError, match=r"names of its columns must hold|\['bill2'\] are missing"):
        read_table(as_parquet(tmp_path / "t.parquet", {n: c for n, c in columns.items() if n != "bill2"}), sample())
    with pytest.raises(MalformedError, match="number 12 are not in the schema") as raised:
        read_table(as_parquet(tmp_path / "t.parquet", columns | {"Jane Doe": [1]}), sample())
    assert "Jane" not in str(raised.value)
    with pytest.raises(MalformedError, match="no rows"):
        read_table(as_parquet(tmp_path / "t.parquet", {n: [] for n in columns}), sample())


def test_a_file_that_is_no_parquet_is_malformed(tmp_path: Path) -> None:
    whole = stored(tmp_path, [good_row(), good_row(key="s2")]).read_bytes()
    path = tmp_path / "t.parquet"
    for content in (b"", b"PAR1", whole[:-7], whole[:200] + whole[260:], as_csv(path, [good_row()]).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(MalformedError, match=r"t\.parquet is not a whole Parquet file.*again"):
            read_table(path, sample())


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_table(tmp_path / "none.parquet", sample())
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        read_table(tmp_path / "d.parquet", sample())


def test_parquet_under_another_name_is_told_what_to_be_called(tmp_path: Path) -> None:
    path = stored(tmp_path, [good_row()]).rename(tmp_path / "rows.csv")
    with pytest.raises(MalformedError, match=r"ends in \.parquet"):
        read_table(path, sample())


def test_without_the_package_a_text_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, [good_row()])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "federated.tables.parquet_table", raising=False)
    with pytest.raises(UsageError, match=r"needs pyarrow, .*pip install 'fedcredit\[parquet\]'"):
        read_table(path, sample())
    assert read_table(as_csv(tmp_path / "t.csv", [good_row()]), sample()).subjects == ("s1",)


def test_a_draft_is_made_of_parquet_too(tmp_path: Path) -> None:
    rows = [good_row(key=f"s{number}", limit=number + 0.5, late1=number) for number in range(50)]
    of_csv, of_parquet = draft_schema(as_csv(tmp_path / "t.csv", rows)), draft_schema(stored(tmp_path, rows))
    assert of_csv == of_parquet
    assert set(COLUMNS) <= set(of_csv.replace('"', " ").split())
    dated = draft_schema(stored(tmp_path, rows, note=[datetime.date(2026, 1, 1)] * 50))
    assert dated == of_csv  # what is neither number nor text is left to be ignored, as texts are
