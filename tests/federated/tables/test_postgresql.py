"""A real PostgreSQL behind a query."""

import datetime
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import psycopg
import pytest

from federated.table import read_table
from privacy.errors import MalformedError, RefusalError, UsageError
from tests.federated.schema_samples import sample
from tests.federated.tables.stored import as_query
from tests.postgres import postgres_database

SECRET = "731945"
TABLE = """
CREATE TABLE loans (
    key bigint, age smallint, "limit" numeric(12, 2), late1 integer, late2 text, late3 real, bill1 double precision,
    bill2 numeric, home smallint, note date, bad boolean
)
"""


@pytest.fixture
def url() -> Iterator[str]:
    with postgres_database() as url:
        with psycopg.connect(url) as connection:
            connection.execute(TABLE)
            connection.cursor().executemany(
                f"INSERT INTO loans VALUES ({', '.join(['%s'] * 11)})",  # noqa: S608
                [
                    (
                        4712,
                        30,
                        Decimal("0.30") + 1,
                        3,
                        "-2",
                        0,
                        None,
                        Decimal("-30.25"),
                        2,
                        datetime.date(2026, 1, 1),
                        True,
                    ),
                    (4711, None, 7, None, "4", 9, 0.1, 0.1, 1, None, False),
                ],
            )
        yield url


def test_every_type_of_a_real_database_is_read(url: str, tmp_path: Path) -> None:
    query = "SELECT * FROM loans WHERE note::text LIKE '20%' OR ':x' = ':x' ORDER BY key DESC;"
    table = read_table(as_query(tmp_path / "rows.sql.toml", url, query, batch_rows=1), sample())
    assert table.subjects == ("4711", "4712")
    np.testing.assert_array_equal(table.columns["limit"], [7, 1.3])
    np.testing.assert_array_equal(table.columns["late1"], [np.nan, 3])
    np.testing.assert_array_equal(table.columns["late2"], [4, -2])
    np.testing.assert_array_equal(table.columns["late3"], [9, 0])
    np.testing.assert_array_equal(table.columns["bill1"], [0.1, np.nan])
    np.testing.assert_array_equal(table.columns["bill2"], [0.1, -30.25])
    assert table.outcome is not None
    np.testing.assert_array_equal(table.outcome, [0, 1])
    np.testing.assert_array_equal(table.audit["age"], [-1, 1])


def test_a_short_float_is_the_number_that_csv_would_show(url: str, tmp_path: Path) -> None:
    columns = 'key, age, "limit", late1, late2, late3, bill1, home, note, bad'
    query = f"SELECT {columns}, 0.1::real AS bill2 FROM loans"  # noqa: S608
    table = read_table(as_query(tmp_path / "rows.sql.toml", url, query), sample())
    assert table.columns["bill2"].tolist() == [0.1, 0.1]


def test_what_a_query_calls_cannot_write(url: str, tmp_path: Path) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE FUNCTION empty_it() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN DELETE FROM loans; RETURN 1; END $$"
        )
    with pytest.raises((UsageError, RefusalError), match=r"ReadOnlySqlTransaction 25006"):
        read_table(as_query(tmp_path / "rows.sql.toml", url, "SELECT *, empty_it() FROM loans"), sample())
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM loans").fetchone()
    assert found == (2,)


def test_a_customer_number_of_another_type_is_refused(url: str, tmp_path: Path) -> None:
    names = 'age, "limit", late1, late2, late3, bill1, bill2, home, bad'
    for kind in ("numeric", "double precision", "date", "boolean"):
        cell = {"date": "note", "boolean": "key > 0"}.get(kind, f"key::{kind}")
        query = f"SELECT {cell} AS key, {names} FROM loans ORDER BY 1"  # noqa: S608
        with pytest.raises(MalformedError, match=r"'key' holds cells of type (Decimal|float|date|bool).*CAST"):
            read_table(as_query(tmp_path / "rows.sql.toml", url, query), sample())


def test_a_failure_in_the_middle_quotes_no_row(url: str, tmp_path: Path) -> None:
    names = 'key, age, "limit", late1, late2, late3, bill1, bill2, home, note'
    query = f"SELECT {names}, (CASE key WHEN 4711 THEN '{SECRET}x' ELSE '1' END)::int AS bad FROM loans"  # noqa: S608
    with pytest.raises(RefusalError, match=r"middle of the rows \(InvalidTextRepresentation 22P02\)") as raised:
        read_table(as_query(tmp_path / "rows.sql.toml", url, query, batch_rows=1), sample())
    assert SECRET not in f"{raised.value!r}"


def test_a_database_that_does_not_know_us_is_told_without_the_url(url: str, tmp_path: Path) -> None:
    host = url.partition("@")[2].partition("/")
    strange = f"postgresql://nobody:{SECRET}@{host[0]}/{host[2]}"
    with pytest.raises(UsageError, match=r"could not be opened \(\w+") as raised:
        read_table(as_query(tmp_path / "rows.sql.toml", strange), sample())
    assert SECRET not in f"{raised.value!r}"
    assert "nobody" not in f"{raised.value!r}"
