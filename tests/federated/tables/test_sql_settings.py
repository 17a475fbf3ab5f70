import os
from pathlib import Path

import pytest

from federated.tables.sql_settings import is_query, load_sql_settings
from privacy.errors import MalformedError, UsageError
from tests.federated.tables.stored import as_query

PASSWORD = "Zürich-4711"
URL = f"postgresql://reader:{PASSWORD}@db.internal/lending"


def test_the_name_of_the_file_says_that_it_is_a_query() -> None:
    assert is_query(Path("a/rows.sql.toml"))
    assert is_query(Path("Held.SQL.TOML"))
    assert not any(is_query(Path(name)) for name in ("rows.csv", "rows.toml", "rows.sql", "sql.toml.csv"))


@pytest.mark.parametrize("query", ["SELECT 1", "select 1;", " \n\tWITH a AS (SELECT 1) SELECT * FROM a ;\n"])
def test_one_select_is_taken(tmp_path: Path, query: str) -> None:
    settings = load_sql_settings(as_query(tmp_path / "rows.sql.toml", URL, query, batch_rows=7))
    assert settings.query == query.strip().rstrip(";").strip()
    assert settings.batch_rows == 7
    assert settings.url == URL
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; DELETE FROM loans", "SELECT 1; SELECT 2", "SELECT ';'", "DELETE FROM loans", "", "  ", ";",
        "INSERT INTO loans SELECT 1", "PRAGMA writable_schema = 1", "-- SELECT\nDROP TABLE loans", "SELECTED", "BEGIN",
        "SELECT * INTO copy FROM loans", "SELECT * FROM loans FOR UPDATE", "EXPLAIN SELECT 1",
        "WITH gone AS (DELETE FROM loans RETURNING *) SELECT * FROM gone", "SELECT * FROM loans INTO OUTFILE 'x'",
        "WITH a AS (SELECT 1) insert into loans select * from a", "VACUUM", "ATTACH 'x' AS y", "/* */ SELECT 1",
    ],
)  # fmt: skip
def test_anything_but_one_select_is_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(MalformedError, match=r"SELECT|query") as raised:
        load_sql_settings(as_query(tmp_path / "rows.sql.toml", URL, query))
    assert PASSWORD not in str(raised.value)


GOOD = f'version = 1\nurl = "{URL}"\nquery = "SELECT 1"\nbatch_rows = 10\n'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (GOOD.replace("version = 1", "version = 2"), "version"),
        (GOOD.replace("batch_rows = 10", ""), "batch_rows"),
        (GOOD.replace("batch_rows = 10", "batch_rows = 0"), "batch_rows"),
        (GOOD.replace("batch_rows = 10", 'batch_rows = "10"'), "batch_rows"),
        (GOOD + "timeout = 5\n", "timeout"),
        (GOOD.replace('lending"', "lending"), "line 2"),
        (GOOD.replace('url = "', 'url = = "'), "line 2"),
        (GOOD.replace(PASSWORD, f"\\z{PASSWORD}"), "TOML"),
        (GOOD.replace("url =", "url.url ="), "url"),
        ("", "version"),
    ],
)
def test_settings_that_are_none_are_malformed_and_show_no_password(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "rows.sql.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MalformedError, match=word) as raised:
        load_sql_settings(path)
    shown = f"{raised.value!r} {raised.value.__cause__!r}"
    assert PASSWORD not in shown
    assert "internal" not in shown


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_sql_settings(tmp_path / "none.sql.toml")
    (tmp_path / "rows.sql.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedError, match="UTF-8"):
        load_sql_settings(tmp_path / "rows.sql.toml")


@pytest.mark.parametrize(("mode", "others"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_whether_others_may_read_the_file_is_known(tmp_path: Path, mode: int, others: bool) -> None:
    path = as_query(tmp_path / "rows.sql.toml", URL, mode=mode)
    assert load_sql_settings(path).others_may_read is others
    assert os.stat(path).st_mode & 0o777 == mode  # noqa: PTH116 (the mode as the system tells it)
