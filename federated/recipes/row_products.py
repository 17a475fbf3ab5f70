"""Products of rows with an instruction's numbers, each worked out from its row alone.

BLAS adds up a row's products in an order that depends on the row's place in the matrix and on how many rows there are.
Mostly that is rounding. But an instruction can hold numbers that cancel, such as 2^90, -2^90 and 2^30, where the order
decides what is left: without one row of many, the probabilities of all others change, and no clipping bounds that.
"""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float64, np.float32)

ROWS_AT_ONCE: Final = 64
"""Rows of every matrix product in `row_products`: enough for its speed, and a whole number of any processor's tiles."""


def row_dots(rows: NDArray[Number], vector: NDArray[Number]) -> NDArray[Number]:
    """rows · vector, shape (n,), bit for bit the same for the same row whoever is beside it.

    `rows` has shape (n, p), `vector` (p,). numpy's own loop adds each row up by itself, always in the same order, as
    long as rows lie one after the other; `@` and BLAS do not.
    """
    # Otherwise the loop could go down the columns; of one row it cannot, and the order would be another.
    if rows.strides[1] != rows.itemsize or rows.strides[0] < rows.shape[1] * rows.itemsize:
        rows = rows.copy(order="C")
    dots: NDArray[Number] = np.einsum("ij,j->i", rows, vector)
    return dots


def row_products(rows: NDArray[Number], weights: NDArray[Number], out: NDArray[Number]) -> None:
    """rows · weights', shape (n, units), into `out`; n must be a multiple of 64 and rows contiguous.

    Fast, by BLAS, which is the same computation each time because each of its products has 64 rows: that equal rows
    have equal results at all their 64 places is not promised by BLAS but tested here.
    """
    blocks = len(rows) // ROWS_AT_ONCE
    np.matmul(
        rows.reshape(blocks, ROWS_AT_ONCE, rows.shape[1]),
        weights.T,
        out=out.reshape(blocks, ROWS_AT_ONCE, out.shape[1]),
    )


def whole_blocks(rows: int) -> int:
    """`rows` rounded up to a multiple of 64."""
    return -(-rows // ROWS_AT_ONCE) * ROWS_AT_ONCE
