"""Characteristics: what one input of a score is called, how it is derived, and its public constants."""

import itertools
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

import numpy as np

from federated.derive import LARGEST_AMOUNT, SMALLEST_DIVISOR, Derivation, Derive, Json, Vector, plain
from privacy.errors import MalformedError

MOST_POINTS: Final = 40  # knots or edges of one characteristic: past that it is no longer a table for people


class Category(StrEnum):
    """What a characteristic is about; consent is given by category. Nothing about other people is in it."""

    CREDIT_HISTORY = "credit_history"
    CAPACITY = "capacity"
    BEHAVIOUR = "behaviour"
    OBLIGATIONS = "obligations"
    CHARACTERISTICS = "characteristics"


class Transform(StrEnum):
    """A fixed increasing function of the derived value."""

    IDENTITY = "identity"
    LOG1P = "log1p"
    SIGNED_LOG = "signed_log"


class Form(StrEnum):
    """How a value becomes columns of size about 1.

    `line`: one column, (t - centre) / spread of the transformed value t.
    `knots`: one column per knot, straight lines between knots (hat functions), so the columns add up to 1.
    `bins`: one column per interval between edges, 1 inside and 0 outside.
    `codes`: one column per group of codes.
    """

    LINE = "line"
    KNOTS = "knots"
    BINS = "bins"
    CODES = "codes"


