"""Sums over people of clipped gradients of the log loss, in closed form: no gradient of one person is written down.

The gradient of one person in a linear layer is the outer product of what came back and what went in, so its squared
norm is |back|^2 (|in|^2 + 1), the 1 being the offset's (Goodfellow 2015, arXiv:1510.01799). People are scaled by
their clipping factor and share before one matrix product sums them.

Logistic regression is summed in float64. Networks are worked out in float32, as torch does without privacy: half the
time goes into matrix products, which float64 makes twice as slow. The norms are bounded from above in spite of the
roundings, so that everybody's own part stays within the clipping norm, and nobody's part depends on who else is in a
batch (`row_products`); the rounding of the sum, which is accumulated in float64 over blocks, is named among what
epsilon excludes.
"""

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from federated.recipes.layers import Layers
from federated.recipes.row_products import row_dots, row_products, whole_blocks
from federated.rows import EncodedRows
from privacy.noise import Vector

Matrix = NDArray[np.float64]
Places = NDArray[np.intp]
Single = NDArray[np.float32]
Number = TypeVar("Number", np.float64, np.float32)

LOGISTIC_BLOCK = 16_384
NETWORK_BLOCK = 1024
"""Rows worked on at a time, so that a block and its layers stay in the processor's cache."""

CACHE_LINE = 64
"""Bytes. Rows of a table begin at whole ones, which makes the products up to twice as fast."""


class ClippedSums(Protocol):
    """What local steps ask of one data holder's rows."""

    def clipped_sum(self, vector: Vector, batch: Places | None) -> Vector:
        """The sum of share x clipped gradient over `batch` (None: everybody), shaped like the model's `vector`.

        A person whose gradient is not finite counts 0: it has no direction left, and must not spoil the sum.
        """
        ...


def clipped_sums(layers: Layers, rows: EncodedRows, *, clipping_norm: float) -> ClippedSums:
    """Over `rows`, for a model of these layers. Requires clipping_norm > 0; buffers are made once."""
    kind = NetworkSums if layers.hidden else LogisticSums
    return kind(layers, rows, clipping_norm=clipping_norm)


class LogisticSums:
    """Without hidden layers a gradient is the residual times [x, 1], so clipping it is clipping the residual."""

    def __init__(self, layers: Layers, rows: EncodedRows, *, clipping_norm: float) -> None:
        self._width, self._x = layers.width, np.ascontiguousarray(rows.x)
        # 1e-9 of the norm is kept back for rounding, whose relative size is below (width + 10) 2^-53.
        largest = 2 * clipping_norm * (1 - 1e-9) / np.sqrt(np.vecdot(self._x, self._x) + 1)
        # Of every person: 1 - 2 outcome, twice the least and the largest residual, half the share.
        self._of_people = np.array([1 - 2 * rows.bad, -largest, largest, rows.share / 2])
        self._gathered = _table(min(LOGISTIC_BLOCK, len(rows)), layers.width, np.float64)

    def clipped_sum(self, vector: Vector, batch: Places | None) -> Vector:
        """See `ClippedSums`."""
        total = np.zeros(self._width + 1)
        people = len(self._x) if batch is None else len(batch)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for start in range(0, people, LOGISTIC_BLOCK):
                block = slice(start, start + LOGISTIC_BLOCK)
                if batch is None:
                    x, of_people = self._x[block], self._of_people[:, block]
                else:
                    # "clip" writes straight into the buffer; every place is within the rows.
                    x = self._gathered[: len(batch[block]), : self._width]
                    self._x.take(batch[block], axis=0, out=x, mode="clip")
                    of_people = self._of_people.take(batch[block], axis=1)
                residual = _clipped_residual(x, of_people, vector / 2)
                total[:-1] += residual @ x
                total[-1] += residual.sum()
        return total


def _clipped_residual(x: Matrix, of_people: Matrix, half: Vector) -> Vector:
    """Each person's residual, clipped and times the share; `half` of the coefficients, the intercept last."""
    sign, least, largest, half_share = of_people
    # Twice the residual: the probability is (1 + tanh(log-odds / 2)) / 2.
    residual: Vector = row_dots(x, half[:-1])
    residual += half[-1]
    np.tanh(residual, out=residual)
    residual += sign
    np.maximum(residual, least, out=residual)
    np.minimum(residual, largest, out=residual)
    residual *= half_share
    if np.isnan(residual).any():
        np.nan_to_num(residual, copy=False, nan=0.0)
    return residual


