"""How good a model is on the people whom a layout holds out."""

import numpy as np

from experiments.benchmarks.bed import Bed, Layout
from experiments.plans import SCALE
from federated.model import LinearModel, Model
from federated.scorecard import scorecard_from
from privacy.noise import Vector


def auc(log_odds: Vector, bad: Vector) -> float:
    """Chance that a bad has higher log-odds of bad than a good, ties counted half; scikit-learn is the judge of all."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(bad, log_odds))


class Judge:
    """AUC on a layout's held-out people, each once."""

    def __init__(self, bed: Bed, layout: Layout) -> None:
        self._encoder, self._bad = bed.encoder, bed.bad[layout.held_out]
        self._x = bed.x[layout.held_out]
        self._table = bed.table.take(np.flatnonzero(layout.held_out))

    def of(self, log_odds: Vector) -> float:
        """Of log-odds of bad (held-out people,)."""
        return auc(log_odds, self._bad)

    def linear(self, model: Model) -> float:
        """Of the model's own log-odds."""
        return self.of(model.log_odds(self._x))

    def additive(self, model: Model) -> float:
        """Of the published scorecard's whole points. TypeError for a model that gives none."""
        if not isinstance(model, LinearModel):
            raise TypeError("only a linear model gives a scorecard")
        return self.of(-scorecard_from(model, self._encoder, SCALE).score(self._table).astype(np.float64))
