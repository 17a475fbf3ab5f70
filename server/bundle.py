"""The published bundle: scorecard, model, privacy statement, released metrics and parity vectors, signed as one."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from federated.encoder import Encoder
from federated.files import write_whole
from federated.metrics import ScoreHistogram
from federated.model import LinearModel, Model
from federated.plan import TrainingPlan, recipe_of
from federated.recipes.base import Recipe
from federated.scorecard import Scorecard
from federated.trust import Aggregation, TrustModel, told
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError
from server.calibration import Calibration
from server.coordinator import canonical, model_document

MANIFEST = "MANIFEST.json"
SIGNATURE = "MANIFEST.sig"


class Publishable(Protocol):
    """What a bundle is made of: the outcome of a run, at once or from what it has left."""

    @property
    def plan(self) -> TrainingPlan:
        """The plan that was run."""
        ...

    @property
    def plan_digest(self) -> str:
        """Its name."""
        ...

    @property
    def model(self) -> Model:
        """The model as it was trained."""
        ...

    @property
    def scorecard(self) -> Scorecard | None:
        """Its scorecard, if it is a sum over characteristics."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """How the scorecard's probabilities were set."""
        ...

    @property
    def released(self) -> ScoreHistogram | None:
        """What was released about held-out people."""
        ...

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the noise in each of its counts."""
        ...


def write_bundle(
    outcome: Publishable, key: SigningKey, directory: Path, *, encoder: Encoder, excludes: tuple[str, ...]
) -> None:
    """Write the bundle of a finished run to `directory`, which must exist. Nothing in it names a person or a lane.

    `encoder` is that of the plan's schema. MalformedError for a run without a scorecard: a model that is no sum over
    characteristics has none.
    """
    model = outcome.model
    if (
        not isinstance(model, LinearModel)
        or outcome.scorecard is None
        or outcome.released is None
        or outcome.deviation is None
        or outcome.calibration is None
    ):
        raise MalformedError(
            "Only a linear model has a scorecard to publish. The coordinator should choose its recipe."
        )
    recipe = recipe_of(outcome.plan, encoder)
    documents = {
        "scorecard.json": outcome.scorecard.to_json(),
        "model.json": model_document(model),
        "privacy.json": canonical(_privacy(outcome, recipe, excludes)),
        "calibration.json": canonical(_calibration(outcome.calibration)),
        "metrics.json": canonical(
            _metrics(outcome.scorecard, outcome.released, outcome.deviation, outcome.plan.aggregation)
        ),
        "parity.json": canonical(_parity(outcome.scorecard)),
    }
    manifest = canonical(
        {
            "format": "fedcredit bundle",
            "version": 1,
            "plan": outcome.plan_digest,
            "schema": outcome.plan.schema_digest,
            "not_private": outcome.plan.seed is not None,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(documents.items())},
        }
    )
    for name, content in documents.items():
        write_whole(directory / name, content)
    write_whole(directory / MANIFEST, manifest)
    signature = canonical({"key": key.public.hex(), "signature": key.sign(PayloadType.BUNDLE, manifest).hex()})
    write_whole(directory / SIGNATURE, signature)  # last: a bundle without it is not whole


def _privacy(outcome: Publishable, recipe: Recipe, excludes: tuple[str, ...]) -> Mapping[str, object]:
    plan, privacy = outcome.plan, outcome.plan.privacy
    return {
        "epsilon": privacy.epsilon,
        "measurement_epsilon": privacy.measurement_epsilon,
        "delta": privacy.delta,
        "unit": "person",
        "adjacency": "add or remove one person",
        "about": _guarantee(plan.trust),
        "accountant": recipe.accountant,
        "measurement_accountant": "exact Gaussian DP",
        "excludes": list(excludes),
        "recipe": recipe.name.value,
        "reason_for_recipe": plan.reason,
        "trust": plan.trust.value,
        "trust_model": told(plan.trust, adds_noise=math.isfinite(recipe.mu(1))),
        "aggregation": plan.aggregation.value,
        "dropouts_tolerated": plan.dropouts_tolerated,
        "not_private": plan.seed is not None,
    }


def _guarantee(trust: TrustModel) -> str:
    full = "epsilon is for a person who takes part in full (share 1); a smaller share costs less"
    if trust is TrustModel.HOLDER_NOISE:
        return f"{full}; it holds for the releases of each data holder, and somebody in several spends it in each"
    return full


def _noise(aggregation: Aggregation) -> str:
    if aggregation is Aggregation.SUM:
        return "the standard deviation is that of the released counts"
    return (
        "the standard deviation is that of the plain sum of the updates; where noise is all that tells updates apart, "
        "a median or trimmed mean in its place has up to sqrt(pi / 2) times as much"
    )


def _calibration(calibration: Calibration) -> Mapping[str, object]:
    return {
        "about": "log-odds of bad in the scorecard = intercept + slope x the model's, fitted to the released histogram",
        "intercept": calibration.intercept,
        "slope": calibration.slope,
    }


def _metrics(
    scorecard: Scorecard, released: ScoreHistogram, noise: float, aggregation: Aggregation
) -> Mapping[str, object]:
    middles = (released.edges[:-1] + released.edges[1:]) / 2
    figures = released.metrics(scorecard.probability_of_bad(middles))
    return {
        "about": "from the noisy histogram of held-out people, which is all that was released about them; the figures "
        "carry its noise, and counts may be negative",
        "noise_standard_deviation_of_each_count": noise,
        "noise": _noise(aggregation),
        "metrics": figures.to_dict(),
        "histogram": {
            "edges": released.edges.tolist(),
            "goods": np.round(released.goods, 6).tolist(),
            "bads": np.round(released.bads, 6).tolist(),
        },
    }


def _parity(scorecard: Scorecard) -> Mapping[str, object]:
    """Made-up people, by the attribute they fall in, with the score another implementation must give them.

    Person k falls in attribute k (modulo their number) of every characteristic.
    """
    most = max(len(characteristic.attributes) for characteristic in scorecard.characteristics)
    vectors = []
    for k in range(most):
        chosen = {c.id: k % len(c.attributes) for c in scorecard.characteristics}
        points = np.array([[c.points[chosen[c.id]] for c in scorecard.characteristics]])
        vectors.append({"attributes": chosen, "score": int(scorecard.score_of_points(points)[0])})
    return {"about": "position of the attribute in each characteristic's table, and the score", "vectors": vectors}
