import gzip
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from federated.table import BATCH_ROWS, parse_numbers, read_table
from privacy.errors import MalformedError, UsageError
from tests.federated.schema_samples import COLUMNS, rows, sample, write

GOOD = ["s1", "44", "1234.5", "3", "-2", "0", "77.25", "-30", "2", "plain", "1"]


def with_cell(column: str, text: str, key: str = "s9") -> list[str]:
    row = [key, *GOOD[1:]]
    row[COLUMNS.index(column)] = text
    return row


def test_cells_are_read_as_the_schema_says(tmp_path: Path) -> None:
    table = read_table(
        write(tmp_path / "t.csv", [GOOD, with_cell("late1", "NA"), with_cell("age", "", "s3")]), sample()
    )
    assert table.subjects == ("s1", "s9", "s3")
    np.testing.assert_array_equal(table.columns["late1"], [3, np.nan, 3])
    np.testing.assert_array_equal(table.columns["late2"], [-2, -2, -2])
    np.testing.assert_array_equal(table.columns["bill1"], [77.25] * 3)
    assert table.outcome is not None
    np.testing.assert_array_equal(table.outcome, [1, 1, 1])
    np.testing.assert_array_equal(table.audit["age"], [1, 1, -1])
    assert "age" not in table.columns
    assert "note" not in table.columns
    taken = table.take([2, 0])
    assert taken.subjects == ("s3", "s1")
    np.testing.assert_array_equal(taken.columns["late1"], [3, 3])
    np.testing.assert_array_equal(taken.audit["age"], [-1, 1])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=rows())
def test_layout_does_not_change_what_is_read(tmp_path: Path, lines: list[list[str]]) -> None:
    plain = read_table(write(tmp_path / "a.csv", lines), sample())
    crlf = write(tmp_path / "b.csv", lines, end="\r\n")
    crlf.write_bytes(b"\xef\xbb\xbf" + crlf.read_bytes())
    packed = tmp_path / "c.csv.gz"
    packed.write_bytes(gzip.compress(crlf.read_bytes()))
    order = list(range(len(COLUMNS)))[::-1]
    turned = write(tmp_path / "d.csv", [[line[i] for i in order] for line in lines], header=[COLUMNS[i] for i in order])
    assert len(plain.subjects) == len(lines)
    for path in (crlf, packed, turned):
        other = read_table(path, sample())
        assert other.subjects == plain.subjects
        for name, cells in plain.columns.items():
            np.testing.assert_array_equal(cells, other.columns[name])


SECRET = "731945"  # stands for a cell's value; must never come back in a message


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("bill2", f"x{SECRET}"), ("bill2", ""), ("bill2", "nan"), ("bill2", "-inf"), ("bill2", "1e400"),
        ("bill2", f" {SECRET}"), ("bill2", "7_31945"), ("bill2", "\u0667\u0663\u0661"), ("bill2", "1e"),
        ("bill2", f"{SECRET}9999"), ("bill2", f"-{SECRET}9999"), ("bill2", "0x10"), ("bill2", f"{SECRET},5"),
        ("late3", "2.5"), ("late3", "-1"), ("late3", f"{SECRET}"), ("late1", "-3"), ("limit", "0"), ("limit", "-8"),
        ("home", "4"), ("home", ""), ("home", "1.5"), ("home", SECRET),
        ("bad", "3"), ("bad", ""), ("bad", SECRET), ("age", "17"), ("age", SECRET),
        ("key", ""), ("key", "  "), ("key", "s1"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_told_by_row_and_column_without_its_value(tmp_path: Path, column: str, text: str) -> None:
    lines = [GOOD, with_cell("bill1", "1", "s2"), with_cell(column, text), with_cell("bill1", "1", "s4")]
    with pytest.raises(MalformedError, match=rf"{column}: .*row 3\b") as raised:
        read_table(write(tmp_path / "t.csv", lines), sample())
    shown = str(raised.value)
    assert SECRET not in shown
    assert "s9" not in shown
    if len(text) > 2:
        assert text not in shown


def test_a_message_names_five_rows_and_counts_the_rest(tmp_path: Path) -> None:
    lines = [with_cell("late3", "55", f"s{number}") for number in range(BATCH_ROWS + 3)]
    with pytest.raises(MalformedError, match=rf"rows 1, 2, 3, 4, 5 and {BATCH_ROWS - 2} more"):
        read_table(write(tmp_path / "t.csv", lines), sample())


def test_rows_keep_their_number_across_batches(tmp_path: Path) -> None:
    lines = [[f"s{number}", *GOOD[1:]] for number in range(2 * BATCH_ROWS)]
    lines[BATCH_ROWS + 6][0] = "s0"
    with pytest.raises(MalformedError, match=rf"row {BATCH_ROWS + 7}\b"):
        read_table(write(tmp_path / "t.csv", lines), sample())


@pytest.mark.parametrize("cells", [GOOD[:-1], [*GOOD, "1"], ["s2"]])
def test_a_ragged_row_is_malformed(tmp_path: Path, cells: list[str]) -> None:
    with pytest.raises(MalformedError, match=r"not 11 cells in row 2\b"):
        read_table(write(tmp_path / "t.csv", [GOOD, cells]), sample())


def test_unwanted_rows_are_passed_over_unread(tmp_path: Path) -> None:
    junk = ["other", *["no number"] * (len(COLUMNS) - 1)]
    table = read_table(write(tmp_path / "t.csv", [junk, GOOD, junk]), sample(), only={"s1", "s5"})
    assert table.subjects == ("s1",)
    none = read_table(write(tmp_path / "t.csv", [junk]), sample(), only=set())
    assert none.subjects == ()
    assert none.columns["bill1"].shape == (0,)
    assert none.take([]).subjects == ()


@pytest.mark.parametrize("cells", [["other"], ["other", *GOOD[1:], "1"], ["", *GOOD[1:-1]]])
def test_an_unwanted_row_harms_nobody_even_when_it_is_ragged(tmp_path: Path, cells: list[str]) -> None:
    path = write(tmp_path / "t.csv", [cells, GOOD, cells])
    assert read_table(path, sample(), only={"s1"}).subjects == ("s1",)
    with pytest.raises(MalformedError, match=r"not 11 cells in rows 1, 3\b"):
        read_table(path, sample())


def test_a_row_too_short_to_name_its_subject_is_nobodys(tmp_path: Path) -> None:
    order = [*range(1, len(COLUMNS)), 0]
    header = [COLUMNS[i] for i in order]
    path = write(tmp_path / "t.csv", [["44", "1"], [GOOD[i] for i in order]], header=header)
    assert read_table(path, sample(), only={"s1", "44", "1"}).subjects == ("s1",)


@pytest.mark.parametrize("cells", [GOOD[:-1], [*GOOD, "1"]])
def test_a_wanted_row_that_is_ragged_is_malformed(tmp_path: Path, cells: list[str]) -> None:
    with pytest.raises(MalformedError, match=r"not 11 cells in row 1\b"):
        read_table(write(tmp_path / "t.csv", [cells, with_cell("bill1", "1")]), sample(), only={"s1", "s9"})


def test_each_subject_is_asked_for_once(tmp_path: Path) -> None:
    class Asked(list[str]):
        def __contains__(self, key: object) -> bool:
            self.append(str(key))
            return True

    asked = Asked()
    read_table(write(tmp_path / "t.csv", [GOOD, with_cell("bill1", "1")]), sample(), only=asked)
    assert list(asked) == ["s1", "s9"]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ([*COLUMNS, "extra"], "number 12"),
        (COLUMNS[1:], r"\['key'\] are missing"),
        (["key", "key", *COLUMNS[2:]], r"\['key'\] stand there twice"),
    ],
)
def test_the_header_must_hold_the_schemas_columns(tmp_path: Path, header: list[str], wanted: str) -> None:
    with pytest.raises(MalformedError, match=wanted):
        read_table(write(tmp_path / "t.csv", [["1"] * len(header)], header=header), sample())


