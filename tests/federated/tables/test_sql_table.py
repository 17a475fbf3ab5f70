import logging
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from federated.schema_draft import draft_schema
from federated.schema_toml import parse_schema
from federated.table import read_table
from federated.tables.sql_settings import load_sql_settings
from federated.tables.sql_table import _engine, opened_sql
from privacy.errors import FedcreditError, MalformedError, RefusalError, UsageError
from tests.federated.schema_samples import TEXT, sample
from tests.federated.tables.stored import as_csv, as_database, as_query, good_row

PASSWORD = "Zuerich-4711"
SECRET = "731945"  # stands for a cell's value; must never come back in a message


def asked(tmp_path: Path, rows: list[dict[str, Any]], query: str = "SELECT * FROM loans", **options: Any) -> Path:
    as_database(tmp_path / "lending.db", rows)
    return as_query(tmp_path / "rows.sql.toml", "sqlite:///lending.db", query, **options)


def test_rows_stand_in_the_order_of_their_customers_whatever_the_database_does(tmp_path: Path) -> None:
    """So that two readings of the same rows give the same sums, bit by bit."""
    rows = [good_row(key=f"s{number}", late1=number) for number in (3, 1, 2)]
    for order in ("late1", "late1 DESC", "random()"):
        query = f"SELECT * FROM loans ORDER BY {order}"  # noqa: S608
        table = read_table(asked(tmp_path, rows, query, batch_rows=1), sample())
        assert table.subjects == ("s1", "s2", "s3")
        assert table.columns["late1"].tolist() == [1, 2, 3]


def test_rows_are_numbered_as_the_query_gives_them(tmp_path: Path) -> None:
    rows = [good_row(key="s1", late3=55), good_row(key="s2"), good_row(key="s3")]
    path = asked(tmp_path, rows, "SELECT * FROM loans ORDER BY key DESC", batch_rows=2)
    with pytest.raises(MalformedError, match=r"late3: outside .* in row 3\. Rows are counted .* ORDER BY"):
        read_table(path, sample())


def test_of_an_unwanted_row_nothing_but_the_subject_is_looked_at(tmp_path: Path) -> None:
    junk = good_row(key="other", **dict.fromkeys(["age", "limit", "late1", "bad"], b"\xff no number"))
    table = read_table(asked(tmp_path, [junk, good_row(), junk]), sample(), only={"s1"})
    assert table.subjects == ("s1",)
    assert read_table(asked(tmp_path, [junk]), sample(), only=()).columns["bill1"].shape == (0,)


@pytest.mark.parametrize("cell", [b"731945", f"{SECRET}x", f"{SECRET}9999", None, float("inf"), 10**18, "nan"])
def test_a_wrong_cell_is_told_by_row_and_column_without_its_value(tmp_path: Path, cell: object) -> None:
    path = asked(tmp_path, [good_row(), good_row(key="s9", bill2=cell)])
    with pytest.raises(MalformedError, match=r"bill2: .*row 2\b") as raised:
        read_table(path, sample())
    assert SECRET not in str(raised.value)
    assert "s9" not in str(raised.value)


@pytest.mark.parametrize("cell", [4711.0, b"4711"])
def test_a_customer_number_with_several_spellings_is_refused(tmp_path: Path, cell: object) -> None:
    with pytest.raises(MalformedError, match=r"'key' holds cells of type (float|bytes).*CAST") as raised:
        read_table(asked(tmp_path, [good_row(key=cell)]), sample())
    assert "4711" not in str(raised.value)


def test_the_result_must_have_the_schemas_columns(tmp_path: Path) -> None:
    for query, word in (
        ("SELECT key, age FROM loans", "are missing"),
        ("SELECT *, 5 AS shoe FROM loans", "number 12"),
        ("SELECT *, key FROM loans", r"\['key'\] stand there twice"),
    ):
        with pytest.raises(MalformedError, match=rf"{word}.*columns of the query's result must hold"):
            read_table(asked(tmp_path, [good_row()], query), sample())
    with pytest.raises(MalformedError, match="no rows"):
        read_table(asked(tmp_path, []), sample())


def test_rows_of_a_query_need_a_column_that_names_the_person(tmp_path: Path) -> None:
    schema = parse_schema(TEXT.replace('from = "column"\ncolumn = "key"', 'from = "row_number"'), "x")
    query = 'SELECT age, "limit", late1, late2, late3, bill1, bill2, home, note, bad FROM loans'
    with pytest.raises(MalformedError, match="no lasting order"):
        read_table(asked(tmp_path, [good_row()], query), schema)


def test_the_querys_own_colons_and_per_cents_stay_as_they_are(tmp_path: Path) -> None:
    path = asked(
        tmp_path, [good_row(), good_row(key="t%:x")], "SELECT * FROM loans WHERE key LIKE '%t\\%:x' ESCAPE '\\'"
    )
    assert read_table(path, sample()).subjects == ("t%:x",)


def test_a_file_of_sqlite_cannot_be_written(tmp_path: Path) -> None:
    settings = load_sql_settings(asked(tmp_path, [good_row()]))
    engine = _engine(settings)
    with engine.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.exec_driver_sql("DELETE FROM loans")
    engine.dispose()


