import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from federated.schema_cli import schema as command
from federated.schema_draft import draft_schema
from federated.schema_toml import load_schema, parse_schema
from privacy.errors import MalformedError, UsageError
from tests.federated.schema_samples import COLUMNS, TEXT, write
from tests.federated.test_table import GOOD, with_cell

TABLES = sorted(Path("experiments/data").glob("*/data.csv.gz"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_draft_holds_nothing_of_the_table_but_names_and_types(tmp_path: Path) -> None:
    """Two tables of the same shape, all cells different, a different number of rows: one and the same draft."""
    chance = np.random.default_rng(0)

    def table(name: str, rows: int, low: int, codes: list[int]) -> Path:
        lines = [
            [
                f"p{low + i}",
                str(low + i * 7),
                f"{chance.uniform(low, low * 2):.3f}",
                str(codes[i % len(codes)]),
                f"w{low}{i}",
            ]
            for i in range(rows)
        ]
        return write(tmp_path / name, lines, header=["key", "amount", "rate", "kind", "note"])

    first = draft_schema(table("a.csv", 400, 51_000, [71, 72]))
    second = draft_schema(table("b.csv", 90, 8_300, [5, 6, 7, 8]))
    assert first == second
    assert [name for name in ("key", "amount", "rate", "kind", "note") if f'"{name}"' not in first] == []
    assert re.findall(r'columns\."(\w+)"\]\n.*\ntype = "(\w+)"', first) == [
        ("amount", "integer"), ("rate", "number"), ("kind", "code"),
    ]  # fmt: skip


def test_a_draft_of_the_real_tables_shows_no_cell() -> None:
    assert TABLES
    for path in TABLES:
        draft = draft_schema(path)
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()[1:]
        cells = {cell for line in lines for cell in line.split(",") if len(cell) > 2}
        assert len(cells) > 100
        assert not cells & set(re.findall(r"-?[\d.]+", draft))


def test_a_draft_does_not_load_and_names_what_to_fill_in(tmp_path: Path) -> None:
    out = tmp_path / "schema.toml"
    result = run("init", write(tmp_path / "t.csv", [GOOD]), "--out", out)
    assert result.exit_code == 0, result.output
    with pytest.raises(MalformedError, match=r"fill in: name \(line \d+\); title \(line \d+\)") as raised:
        load_schema(out)
    assert "columns.limit.minimum" in str(raised.value) or "more" in str(raised.value)


def test_a_filled_in_draft_loads(tmp_path: Path) -> None:
    """The draft of two columns, its blanks replaced one by one: the file asks for nothing that it did not show."""
    path = write(tmp_path / "t.csv", [["a", "5"], ["b", "7"]], header=["key", "income"])
    draft = draft_schema(path)
    draft = draft.replace('type = "code"\ncodes = { "FILL IN" = "FILL IN" }  # every code and its meaning',
                          'type = "number"\nunit = "EUR"\nminimum = 0\nmaximum = 9\nspecial = {}')  # fmt: skip
    fills = {
        "name": '"x"', "radius": "1", "centred_radius": "1", "bad": "[1]", "good": "[0]", "id": '"income"',
        "category": '"capacity"', "of": '["income"]', "minimum": "0", "maximum": "9", "knots": "[1, 2]", "edges": "[1]",
    }  # fmt: skip
    lines = []
    for line in draft.splitlines():
        key = line.split(" = ")[0]
        lines.append(
            f"{key} = {fills.get(key, chr(34) + key + 'z' + chr(34))}" if "FILL IN" in line and key[0] != "#" else line
        )
    text = "\n".join(lines).replace('column = "columnz"', 'column = "key"', 1)
    with pytest.raises(MalformedError, match=r"\['key'\] have two roles"):
        parse_schema(text, "x")
    text = text.replace('ignored = ["key"]', "ignored = []")
    assert [column.name for column in parse_schema(text, "x").columns] == ["income"]


def test_init_never_overwrites(tmp_path: Path) -> None:
    out = tmp_path / "schema.toml"
    out.write_text("mine")
    result = run("init", write(tmp_path / "t.csv", [GOOD]), "--out", out)
    assert isinstance(result.exception, UsageError)
    assert out.read_text() == "mine"
    assert isinstance(run("init", tmp_path / "t.csv", "--out", tmp_path / "no" / "x").exception, UsageError)


@pytest.mark.parametrize("header", [["1", "b"], ["a", ""], ["a", "a"], ["a", "-3.5e2"]])
def test_init_refuses_a_table_without_names(tmp_path: Path, header: list[str]) -> None:
    with pytest.raises(MalformedError):
        draft_schema(write(tmp_path / "t.csv", [["4", "5"]], header=header))


def test_names_are_quoted(tmp_path: Path) -> None:
    names = ['a"b', "c.d", "é\x7f", "[x]", "\U0001f600"]
    draft = draft_schema(write(tmp_path / "t.csv", [["4"] * 5], header=names))
    with pytest.raises(MalformedError, match="fill in"):
        parse_schema(draft, "x")


def checked(tmp_path: Path, lines: list[list[str]], *options: str) -> Result:
    agreed = tmp_path / "schema.toml"
    agreed.write_text(TEXT)
    return run("check", agreed, write(tmp_path / "t.csv", lines), *options)


def test_check_says_when_all_fits(tmp_path: Path) -> None:
    result = checked(tmp_path, [GOOD], "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "fits": True, "schema": "sample", "digest": parse_schema(TEXT, "x").digest, "rows": 1, "problems": [],
    }  # fmt: skip


def test_check_tells_every_problem_by_row(tmp_path: Path) -> None:
    lines = [
        GOOD,
        with_cell("late3", "7777", "b"),
        with_cell("late3", "8888", "c"),
        with_cell("home", "9999", "b"),
        ["x"],
    ]
    result = checked(tmp_path, lines, "--json", "--limit", "1")
    assert isinstance(result.exception, MalformedError)
    assert result.exception.exit_code == 4
    told = json.loads(result.stdout)
    assert told["fits"] is False
    assert [(p["column"], p["rows"], p["count"]) for p in told["problems"]] == [
        ("(row)", [5], 1), ("key", [4], 1), ("late3", [2], 2),
    ]  # fmt: skip
    plain = checked(tmp_path, lines)
    assert "late3\n  outside the hard bounds: rows 2, 3\n" in plain.stdout
    for value in ("7777", "8888", "9999"):
        assert value not in plain.stdout + plain.stderr + result.stdout + str(result.exception)


def test_check_tells_of_a_header_that_does_not_fit(tmp_path: Path) -> None:
    agreed = tmp_path / "schema.toml"
    agreed.write_text(TEXT)
    result = run("check", agreed, write(tmp_path / "t.csv", [GOOD[1:]], header=COLUMNS[1:]), "--json")
    assert isinstance(result.exception, MalformedError)
    assert json.loads(result.stdout)["problems"][0]["column"] is None


@pytest.mark.parametrize("name", ["init", "check"])
def test_every_command_has_an_example(name: str) -> None:
    assert f"Example: fedcredit schema {name}" in run(name, "--help").output
