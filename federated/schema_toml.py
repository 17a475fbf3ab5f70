"""The schema file: TOML, versioned, complete. Unknown and missing keys are refused, with their line."""

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Final

from federated.characteristics import (
    Category,
    Characteristic,
    CodeGroup,
    Form,
    Numbers,
    Risk,
    Transform,
)
from federated.derive import Comparison, Derivation, Derive
from federated.schema import (
    SCHEMA_VERSION,
    AuditAttribute,
    CellType,
    Column,
    Group,
    Outcome,
    Schema,
    Source,
)
from federated.toml_table import TomlTable, blanks, dotted, key_lines, line_of
from privacy.errors import MalformedError, UsageError

# Credit is judged on a person's own record: these get a message that says so instead of "unknown category".
RELATIONS: Final = re.compile(r"friend|contact|relation|social|famil|peer|neighbou?r|network|colleague", re.IGNORECASE)
LARGEST_FILE: Final = 4 * 1024 * 1024  # bytes


def load_schema(path: Path | str) -> Schema:
    """The schema in that file; UsageError when it cannot be opened, MalformedError when it is no schema."""
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise MalformedError(f"{file.name} is larger than {LARGEST_FILE} bytes; a schema is a few kilobytes")
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot open schema {file}: {error.strerror}; give the path of a schema file") from None
    except UnicodeDecodeError:
        raise MalformedError(f"{file.name} is not UTF-8 text; save the schema as UTF-8") from None
    return parse_schema(text, file.name)