class Risk(StrEnum):
    """Which way the probability of bad is expected to go as the value rises."""

    INCREASING = "increasing"
    DECREASING = "decreasing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CodeGroup:
    """Codes that count as one attribute."""

    title: str
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.codes:
            raise MalformedError("a group needs a title and at least one code")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The public constants of an amount: all in units of the derived value, before the transform.

    Values are clipped to [minimum, maximum]. `edges` part the range into the attributes of the scorecard; an
    edge belongs to the attribute above it.
    `centre` and `spread` (form `line`) are in units of the transformed value.
    """

    transform: Transform
    transform_scale: float
    minimum: float
    maximum: float
    edges: tuple[float, ...]
    centre: float
    spread: float
    knots: tuple[float, ...]

    def __post_init__(self) -> None:
        if not -LARGEST_AMOUNT <= self.minimum < self.maximum <= LARGEST_AMOUNT:
            raise MalformedError(f"minimum must be below maximum, and both within +-{LARGEST_AMOUNT:g}")
        if not SMALLEST_DIVISOR <= self.transform_scale <= LARGEST_AMOUNT:
            raise MalformedError(f"transform_scale must be at least {SMALLEST_DIVISOR:g}")
        if self.transform is Transform.LOG1P and self.minimum < 0:
            raise MalformedError("log1p needs a minimum of at least 0; signed_log takes negative amounts too")
        if not (abs(self.centre) <= LARGEST_AMOUNT and SMALLEST_DIVISOR <= self.spread <= LARGEST_AMOUNT):
            raise MalformedError(f"centre must be finite and spread at least {SMALLEST_DIVISOR:g}")
        for name, points in (("edges", self.edges), ("knots", self.knots)):
            if any(left >= right for left, right in itertools.pairwise(points)):
                raise MalformedError(f"{name} must rise strictly")
            if len(points) > MOST_POINTS:
                raise MalformedError(f"{len(points)} {name}; at most {MOST_POINTS} fit a table that people read")
            lowest, highest = (points[0], points[-1]) if points else (self.maximum, self.minimum)
            if points and (lowest < self.minimum or highest > self.maximum):
                raise MalformedError(f"{name} must lie within [minimum, maximum]")
            if not (np.diff(self.transformed(np.array(points, dtype=np.float64))) > 0).all():
                raise MalformedError(f"two {name} are so close that the transform makes them one")

    def transformed(self, values: Vector) -> Vector:
        """The transformed values, clipped to the range first; NaN stays NaN."""
        clipped = np.clip(values, self.minimum, self.maximum)
        match self.transform:
            case Transform.IDENTITY:
                return clipped
            case Transform.LOG1P:
                return np.log1p(clipped / self.transform_scale)
            case Transform.SIGNED_LOG:
                return np.asarray(np.sign(clipped) * np.log1p(np.abs(clipped) / self.transform_scale))
            case _:
                assert_never(self.transform)

    def intervals(self, *, whole: bool) -> list[tuple[float, float]]:
        """Lowest and highest value of each attribute, in order; of whole numbers only where `whole`.

        With edges 1 and 3 from 0 to 6 and whole numbers: (0, 0), (1, 2), (3, 6).
        """
        bounds = [self.minimum, *self.edges, self.maximum]
        out = list(itertools.pairwise(bounds))
        if whole:
            # An edge is the first value above it, so the last whole number below is one less than its
            # ceiling.
            inner = [(math.ceil(low), math.ceil(high) - 1) for low, high in out[:-1]]
            within = [*inner, (math.ceil(out[-1][0]), math.floor(out[-1][1]))]
            out = [pair if pair[0] <= pair[1] else old for pair, old in zip(within, out, strict=True)]
        return out

    def representatives(self, *, whole: bool) -> Vector:
        """Per attribute the middle of its interval on the transformed scale, shape (edges + 1,).

        A public stand-in for every value in the interval: they all get one number of points.
        """
        ends = self.transformed(np.array(self.intervals(whole=whole), dtype=np.float64))
        return (ends[:, 0] + ends[:, 1]) / 2


@dataclass(frozen=True, slots=True)
class Characteristic:
    """One input of a score: what it is called for people, how it is derived, and its public attributes."""

    id: str
    title: str
    reason: str
    category: Category
    risk: Risk
    derive: Derive
    form: Form
    numbers: Numbers | None
    groups: tuple[CodeGroup, ...]

    def __post_init__(self) -> None:
        if not re.match(r"[a-z][a-z0-9_]{0,62}\Z", self.id):
            raise MalformedError("an id is lower-case letters, digits and _, at most 63, first a letter")
        if not self.title.strip() or not self.reason.strip():
            raise MalformedError("`title` and `reason` must not be empty: people read them")
        if (self.form is Form.CODES) != (self.numbers is None) or (self.form is Form.CODES) != bool(self.groups):
            raise MalformedError("form codes has groups and no range; the other forms have a range and no groups")
        if self.form is Form.CODES and self.derive.by is not Derivation.VALUE:
            raise MalformedError("form codes needs by = 'value'")
        if self.form is Form.CODES and (self.derive.divided_by or self.derive.divisor != 1):
            raise MalformedError("form codes cannot be divided")
        if self.numbers is not None and (self.form is Form.KNOTS) != (len(self.numbers.knots) >= 2):
            raise MalformedError("form knots needs at least two knots; other forms have none")
        if self.form is Form.BINS and self.numbers is not None and not self.numbers.edges:
            raise MalformedError("form bins needs at least one edge")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Raw columns this characteristic reads."""
        return (*self.derive.of, *self.derive.divided_by)

    def to_dict(self) -> dict[str, Json]:
        """This `[[characteristics]]` table."""
        out: dict[str, Json] = {
            "id": self.id,
            "title": self.title,
            "reason": self.reason,
            "category": self.category.value,
            "risk": self.risk.value,
            **self.derive.to_dict(),
            "form": self.form.value,
        }
        if self.numbers is None:
            out["groups"] = [{"title": g.title, "codes": list[Json](g.codes)} for g in self.groups]
            return out
        numbers = self.numbers
        out |= {
            "transform": numbers.transform.value,
            "minimum": plain(numbers.minimum),
            "maximum": plain(numbers.maximum),
            "edges": [plain(edge) for edge in numbers.edges],
        }
        if numbers.transform is not Transform.IDENTITY:
            out["transform_scale"] = plain(numbers.transform_scale)
        if self.form is Form.LINE:
            out |= {"centre": plain(numbers.centre), "spread": plain(numbers.spread)}
        if self.form is Form.KNOTS:
            out["knots"] = [plain(knot) for knot in numbers.knots]
        return out
