"""Every mistake with Parquet files and queries, through the real command line: an exit code and a text that helps."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.federated.schema_samples import TEXT
from tests.federated.tables.stored import as_database, as_parquet, as_query, columns_of, good_row
from tests.test_bad_input import POISON, assert_helpful, command

ROOT = Path(__file__).parents[3]
URL = f"postgresql://reader:{POISON}@127.0.0.1:1/lending"
ROWS = [good_row(), good_row(key="s2"), good_row(key=POISON, late3=55)]


def parquet(**arrays: Any) -> Callable[[Path], Path]:
    return lambda directory: as_parquet(directory / "rows.parquet", columns_of(ROWS[:2]) | arrays)


def query(
    url: str = "sqlite:///lending.db", text: str = "SELECT * FROM loans", **options: Any
) -> Callable[[Path], Path]:
    return lambda directory: as_query(directory / "rows.sql.toml", url, text, **options)


def cut(directory: Path) -> Path:
    path = parquet()(directory)
    path.write_bytes(path.read_bytes()[:-9])
    return path


# Each: the table, the exit code, and what the text must say.
MISTAKES: dict[str, tuple[Callable[[Path], Path], int, tuple[str, ...]]] = {
    "a Parquet file cut short": (cut, 4, ("rows.parquet", "not a whole Parquet file", "export it again")),
    "no Parquet file": (lambda directory: directory / "rows.parquet", 2, ("cannot read",)),
    "a column of bytes": (parquet(bill2=[POISON.encode()] * 2), 4, ("'bill2' holds binary", "should export")),
    "customers as floats": (parquet(key=[4711.0, 4712.5]), 4, ("'key' holds double", "as text")),
    "a text for a number": (parquet(late2=["1", POISON]), 4, ("late2", "no number", "row 2")),
    "a customer twice": (parquet(key=[POISON, POISON]), 4, ("earlier row", "row 2")),
    "rows of a query": (query(), 4, ("late3", "outside the hard bounds", "row 3", "ORDER BY")),
    "two statements": (query(text=f"SELECT 1; DROP TABLE {POISON}"), 4, ("semicolon", "one SELECT")),
    "no SELECT": (query(text="DELETE FROM loans"), 4, ("must start with SELECT",)),
    "a password in the open": (query(URL, mode=0o644), 3, ("chmod 600",)),
    "a database that is away": (query(URL), 2, ("could not be opened", "Correct `url`")),
    "a file of SQLite that is not there": (query("sqlite:///none.db"), 2, ("could not be opened", "SQLITE_CANTOPEN")),
    "no URL": (query(POISON), 2, ("no address of a database", "sqlite:///FILE")),
    "a table that is not there": (query(text="SELECT * FROM nothing"), 2, ("refused the query", "SQLITE_ERROR")),
    "a key too many": (
        lambda directory: _with(query(URL)(directory), "secret = 1\n"), 4, ("unknown field `secret`", "should correct")
    ),
    "no TOML": (lambda directory: _with(query(URL)(directory), f"x = {POISON}\n"), 4, ("TOML at line 5",)),
}  # fmt: skip


def _with(path: Path, more: str) -> Path:
    path.write_text(path.read_text() + more)
    return path


@pytest.mark.parametrize("program", ["check", "init"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_table_that_cannot_be_served(
    mistake: str, program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, code, words = MISTAKES[mistake]
    as_database(tmp_path / "lending.db", ROWS)
    table, schema, out = make(tmp_path), tmp_path / "schema.toml", tmp_path / "draft.toml"
    schema.write_text(TEXT)
    arguments = ("schema", "check", schema, table) if program == "check" else ("schema", "init", table, "--out", out)
    told = command(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    if program == "init" and told.code == 0:  # a draft looks at no cell for long
        assert POISON not in out.read_text() + told.out + told.err
    else:
        assert_helpful(told, code, *words)
        assert not out.exists()
    assert not (tmp_path / "none.db").exists()


def test_whoever_has_csv_files_needs_neither_package() -> None:
    code = (
        "import sys\nsys.modules['pyarrow'] = sys.modules['sqlalchemy'] = None\n"
        "from pathlib import Path\nfrom federated.table import read_table, table_texts\n"
        "from federated.schema_toml import load_schema\n"
        "table = Path('experiments/data/south_german')\n"
        "print(len(read_table(table / 'data.csv.gz', load_schema(table / 'schema.toml')).subjects))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("rows.parquet", "pyarrow", "parquet"), ("rows.sql.toml", "sqlalchemy", "sql")]
)
def test_without_its_package_a_table_is_refused_with_what_to_install(
    name: str, missing: str, extra: str, tmp_path: Path
) -> None:
    (parquet() if missing == "pyarrow" else query())(tmp_path)
    (tmp_path / "schema.toml").write_text(TEXT)
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom federated.cli import main\n"
        f"sys.argv = ['fedcredit', 'schema', 'check', 'schema.toml', {name!r}]\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Usage: ")
    assert f"{name} needs {missing}, which is not installed; run: pip install 'fedcredit[{extra}]'" in done.stderr
