import copy
import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from federated.characteristics import Category
from federated.schema import Schema, canonical_json
from federated.schema_toml import parse_schema
from privacy.errors import MalformedError
from tests.federated.schema_samples import TEXT, sample


def as_toml(value: Any) -> str:
    """Any table as one TOML inline value: another writer than a person's, keys in another order."""
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key)} = {as_toml(value[key])}" for key in sorted(value, reverse=True)) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def read(raw: dict[str, Any]) -> Schema:
    return parse_schema("\n".join(f"{json.dumps(key)} = {as_toml(value)}" for key, value in raw.items()), "test.toml")


def tables(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Addresses of all tables; those of free keys (columns, audit, codes) are followed but not returned."""
    if isinstance(value, dict):
        if not path or path[-1] not in {"columns", "audit", "special", "codes"}:
            yield path
        for key, inner in value.items():
            yield from tables(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from tables(inner, (*path, index))


def at(raw: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        raw = raw[step]
    return raw


RAW = tomllib.loads(TEXT)
TABLES = list(tables(RAW))


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    elif not isinstance(value, (dict, list)):
        yield path


def test_the_sample_reaches_every_level() -> None:
    assert len(TABLES) > 25


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_an_unknown_key_is_refused_at_every_level(path: tuple[str | int, ...]) -> None:
    raw = copy.deepcopy(RAW)
    at(raw, path)["colour"] = 1
    with pytest.raises(MalformedError, match="colour"):
        read(raw)


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_every_key_of_every_level_is_needed(path: tuple[str | int, ...]) -> None:
    optional = {"divided_by"}  # the one key whose absence has a meaning of its own: not divided
    for key in at(RAW, path).keys() - optional:
        raw = copy.deepcopy(RAW)
        del at(raw, path)[key]
        with pytest.raises(MalformedError):
            read(raw)


def test_the_digest_does_not_depend_on_layout() -> None:
    assert read(RAW).digest == sample().digest
    spaced = TEXT.replace(" = ", "   =\t").replace("minimum   =\t0\n", "minimum = 0.0 # none below\n")
    assert parse_schema(spaced.replace("\n", "\r\n"), "x").digest == sample().digest


def test_the_digest_is_a_sha256_of_json_with_sorted_keys() -> None:
    import hashlib

    written = json.dumps(sample().to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sample().digest == hashlib.sha256(written.encode()).hexdigest()
    assert json.loads(canonical_json(sample().to_dict())) == sample().to_dict()


def test_what_a_schema_says_of_itself_reads_back() -> None:
    assert read(sample().to_dict()) == sample()


def test_the_digest_changes_with_every_field() -> None:
    seen = {sample().digest}
    changed = 0
    for path in leaves(RAW):
        if path in {("schema_version",), ("subject", "from")}:
            continue
        raw = copy.deepcopy(RAW)
        table, key, old = at(raw, path[:-1]), path[-1], at(raw, path)
        for new in (
            [f"{old}x", "behaviour", "none", "decreasing"] if isinstance(old, str) else [old + 1, old + 0.01, old - 1]
        ):
            table[key] = new
            try:
                digest = read(raw).digest
            except MalformedError:
                continue
            if new != old:
                assert digest not in seen, path
                seen.add(digest)
                changed += 1
            break
    assert changed > 120


@pytest.mark.parametrize("category", ["friends", "contacts", "relationships", "social_network", "Family"])
def test_a_category_about_other_people_has_its_own_message(category: str) -> None:
    text = TEXT.replace('category = "obligations"', f'category = "{category}"', 1)
    with pytest.raises(MalformedError, match="nobody is scored by their friends"):
        parse_schema(text, "s.toml")


def test_the_categories_are_closed() -> None:
    assert {category.value for category in Category} == {
        "credit_history", "capacity", "behaviour", "obligations", "characteristics",
    }  # fmt: skip
    with pytest.raises(MalformedError, match="one of credit_history"):
        parse_schema(TEXT.replace('category = "obligations"', 'category = "vibes"', 1), "s.toml")


@pytest.mark.parametrize("key", ["of", "divided_by"])
def test_an_audit_attribute_is_never_an_input(key: str) -> None:
    raw = copy.deepcopy(RAW)
    raw["characteristics"][6][key] = ["age", "bill2"]
    with pytest.raises(MalformedError, match="never an input"):
        read(raw)


@pytest.mark.parametrize("name", ["bad", "key", "note", "nowhere"])
def test_outcome_subject_ignored_and_unknown_columns_are_no_input(name: str) -> None:
    raw = copy.deepcopy(RAW)
    raw["characteristics"][5]["of"] = [name, "bill1"]
    with pytest.raises(MalformedError, match=name):
        read(raw)


def test_a_message_names_file_key_and_line() -> None:
    lines = TEXT.splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if text == 'category = "obligations"')
    lines[line - 1] = 'category = "vibes"'
    with pytest.raises(MalformedError, match=rf"s\.toml: characteristics\.6\.category \(line {line}\)"):
        parse_schema("\n".join(lines), "s.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema_version = 1", "schema_version = 2"),
        ("schema_version = 1", "schema_version = true"),
        ("schema_version = 1", "schema_version = 1.0"),
        ("radius = 3.5", "radius = 0"),
        ("radius = 3.5", "radius = nan"),
        ("radius = 3.5", "radius = inf"),
        ("maximum = 1e6", "maximum = 1e300"),
        ("minimum = 18", "minimum = 121"),
        ("bad = [1, 2]", "bad = [0, 1]"),
        ("bad = [1, 2]", "bad = []"),
        ("bad = [1, 2]", "bad = [true]"),
        ('column = "bad"', 'column = "age"'),
        ('ignored = ["note"]', 'ignored = ["note", "late1"]'),
        ("{ 1 = \"own\", 2", "{ 1 = \"\", 2"),
        ("{ 1 = \"own\", 2", "{ 01 = \"own\", 2"),
        ("{ 1 = \"own\", 2", "{ 1.5 = \"own\", 2"),
        ('name = "sample"', 'name = "../sample"'),
        ('type = "integer"', 'type = "code"'),
        ("at_least = 2", "at_least = 2\nat_most = 3"),
        ("knots = [0, 1, 2]", "knots = [0, 0, 2]"),
        ("knots = [0, 1, 2]", "knots = [0, 1, 3]"),
        ("knots = [0, 1, 2]", "knots = [0]"),
        ("edges = [1, 2, 3]", "edges = [1, 3, 2]"),
        ("edges = [1, 2, 3]", "edges = []"),
        ("edges = [1, 2, 3]", "edges = [1, 2, true]"),
        ("spread = 0.5", "spread = 0"),
        ("transform_scale = 100", "transform_scale = 0"),
        ("divided_by = 2", "divided_by = 0"),
        ("divisor_at_least = 100\n", ""),
        ("divisor_at_least = 100", "divisor_at_least = 0"),
        ('divided_by = ["limit"]', 'divided_by = ["late3"]'),
        ("codes = [2, 3] }]", "codes = [2] }]"),
        ("codes = [2, 3] }]", "codes = [1, 2, 3] }]"),
        ("at_least = 30, below", "at_least = 29, below"),
        ('by = "difference"', 'by = "value"'),
        ('id = "latest"', 'id = "worst"'),
        ('title = "Limit"\nreason', 'title = " "\nreason'),
    ],
)  # fmt: skip
def test_a_schema_that_contradicts_itself_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(MalformedError):
        parse_schema(TEXT.replace(old, new, 1), "s.toml")


def test_a_column_that_nothing_uses_is_refused() -> None:
    text = TEXT.replace(
        "[columns.bill2]",
        '[columns.idle]\ntitle = "x"\ntype = "code"\ncodes = {1 = "x"}\nmissing = []\n[columns.bill2]',
    )
    with pytest.raises(MalformedError, match="idle"):
        parse_schema(text, "s.toml")


@pytest.mark.parametrize("text", ["", "=", "x = 1", "[columns", "columns = 3\nschema_version = 1", "a" * 100, "\x00"])
def test_what_is_no_schema_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_schema(text, "s.toml")
