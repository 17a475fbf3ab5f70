"""Cells as numbers: texts in plain decimal notation, and typed cells that mean what such a text would mean.

A typed cell that is empty (NULL) is treated as the empty text: missing where the schema lists "" as a missing marker,
wrong elsewhere, and never 0.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federated.tables.raw_table import Vector

Flags = NDArray[np.bool_]

NUMBER_LETTERS: Final = frozenset("0123456789+-.eE")
_PLAIN: Final = frozenset({int, float, bool, type(None)})


def parse_numbers(texts: Sequence[str], missing: Sequence[str]) -> tuple[Vector, Flags]:
    """The cells as numbers and which of them are none; a missing marker is NaN and not wrong.

    Only plain decimal notation counts: `nan`, `inf`, `1_000`, spaces, numbers past the float range are wrong.
    """
    markers = frozenset(missing)
    absent = np.fromiter(map(markers.__contains__, texts), np.bool_, len(texts)) if markers else None
    held = ["0" if text in markers else text for text in texts] if markers else texts
    if set("".join(held)) <= NUMBER_LETTERS and "" not in held:
        try:
            values = np.fromiter(map(float, held), np.float64, len(held))
        except ValueError:
            pass
        else:
            wrong = ~np.isfinite(values)
            values[wrong if absent is None else wrong | absent] = np.nan
            return values, wrong
    values = np.full(len(texts), np.nan)
    wrong = np.zeros(len(texts), dtype=np.bool_)
    for index, text in enumerate(texts):
        if text in markers:
            continue
        value = _number(text)
        wrong[index] = not np.isfinite(value)
        values[index] = value if np.isfinite(value) else np.nan
    return values, wrong


def mark_missing(values: Vector, empty: Flags, missing: Sequence[str]) -> tuple[Vector, Flags]:
    """Typed numbers as `parse_numbers` gives texts. `empty` says where there was none; `values` is written to.

    A missing marker that is a number, such as "-9", stands for every cell of that value, however it is written.
    """
    marks = [mark for mark in (_number(text) for text in missing) if np.isfinite(mark)]
    wrong = ~np.isfinite(values)
    # What stands in `values` where the cell is empty is nobody's number.
    wrong[empty] = "" not in missing
    absent = empty | np.isin(values, marks) if marks else empty
    values[wrong | absent] = np.nan
    return values, wrong


def numbers_of(cells: Sequence[object], missing: Sequence[str]) -> tuple[Vector, Flags]:
    """As `parse_numbers`, for cells of any type, as a database driver gives them.

    What is neither number nor text, such as a date or bytes, is no number.
    """
    kinds = set(map(type, cells))
    if kinds <= {str, type(None)}:
        return parse_numbers([text if isinstance(text, str) else "" for text in cells], missing)
    values, empty = _typed(cells, kinds), np.zeros(len(cells), dtype=np.bool_)
    if type(None) in kinds:
        empty[:] = [cell is None for cell in cells]
    values, wrong = mark_missing(values, empty, missing)
    if str in kinds:
        places = [place for place, cell in enumerate(cells) if isinstance(cell, str)]
        values[places], wrong[places] = parse_numbers([str(cells[place]) for place in places], missing)
    return values, wrong


def text_of(cell: object) -> str:
    """The cell as CSV would hold it: empty for NULL, and a mark that is no number for what is no number or text."""
    match cell:
        case None:
            return ""
        case bool():
            return str(int(cell))
        case str():
            return cell
        case int() | float() | Decimal():
            return str(cell)
        case _:
            return "?"


def _typed(cells: Sequence[object], kinds: set[type]) -> Vector:
    """Each cell's number, NaN where it has none."""
    if kinds <= _PLAIN:
        try:
            return np.array(cells, dtype=np.float64)
        except OverflowError:
            pass
    return np.fromiter((_value(cell) for cell in cells), np.float64, len(cells))


def _value(cell: object) -> float:
    match cell:
        case int() | float() | Decimal():
            return _or_nan(float, cell)
        case _:
            return np.nan


def _number(text: str) -> float:
    return _or_nan(float, text) if set(text) <= NUMBER_LETTERS else np.nan


def _or_nan(make: Callable[..., float], cell: object) -> float:
    try:
        return make(cell)
    except (ValueError, OverflowError):
        return np.nan
