"""What training makes: a function from encoded rows to log-odds of bad. Evaluating one needs numpy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import MalformedError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def clip_to_norm(vectors: Matrix, clipping_norm: float) -> Matrix:
    """Each row scaled down to L2 norm `clipping_norm`; shorter rows unchanged.

    `vectors` and the result have shape (n_rows, n_columns). Requires clipping_norm > 0 and finite squares.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scale: Vector = np.minimum(1.0, clipping_norm / np.maximum(norms, 1e-12))
    clipped: Matrix = vectors * scale[:, None]
    return clipped


def probability_of(log_odds: Vector) -> Vector:
    """Probability of bad from log-odds of bad; no overflow at any finite argument."""
    probability: Vector = 0.5 * (1 + np.tanh(0.5 * log_odds))
    return probability


def frozen_array(values: object, shape: tuple[int, ...], what: str) -> NDArray[np.float64]:
    """`values` as a read-only float64 array of `shape`; MalformedError if it is of another shape or not finite."""
    array = np.array(values, dtype=np.float64)
    if array.shape != shape:
        raise MalformedError(
            f"{what} has shape {array.shape}, {shape} was needed; the model document is damaged: its maker must send "
            "it again"
        )
    if not np.isfinite(array).all():
        raise MalformedError(
            f"{what} has a number that is not finite; the model document is damaged: its maker must send it again"
        )
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Log-odds of bad = intercept + coefficients · clip(x - centre, centred_radius)."""

    schema_digest: str
    centre: Vector
    coefficients: Vector
    intercept: float
    centred_radius: float | None

    def __post_init__(self) -> None:
        width = np.shape(self.coefficients)
        if len(width) != 1:
            raise MalformedError("the coefficients are not a vector; the model's maker must send it again")
        object.__setattr__(self, "centre", frozen_array(self.centre, width, "the model's centre"))
        object.__setattr__(self, "coefficients", frozen_array(self.coefficients, width, "the model's coefficients"))
        if not np.isfinite(self.intercept):
            raise MalformedError("the model's intercept is not finite; the model's maker must send it again")
        if self.centred_radius is not None and not 0 < self.centred_radius < np.inf:
            raise MalformedError("the model's centred radius is not positive; the model's maker must send it again")

    def log_odds(self, x: Matrix) -> Vector:
        """Log-odds of bad, shape (n,), of encoded rows, shape (n, p), each clipped around the centre."""
        centred = x - self.centre
        if self.centred_radius is not None:
            centred = clip_to_norm(centred, self.centred_radius)
        log_odds: Vector = self.intercept + centred @ self.coefficients
        return log_odds

    def additive_log_odds(self, x: Matrix) -> Vector:
        """The same without the clip: a plain sum over columns, which is what a scorecard can express."""
        log_odds: Vector = self.intercept + (x - self.centre) @ self.coefficients
        return log_odds

    def as_start(self) -> tuple[float, ...]:
        """The additive form's intercept, then a coefficient per encoded column: a start for another training."""
        return (self.intercept - float(self.centre @ self.coefficients), *self.coefficients.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class NetworkModel:
    """A small network: rectified linear layers, then one linear output, the log-odds of bad.

    `layers` are (matrix of shape (outputs, inputs), offset of shape (outputs,)), first to last.
    """

    schema_digest: str
    layers: tuple[tuple[Matrix, Vector], ...]

    def __post_init__(self) -> None:
        if not self.layers or np.shape(self.layers[-1][1]) != (1,):
            raise MalformedError("the network has no single output; the model's maker must send it again")
        frozen: list[tuple[Matrix, Vector]] = []
        inputs = int(np.shape(self.layers[0][0])[1])
        for matrix, offset in self.layers:
            outputs = int(np.shape(offset)[0])
            shape = (outputs, inputs)
            frozen.append(
                (frozen_array(matrix, shape, "a layer"), frozen_array(offset, (outputs,), "a layer's offset"))
            )
            inputs = outputs
        object.__setattr__(self, "layers", tuple(frozen))

    def log_odds(self, x: Matrix) -> Vector:
        """Log-odds of bad, shape (n,), of encoded rows, shape (n, p)."""
        *hidden, (matrix, offset) = self.layers
        signal = x
        for hidden_matrix, hidden_offset in hidden:
            signal = np.maximum(signal @ hidden_matrix.T + hidden_offset, 0.0)
        log_odds: Vector = (signal @ matrix.T + offset)[:, 0]
        return log_odds


Model = LinearModel | NetworkModel
"""What a recipe can make: a closed set, tied to the schema whose encoding it reads."""
