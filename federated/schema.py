"""What all parties agree on before they talk: columns, outcome, characteristics, constants of the encoding.

Everything here is public and fixed before any row is read. Bounds, centres, spreads, knots and edges are
never learnt from rows: each would be a release of its own, and one person more could change how another is
encoded. A `Schema` that exists is valid; `federated/characteristics.py` holds the values below the
characteristics, `federated/schema_toml.py` reads the file.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from federated.characteristics import Characteristic, Form
from federated.derive import LARGEST_AMOUNT, SMALLEST_DIVISOR, Json, plain
from privacy.errors import MalformedError

SCHEMA_VERSION: Final = 1
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")


class CellType(StrEnum):
    """What a cell of a column may hold."""

    NUMBER = "number"
    INTEGER = "integer"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Code:
    """A number that stands for a meaning, not for an amount."""

    code: int
    meaning: str

    def __post_init__(self) -> None:
        if not self.meaning.strip():
            raise MalformedError(f"code {self.code} has no meaning; say what it stands for")
        if abs(self.code) > 2**53:
            raise MalformedError("a code is past 2^53 and no longer exact; use a smaller one")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: a cell is an amount within hard bounds, a special code, or a missing marker.

    Anything else is malformed. `codes` is empty unless the type is `code`; then `minimum` and `maximum` span
    the codes.
    """

    name: str
    title: str
    type: CellType
    unit: str
    minimum: float
    maximum: float
    codes: tuple[Code, ...]
    special: tuple[Code, ...]
    missing: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.title.strip():
            raise MalformedError("a column needs a name and a title")
        _increasing_bounds(self.minimum, self.maximum)
        listed = [code.code for code in (*self.codes, *self.special)]
        if len(set(listed)) != len(listed):
            raise MalformedError("a code is listed twice; every code needs exactly one meaning")
        if len(set(self.missing)) != len(self.missing):
            raise MalformedError("a missing marker is listed twice")
        if (self.type is CellType.CODE) != bool(self.codes):
            raise MalformedError("`codes` belongs to type code, and only there")

    @property
    def special_codes(self) -> tuple[int, ...]:
        """Numbers that are no amounts in this column."""
        return tuple(code.code for code in self.special)

    def to_dict(self) -> dict[str, Json]:
        """The table of this column in the schema file."""
        head: dict[str, Json] = {"title": self.title, "type": self.type.value, "missing": list(self.missing)}
        if self.type is CellType.CODE:
            return head | {"codes": _codes(self.codes)}
        return head | {
            "unit": self.unit,
            "minimum": plain(self.minimum),
            "maximum": plain(self.maximum),
            "special": _codes(self.special),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """The definition of bad, in words and in codes."""

    column: str
    bad: tuple[int, ...]
    good: tuple[int, ...]
    definition: str

    def __post_init__(self) -> None:
        if not self.bad or not self.good or set(self.bad) & set(self.good):
            raise MalformedError("`bad` and `good` each need at least one code and must not share one")
        if not self.definition.strip():
            raise MalformedError("`definition` is empty; say in words who counts as bad, and after how long")

    def to_dict(self) -> dict[str, Json]:
        """The `[outcome]` table."""
        return {
            "column": self.column,
            "bad": list(self.bad),
            "good": list(self.good),
            "definition": self.definition,
        }


@dataclass(frozen=True, slots=True)
class Group:
    """One group of people for the audit: listed codes, or amounts from `at_least` to below `below`."""

    title: str
    codes: tuple[int, ...]
    at_least: float
    below: float

    def to_dict(self) -> dict[str, Json]:
        """This group in the schema file."""
        if self.codes:
            return {"title": self.title, "codes": list(self.codes)}
        return {"title": self.title, "at_least": plain(self.at_least), "below": plain(self.below)}


@dataclass(frozen=True, slots=True)
class AuditAttribute:
    """A sensitive attribute: read for the fairness audit, never an input of a score."""

    id: str
    title: str
    column: str
    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        check_name(self.id)
        if len(self.groups) < 2:
            raise MalformedError("an audit attribute needs at least two groups to compare")
        listed = [code for group in self.groups for code in group.codes]
        if len(set(listed)) != len(listed):
            raise MalformedError("a code is in two groups; one person belongs to one group")
        ranges = sorted((group.at_least, group.below) for group in self.groups if not group.codes)
        for at_least, below in ranges:
            _increasing_bounds(at_least, below)
        if any(left[1] > right[0] for left, right in itertools.pairwise(ranges)):
            raise MalformedError("two groups overlap; one person belongs to one group")

    def to_dict(self) -> dict[str, Json]:
        """This table under `[audit]`."""
        return {
            "title": self.title,
            "column": self.column,
            "groups": [group.to_dict() for group in self.groups],
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data come from and on what terms."""

    title: str
    origin: str
    licence: str
    attribution: str

    def to_dict(self) -> dict[str, Json]:
        """The `[source]` table."""
        return {
            "title": self.title,
            "origin": self.origin,
            "licence": self.licence,
            "attribution": self.attribution,
        }


@dataclass(frozen=True, slots=True)
class Schema:
    """The whole agreement; its `digest` is its name in plans, models and consent decisions.

    `subject_column` None means that the number of the row names the subject (tables published without keys).
    `radius` and `centred_radius` are public L2 bounds of an encoded row, before and after centring.
    """

    name: str
    title: str
    source: Source
    subject_column: str | None
    outcome: Outcome
    columns: tuple[Column, ...]
    ignored: tuple[str, ...]
    audit: tuple[AuditAttribute, ...]
    characteristics: tuple[Characteristic, ...]
    radius: float
    centred_radius: float

    def __post_init__(self) -> None:
        check_name(self.name)
        if not (0 < self.centred_radius < math.inf and 0 < self.radius < math.inf):
            raise MalformedError("[encoding] radius and centred_radius must be above 0 and finite")
        if not self.characteristics:
            raise MalformedError("there is no characteristic; a score needs at least one [[characteristics]]")
        self._check_columns()
        for characteristic in self.characteristics:
            self._check_characteristic(characteristic)
        ids = [characteristic.id for characteristic in self.characteristics]
        if len(set(ids)) != len(ids):
            raise MalformedError("two characteristics have one id; give each its own")

    def _check_columns(self) -> None:
        names = [column.name for column in self.columns]
        own = [*names, self.outcome.column, *self.ignored]
        own += [] if self.subject_column is None else [self.subject_column]
        if twice := sorted({name for name in own if own.count(name) > 1}):
            raise MalformedError(
                f"{twice} have two roles; a column is the subject, the outcome, under [columns] or under `ignored`"
            )
        for attribute in self.audit:
            column = self.column(attribute.column)
            codes = {code.code for code in (*column.codes, *column.special)}
            grouped = {code for group in attribute.groups for code in group.codes}
            if not grouped <= codes:
                raise MalformedError(f"[audit.{attribute.id}] groups a code that column {column.name!r} does not list")
        used = {name for c in self.characteristics for name in c.inputs} | {a.column for a in self.audit}
        if idle := sorted(set(names) - used):
            raise MalformedError(
                f"columns {idle} are declared and used by nothing; use them or list them under `ignored`"
            )

    def _check_characteristic(self, characteristic: Characteristic) -> None:
        sensitive = {attribute.column for attribute in self.audit}
        where = f"characteristic {characteristic.id!r}"
        for name in characteristic.inputs:
            if name in sensitive:
                raise MalformedError(
                    f"{where} refers to {name!r}, an audit attribute; those serve the fairness audit and are"
                    " never an input. Take it out of the characteristic"
                )
            if name in {self.outcome.column, self.subject_column}:
                raise MalformedError(f"{where} refers to {name!r}, which is the outcome or the subject")
            if name in self.ignored:
                raise MalformedError(f"{where} refers to {name!r}, which is listed under `ignored`")
            column = self.column(name, where=where)
            if (column.type is CellType.CODE) != (characteristic.form is Form.CODES):
                raise MalformedError(f"{where}: form codes needs a column of type code, all other forms an amount")
        if characteristic.form is Form.CODES:
            column = self.column(characteristic.inputs[0])
            grouped = [code for group in characteristic.groups for code in group.codes]
            if sorted(grouped) != sorted(code.code for code in column.codes):
                raise MalformedError(f"{where}: the groups must hold every code of column {column.name!r} exactly once")
        for name in characteristic.derive.divided_by:
            if characteristic.derive.divisor_at_least is None and self.column(name).minimum < SMALLEST_DIVISOR:
                raise MalformedError(
                    f"{where} divides by {name!r}, which may be 0 or less; raise its minimum or give `divisor_at_least`"
                )

    def column(self, name: str, *, where: str = "the schema") -> Column:
        """The declared column of that name; MalformedError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise MalformedError(f"{where} refers to column {name!r}, which [columns] does not declare")

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that a characteristic reads, in the order of `columns`."""
        used = {name for characteristic in self.characteristics for name in characteristic.inputs}
        return tuple(column.name for column in self.columns if column.name in used)

    @property
    def categories(self) -> frozenset[str]:
        """Every category a characteristic belongs to: what a consent record must cover."""
        return frozenset(characteristic.category.value for characteristic in self.characteristics)

    def may_be_missing(self, characteristic: Characteristic) -> bool:
        """Whether an in-bounds row can leave it without a value; it has a missing attribute then.

        A missing cell may always do so, a special code except where it is an attribute of its own (`value`)
        or is counted (`count`).
        """
        columns = {column.name: column for column in self.columns}
        if any(columns[name].missing for name in characteristic.inputs):
            return True
        carries = () if characteristic.derive.reads_special else characteristic.derive.of
        return any(columns[name].special for name in (*carries, *characteristic.derive.divided_by))

    def to_dict(self) -> dict[str, Json]:
        """The schema as its file states it, columns in the order of their names."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "title": self.title,
            "ignored": list[Json](sorted(self.ignored)),
            "source": self.source.to_dict(),
            "subject": {"from": "row_number"}
            if self.subject_column is None
            else {"from": "column", "column": self.subject_column},
            "outcome": self.outcome.to_dict(),
            "encoding": {"radius": plain(self.radius), "centred_radius": plain(self.centred_radius)},
            "columns": {column.name: column.to_dict() for column in sorted(self.columns, key=lambda c: c.name)},
            "audit": {attribute.id: attribute.to_dict() for attribute in sorted(self.audit, key=lambda a: a.id)},
            "characteristics": [characteristic.to_dict() for characteristic in self.characteristics],
        }

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON of `to_dict`: independent of the file's layout and comments."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()


def canonical_json(value: Mapping[str, Json]) -> bytes:
    """Sorted keys, no spaces, UTF-8, whole numbers without a fraction: one byte string per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def check_name(name: str) -> None:
    """MalformedError unless `name` can stand in a file name, a key and a message alike."""
    if not NAME.match(name):
        raise MalformedError(f"{name!r} is not a name: lower-case letters, digits and _, at most 63, first a letter")


def _increasing_bounds(minimum: float, maximum: float) -> None:
    if not (-LARGEST_AMOUNT <= minimum <= maximum <= LARGEST_AMOUNT):
        raise MalformedError(
            f"the lower bound must not be above the upper, and both must lie within +-{LARGEST_AMOUNT:g}"
        )


def _codes(codes: tuple[Code, ...]) -> dict[str, Json]:
    return {str(code.code): code.meaning for code in codes}
