"""One characteristic of a scorecard: attributes, their points, and how to find a raw row's attribute."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from federated.attributes import Attribute, AttributeKind, attribute_index, check_attributes
from federated.characteristics import Category
from federated.derive import Comparison, Derivation, Derive, Json, Vector, plain
from privacy.errors import MalformedError

LARGEST_POINTS: Final = 1_000_000
Points = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ScoredCharacteristic:
    """One characteristic's table: `points[i]` are those of `attributes[i]`; with all it takes to find the
    attribute.

    `special_of` holds the special codes of every raw column that `derive` reads.
    """

    id: str
    title: str
    reason: str
    category: Category
    derive: Derive
    special_of: Mapping[str, tuple[int, ...]]
    attributes: tuple[Attribute, ...]
    points: tuple[int, ...]

    def __post_init__(self) -> None:
        check_attributes(self.attributes)
        if len(self.points) != len(self.attributes):
            raise MalformedError("a characteristic needs points for each of its attributes")
        if any(abs(points) > LARGEST_POINTS for points in self.points):
            raise MalformedError(f"points must lie within +-{LARGEST_POINTS}")
        if set(self.special_of) != {*self.derive.of, *self.derive.divided_by}:
            raise MalformedError("special codes must be given for exactly the columns of a characteristic")

    @property
    def best_points(self) -> int:
        """The most points a known value can have; not being known is nothing to aim for."""
        return max(
            points
            for attribute, points in zip(self.attributes, self.points, strict=True)
            if attribute.kind is not AttributeKind.MISSING
        )

    def attribute_of(self, cells: Mapping[str, Vector]) -> Points:
        """Position of every row's attribute, shape (n,)."""
        return attribute_index(cells, self.derive, self.special_of, self.attributes)

    def to_dict(self) -> dict[str, Json]:
        """This characteristic in the published document."""
        return {
            "id": self.id,
            "title": self.title,
            "reason": self.reason,
            "category": self.category.value,
            "derive": self.derive.to_dict(),
            "special": {name: list[Json](codes) for name, codes in self.special_of.items()},
            "attributes": [
                {
                    "kind": attribute.kind.value,
                    "title": attribute.title,
                    "at_least": None if attribute.at_least is None else plain(attribute.at_least),
                    "below": None if attribute.below is None else plain(attribute.below),
                    "codes": list[Json](attribute.codes),
                    "points": points,
                }
                for attribute, points in zip(self.attributes, self.points, strict=True)
            ],
        }


class _Derive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    of: list[str]
    by: Derivation
    at_least: float | msgspec.UnsetType = msgspec.UNSET
    at_most: float | msgspec.UnsetType = msgspec.UNSET
    equal: list[float] | msgspec.UnsetType = msgspec.UNSET
    divided_by: float | list[str] | msgspec.UnsetType = msgspec.UNSET
    divisor_at_least: float | msgspec.UnsetType = msgspec.UNSET

    def derive(self) -> Derive:
        compared: list[tuple[Comparison, tuple[float, ...]]] = []
        if not isinstance(self.at_least, msgspec.UnsetType):
            compared.append((Comparison.AT_LEAST, (self.at_least,)))
        if not isinstance(self.at_most, msgspec.UnsetType):
            compared.append((Comparison.AT_MOST, (self.at_most,)))
        if not isinstance(self.equal, msgspec.UnsetType):
            compared.append((Comparison.EQUAL, tuple(self.equal)))
        if len(compared) > 1:
            raise MalformedError("a characteristic compares in two ways")
        return Derive(
            of=tuple(self.of),
            by=self.by,
            comparison=compared[0][0] if compared else None,
            compared_with=compared[0][1] if compared else (),
            divided_by=tuple(self.divided_by) if isinstance(self.divided_by, list) else (),
            divisor=self.divided_by if isinstance(self.divided_by, (int, float)) else 1.0,
            divisor_at_least=None if isinstance(self.divisor_at_least, msgspec.UnsetType) else self.divisor_at_least,
        )


class _Attribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: AttributeKind
    title: str
    at_least: float | None
    below: float | None
    codes: list[int]
    points: int


class CharacteristicDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A characteristic as it stands in a published scorecard: exactly these keys."""

    id: str
    title: str
    reason: str
    category: Category
    derive: _Derive
    special: dict[str, list[int]]
    attributes: list[_Attribute]

    def scored(self) -> ScoredCharacteristic:
        """The characteristic written here; MalformedError when its parts contradict each other."""
        return ScoredCharacteristic(
            id=self.id,
            title=self.title,
            reason=self.reason,
            category=self.category,
            derive=self.derive.derive(),
            special_of={name: tuple(codes) for name, codes in self.special.items()},
            attributes=tuple(Attribute(a.kind, a.title, a.at_least, a.below, tuple(a.codes)) for a in self.attributes),
            points=tuple(a.points for a in self.attributes),
        )
