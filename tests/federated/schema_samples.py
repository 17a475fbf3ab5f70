"""A small schema with every kind of column, operation, transform and form, and strategies for rows that fit it."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from federated.schema import Schema
from federated.schema_toml import parse_schema

COLUMNS = ["key", "age", "limit", "late1", "late2", "late3", "bill1", "bill2", "home", "note", "bad"]

TEXT = """
schema_version = 1
name = "sample"
title = "A sample"
ignored = ["note"]

[source]
title = "made up"
origin = "this test"
licence = "none"
attribution = "nobody"

[subject]
from = "column"
column = "key"

[outcome]
column = "bad"
bad = [1, 2]
good = [0]
definition = "90 days past due within 12 months"

[encoding]
radius = 3.5
centred_radius = 2

[columns.age]
title = "Age"
type = "integer"
unit = "years"
minimum = 18
maximum = 120
special = {}
missing = [""]

[columns.limit]
title = "Limit"
type = "number"
unit = "EUR"
minimum = 1
maximum = 1e6
special = { -9 = "no limit agreed" }
missing = []

[columns.late1]
title = "Months late, latest month"
type = "integer"
unit = "months"
minimum = 0
maximum = 9
special = { -2 = "not used", -1 = "paid in full" }
missing = ["", "NA"]

[columns.late2]
title = "Months late, month before"
type = "integer"
unit = "months"
minimum = 0
maximum = 9
special = { -2 = "not used" }
missing = []

[columns.late3]
title = "Months late, two months before"
type = "integer"
unit = "months"
minimum = 0
maximum = 9
special = {}
missing = []

[columns.bill1]
title = "Latest bill"
type = "number"
unit = "EUR"
minimum = -1e6
maximum = 1e6
special = {}
missing = [""]

[columns.bill2]
title = "Bill before"
type = "number"
unit = "EUR"
minimum = -1e6
maximum = 1e6
special = {}
missing = []

[columns.home]
title = "Home"
type = "code"
codes = { 1 = "own", 2 = "rented", 3 = "free" }
missing = ["?"]

[audit.age]
title = "Age"
column = "age"
groups = [{ title = "below 30", at_least = 18, below = 30 }, { title = "30 and above", at_least = 30, below = 121 }]

[[characteristics]]
id = "latest"
title = "Months late, latest month"
reason = "Latest payment late"
category = "credit_history"
risk = "increasing"
of = ["late1"]
by = "value"
form = "bins"
transform = "identity"
minimum = 0
maximum = 9
edges = [1, 2, 3]

[[characteristics]]
id = "times_late"
title = "Times late"
reason = "Late several times"
category = "credit_history"
risk = "increasing"
of = ["late2", "late3"]
by = "count"
at_least = 2
form = "knots"
transform = "identity"
minimum = 0
maximum = 2
knots = [0, 1, 2]
edges = [1, 2]

[[characteristics]]
id = "times_unused"
title = "Share of months without use"
reason = "Not used"
category = "behaviour"
risk = "none"
of = ["late1", "late2"]
by = "count"
equal = [-2]
divided_by = 2
form = "line"
transform = "identity"
minimum = 0
maximum = 1
edges = [0.25, 0.75]
centre = 0.2
spread = 0.5

[[characteristics]]
id = "worst"
title = "Most months late"
reason = "Longest delay"
category = "credit_history"
risk = "increasing"
of = ["late1", "late2", "late3"]
by = "maximum"
form = "bins"
transform = "identity"
minimum = 0
maximum = 9
edges = [1, 4]

[[characteristics]]
id = "least"
title = "Fewest months late"
reason = "Never on time"
category = "credit_history"
risk = "increasing"
of = ["late1", "late2"]
by = "minimum"
form = "line"
transform = "log1p"
transform_scale = 2
minimum = 0
maximum = 9
edges = [1]
centre = 0.5
spread = 0.7

[[characteristics]]
id = "bills"
title = "Both bills together"
reason = "High bills"
category = "obligations"
risk = "increasing"
of = ["bill1", "bill2"]
by = "sum"
form = "knots"
transform = "signed_log"
transform_scale = 100
minimum = -10000
maximum = 100000
knots = [-1000, 0, 1000, 50000]
edges = [-500, 0, 500, 10000]

[[characteristics]]
id = "mean_bill"
title = "Usual bill as a share of the limit"
reason = "Limit in use"
category = "capacity"
risk = "increasing"
of = ["bill1", "bill2"]
by = "mean"
divided_by = ["limit"]
form = "knots"
transform = "identity"
minimum = 0
maximum = 2
knots = [0, 0.5, 1]
edges = [0.25, 0.75]

[[characteristics]]
id = "change"
title = "Change of the bill against both bills"
reason = "Bills rise"
category = "obligations"
risk = "none"
of = ["bill1", "bill2"]
by = "difference"
divided_by = ["bill1", "bill2"]
divisor_at_least = 100
form = "line"
transform = "identity"
minimum = -1
maximum = 1
edges = [0]
centre = 0
spread = 1

[[characteristics]]
id = "limit"
title = "Limit"
reason = "Low limit"
category = "capacity"
risk = "decreasing"
of = ["limit"]
by = "value"
form = "line"
transform = "log1p"
transform_scale = 1
minimum = 0
maximum = 1e6
edges = [1000]
centre = 7
spread = 2

[[characteristics]]
id = "home"
title = "Home"
reason = "Home"
category = "characteristics"
risk = "none"
of = ["home"]
by = "value"
form = "codes"
groups = [{ title = "own", codes = [1] }, { title = "rented or free", codes = [2, 3] }]
"""


def sample() -> Schema:
    """The schema of `TEXT`."""
    return parse_schema(TEXT, "sample.toml")


_late = st.integers(0, 9).map(str)
_bill = st.floats(-1e6, 1e6).map(lambda value: f"{value:.6g}")


@st.composite
def rows(draw: st.DrawFn, most: int = 12) -> list[list[str]]:
    """Rows of texts that fit the schema, with missing and special cells."""
    count = draw(st.integers(1, most))
    return [
        [
            f"s{number}",
            draw(st.one_of(st.just(""), st.integers(18, 120).map(str))),
            draw(st.one_of(st.just("-9"), st.floats(1, 1e6).map(lambda value: f"{value:.6g}"))),
            draw(st.one_of(st.sampled_from(["", "NA", "-1", "-2"]), _late)),
            draw(st.one_of(st.just("-2"), _late)),
            draw(_late),
            draw(st.one_of(st.just(""), _bill)),
            draw(_bill),
            draw(st.sampled_from(["1", "2", "3", "?"])),
            draw(st.text('abc ,"\n', max_size=4)),
            draw(st.sampled_from(["0", "1", "2"])),
        ]
        for number in range(count)
    ]


def write(path: Path, lines: Sequence[Sequence[str]], *, end: str = "\n", header: Sequence[str] = COLUMNS) -> Path:
    """The lines as CSV, every cell quoted where it must be, by the rule of RFC 4180 and not by the csv module."""

    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text

    path.write_bytes("".join(",".join(cell(text) for text in line) + end for line in [header, *lines]).encode())
    return path
