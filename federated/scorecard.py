"""The scorecard: integer points per attribute, made from a linear model, complete in itself.

Score = base points + the points of each characteristic; higher is safer. Points are centred: a person at the
average of the development sample has 0 points on average in each characteristic, so a characteristic that
nobody holds counts 0 and saying no never lowers the expected score.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from federated.derive import Json, Vector, plain
from federated.encoder import Encoder
from federated.model import LinearModel, probability_of
from federated.points import LARGEST_POINTS, CharacteristicDocument, Points, ScoredCharacteristic
from federated.schema import canonical_json
from federated.table import RawTable
from privacy.errors import MalformedError

FORMAT: Final = "fedcredit scorecard"
VERSION: Final = 1
NEUTRAL_POINTS: Final = 0  # of a characteristic that nobody holds: its average over the development sample
BLOCK_ROWS: Final = 32_768  # rows scored at a time, so that a block stays in the processor's cache


@dataclass(frozen=True, slots=True)
class PointScale:
    """Good:bad odds are `base_good_bad_odds` at `base_score` and double every `points_to_double_odds`.

    Score = offset + factor * ln(good:bad odds), factor = points_to_double_odds / ln 2. `minimum` and
    `maximum` are the range of publication: scores beyond are published as its ends, and nothing else uses
    them.
    """

    base_score: float
    base_good_bad_odds: float
    points_to_double_odds: float
    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        numbers = (self.base_score, self.base_good_bad_odds, self.points_to_double_odds)
        if not all(abs(number) <= LARGEST_POINTS for number in (*numbers, self.minimum, self.maximum)):
            raise MalformedError(f"the point scale needs numbers within +-{LARGEST_POINTS}")
        if not (self.base_good_bad_odds >= 1e-6 and self.points_to_double_odds >= 1):
            raise MalformedError("base_good_bad_odds must be above 0 and points_to_double_odds at least 1")
        if not self.minimum < self.maximum or self.minimum % 1 or self.maximum % 1:
            raise MalformedError("the scale's minimum must be below its maximum, both whole numbers")

    @property
    def factor(self) -> float:
        """Points per unit of ln(good:bad odds)."""
        return self.points_to_double_odds / math.log(2)

    def score_of(self, log_odds_of_bad: float) -> float:
        """The unrounded score, not held to the range of publication."""
        return self.base_score - self.factor * (log_odds_of_bad + math.log(self.base_good_bad_odds))

    def log_odds_of_bad(self, scores: Vector) -> Vector:
        """The inverse of `score_of`, shape (n,)."""
        return np.asarray((self.base_score - scores) / self.factor - math.log(self.base_good_bad_odds))

    def to_dict(self) -> dict[str, Json]:
        """The five numbers by name."""
        return {
            "base_score": plain(self.base_score),
            "base_good_bad_odds": plain(self.base_good_bad_odds),
            "points_to_double_odds": plain(self.points_to_double_odds),
            "minimum": plain(self.minimum),
            "maximum": plain(self.maximum),
        }


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The published table. `base_points` is the score of an average person before rounding to the range."""

    schema_digest: str
    scale: PointScale
    base_points: int
    characteristics: tuple[ScoredCharacteristic, ...]

    def __post_init__(self) -> None:
        if not self.characteristics:
            raise MalformedError("a scorecard needs at least one characteristic")
        ids = [characteristic.id for characteristic in self.characteristics]
        if len(set(ids)) != len(ids) or abs(self.base_points) > LARGEST_POINTS:
            raise MalformedError("a scorecard needs distinct characteristics and base points within bounds")

    @property
    def categories(self) -> frozenset[str]:
        """Categories a consent record must cover for the whole score."""
        return frozenset(characteristic.category.value for characteristic in self.characteristics)

    def attributes(self, table: RawTable) -> Points:
        """Position of each row's attribute in each characteristic, shape (n, characteristics)."""
        out = np.empty((len(table.subjects), len(self.characteristics)), dtype=np.int64)
        for rows in _blocks(len(table.subjects)):
            cells = {name: column[rows] for name, column in table.columns.items()}
            for position, characteristic in enumerate(self.characteristics):
                out[rows, position] = characteristic.attribute_of(cells)
        return out

    def points(self, table: RawTable) -> Points:
        """Points of each row in each characteristic, shape (n, characteristics)."""
        out = self.attributes(table)
        for position, characteristic in enumerate(self.characteristics):
            out[:, position] = np.asarray(characteristic.points, dtype=np.int64)[out[:, position]]
        return out

    def score(self, table: RawTable) -> Points:
        """The published score of each row, shape (n,)."""
        total = np.full(len(table.subjects), self.base_points, dtype=np.int64)
        points = [np.asarray(c.points, dtype=np.int64) for c in self.characteristics]
        for rows in _blocks(len(table.subjects)):
            cells = {name: column[rows] for name, column in table.columns.items()}
            for characteristic, lookup in zip(self.characteristics, points, strict=True):
                total[rows] += lookup[characteristic.attribute_of(cells)]
        return self.published(total)

    def score_of_points(self, points: Points) -> Points:
        """The published score from points (n, characteristics); `NEUTRAL_POINTS` where nobody holds one."""
        return self.published(points.sum(axis=1) + self.base_points)

    def published(self, totals: Points) -> Points:
        """Totals held to the range of publication."""
        held: Points = np.clip(totals, int(self.scale.minimum), int(self.scale.maximum))
        return held

    def probability_of_bad(self, scores: NDArray[np.int64] | Vector) -> Vector:
        """Probability of bad at each score, shape (n,), by the point scale."""
        return probability_of(self.scale.log_odds_of_bad(np.asarray(scores, dtype=np.float64)))

    def require_match(self, encoder: Encoder) -> None:
        """MalformedError unless this card is one for the encoder's schema: same digest, same attributes
        everywhere.

        A data holder asks this of a card it was sent, so that nothing but the points can have been chosen.
        """
        zero = LinearModel(
            encoder.schema.digest,
            np.zeros(encoder.width),
            np.zeros(encoder.width),
            0.0,
            encoder.centred_radius,
        )
        own = scorecard_from(zero, encoder, self.scale)
        if self.schema_digest != own.schema_digest or [_shape(c) for c in self.characteristics] != [
            _shape(c) for c in own.characteristics
        ]:
            raise MalformedError("the scorecard is not one for the schema in use here; all parties must use one schema")

    def to_dict(self) -> dict[str, Json]:
        """The published document."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "schema_digest": self.schema_digest,
            "scale": self.scale.to_dict(),
            "base_points": self.base_points,
            "characteristics": [characteristic.to_dict() for characteristic in self.characteristics],
        }

    def to_json(self) -> bytes:
        """Canonical JSON: one card, one byte string."""
        return canonical_json(self.to_dict())

    @staticmethod
    def from_dict(raw: Mapping[str, object]) -> "Scorecard":
        """The card of a document; MalformedError for unknown, missing or contradictory parts."""
        return Scorecard.from_json(msgspec.json.encode(raw), canonical=False)

    @staticmethod
    def from_json(data: bytes, *, canonical: bool = True) -> "Scorecard":
        """The card of a document's bytes; where `canonical`, exactly the bytes that `to_json` gives."""
        try:
            document = msgspec.json.decode(data, type=_Document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError(
                f"not a scorecard of format {FORMAT!r}, version {VERSION}; its maker must send it again"
            ) from None
        card = document.card()
        if canonical and card.to_json() != data:
            raise MalformedError(
                "the scorecard is readable but not in canonical form; use the file as it was published"
            )
        return card


def scorecard_from(model: LinearModel, encoder: Encoder, scale: PointScale) -> Scorecard:
    """Points of the model without its row clip: each attribute at its public representative, rounded to
    integers.

    An attribute's points are -factor * coefficients · (representative - centre). Rounding moves a score by at
    most half a point per characteristic and one half for the base.
    """
    if model.schema_digest != encoder.schema.digest or model.coefficients.shape != (encoder.width,):
        raise MalformedError("the model was trained for another schema; use the schema of its plan")
    characteristics = []
    for coder, columns in zip(encoder.coders, encoder.slices, strict=True):
        log_odds = (coder.representatives() - model.centre[columns]) @ model.coefficients[columns]
        characteristic = coder.characteristic
        characteristics.append(
            ScoredCharacteristic(
                id=characteristic.id,
                title=characteristic.title,
                reason=characteristic.reason,
                category=characteristic.category,
                derive=characteristic.derive,
                special_of=dict(coder.special_of),
                attributes=coder.attributes,
                points=tuple(_rounded(-scale.factor * value) for value in log_odds.tolist()),
            )
        )
    return Scorecard(
        schema_digest=model.schema_digest,
        scale=scale,
        base_points=_rounded(scale.score_of(model.intercept)),
        characteristics=tuple(characteristics),
    )


def _rounded(points: float) -> int:
    if not abs(points) <= LARGEST_POINTS:
        raise MalformedError(
            "the model gives an attribute points past any scale; it did not converge, so train it again"
        )
    return round(points)


def _shape(characteristic: ScoredCharacteristic) -> ScoredCharacteristic:
    return replace(characteristic, points=(0,) * len(characteristic.points))


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, BLOCK_ROWS):
        yield slice(start, min(rows, start + BLOCK_ROWS))


class _Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_score: float
    base_good_bad_odds: float
    points_to_double_odds: float
    minimum: float
    maximum: float


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["fedcredit scorecard"]
    version: Literal[1]
    schema_digest: str
    scale: _Scale
    base_points: int
    characteristics: list[CharacteristicDocument]

    def card(self) -> Scorecard:
        return Scorecard(
            schema_digest=self.schema_digest,
            scale=PointScale(**msgspec.structs.asdict(self.scale)),
            base_points=self.base_points,
            characteristics=tuple(characteristic.scored() for characteristic in self.characteristics),
        )
