"""A stack of linear layers as one vector of numbers: the shape that recipes with local steps train."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from federated.model import LinearModel, Model, NetworkModel
from privacy.noise import Vector

START_SEED = 20261121
"""Public: every party draws the same first network."""


@dataclass(frozen=True, slots=True)
class Layers:
    """`width` columns, rectified layers of `hidden` units, one output: the log-odds of bad.

    As a vector: of each layer, first to last, the matrix (outputs, inputs) row by row, then the offsets (outputs,);
    the order of torch. Without hidden layers this is logistic regression. All numbers must be at least 1.
    """

    width: int
    hidden: tuple[int, ...]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every layer."""
        return tuple(pairwise((self.width, *self.hidden, 1)))

    @property
    def parameters(self) -> int:
        """How many numbers the vector has."""
        return sum(outputs * (inputs + 1) for inputs, outputs in self.sizes)

    def start(self) -> Vector:
        """Zeros for logistic regression; for a network, public uniform draws within 1 / sqrt(inputs)."""
        if not self.hidden:
            return np.zeros(self.parameters)
        public = np.random.Generator(np.random.PCG64(START_SEED))
        return np.concatenate(
            [public.uniform(-1, 1, size=outputs * (inputs + 1)) / math.sqrt(inputs) for inputs, outputs in self.sizes]
        )

    def split(self, vector: Vector) -> list[tuple[NDArray[np.float64], Vector]]:
        """The vector as (matrix of shape (outputs, inputs), offsets of shape (outputs,)) of every layer; views."""
        parts, start = [], 0
        for inputs, outputs in self.sizes:
            middle, end = start + outputs * inputs, start + outputs * (inputs + 1)
            parts.append((vector[start:middle].reshape(outputs, inputs), vector[middle:end]))
            start = end
        return parts

    def model(self, vector: Vector, *, schema_digest: str) -> Model:
        """A linear model without hidden layers, so that it can become a scorecard; else a network."""
        if self.hidden:
            return NetworkModel(schema_digest=schema_digest, layers=tuple(self.split(vector)))
        return LinearModel(
            schema_digest=schema_digest,
            centre=np.zeros(self.width),
            coefficients=vector[: self.width],
            intercept=float(vector[self.width]),
            centred_radius=None,
        )
