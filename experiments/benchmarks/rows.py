"""What a benchmark says: one row a figure, with how it was measured, what was promised, and what others reach."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from federated.files import write_whole
from privacy.errors import UsageError


@dataclass(frozen=True, slots=True)
class Peer:
    """The same work done by another way in the same run; `value` is in the row's unit."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One figure. `value` None is unknown; `target` None promises nothing; an unknown figure meets no target.

    A row that is not `in_table` is written, but left out of the table for people.
    """

    name: str
    value: float | None
    unit: str
    setting: str
    target: float | None = None
    higher_is_better: bool = True
    peer: Peer | None = None
    in_table: bool = True

    def __post_init__(self) -> None:
        numbers = (self.value, self.target, None if self.peer is None else self.peer.value)
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError("a row's figures are finite numbers, or None for unknown")
        if not (self.name and self.unit and self.setting):
            raise ValueError("a row names its figure, its unit and what it measured")

    @property
    def met(self) -> bool | None:
        """Whether the figure is at its target or on the better side of it; None without a target."""
        if self.target is None:
            return None
        if self.value is None:
            return False
        return self.value >= self.target if self.higher_is_better else self.value <= self.target

    def to_dict(self) -> dict[str, object]:
        """The eight fields by name; all rows are written, whether in the table or not."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "setting": self.setting,
            "target": self.target,
            "higher_is_better": self.higher_is_better,
            "met": self.met,
            "peer": None if self.peer is None else {"name": self.peer.name, "value": self.peer.value},
        }


def rows_json(rows: Sequence[BenchRow]) -> str:
    """The rows as a JSON list."""
    return json.dumps([row.to_dict() for row in rows], indent=2, allow_nan=False) + "\n"


def write_rows(rows: Sequence[BenchRow], name: str, out: Path) -> Path:
    """Write `name`.json into the directory `out`, made if missing; the path written. UsageError if `out` is a file."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{out} is a file; give --out a directory.") from None
    path = out / f"{name}.json"
    write_whole(path, rows_json(rows).encode())
    return path


def table_of(found: Sequence[BenchRow], title: str) -> Group:
    """The rows as a table for people, and under it how they were measured; a missed target is said, not hidden."""
    rows = [row for row in found if row.in_table or row.met is False]
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("figure", ratio=5)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("beside it, in the same run", ratio=4)
    table.add_column("how", justify="right", no_wrap=True)
    notes = list(dict.fromkeys(row.setting for row in rows))
    for row in rows:
        sign = ">=" if row.higher_is_better else "<="
        table.add_row(
            escape(row.name),
            f"{_figure(row.value)} {row.unit}",
            "" if row.target is None else f"{sign} {_figure(row.target)}",
            {None: "", True: "[green]met[/green]", False: "[bold red]MISSED[/bold red]"}[row.met],
            "" if row.peer is None else f"{_figure(row.peer.value)} {escape(row.peer.name)}",
            str(notes.index(row.setting) + 1),
        )
    how = Table.grid(padding=(0, 1))
    how.add_column(justify="right", no_wrap=True)
    how.add_column()
    for number, note in enumerate(notes, start=1):
        how.add_row(f"{number}.", f"{escape(note)}.")
    more = len(found) - len(rows)
    rest = [f"{more} further figures are in the JSON file."] if more else []
    return Group(table, *rest, "How each was measured:", how)


def _figure(value: float | None) -> str:
    if value is None:
        return "unknown"
    if value != 0 and abs(value) < 0.0001:
        return f"{value:.1g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
