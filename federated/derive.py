"""Named operations from raw cells to the value of a characteristic: a small closed set, no formulas."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MalformedError

Json: TypeAlias = "str | float | int | bool | list[Json] | dict[str, Json] | None"
Vector: TypeAlias = NDArray[np.float64]

# Within these no operation below can overflow: the encoding of in-bounds cells is finite.
LARGEST_AMOUNT: Final = 1e15
SMALLEST_DIVISOR: Final = 1e-6


class Derivation(StrEnum):
    """The operation over the cells of `of`."""

    VALUE = "value"
    SUM = "sum"
    MEAN = "mean"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"
    DIFFERENCE = "difference"
    COUNT = "count"


class Comparison(StrEnum):
    """What `count` counts."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class Derive:
    """A named operation over raw columns, optionally divided by a number and by the sum of other columns.

    Cells with a special code hold no amount: `mean`, `maximum` and `minimum` pass them over, `count` looks at
    them only with `equal`, `sum` and `difference` have no value then. A missing cell leaves `sum`,
    `difference` and `count` without a value; it never counts as 0.
    """

    of: tuple[str, ...]
    by: Derivation
    comparison: Comparison | None
    compared_with: tuple[float, ...]
    divided_by: tuple[str, ...]
    divisor: float
    divisor_at_least: float | None

    def __post_init__(self) -> None:
        if not self.of or len(set(self.of)) != len(self.of):
            raise MalformedError("`of` needs at least one column, and each only once")
        wanted = {Derivation.VALUE: 1, Derivation.DIFFERENCE: 2}.get(self.by)
        if wanted is not None and len(self.of) != wanted:
            raise MalformedError(f"by = {self.by.value!r} needs exactly {wanted} column(s) in `of`")
        if (self.by is Derivation.COUNT) != (self.comparison is not None):
            raise MalformedError("by = 'count' needs one of at_least, at_most, equal; no other operation has one")
        if self.comparison in (Comparison.AT_LEAST, Comparison.AT_MOST) and len(self.compared_with) != 1:
            raise MalformedError("at_least and at_most compare with one number")
        if self.comparison is Comparison.EQUAL and not self.compared_with:
            raise MalformedError("`equal` needs at least one number")
        if not SMALLEST_DIVISOR <= self.divisor <= LARGEST_AMOUNT:
            raise MalformedError(f"the number to divide by must be at least {SMALLEST_DIVISOR:g}")
        if self.divisor_at_least is not None and not (
            self.divided_by and SMALLEST_DIVISOR <= self.divisor_at_least <= LARGEST_AMOUNT
        ):
            raise MalformedError(
                f"`divisor_at_least` must be at least {SMALLEST_DIVISOR:g} and belongs to division by columns"
            )

    @property
    def reads_special(self) -> bool:
        """Whether special codes of `of` have a meaning here instead of being no value."""
        return self.by in (Derivation.VALUE, Derivation.COUNT)

    def to_dict(self) -> dict[str, Json]:
        """These keys of the characteristic's table."""
        out: dict[str, Json] = {"of": list[Json](self.of), "by": self.by.value}
        if self.comparison is Comparison.EQUAL:
            out["equal"] = [plain(value) for value in self.compared_with]
        elif self.comparison is not None:
            out[self.comparison.value] = plain(self.compared_with[0])
        if self.divided_by:
            out["divided_by"] = list[Json](self.divided_by)
        elif self.divisor != 1:
            out["divided_by"] = plain(self.divisor)
        if self.divisor_at_least is not None:
            out["divisor_at_least"] = plain(self.divisor_at_least)
        return out


def derived(derive: Derive, cells: Mapping[str, Vector], special: Mapping[str, tuple[int, ...]]) -> Vector:
    """The derived value of every row, shape (n,); NaN where there is none (missing or special).

    `cells` holds raw columns of shape (n,) with NaN for missing; `special` the special codes of each column.
    """
    raw = [cells[name] for name in derive.of]
    if derive.comparison is not None:
        value = _count(derive.comparison, derive.compared_with, raw, [special[name] for name in derive.of])
    else:
        amounts = [_amounts(cells[name], special[name]) for name in derive.of]
        value = _combined(derive.by, amounts)
    if derive.divisor != 1:
        value = value / derive.divisor
    if derive.divided_by:
        below = _added([_amounts(cells[name], special[name]) for name in derive.divided_by])
        if derive.divisor_at_least is not None:
            below = np.maximum(below, derive.divisor_at_least)
        value = value / below
    return value


def _amounts(cells: Vector, special: tuple[int, ...]) -> Vector:
    if not special:
        return cells
    amounts = cells.copy()
    for code in special:
        amounts[cells == code] = np.nan
    return amounts


def _added(columns: list[Vector]) -> Vector:
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total


def _combined(by: Derivation, amounts: list[Vector]) -> Vector:
    match by:
        case Derivation.VALUE:
            return amounts[0]
        case Derivation.SUM:
            return _added(amounts)
        case Derivation.DIFFERENCE:
            return amounts[0] - amounts[1]
        case Derivation.MEAN:
            held = _added([np.isfinite(column).astype(np.float64) for column in amounts])
            total = _added([np.nan_to_num(column) for column in amounts])
            return np.where(held > 0, total / np.maximum(held, 1), np.nan)
        case Derivation.MAXIMUM:
            return np.asarray(np.fmax.reduce(amounts))
        case Derivation.MINIMUM:
            return np.asarray(np.fmin.reduce(amounts))
        case Derivation.COUNT:
            raise AssertionError("count is done by _count")
        case _:
            assert_never(by)


def _count(
    comparison: Comparison, wanted: tuple[float, ...], raw: list[Vector], special: list[tuple[int, ...]]
) -> Vector:
    held = []
    for cells, codes in zip(raw, special, strict=True):
        match comparison:
            case Comparison.AT_LEAST:
                hit = _amounts(cells, codes) >= wanted[0]
            case Comparison.AT_MOST:
                hit = _amounts(cells, codes) <= wanted[0]
            case Comparison.EQUAL:
                hit = np.isin(cells, wanted)
            case _:
                assert_never(comparison)
        held.append(np.where(np.isnan(cells), np.nan, hit.astype(np.float64)))
    return _added(held)


def plain(value: float) -> float | int:
    """The number as canonical JSON writes it: whole numbers without a fraction, no minus zero."""
    return int(value) if value == int(value) and abs(value) < 2**53 else value