def parse_schema(text: str, origin: str) -> Schema:
    """The schema written in `text`; `origin` names it in messages."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MalformedError(f"{origin} is not TOML: {error}") from None
    lines = key_lines(text)
    if empty := list(blanks(raw, ())):
        named = "; ".join(f"{dotted(path)}{line_of(path, lines)}" for path in empty[:20])
        more = f" and {len(empty) - 20} more" if len(empty) > 20 else ""
        raise MalformedError(f"{origin} is a draft; whoever wrote it still has to fill in: {named}{more}")
    return _schema(TomlTable(raw, (), origin, lines))


def _schema(root: TomlTable) -> Schema:
    version = root.values.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise root.wrong(f"schema_version = {SCHEMA_VERSION} is needed; this toolkit reads no other", "schema_version")
    root.exactly(
        {
            "schema_version", "name", "title", "ignored", "source", "subject", "outcome", "encoding",
            "columns", "audit", "characteristics",
        }
    )  # fmt: skip
    columns, audit = root.table("columns"), root.table("audit")
    encoding = root.table("encoding")
    encoding.exactly({"radius", "centred_radius"})
    return root.made(
        lambda: Schema(
            name=root.text("name"),
            title=root.text("title"),
            source=_source(root.table("source")),
            subject_column=_subject(root.table("subject")),
            outcome=_outcome(root.table("outcome")),
            columns=tuple(_column(columns.table(name), name) for name in sorted(columns.values)),
            ignored=tuple(sorted(root.texts("ignored"))),
            audit=tuple(_audit(audit.table(name), name) for name in sorted(audit.values)),
            characteristics=tuple(_characteristic(table) for table in root.tables("characteristics")),
            radius=encoding.number("radius"),
            centred_radius=encoding.number("centred_radius"),
        )
    )


def _source(table: TomlTable) -> Source:
    table.exactly({"title", "origin", "licence", "attribution"})
    return Source(table.text("title"), table.text("origin"), table.text("licence"), table.text("attribution"))


def _subject(table: TomlTable) -> str | None:
    class From(StrEnum):
        COLUMN = "column"
        ROW_NUMBER = "row_number"

    if table.values.get("from") == From.ROW_NUMBER:
        table.exactly({"from"})
        return None
    table.exactly({"from", "column"})
    table.one_of("from", From)
    return table.text("column")


def _outcome(table: TomlTable) -> Outcome:
    table.exactly({"column", "bad", "good", "definition"})
    return table.made(
        lambda: Outcome(table.text("column"), table.codes("bad"), table.codes("good"), table.text("definition"))
    )


def _column(table: TomlTable, name: str) -> Column:
    shared = {"title", "type", "missing"}
    if "type" not in table.values:
        raise table.wrong(f"missing type; one of {', '.join(CellType)} is needed")
    kind = table.one_of("type", CellType)
    if kind is CellType.CODE:
        table.exactly(shared | {"codes"})
        codes = table.meanings("codes")
        if not codes:
            raise table.wrong("a column of type code lists at least one code with its meaning", "codes")
        lowest, highest = float(codes[0].code), float(codes[-1].code)
        return table.made(
            lambda: Column(name, table.text("title"), kind, "", lowest, highest, codes, (), table.texts("missing"))
        )
    table.exactly(shared | {"unit", "minimum", "maximum", "special"})
    return table.made(
        lambda: Column(
            name=name,
            title=table.text("title"),
            type=kind,
            unit=table.text("unit"),
            minimum=table.number("minimum"),
            maximum=table.number("maximum"),
            codes=(),
            special=table.meanings("special"),
            missing=table.texts("missing"),
        )
    )


def _audit(table: TomlTable, name: str) -> AuditAttribute:
    table.exactly({"title", "column", "groups"})
    groups = []
    for group in table.tables("groups"):
        if "codes" in group.values:
            group.exactly({"title", "codes"})
            codes = group.codes("codes")
            if not codes:
                raise group.wrong("a group needs at least one code", "codes")
            groups.append(Group(group.text("title"), codes, 0.0, 0.0))
        else:
            group.exactly({"title", "at_least", "below"})
            groups.append(Group(group.text("title"), (), group.number("at_least"), group.number("below")))
    return table.made(lambda: AuditAttribute(name, table.text("title"), table.text("column"), tuple(groups)))


def _characteristic(table: TomlTable) -> Characteristic:
    required = {"id", "title", "reason", "category", "risk", "of", "by", "form"}
    if "form" not in table.values or "by" not in table.values or "category" not in table.values:
        raise table.wrong(f"missing {', '.join(sorted(required - table.values.keys()))}; add it")
    if RELATIONS.search(table.text("category")):
        raise table.wrong(
            "this category is about other people; nobody is scored by their friends, contacts or"
            " relationships, so no schema can hold it. Remove the characteristic, or use one of"
            f" {', '.join(Category)}",
            "category",
        )
    category = table.one_of("category", Category)
    form = table.one_of("form", Form)
    by = table.one_of("by", Derivation)
    optional = {"divided_by"}
    if "divided_by" in table.values and isinstance(table.values["divided_by"], list):
        optional.add("divisor_at_least")
    comparisons = [comparison for comparison in Comparison if comparison.value in table.values]
    if by is Derivation.COUNT:
        if len(comparisons) != 1:
            raise table.wrong("by = 'count' needs exactly one of at_least, at_most, equal")
        required.add(comparisons[0].value)
    if form is Form.CODES:
        table.exactly(required | {"groups"})
    else:
        required |= {"transform", "minimum", "maximum", "edges"}
        if table.values.get("transform") != Transform.IDENTITY:
            required.add("transform_scale")
        required |= {"centre", "spread"} if form is Form.LINE else set()
        required |= {"knots"} if form is Form.KNOTS else set()
        table.exactly(required, frozenset(optional))
    return table.made(
        lambda: Characteristic(
            id=table.text("id"),
            title=table.text("title"),
            reason=table.text("reason"),
            category=category,
            risk=table.one_of("risk", Risk),
            derive=_derive(table, by, comparisons[0] if by is Derivation.COUNT else None),
            form=form,
            numbers=None if form is Form.CODES else table.made(lambda: _numbers(table, form)),
            groups=_groups(table) if form is Form.CODES else (),
        )
    )


def _derive(table: TomlTable, by: Derivation, comparison: Comparison | None) -> Derive:
    compared: tuple[float, ...] = ()
    if comparison is Comparison.EQUAL:
        compared = table.numbers("equal")
    elif comparison is not None:
        compared = (table.number(comparison.value),)
    columns = isinstance(table.values.get("divided_by"), list)
    number = "divided_by" in table.values and not columns
    return Derive(
        of=table.texts("of"),
        by=by,
        comparison=comparison,
        compared_with=compared,
        divided_by=table.texts("divided_by") if columns else (),
        divisor=table.number("divided_by") if number else 1.0,
        divisor_at_least=table.number("divisor_at_least") if "divisor_at_least" in table.values else None,
    )


def _numbers(table: TomlTable, form: Form) -> Numbers:
    transform = table.one_of("transform", Transform)
    return Numbers(
        transform=transform,
        transform_scale=1.0 if transform is Transform.IDENTITY else table.number("transform_scale"),
        minimum=table.number("minimum"),
        maximum=table.number("maximum"),
        edges=table.numbers("edges"),
        centre=table.number("centre") if form is Form.LINE else 0.0,
        spread=table.number("spread") if form is Form.LINE else 1.0,
        knots=table.numbers("knots") if form is Form.KNOTS else (),
    )


def _groups(table: TomlTable) -> tuple[CodeGroup, ...]:
    return tuple(_group(group) for group in table.tables("groups"))


def _group(table: TomlTable) -> CodeGroup:
    table.exactly({"title", "codes"})
    return table.made(lambda: CodeGroup(table.text("title"), table.codes("codes")))
