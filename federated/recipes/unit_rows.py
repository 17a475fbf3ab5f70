"""Unit rows: what the recipes for logistic regression sum over. One clip of the row, none of its gradient.

With c_i = clip(x_i - centre, radius), a_i = [sqrt(0.9) c_i / radius, sqrt(0.1)] has norm at most 1, the intercept's
column inside. Then a person's gradient of the logistic loss has norm at most 1 and its Hessian at most 1/4, whatever
the row and whatever the coefficients: no clipping bias, and a bound that no malicious instruction can lift.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federated.model import LinearModel, clip_to_norm, probability_of
from federated.recipes.row_products import row_dots
from federated.rows import EncodedRows
from privacy.discrete import mu_on_grid
from privacy.errors import MalformedError
from privacy.noise import Vector

Matrix = NDArray[np.float64]

COLUMN_PART: Final = 0.9
"""Share of the squared unit norm that the columns get in a row; the rest is the intercept's."""

INTERCEPT_COLUMN: Final = math.sqrt(1 - COLUMN_PART)
"""The intercept's constant cell in a unit row."""

FEWEST_HEADS: Final = 50.0
"""A noisy head count is floored here: it is divided by."""

SMALLEST_BASE_RATE: Final = 0.01

SMALLEST_RADIUS: Final = 1e-3
LARGEST_RADIUS: Final = 1e6
"""Radii outside are refused: with cells up to 2^101, the ratio that clips a row stays far from the subnormal
numbers, which round by up to their own size and would let a clipped row be longer than its radius."""

LARGEST_START: Final = 1e6
"""No public start has a larger intercept or coefficient, in units of log-odds per encoded column."""

BLOCK_ROWS: Final = 2048
"""Rows worked on at a time, so that a block's copies stay in the processor's cache; every sum over people is a sum of
such blocks, which is what `privacy.discrete.float_slack` bounds the rounding of."""

NOT_PRIVATE: Final = "no noise was added: this training is NOT PRIVATE"
PUBLIC_CONSTANTS: Final = (
    "the schema's bounds, centres, spreads and the radii are taken to be public, not learnt from the rows"
)


def unit_rows(rows: EncodedRows, centre: Vector, radius: float) -> Iterator[tuple[slice, Matrix, Vector]]:
    """Blocks of (rows, centred rows of shape (block, p), factors f_i of shape (block,)).

    The unit row is a_i = [f_i (x_i - centre), sqrt(0.1)]; it is left factored because scaling every cell would cost
    more than all the rest.
    """
    scale = math.sqrt(COLUMN_PART) / radius
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        centred = rows.x[block] - centre
        norms = np.sqrt(np.vecdot(centred, centred))
        factors: Vector = scale * np.minimum(1.0, radius / np.maximum(norms, 1e-12))
        yield block, centred, factors


def centre_sum(rows: EncodedRows, radius: float) -> Vector:
    """Sum of w_i [clip(x_i, radius), 1, y_i], shape (p + 2,); one person adds at most sqrt(radius^2 + 2)."""
    total = np.zeros(rows.width + 2)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        total[:-2] += rows.share[block] @ clip_to_norm(rows.x[block], radius)
        total[-2] += rows.share[block].sum()
        total[-1] += rows.share[block] @ rows.bad[block]
    return total


def moment_sum(rows: EncodedRows, centre: Vector, radius: float) -> Vector:
    """Upper triangle of the sum of w_i a_i a_i', row by row, shape ((p + 1)(p + 2) / 2,)."""
    size = rows.width + 1
    total = np.zeros((size, size))
    for block, centred, factors in unit_rows(rows, centre, radius):
        unit = np.empty((len(centred), size))
        np.multiply(centred, factors[:, None], out=unit[:, :-1])
        unit[:, -1] = INTERCEPT_COLUMN
        total += (unit * rows.share[block, None]).T @ unit
    upper: Vector = total[np.triu_indices(size)]
    return upper


def gradient_sum(rows: EncodedRows, centre: Vector, radius: float, direction: Vector) -> Vector:
    """Sum of w_i (sigmoid(a_i' direction) - y_i) a_i, shape (p + 1,); one person adds at most 1."""
    total = np.zeros(rows.width + 1)
    for block, centred, factors in unit_rows(rows, centre, radius):
        log_odds = row_dots(centred, direction[:-1]) * factors + direction[-1] * INTERCEPT_COLUMN
        residual = rows.share[block] * (probability_of(log_odds) - rows.bad[block])
        total[:-1] += (residual * factors) @ centred
        total[-1] += residual.sum() * INTERCEPT_COLUMN
    return total