def test_a_file_of_sqlite_is_named_relative_to_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    there = tmp_path / "a #?%41 b"
    there.mkdir()
    assert read_table(asked(there, [good_row()]), sample()).subjects == ("s1",)
    absolute = as_query(tmp_path / "abs.sql.toml", f"sqlite:///{there / 'lending.db'}")
    with pytest.raises(UsageError):  # a question mark in a URL begins its options
        read_table(absolute, sample())


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://reader:{PASSWORD}@127.0.0.1:1/lending", f"postgresql://reader@127.0.0.1:1/x?password={PASSWORD}",
        f"postgresql://reader:{PASSWORD}@127.0.0.1:nine/x", f"nosuch://reader:{PASSWORD}@host/x", f"{PASSWORD}",
        f"postgresql+asyncpg://reader:{PASSWORD}@host/x", f"sqlite:///{PASSWORD}.db", "sqlite://", "sqlite:///:memory:",
        f"sqlite:///x.db?key={PASSWORD}", f"sqlite+aiosqlite:///{PASSWORD}", f"postgresql:///x?host=/no&{PASSWORD}=1",
    ],
)  # fmt: skip
def test_no_text_or_log_holds_the_url(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path = as_query(tmp_path / "rows.sql.toml", url)
    with pytest.raises(UsageError, match=r"rows\.sql\.toml") as raised:
        read_table(path, sample())
    shown = f"{raised.value!r} {raised.value.__cause__!r} {load_sql_settings(path)!r} {caplog.text}"
    assert PASSWORD not in shown
    assert "reader" not in shown
    assert list(tmp_path.iterdir()) == [path]  # SQLite makes no file of that name either


def test_no_row_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="sqlalchemy")
    read_table(asked(tmp_path, [good_row(bill1=int(SECRET))]), sample())
    assert SECRET not in caplog.text
    assert "s1" not in caplog.text


@pytest.mark.parametrize("url", [f"postgresql://reader:{PASSWORD}@127.0.0.1:1/x", "postgresql://h:1/x?passfile=x"])
def test_a_password_that_others_can_read_is_refused(tmp_path: Path, url: str) -> None:
    for mode in (0o644, 0o640, 0o604, 0o660):
        with pytest.raises(RefusalError, match=r"chmod 600 .*new password") as raised:
            read_table(as_query(tmp_path / "rows.sql.toml", url, mode=mode), sample())
        assert PASSWORD not in str(raised.value)


def test_without_a_password_others_may_read_the_settings(tmp_path: Path) -> None:
    assert read_table(asked(tmp_path, [good_row()], mode=0o644), sample()).subjects == ("s1",)


def test_a_database_that_refuses_the_query_is_told_without_its_text(tmp_path: Path) -> None:
    query = f"SELECT * FROM t{SECRET}"  # noqa: S608
    with pytest.raises(UsageError, match=r"refused the query \(OperationalError SQLITE_ERROR\)") as raised:
        read_table(asked(tmp_path, [good_row()], query), sample())
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "cell",
    [f"CAST(x'ff{SECRET.encode().hex()}' AS TEXT)", "abs(-9223372036854775807 - 1)"],
)
def test_a_database_that_fails_in_the_middle_quotes_no_row(tmp_path: Path, cell: str) -> None:
    names = 'key, age, "limit", late1, late2, late3, bill1, bill2, home, note'
    query = f"SELECT {names}, CASE key WHEN 's2' THEN {cell} ELSE bad END AS bad FROM loans"  # noqa: S608
    path = asked(tmp_path, [good_row(), good_row(key="s2"), good_row(key="s3")], query, batch_rows=1)
    with pytest.raises(RefusalError, match=r"middle of the rows \(OperationalError") as raised:
        read_table(path, sample())
    assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_a_result_is_not_held_whole(tmp_path: Path) -> None:
    """The database is asked for the next rows only when those before have been looked at."""
    with opened_sql(load_sql_settings(asked(tmp_path, [good_row()] * 10, batch_rows=3))) as source:
        assert [len(batch) for batch in source.batches(["key"])] == [3, 3, 3, 1]


def test_the_file_is_free_again_after_a_failure(tmp_path: Path) -> None:
    path = asked(tmp_path, [good_row(), good_row()])
    for only in (None, {"s2"}):
        with suppress(FedcreditError):
            read_table(path, sample(), only=only)
        with closing(sqlite3.connect(tmp_path / "lending.db", timeout=0)) as database, database:
            database.execute("BEGIN EXCLUSIVE")


@pytest.mark.parametrize(("missing", "extra"), [("sqlalchemy", r"fedcredit\[sql\]"), ("psycopg", "psycopg")])
def test_without_a_package_a_text_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str
) -> None:
    path = as_query(tmp_path / "rows.sql.toml", "postgresql://reader@127.0.0.1:1/x")
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "sqlalchemy":
        monkeypatch.delitem(sys.modules, "federated.tables.sql_table", raising=False)
    with pytest.raises(UsageError, match=rf"{missing}, which is not installed.*pip install '{extra}"):
        read_table(path, sample())


def test_another_databases_driver_is_not_sought_in_postgresqls_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(UsageError, match="MySQLdb, which is not installed") as caught:
        read_table(as_query(tmp_path / "rows.sql.toml", "mysql://reader@127.0.0.1:1/x"), sample())
    assert "psycopg" not in str(caught.value)


def test_a_draft_is_made_of_a_query_too(tmp_path: Path) -> None:
    rows = [good_row(key=f"s{number}", limit=number + 0.5, late1=number, note=b"x") for number in range(50)]
    of_csv = draft_schema(as_csv(tmp_path / "t.csv", [row | {"note": "x"} for row in rows]))
    assert draft_schema(asked(tmp_path, rows)) == of_csv
