"""Setting a scorecard's probabilities by what was released about held-out people: post-processing, which is free.

Slope and intercept are fitted to the released histogram, in which people weigh by their share: cautious people weigh
little, and where they default more often its level is too low. Two released numbers, in which everybody weighs the
same, set the level right.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from federated.metrics import ScoreHistogram
from federated.model import LinearModel, Vector, probability_of
from federated.scorecard import PointScale

FEWEST_PEOPLE = 100.0
SLOPES = (0.3, 3.0)  # outside, the model is wrong rather than uncalibrated
BANDS_TOGETHER = 4  # noise cancels in wider bands
FEWEST_DEVIATIONS = 8.0  # a count below that many deviations of its noise says too little about a level
STEPS = 50
SMALLEST_STEP = 1e-12
RIDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log-odds of bad = intercept + slope times the model's (Cox 1958; Platt 1999)."""

    intercept: float
    slope: float

    def model(self, model: LinearModel) -> LinearModel:
        """The model with its additive log-odds set right."""
        return replace(
            model, intercept=self.intercept + self.slope * model.intercept, coefficients=self.slope * model.coefficients
        )

    def histogram(self, released: ScoreHistogram, scale: PointScale) -> ScoreHistogram:
        """The same people in the same bands, whose edges are now the calibrated scores."""
        log_odds = self.intercept + self.slope * scale.log_odds_of_bad(released.edges)
        edges = [scale.score_of(value) for value in log_odds.tolist()]
        return ScoreHistogram(np.array(edges), released.goods, released.bads)


AS_TRAINED = Calibration(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class BaseRate:
    """Held-out people and the bads among them, everybody counted alike; noisy, `deviation` for each of the two."""

    heads: float
    bads: float
    deviation: float

    @property
    def log_odds_of_bad(self) -> float | None:
        """Of the whole sample; None where noise may be most of it."""
        return _log_odds(self.heads - self.bads, self.bads, math.sqrt(2) * self.deviation)


def calibration_from(
    released: ScoreHistogram, scale: PointScale, base_rate: BaseRate, *, deviation: float
) -> Calibration:
    """The calibration that makes the released counts most likely, at the level of `base_rate`.

    `deviation` is the standard deviation of the noise in each count. The order of people stays as it is.
    `AS_TRAINED` where the counts say too little: fewer than about a hundred people, outcomes all alike, or a slope that
    only noise can explain.
    """
    fitted = _fitted(released, scale)
    return fitted if fitted is AS_TRAINED else _at_level(fitted, released, base_rate, deviation)


def _at_level(fitted: Calibration, released: ScoreHistogram, base_rate: BaseRate, deviation: float) -> Calibration:
    """`fitted` with its level moved from the weighted people's to everybody's, in log-odds; as it is where either is
    uncertain.

    Exact where people of one outcome are cautious alike, whatever their characteristics (Prentice and Pyke 1979,
    equation 2): weights are then a sample by outcome. Where caution goes with characteristics that the model has, they
    have told it already and this goes too far: which of both it is, no released number shows.
    """
    summed = deviation * math.sqrt(len(released.bads))
    weighted = _log_odds(float(released.goods.sum()), float(released.bads.sum()), summed)
    everybody = base_rate.log_odds_of_bad
    if weighted is None or everybody is None:
        return fitted
    return replace(fitted, intercept=fitted.intercept + everybody - weighted)


def _log_odds(goods: float, bads: float, deviation: float) -> float | None:
    fewest = max(1.0, FEWEST_DEVIATIONS * deviation)
    if goods + bads < FEWEST_PEOPLE or min(goods, bads) < fewest:
        return None
    return math.log(bads / goods)


def _fitted(released: ScoreHistogram, scale: PointScale) -> Calibration:
    coarse = released.coarser(BANDS_TOGETHER)
    # Noise can push a count below 0, which no likelihood knows; in wide bands it hardly ever does.
    goods, bads = np.maximum(coarse.goods, 0.0), np.maximum(coarse.bads, 0.0)
    if goods.sum() + bads.sum() < FEWEST_PEOPLE or not goods.sum() > 0 < bads.sum():
        return AS_TRAINED
    middles = (coarse.edges[:-1] + coarse.edges[1:]) / 2
    columns = np.column_stack([np.ones(len(middles)), scale.log_odds_of_bad(middles)])
    found = np.array([0.0, 1.0])
    for _ in range(STEPS):  # Newton's method on a concave function of two numbers, halving steps that overshoot
        probability = probability_of(columns @ found)
        gradient = columns.T @ (bads - (goods + bads) * probability)
        curvature = (columns.T * ((goods + bads) * probability * (1 - probability))) @ columns
        # As large as the numbers are: where all people are in one band, slope and intercept cannot be told apart.
        ridge = RIDGE * max(1.0, float(np.trace(curvature)))
        try:
            step = np.linalg.solve(curvature + ridge * np.eye(2), gradient)
        except np.linalg.LinAlgError:
            return AS_TRAINED
        before = _log_likelihood(columns @ found, goods, bads)
        while _log_likelihood(columns @ (found + step), goods, bads) < before and np.abs(step).max() > SMALLEST_STEP:
            step = step / 2
        found = found + step
    intercept, slope = found.tolist()
    if not (math.isfinite(intercept) and SLOPES[0] <= slope <= SLOPES[1]):
        return AS_TRAINED
    return Calibration(intercept, slope)


def _log_likelihood(log_odds: Vector, goods: Vector, bads: Vector) -> float:
    # logaddexp(0, z) is log(1 + e^z) without overflow.
    return float(-(bads @ np.logaddexp(0, -log_odds) + goods @ np.logaddexp(0, log_odds)))
