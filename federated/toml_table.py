"""Strict reading of TOML tables: every key is asked for, every complaint has the key's address and line."""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from federated.schema import Code
from privacy.errors import MalformedError

BLANK: Final = "FILL IN"

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)


class TomlTable:
    """One table of the file; every key must be taken, and every key asked for must be there."""

    def __init__(
        self, values: object, path: tuple[str, ...], origin: str, lines: Mapping[tuple[str, ...], int]
    ) -> None:
        self.path, self.origin, self.lines = path, origin, lines
        if not isinstance(values, dict):
            raise self.wrong("a table is needed here")
        self.values: dict[str, object] = values

    def wrong(self, message: str, key: str | None = None) -> MalformedError:
        """The error for this table or one of its keys, with its address."""
        path = self.path if key is None else (*self.path, key)
        where = f"{dotted(path)}{line_of(path, self.lines)}: " if path else ""
        return MalformedError(f"{self.origin}: {where}{message}")

    def exactly(self, required: set[str], optional: frozenset[str] = frozenset()) -> None:
        """Refuse keys that are missing or unknown."""
        if unknown := sorted(self.values.keys() - required - optional):
            allowed = ", ".join(sorted(required | optional))
            raise self.wrong(f"unknown key; this table has {allowed}. Correct or remove it", unknown[0])
        if missing := sorted(required - self.values.keys()):
            raise self.wrong(f"missing {', '.join(missing)}; nothing has a default, so add it")

    def text(self, key: str) -> str:
        """A text."""
        value = self.values[key]
        if not isinstance(value, str):
            raise self.wrong("a text in quotes is needed", key)
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        return self._number(self.values[key], key)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(self._number(value, key) for value in self._list(key))

    def codes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        values = self._list(key)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self.wrong("a list of whole numbers is needed", key)
        return tuple(value for value in values if isinstance(value, int))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong("a list of texts in quotes is needed", key)
        return tuple(value for value in values if isinstance(value, str))

    def one_of(self, key: str, kind: type[_E]) -> _E:
        """A member of a closed set."""
        text = self.text(key)
        try:
            return kind(text)
        except ValueError:
            raise self.wrong(f"unknown choice; one of {', '.join(kind)} is needed", key) from None

    def table(self, key: str) -> "TomlTable":
        """The table under a key."""
        return TomlTable(self.values[key], (*self.path, key), self.origin, self.lines)

    def tables(self, key: str) -> list["TomlTable"]:
        """The tables of an array."""
        values = self._list(key)
        return [
            TomlTable(value, (*self.path, key, str(index)), self.origin, self.lines)
            for index, value in enumerate(values, start=1)
        ]

    def meanings(self, key: str) -> tuple[Code, ...]:
        """A table from code to meaning, in the order of the codes."""
        table = self.table(key)
        for written in table.values:
            if not re.fullmatch(r"0|-?[1-9]\d{0,15}", written):
                raise table.wrong("a code is a whole number", written)
        codes = table.made(lambda: [Code(int(written), table.text(written)) for written in table.values])
        return tuple(sorted(codes, key=lambda code: code.code))

    def made(self, make: Callable[[], _T]) -> _T:
        """What `make` gives; the value's own complaint gets this table's address."""
        try:
            return make()
        except MalformedError as error:
            if str(error).startswith(f"{self.origin}: "):
                raise
            raise self.wrong(str(error)) from None

    def _list(self, key: str) -> list[object]:
        values = self.values[key]
        if not isinstance(values, list):
            raise self.wrong("a list in [ ] is needed", key)
        return values

    def _number(self, value: object, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
            raise self.wrong("a finite number is needed", key)
        return float(value)


def blanks(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Addresses of everything that a draft leaves to be filled in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if BLANK in key:
                yield (*path, key)
            yield from blanks(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value, start=1):
            yield from blanks(inner, (*path, str(index)) if isinstance(inner, dict) else path)
    elif isinstance(value, str) and BLANK in value:
        yield path


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line of each table header and key, as far as a look at each line can tell."""
    found: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"\[\[([^\[\]]+)\]\]", stripped):
            path = _parts(header[1])
            counts[path] = counts.get(path, 0) + 1
            table = (*path, str(counts[path]))
            found[table] = number
        elif header := re.match(r"\[([^\[\]]+)\]", stripped):
            table = _parts(header[1])
            parent = table[:1]
            if parent in counts:
                table = (*parent, str(counts[parent]), *table[1:])
            found[table] = number
        elif key := re.match(r"([A-Za-z0-9_\-.\"']+)\s*=", stripped):
            found.setdefault((*table, *_parts(key[1])), number)
    return found


def _parts(written: str) -> tuple[str, ...]:
    parts = re.findall(r"\"([^\"]*)\"|'([^']*)'|([^.\s\"']+)", written)
    return tuple(next((part for part in found if part), "") for found in parts)


def line_of(path: tuple[str, ...], lines: Mapping[tuple[str, ...], int]) -> str:
    """` (line 12)` of that key or of the nearest table around it; empty when unknown."""
    while path:
        if path in lines:
            return f" (line {lines[path]})"
        path = path[:-1]
    return ""


def dotted(path: tuple[str, ...]) -> str:
    """The address of a key as TOML writes it."""
    return ".".join(path)
