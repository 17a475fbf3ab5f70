"""A few hundred lines of the embedded data as a table of its own, with customer numbers that nobody could mistake."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).parent.parent.parent / "experiments" / "data" / "taiwan_default"
SCHEMA = DATA / "schema.toml"
Lines = list[list[str]]


def customer(line: int) -> str:
    """The customer number of a line, counted from 0."""
    return f"KD-{line * 7919 % 100_003:06d}-Q"


def small_table(path: Path, lines: int, change: Callable[[Lines], None] | None = None) -> Path:
    """The first `lines` lines at `path`; `change` may spoil them, the header being line 0."""
    with gzip.open(DATA / "data.csv.gz", "rt", encoding="utf-8", newline="") as file:
        header, *rows = [row for row, _ in zip(csv.reader(file), range(lines + 1), strict=False)]
    table = [header, *([customer(k), *row[1:]] for k, row in enumerate(rows))]
    if change is not None:
        change(table)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    return path
