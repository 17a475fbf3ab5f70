"""A schema drafted from a table: column names and types, blanks for everything else.

A schema travels to all parties, so a draft must not carry what only the table knows: no value, bound, count or code of
it is written. Bounds and codes come from whoever knows the business, not from the rows.
"""

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Final, assert_never

from federated.table import BATCH_ROWS, table_texts
from federated.toml_table import BLANK
from privacy.errors import MalformedError

NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
WHOLE: Final = re.compile(r"[+-]?\d+\Z")
MOST_CODES: Final = 12  # whole numbers with at most so many distinct values look like codes


class Look(StrEnum):
    """What the cells of a column look like."""

    NUMBER = "number"
    INTEGER = "integer"
    CODE = "code"
    TEXT = "text"


def draft_schema(path: Path) -> str:
    """A commented schema file with blanks, for the columns of that table.

    MalformedError when the first line cannot be column names; a table without them would leak its first row.
    """
    with table_texts(path) as (names, rows):
        if not names or any(not name.strip() or NUMBER.match(name.strip()) for name in names):
            raise MalformedError(
                f"the first line of {path.name} must hold column names: none empty, none a number. Add a header line;"
                " a query's result must name its columns too"
            )
        if len(set(names)) != len(names):
            raise MalformedError(f"{path.name} has a column name twice; rename one")
        looks = _looks(rows, len(names))
    return _text(dict(zip(names, looks, strict=True)))


def _looks(rows: Iterator[list[str]], width: int) -> list[Look]:
    numeric, whole = [True] * width, [True] * width
    distinct: list[set[str]] = [set() for _ in range(width)]
    while batch := list(islice(rows, BATCH_ROWS)):
        for index, cells in enumerate(zip(*batch, strict=True)):
            held = {cell for cell in cells if cell}
            numeric[index] = numeric[index] and all(NUMBER.match(cell) for cell in held)
            whole[index] = whole[index] and all(WHOLE.match(cell) for cell in held)
            if len(distinct[index]) <= MOST_CODES:
                distinct[index] |= held
    looks = []
    for index in range(width):
        if not numeric[index]:
            looks.append(Look.TEXT)
        elif not whole[index]:
            looks.append(Look.NUMBER)
        else:
            looks.append(Look.CODE if len(distinct[index]) <= MOST_CODES else Look.INTEGER)
    return looks


def _text(looks: dict[str, Look]) -> str:
    ignored = ", ".join(_quoted(name) for name, look in looks.items() if look is Look.TEXT)
    tables = [_column(name, look) for name, look in looks.items()]
    return "\n".join([HEAD.replace("{ignored}", ignored), *(table for table in tables if table), TAIL])


def _column(name: str, look: Look) -> str:
    head = f'[columns.{_quoted(name)}]\ntitle = "{BLANK}"\n'
    missing = 'missing = []  # texts that mean "not known", e.g. ["", "NA"]; [] if every cell must be filled\n'
    match look:
        case Look.TEXT:
            return ""
        case Look.CODE:
            return f'{head}type = "code"\ncodes = {{ "{BLANK}" = "{BLANK}" }}  # every code and its meaning\n{missing}'
        case Look.NUMBER | Look.INTEGER:
            return (
                f'{head}type = "{look.value}"\nunit = "{BLANK}"\n'
                f'minimum = "{BLANK}"  # hard bounds: a cell outside is an error, not an outlier\n'
                f'maximum = "{BLANK}"\n'
                'special = {}  # numbers that are no amounts, e.g. { -1 = "never had a loan" }\n'
                f"{missing}"
            )
        case _:
            assert_never(look)


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


HEAD: Final = f"""\
# Draft of a schema: column names and types were read from a table, nothing else. Everything marked "{BLANK}" is yours.
# Take bounds, codes and edges from what you know of the business or from published figures, never from the rows:
# this file is shared with all parties.
schema_version = 1
name = "{BLANK}"  # lower-case letters, digits and _
title = "{BLANK}"
# Columns of the table that nobody needs. Those of text are here already; take out the one that names the person.
ignored = [{{ignored}}]

[source]
title = "{BLANK}"
origin = "{BLANK}"
licence = "{BLANK}"
attribution = "{BLANK}"

[subject]
from = "column"  # or "row_number", then without `column`
column = "{BLANK}"  # names the person; remove its table under [columns]

[outcome]
column = "{BLANK}"  # good or bad; remove its table under [columns]
bad = ["{BLANK}"]
good = ["{BLANK}"]
definition = "{BLANK}"  # in words: who counts as bad, and after how long

[encoding]
radius = "{BLANK}"  # square root of the number of characteristics, unless some have form "line"
centred_radius = "{BLANK}"  # about 0.6 of it

# Sensitive attributes are read for the fairness audit and are never an input. Example:
# [audit.sex]
# title = "Sex"
# column = "SEX"
# groups = [{{ title = "male", codes = [1] }}, {{ title = "female", codes = [2] }}]
[audit]
"""

TAIL: Final = f"""\
# One table per input of the score. `category` is credit_history, capacity, behaviour, obligations or characteristics.
# `by` is value, sum, mean, maximum, minimum, difference or count (with at_least, at_most or equal).
# `form` is knots, bins, line (with centre and spread) or codes (with groups, and nothing below `form`).
[[characteristics]]
id = "{BLANK}"
title = "{BLANK}"
reason = "{BLANK}"  # for people whose score it lowers
category = "{BLANK}"
risk = "none"  # or increasing, decreasing, as the value rises
of = ["{BLANK}"]
by = "value"
form = "knots"
transform = "identity"  # or log1p, signed_log, with transform_scale
minimum = "{BLANK}"
maximum = "{BLANK}"
knots = ["{BLANK}"]
edges = ["{BLANK}"]
"""
