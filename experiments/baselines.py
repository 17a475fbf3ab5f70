"""What others would do with the same rows: pool them, stay alone, or train with the usual private-SGD settings."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from experiments.central import run_centrally
from federated.model import LinearModel, Model
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.opacus_fedavg import OpacusFedAvg
from federated.rows import EncodedRows
from federated.schema import Schema
from privacy.noise import NoiseSource, SecureNoise

# Opacus' own tutorials: a small network, SGD with learning rate 0.1, batches of 64, clipping norm 1, ten epochs.
USUAL_EPOCHS = 10


def pooled(x: NDArray[np.float64], bad: NDArray[np.float64], schema_digest: str) -> LinearModel:
    """Logistic regression over encoded rows (n, p) in one place, without privacy."""
    fitted = LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=200).fit(x, bad)
    return LinearModel(
        schema_digest=schema_digest,
        centre=np.zeros(x.shape[1]),
        coefficients=fitted.coef_[0],
        intercept=float(fitted.intercept_[0]),
        centred_radius=None,
    )


def alone(part: EncodedRows, schema_digest: str) -> LinearModel | None:
    """What one data holder could do by itself, without privacy; None if all its outcomes are alike."""
    if len(np.unique(part.bad)) < 2:
        return None
    return pooled(part.x, part.bad, schema_digest)


def without_noise(parts: list[EncodedRows], schema: Schema, *, width: int, delta: float, steps: int) -> Model:
    """The federation's own recipe with its noise left out: what privacy costs is the difference to it."""
    recipe = FixedHessian(
        width=width,
        radius=schema.radius,
        centred_radius=schema.centred_radius,
        epsilon=None,
        delta=delta,
        steps=steps,
        schema_digest=schema.digest,
    )
    return run_centrally(recipe, parts, SecureNoise())


def usual_opacus(
    parts: list[EncodedRows], schema: Schema, *, width: int, epsilon: float, delta: float, chance: NoiseSource
) -> Model:
    """FedAvg of DP-SGD at each data holder with the usual settings, one local epoch a round, averaged by rows."""
    recipe = OpacusFedAvg(
        width=width, hidden=(64, 32), learning_rate=0.1, batch_size=64, clipping_norm=1.0, local_epochs=1,
        rounds=USUAL_EPOCHS, epsilon=epsilon, delta=delta, schema_digest=schema.digest,
    )  # fmt: skip
    rows = sum(len(part) for part in parts)
    everybody = [EncodedRows(part.x, part.bad, np.ones(len(part))) for part in parts]
    return run_centrally(recipe, everybody, chance, shares=[len(part) / rows for part in parts])
