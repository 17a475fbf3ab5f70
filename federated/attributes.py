"""Attributes: the rows of a characteristic's table. Every in-bounds value falls in exactly one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from federated.derive import Derive, Vector, derived
from privacy.errors import MalformedError


class AttributeKind(StrEnum):
    """What makes a value fall in an attribute. In a table the kinds stand in this order."""

    INTERVAL = "interval"
    CODES = "codes"
    SPECIAL = "special"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: an interval [at_least, below) of the derived value, a group of codes, a special code, or
    missing. None as a bound means unbounded on that side.
    """

    kind: AttributeKind
    title: str
    at_least: float | None
    below: float | None
    codes: tuple[int, ...]


def attribute_index(
    cells: Mapping[str, Vector],
    derive: Derive,
    special_of: Mapping[str, tuple[int, ...]],
    attributes: Sequence[Attribute],
) -> NDArray[np.int64]:
    """Position in `attributes` of every row, shape (n,).

    `attributes` must be as `check_attributes` wants them; then every in-bounds row has exactly one.
    """
    intervals = [attribute for attribute in attributes if attribute.kind is AttributeKind.INTERVAL]
    first = cells[derive.of[0]]
    index: NDArray[np.int64]
    if intervals:
        value = derived(derive, cells, special_of)
        edges = np.array([interval.at_least for interval in intervals[1:]], dtype=np.float64)
        index = np.searchsorted(edges, value, side="right").astype(np.int64)
        none = np.isnan(value)
    else:
        index = np.zeros(first.shape, dtype=np.int64)
        none = np.isnan(first)
    for position, attribute in enumerate(attributes):
        if attribute.kind is AttributeKind.MISSING:
            index[none] = position
    for position, attribute in enumerate(attributes):
        for code in attribute.codes:  # of a group or a special code: a special code comes before missing
            index[first == code] = position
    return index


def check_attributes(attributes: Sequence[Attribute]) -> None:
    """MalformedError unless the attributes part all values: intervals without gaps from end to end or groups
    of codes, then special codes, then at most one for missing; no code twice."""
    kinds = [attribute.kind for attribute in attributes]
    if kinds != sorted(kinds, key=list(AttributeKind).index) or kinds.count(AttributeKind.MISSING) > 1:
        raise MalformedError("attributes must stand in the order intervals or codes, special codes, missing")
    intervals = [attribute for attribute in attributes if attribute.kind is AttributeKind.INTERVAL]
    if bool(intervals) == (AttributeKind.CODES in kinds):
        raise MalformedError("a characteristic has either intervals or groups of codes")
    if intervals:
        edges = [interval.at_least for interval in intervals]
        inner = [edge for edge in edges[1:] if edge is not None]
        follows = [interval.below for interval in intervals] == [*edges[1:], None] and edges[0] is None
        if not follows or len(inner) != len(edges) - 1 or inner != sorted(set(inner)):
            raise MalformedError("intervals must follow each other without gap or overlap, open at both ends")
    codes = [code for attribute in attributes for code in attribute.codes]
    wants_codes = [a.kind in (AttributeKind.CODES, AttributeKind.SPECIAL) for a in attributes]
    if len(set(codes)) != len(codes) or wants_codes != [bool(a.codes) for a in attributes]:
        raise MalformedError("codes belong to groups and special codes, each code to exactly one of them")


def interval_title(at_least: float | None, below: float | None, held: tuple[float, float], *, whole: bool) -> str:
    """An interval for people: `2`, `3 to 5`, `1,000 to below 5,000`, `6 or more`."""
    if at_least is None and below is None:
        return "any amount"
    if whole and below is not None and held[0] == held[1]:
        return _amount(held[0])
    if at_least is None and below is not None:
        return f"below {_amount(below)}"
    if below is None:
        return f"{_amount(held[0])} or more"
    if whole:
        return f"{_amount(held[0])} to {_amount(held[1])}"
    return f"{_amount(held[0])} to below {_amount(below)}"


def _amount(value: float) -> str:
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.6f}".rstrip("0") if abs(value) >= 1e-3 else f"{value:g}"
