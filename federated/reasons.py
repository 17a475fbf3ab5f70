"""Reason codes: why a score is not higher, at most four, from characteristics that were actually scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from federated.attributes import AttributeKind
from federated.characteristics import Category
from federated.points import ScoredCharacteristic
from federated.scorecard import Scorecard
from privacy.errors import MalformedError

MOST_REASONS: Final = 4


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """One reason: the characteristic, its source category, a sentence for people, and the points it cost."""

    characteristic: str
    category: Category
    text: str
    points_lost: int


def reason_codes(
    scorecard: Scorecard, points_row: Sequence[int | None], most: int = MOST_REASONS
) -> tuple[ReasonCode, ...]:
    """What cost most points against the best attainable attribute, most costly first.

    `points_row` has one entry per characteristic, in the scorecard's order; None where nobody holds it, and
    what was not scored is never a reason. Ties keep the scorecard's order. Requires 1 <= most <= 4.
    """
    if not 1 <= most <= MOST_REASONS:
        raise ValueError(f"most must be from 1 to {MOST_REASONS}")
    if len(points_row) != len(scorecard.characteristics):
        raise MalformedError(
            f"{len(points_row)} characteristics were scored, the card has {len(scorecard.characteristics)};"
            " score again with this scorecard"
        )
    found = [
        ReasonCode(c.id, c.category, _text(c, int(points)), c.best_points - int(points))
        for c, points in zip(scorecard.characteristics, points_row, strict=True)
        if points is not None and c.best_points > int(points)
    ]
    return tuple(sorted(found, key=lambda reason: -reason.points_lost)[:most])


def _text(characteristic: ScoredCharacteristic, points: int) -> str:
    """The characteristic's reason; that it is not known, where only that explains the points."""
    kinds = {
        attribute.kind
        for attribute, own in zip(characteristic.attributes, characteristic.points, strict=True)
        if own == points
    }
    if kinds == {AttributeKind.MISSING}:
        return f"{characteristic.title}: not known"
    return characteristic.reason
