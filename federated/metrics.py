"""How well a score ranks and how true its probabilities are, from counts per score band and nothing else.

Counts are what data holders can add up and protect with noise; single scores never leave them. So every
figure here is defined on a `ScoreHistogram`, works on noisy (fractional, negative) counts as far as it still
has a meaning, and is `None` where it has none: unknown is never 0.

A score is higher for safer people. The bads are the events: the people "flagged" are those below a cut-off.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy.errors import MalformedError

Vector = NDArray[np.float64]

CALIBRATION_GROUPS: Final = 10
# A noisy count below this is as good as nobody: dividing by it would only show the noise.
ONE_PERSON: Final = 1.0
# Counts are sums of float64: the sum of the parts may pass the whole by a few units in the last place.
ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Metrics:
    """Five figures of a model on a sample; `None` is "unknown". All lie in [0, 1] but Gini, in [-1, 1]."""

    auc: float | None = None
    ks: float | None = None
    gini: float | None = None
    brier: float | None = None
    ece: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """The five figures by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """Share of goods and of bads flagged, each of shape (k + 1,), from nobody flagged to everybody."""

    goods_flagged: Vector
    bads_flagged: Vector


@dataclass(frozen=True, slots=True, eq=False)
class KsCurve:
    """At each score (band edge): the shares of goods and of bads that score lower. Shapes (k + 1,)."""

    score: Vector
    goods_below: Vector
    bads_below: Vector