class NetworkSums:
    """With hidden layers: what comes back is carried down first, then people are scaled, then summed by layer."""

    def __init__(self, layers: Layers, rows: EncodedRows, *, clipping_norm: float) -> None:
        self._layers, width = layers, layers.width
        # A squared norm of k numbers is off by less than (k + 3) 2^-24 of itself; 8 more roundings follow. Squares that
        # are too small for float32 (2^-150), times a square that is not too large (2^128), lose k 2^-22 a layer of a
        # squared length that is never below 1, the last offset's.
        self._clipping_norm = clipping_norm * (1 - (max(width, *layers.hidden) + 16) * 2.0**-21)
        # x, 1 for the offset, |x|^2 + 1, outcome, share.
        # Rows beyond the people are nobody's: they fill the last block of a product, and nothing of them is summed.
        self._people = people = len(rows)
        self._table = _table(whole_blocks(people), width + 4, np.float32)
        self._table[people:] = 0.0
        table = self._table[:people]
        with np.errstate(over="ignore", under="ignore"):
            table[:, :width] = rows.x
            table[:, width] = 1.0
            table[:, width + 1] = _squares(table[:, : width + 1])
        table[:, width + 2] = rows.bad
        table[:, width + 3] = rows.share
        block = min(NETWORK_BLOCK, whole_blocks(people))
        self._gathered = _table(block, width + 4, np.float32)
        # The last column of a layer's outputs is the next one's 1 for the offset.
        self._outputs = [np.ones((block, units + 1), dtype=np.float32) for units in layers.hidden]
        self._back = [np.empty((block, units + 1), dtype=np.float32) for units in layers.hidden]
        self._lit = [np.empty((block, units + 1), dtype=np.bool_) for units in layers.hidden]

    def clipped_sum(self, vector: Vector, batch: Places | None) -> Vector:
        """See `ClippedSums`."""
        sums = [np.zeros((outputs, inputs + 1)) for inputs, outputs in self._layers.sizes]
        people = self._people if batch is None else len(batch)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            ahead = [np.column_stack(layer).astype(np.float32) for layer in self._layers.split(vector)]
            back = [weights.copy() for weights in ahead]
            for weights in back:
                weights[:, -1] = 0.0  # nothing comes back through an offset
            for start in range(0, people, NETWORK_BLOCK):
                some = min(NETWORK_BLOCK, people - start)
                if batch is None:
                    table = self._table[start : start + whole_blocks(some)]
                else:
                    table = self._gathered[: whole_blocks(some)]
                    # "clip" writes straight into the buffer; every place is within the table.
                    self._table.take(batch[start : start + some], axis=0, out=table[:some], mode="clip")
                self._add_block(table, some, ahead, back, sums)
        return np.concatenate([part for summed in sums for part in (summed[:, :-1].ravel(), summed[:, -1])])

    def _add_block(
        self, padded: Single, people: int, ahead: list[Single], back: list[Single], sums: list[Matrix]
    ) -> None:
        """Add what the first `people` rows of `padded`, which has whole blocks, add to the sums of the layers."""
        rows, table, width, hidden = len(padded), padded[:people], self._layers.width, self._layers.hidden
        inputs, squares = [table[:, : width + 1]], [table[:, width + 1]]
        into = padded[:, : width + 1]
        for layer, units in enumerate(hidden):
            after, lit = self._outputs[layer][:people], self._lit[layer][:people]
            row_products(into, ahead[layer], self._outputs[layer][:rows, :units])
            into = self._outputs[layer][:rows]
            np.greater(after, 0.0, out=lit)
            np.multiply(after, lit, out=after)  # half the time of a maximum with 0
            inputs.append(after)
            squares.append(_squares(after))
        residual = row_dots(inputs[-1], ahead[-1][0]).astype(np.float64)
        residual = 0.5 * np.tanh(0.5 * residual) + 0.5 - table[:, width + 2]
        # What comes back for a residual of 1; the residual itself, one number a person, waits until the end.
        length = squares[-1].astype(np.float64)
        for layer in reversed(range(len(hidden))):
            lit, came = self._lit[layer][:people], self._back[layer][:people]
            if layer + 1 == len(hidden):
                np.multiply(lit, back[-1][0], out=came)
            else:
                row_products(
                    self._back[layer + 1][:rows, : hidden[layer + 1]], back[layer + 1].T, self._back[layer][:rows]
                )
                np.multiply(came, lit, out=came)
            length += _squares(came).astype(np.float64) * squares[layer]
        self._scale(table, residual, np.sqrt(length) * np.abs(residual))
        scale = residual.astype(np.float32)
        sums[-1][0] += scale @ inputs[-1]
        for layer, units in enumerate(hidden):
            came = self._back[layer][:people]
            np.multiply(came, scale[:, None], out=came)
            sums[layer] += came[:, :units].T @ inputs[layer]

    def _scale(self, table: Single, residual: Vector, length: Vector) -> None:
        """Multiply each person's residual by share and clipping factor, given the `length` of the gradient."""
        if not np.isfinite(length.sum()):
            gone = ~np.isfinite(length)
            residual[gone], length[gone] = 0.0, 0.0
            # 0 times infinity would come back in the products.
            for kept, came in zip(self._outputs, self._back, strict=True):
                kept[: len(table)][gone, :-1], came[: len(table)][gone] = 0.0, 0.0
        residual *= (self._clipping_norm / np.maximum(length, self._clipping_norm)) * table[:, self._layers.width + 3]


def _table(rows: int, columns: int, kind: type[Number]) -> NDArray[Number]:
    """Zeros of shape (rows, at least columns) in which every row begins at a cache line."""
    per_line = CACHE_LINE // np.dtype(kind).itemsize
    padded = -(-columns // per_line) * per_line
    memory = np.empty(rows * padded + per_line, dtype=kind)
    first = (-memory.ctypes.data % CACHE_LINE) // memory.itemsize
    return memory[first : first + rows * padded].reshape(rows, padded)


def _squares(matrix: Single) -> Single:
    """Squared norm of every row."""
    squares: Single = np.vecdot(matrix, matrix)
    return squares
