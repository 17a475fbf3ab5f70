"""Measuring models on the held-out people that the gates permitted, exactly: the data are public, nobody is exposed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.report.values import AuditedGroup, Evaluation, Fairness
from experiments.sample import Sample
from federated.metrics import Metrics, ScoreHistogram
from federated.model import Model
from federated.schema import Schema
from federated.scorecard import PointScale, Scorecard

Scores = NDArray[np.int64]


def scores_of(model: Model, x: NDArray[np.float64], scale: PointScale) -> Scores:
    """A model's log-odds of bad as whole points on `scale`, shape (n,)."""
    points = np.array([scale.score_of(log_odds) for log_odds in model.log_odds(x).tolist()])
    held: Scores = np.clip(np.rint(points), scale.minimum, scale.maximum).astype(np.int64)
    return held


def evaluate(scores: Scores, bad: NDArray[np.float64], card: Scorecard) -> Evaluation:
    """The evaluation of scores (n,) against outcomes (n,; 1 is bad), one band a point on the card's scale."""
    edges = np.arange(card.scale.minimum, card.scale.maximum + 2)
    return Evaluation.of(ScoreHistogram.of(scores, bad, edges), card.probability_of_bad(edges[:-1]))


def average(evaluations: Sequence[tuple[float, Evaluation]]) -> Evaluation | None:
    """The people-weighted average of several models' figures; None of none."""
    if not evaluations:
        return None
    figures = {}
    for name in ("auc", "ks", "gini", "brier", "ece"):
        known = [(people, getattr(evaluation.metrics, name)) for people, evaluation in evaluations]
        known = [(people, value) for people, value in known if value is not None]
        figures[name] = sum(p * v for p, v in known) / sum(p for p, _ in known) if known else None
    return Evaluation(Metrics(**figures))


def fairness(scores: Scores, sample: Sample, schema: Schema, card: Scorecard, cut_off: float) -> Fairness:
    """What the scorecard does to each group of each audit attribute, none of which it has seen."""
    attributes = {}
    for attribute in schema.audit:
        groups = {}
        index = sample.audit(attribute.id)
        for position, group in enumerate(attribute.groups):
            chosen = index == position
            people = int(chosen.sum())
            if people:
                theirs, bad = scores[chosen], sample.bad[chosen]
                groups[group.title] = AuditedGroup(
                    people=people,
                    bad_rate=float(bad.mean()),
                    mean_score=float(theirs.mean()),
                    approval_rate=float((theirs >= cut_off).mean()),
                    auc=evaluate(theirs, bad, card).metrics.auc,
                )
        attributes[attribute.title] = groups
    return Fairness(cut_off, attributes)