@dataclass(frozen=True, slots=True)
class CalibrationGroup:
    """Neighbouring bands taken together: what was predicted for their people and what happened."""

    score_from: float
    score_to: float
    people: float
    mean_probability_of_bad: float
    bad_rate: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """Goods and bads counted in score bands [edges[i], edges[i + 1]).

    `edges` has shape (k + 1,), finite and strictly increasing, in points; `goods` and `bads` have shape (k,),
    in people, and may be noisy. MalformedError otherwise. The arrays are copied and cannot be written to.
    """

    edges: Vector
    goods: Vector
    bads: Vector

    def __post_init__(self) -> None:
        for name in ("edges", "goods", "bads"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.ndim != 1 or not np.isfinite(array).all():
                raise MalformedError(f"score histogram: {name} must be finite numbers in a list; count them again")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.edges) < 2 or not (np.diff(self.edges) > 0).all():
            raise MalformedError(
                "score histogram: two or more strictly increasing edges are needed; correct the plan's bands"
            )
        if not len(self.goods) == len(self.bads) == len(self.edges) - 1:
            raise MalformedError(
                f"score histogram: {len(self.edges)} edges need {len(self.edges) - 1} counts of goods and "
                f"of bads, found {len(self.goods)} and {len(self.bads)}; count in the plan's bands"
            )

    @classmethod
    def of(cls, scores: ArrayLike, bad: ArrayLike, edges: ArrayLike) -> Self:
        """The histogram of `scores` (n,) with outcomes `bad` (n,), 1 is bad.

        Scores beyond the outer edges count in the outermost band, so that nobody drops out of a sum.
        MalformedError for other outcomes than 0 and 1, a score that is not a number, or lengths that differ.
        """
        score, outcome = np.asarray(scores, dtype=np.float64), np.asarray(bad, dtype=np.float64)
        limits = np.asarray(edges, dtype=np.float64)
        if score.ndim != 1 or score.shape != outcome.shape:
            raise MalformedError("scores and outcomes must be two lists of one length; give one outcome per score")
        if np.isnan(score).any() or not np.isin(outcome, (0.0, 1.0)).all():
            raise MalformedError(
                "scores must be numbers and outcomes 0 (good) or 1 (bad); leave out people without an outcome"
            )
        k = max(len(limits) - 1, 1)
        band = np.clip(np.searchsorted(limits, score, side="right") - 1, 0, k - 1)
        bads = np.bincount(band, weights=outcome, minlength=k).astype(np.float64)
        goods = np.bincount(band, weights=1 - outcome, minlength=k).astype(np.float64)
        return cls(limits, goods, bads)

    def __add__(self, other: "ScoreHistogram") -> "ScoreHistogram":
        """Both samples together; MalformedError when the bands differ."""
        if not np.array_equal(self.edges, other.edges):
            raise MalformedError(
                "score histograms with different bands cannot be added; count both in the plan's bands"
            )
        return ScoreHistogram(self.edges, self.goods + other.goods, self.bads + other.bads)

    def coarser(self, bands: int) -> "ScoreHistogram":
        """Every `bands` neighbouring bands as one (the last may be narrower). Requires bands >= 1."""
        starts = np.arange(0, len(self.goods), bands)
        return ScoreHistogram(
            np.append(self.edges[starts], self.edges[-1]),
            np.add.reduceat(self.goods, starts),
            np.add.reduceat(self.bads, starts),
        )

    @property
    def midpoints(self) -> Vector:
        """The middle of each band (k,): where to ask for the probability of bad that stands for it."""
        middle: Vector = (self.edges[:-1] + self.edges[1:]) / 2
        return middle

    @property
    def people(self) -> float:
        """Everybody counted; fractional when noisy."""
        return float(self.goods.sum() + self.bads.sum())

    @property
    def bad_rate(self) -> float | None:
        """Bads divided by bads and goods."""
        people = self.people
        return _share(float(self.bads.sum()) / people) if people >= ONE_PERSON else None

    @property
    def auc(self) -> float | None:
        """Probability that a good scores above a bad, ties counted half (Mann-Whitney).

        Within a band all tie. With independent noise numerator and denominator are each unbiased.
        """
        good_total, bad_total = float(self.goods.sum()), float(self.bads.sum())
        if good_total < ONE_PERSON or bad_total < ONE_PERSON:
            return None
        goods_above = good_total - np.cumsum(self.goods)
        return _share(float(self.bads @ (goods_above + self.goods / 2)) / (good_total * bad_total))

    @property
    def gini(self) -> float | None:
        """2 AUC - 1."""
        auc = self.auc
        return None if auc is None else 2 * auc - 1

    @property
    def ks(self) -> float | None:
        """Largest gap between the score distributions of goods and bads. Noise widens it on average."""
        curve = self.ks_curve()
        return None if curve is None else _share(float(np.abs(curve.bads_below - curve.goods_below).max()))

    def roc(self) -> Roc | None:
        """The curve from (0, 0) to (1, 1) as the cut-off rises; not monotone when counts are noisy."""
        curve = self.ks_curve()
        return None if curve is None else Roc(curve.goods_below, curve.bads_below)

    def ks_curve(self) -> KsCurve | None:
        """The two cumulative distributions whose largest gap is KS; `None` without goods or without bads."""
        good_total, bad_total = float(self.goods.sum()), float(self.bads.sum())
        if good_total < ONE_PERSON or bad_total < ONE_PERSON:
            return None
        return KsCurve(self.edges, _cumulative(self.goods, good_total), _cumulative(self.bads, bad_total))

    def brier(self, probability_of_bad: ArrayLike) -> float | None:
        """Mean squared error of `probability_of_bad` (k,), one probability for everybody in a band."""
        p, people = self._probabilities(probability_of_bad), self.people
        if people < ONE_PERSON:
            return None
        return _share(float(self.bads @ (1 - p) ** 2 + self.goods @ p**2) / people)

    def ece(self, probability_of_bad: ArrayLike, groups: int = CALIBRATION_GROUPS) -> float | None:
        """Mean over people of the gap between predicted and seen share of bads in their calibration group."""
        table = self.calibration(probability_of_bad, groups)
        if not table:
            return None
        gaps = (group.people * abs(group.bad_rate - group.mean_probability_of_bad) for group in table)
        return _share(sum(gaps) / self.people)

    def calibration(
        self, probability_of_bad: ArrayLike, groups: int = CALIBRATION_GROUPS
    ) -> tuple[CalibrationGroup, ...]:
        """At most `groups` runs of bands with about equal numbers of people, riskiest first.

        A band is never split; a group whose (noisy) head count is below 1 is joined with its neighbour,
        so that every rate has a meaning. A bad rate that noise took out of [0, 1] is shown at the border.
        Requires groups >= 1.
        """
        p = self._probabilities(probability_of_bad)
        counted = self.goods + self.bads
        # Noise must not move a person between groups by much: place bands by their non-negative part.
        placed = np.cumsum(np.maximum(counted, 0.0))
        if self.people < ONE_PERSON:
            return ()
        middle = placed - np.maximum(counted, 0.0) / 2
        group_of = np.minimum((middle / placed[-1] * groups).astype(np.int64), groups - 1)
        starts = [0]
        for end in (np.flatnonzero(np.diff(group_of)) + 1).tolist():
            if counted[starts[-1] : end].sum() >= ONE_PERSON:
                starts.append(end)
        while len(starts) > 1 and counted[starts[-1] :].sum() < ONE_PERSON:
            starts.pop()
        return tuple(self._group(p, *run) for run in pairwise([*starts, len(p)]))

    def _group(self, p: Vector, start: int, end: int) -> CalibrationGroup:
        """Bands `start` to `end` (exclusive) as one group. Requires that it counts somebody."""
        run = slice(start, end)
        bads, people = self.bads[run].sum(), (self.goods[run] + self.bads[run]).sum()
        mean = (self.goods[run] + self.bads[run]) @ p[run] / people
        return CalibrationGroup(
            score_from=float(self.edges[start]),
            score_to=float(self.edges[end]),
            people=float(people),
            mean_probability_of_bad=float(np.clip(mean, p[run].min(), p[run].max())),
            bad_rate=float(np.clip(bads / people, 0.0, 1.0)),
        )

    def metrics(self, probability_of_bad: ArrayLike | None) -> Metrics:
        """All five figures; without probabilities (a score that claims none) Brier and ECE are unknown."""
        if probability_of_bad is None:
            return Metrics(self.auc, self.ks, self.gini)
        return Metrics(self.auc, self.ks, self.gini, self.brier(probability_of_bad), self.ece(probability_of_bad))

    def _probabilities(self, probability_of_bad: ArrayLike) -> Vector:
        p = np.asarray(probability_of_bad, dtype=np.float64)
        if p.shape != self.goods.shape or not ((p >= 0) & (p <= 1)).all():
            raise MalformedError(
                f"{len(self.goods)} bands need as many probabilities of bad between 0 and 1; "
                "whoever evaluates must ask the scorecard at the midpoints"
            )
        return p


def _cumulative(counts: Vector, total: float) -> Vector:
    """Shares below each edge, from exactly 0 to exactly 1."""
    shares = np.concatenate(([0.0], np.cumsum(counts) / total))
    shares[-1] = 1.0
    return shares


def _share(value: float) -> float | None:
    """`value` in [0, 1]; a noisy figure beyond has no meaning and must not pass for a perfect one."""
    if not -ROUNDING <= value <= 1 + ROUNDING:
        return None
    return min(max(value, 0.0), 1.0)
