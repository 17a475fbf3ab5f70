"""Monotone constraints: where the schema says that risk rises (or falls) with a value, so do the coefficients.

A line's coefficient has the declared sign; the coefficients of bins and of knots are in order, as in isotonic
regression; indicators of codes, special codes and missing values are free. All of it is arithmetic on sums that were
released already, so it costs no privacy, and a scorecard's points never fall where the schema says they rise.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from federated.characteristics import Form, Risk
from federated.encoder import ColumnBlock
from privacy.noise import Vector

Matrix = NDArray[np.float64]

TOLERANCE = 1e-11
"""Relative to the largest linear term: a smaller pull against a bound counts as none."""


class Cone:
    """All vectors of `size` numbers, an encoded column each and the intercept last, that keep the blocks' directions.

    A vector in it is `T t` where some of the t, the increments, are at least 0 and the others free.
    """

    def __init__(self, blocks: Sequence[ColumnBlock], size: int) -> None:
        self._blocks = tuple((block, 1.0 if block.risk is Risk.INCREASING else -1.0) for block in directed(blocks))
        self.limited = np.zeros(size, dtype=np.bool_)
        for block, _ in self._blocks:
            first = block.start if block.form is Form.LINE else block.start + 1
            self.limited[first : block.start + block.ordered] = True
        self._matrix = np.column_stack([self._vector(column) for column in np.eye(size)])

    def _vector(self, increments: Vector) -> Vector:
        """`T t`, by running sums: adding at least 0 never lowers a float, so the order holds exactly."""
        out = np.array(increments, dtype=np.float64)
        for block, sign in self._blocks:
            own = slice(block.start, block.start + block.ordered)
            signs = np.where(self.limited[own], sign, 1.0)
            out[own] = np.cumsum(signs * increments[own])
        return out

    def minimiser(self, curvature: Matrix, linear: Vector) -> Vector:
        """The vector v of the cone with the least v' curvature v / 2 - linear · v, for a positive definite curvature.

        With linear = curvature u it is the nearest to u in the norm of the curvature.
        """
        if not self.limited.any():
            return np.asarray(np.linalg.solve(curvature, linear), dtype=np.float64)
        return self._vector(
            bounded_minimiser(self._matrix.T @ curvature @ self._matrix, self._matrix.T @ linear, self.limited)
        )


def directed(blocks: Sequence[ColumnBlock]) -> tuple[ColumnBlock, ...]:
    """The blocks whose coefficients have a direction to keep."""
    return tuple(block for block in blocks if block.risk is not Risk.NONE and block.ordered)


@lru_cache(maxsize=64)
def cone_of(blocks: tuple[ColumnBlock, ...], size: int) -> Cone:
    """The cone of these blocks, made once."""
    return Cone(blocks, size)


def bounded_minimiser(curvature: Matrix, linear: Vector, limited: NDArray[np.bool_]) -> Vector:
    """The t with the least t' curvature t / 2 - linear · t and t >= 0 where `limited`; curvature positive definite.

    The active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23), with unlimited
    numbers always among the free ones. Every pass lowers the value, so no set of free numbers comes back.
    """
    free = ~limited
    t = np.zeros(len(linear))
    t[free] = np.linalg.solve(curvature[np.ix_(free, free)], linear[free])
    tolerance = TOLERANCE * float(np.abs(linear).max(initial=0.0))
    # The bound on the number of passes is for rounding errors only; what it stops at is within the limits anyway.
    for _ in range(3 * len(linear)):
        pull = np.where(free, -np.inf, linear - curvature @ t)
        if pull.max() <= tolerance:
            break
        free[int(np.argmax(pull))] = True
        while True:
            goal = np.zeros(len(linear))
            goal[free] = np.linalg.solve(curvature[np.ix_(free, free)], linear[free])
            below = free & limited & (goal <= 0)
            if not below.any():
                t = goal
                break
            # As far towards the goal as the first limit on the way, which is then kept.
            fractions = np.full(len(linear), np.inf)
            fractions[below] = t[below] / np.maximum(t[below] - goal[below], np.finfo(np.float64).tiny)
            t = t + min(1.0, float(fractions.min())) * (goal - t)
            held = below & (fractions <= fractions.min())
            free &= ~held
            t[~free] = 0.0
    return t