def symmetric(upper: Vector, size: int) -> Matrix:
    """The symmetric matrix of shape (size, size) whose upper triangle is `upper`, row by row."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = upper
    matrix += np.triu(matrix, 1).T
    return matrix


def positive_definite(matrix: Matrix, ridge: float) -> Matrix:
    """The positive part of a symmetric matrix plus `ridge` on the diagonal; its least eigenvalue is the ridge."""
    values, vectors = np.linalg.eigh(matrix)
    positive: Matrix = (vectors * (np.maximum(values, 0) + ridge)) @ vectors.T
    return (positive + positive.T) / 2


def mean_and_base_rate(total: Vector) -> tuple[Vector, float, float]:
    """The centre, the head count and the base rate in a released `centre_sum`, held away from division by noise."""
    heads = max(float(total[-2]), FEWEST_HEADS)
    return total[:-2] / heads, heads, held_base_rate(float(total[-1]) / heads)


def held_base_rate(base_rate: float) -> float:
    """A noisy base rate held to where its log-odds are sensible."""
    return min(max(base_rate, SMALLEST_BASE_RATE), 1 - SMALLEST_BASE_RATE)


def intercept_of(base_rate: float, width: int) -> Vector:
    """The direction that gives everybody the log-odds of `base_rate`, shape (width + 1,)."""
    direction = np.zeros(width + 1)
    direction[-1] = math.log(base_rate / (1 - base_rate)) / INTERCEPT_COLUMN
    return direction


def direction_of(start: tuple[float, ...], centre: Vector, radius: float) -> Vector:
    """A public start, intercept first, then a coefficient per encoded column, as coefficients of unit rows.

    Exact for rows within the radius: start[0] + start[1:] · x = direction · a.
    """
    intercept, coefficients = start[0], np.array(start[1:])
    columns = coefficients * (radius / math.sqrt(COLUMN_PART))
    return np.append(columns, (intercept + float(centre @ coefficients)) / INTERCEPT_COLUMN)


def linear_model(direction: Vector, centre: Vector, radius: float, schema_digest: str) -> LinearModel:
    """The model whose log-odds are direction · a."""
    return LinearModel(
        schema_digest=schema_digest,
        centre=centre,
        coefficients=direction[:-1] * (math.sqrt(COLUMN_PART) / radius),
        intercept=float(direction[-1]) * INTERCEPT_COLUMN,
        centred_radius=radius,
    )


@lru_cache(maxsize=64)
def total_mu(epsilon: float, delta: float) -> float:
    """Of all rounds together, with what the grid's discrete noise costs kept back; found once for each pair."""
    return mu_on_grid(epsilon, delta)


def require_lawful_start(start: tuple[float, ...] | None, width: int) -> None:
    """MalformedError unless a public start has an intercept and `width` coefficients, each within 1e6."""
    if start is None:
        return
    if len(start) != width + 1:
        raise MalformedError(
            f"the public start has {len(start)} numbers, an intercept and {width} coefficients were needed; the "
            "coordinator must take it from a model of the plan's schema"
        )
    # `not (<=)` also catches NaN.
    if not all(abs(value) <= LARGEST_START for value in start):
        raise MalformedError(
            f"the public start has a number that is not finite or beyond {LARGEST_START:g}; the coordinator must take "
            "it from a model that converged"
        )


def require_lawful_middle(middle: tuple[float, ...], width: int) -> None:
    """MalformedError unless a public middle is empty or has `width` numbers within the largest radius."""
    if middle and not (len(middle) == width and all(abs(value) <= LARGEST_RADIUS for value in middle)):
        raise MalformedError(
            f"the public middle of the rows is not {width} finite numbers; the coordinator must take it from the schema"
        )


def require_width(rows: EncodedRows, width: int) -> None:
    """MalformedError unless the rows have `width` encoded columns."""
    if rows.width != width:
        raise MalformedError(
            f"rows have {rows.width} encoded columns, the plan needs {width}; the data holder must encode by the "
            "plan's schema"
        )


def require_round_number(round_number: int, rounds: int) -> None:
    """MalformedError unless a recipe of `rounds` rounds has that round."""
    if not 1 <= round_number <= rounds:
        raise MalformedError(
            f"round {round_number} was asked of a recipe with {rounds} rounds; the coordinator must follow the plan"
        )