def test_a_file_without_header_does_not_show_its_first_row(tmp_path: Path) -> None:
    with pytest.raises(MalformedError) as raised:
        read_table(write(tmp_path / "t.csv", [], header=[SECRET, "Jane Doe", *GOOD[2:]]), sample())
    for cell in (SECRET, "Jane", "1234.5", "77.25"):
        assert cell not in str(raised.value)


def test_outcome_and_audit_columns_may_be_absent(tmp_path: Path) -> None:
    kept = [index for index, name in enumerate(COLUMNS) if name not in {"bad", "age", "note"}]
    path = write(tmp_path / "t.csv", [[GOOD[i] for i in kept]], header=[COLUMNS[i] for i in kept])
    table = read_table(path, sample())
    assert table.outcome is None
    assert dict(table.audit) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", f"{','.join(COLUMNS)}\n".encode(), b"\xff\xfe\x00k\x00", b"\x1f\x8b broken",
     gzip.compress(b"k", mtime=0)[:-4],
     f"{','.join(COLUMNS)}\ns1,\"44".encode(), f"{','.join(COLUMNS)}\n\"s\"1,44".encode()],
)  # fmt: skip
def test_a_file_that_is_no_table_is_malformed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(MalformedError):
        read_table(path, sample())


def test_a_stray_quote_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'{",".join(COLUMNS)}\n"s"1,{",".join(GOOD[1:])}\n')
    with pytest.raises(MalformedError, match="quote"):
        read_table(path, sample())


def test_numbers_past_the_float_range_are_no_numbers() -> None:
    for texts in (["1e400", "2"], ["1e400", "", "2"]):
        values, wrong = parse_numbers(texts, ())
        assert wrong[0]
        assert np.isnan(values[0])
        assert values[-1] == 2


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_table(tmp_path / "none.csv", sample())
    with pytest.raises(UsageError):
        read_table(tmp_path, sample())


@given(rows())
def test_fast_and_slow_reading_of_numbers_agree(lines: list[list[str]]) -> None:
    for column in zip(*lines, strict=True):
        fast, wrong_fast = parse_numbers(column, ())
        for text, value, wrong in zip(column, fast, wrong_fast, strict=True):
            fits = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII)
            assert bool(wrong) is not bool(fits)
            assert np.isnan(value) if wrong else value == float(text)


def test_reading_is_fast(tmp_path: Path) -> None:
    lines = [[f"s{number}", *GOOD[1:]] for number in range(20_000)]
    path = write(tmp_path / "t.csv", lines)
    start = time.perf_counter()
    read_table(path, sample())
    assert time.perf_counter() - start < 3  # 0.15 s on an idle core: only a change of order is caught here
