"""No cell that could poison a sum gets past `EncodedRows`."""

import math

import numpy as np
import pytest

from federated.rows import EncodedRows
from privacy.errors import MalformedError


def rows(x: float = 0.5, bad: float = 1.0, share: float = 1.0) -> EncodedRows:
    return EncodedRows(np.array([[0.0, 1.0], [x, -1.0]]), np.array([0.0, bad]), np.array([0.5, share]))


@pytest.mark.parametrize("cell", [math.nan, math.inf, -math.inf, 1e308, -1e308, 2.0**101])
def test_cells_that_are_not_finite_or_huge_are_refused_by_count(cell: float) -> None:
    with pytest.raises(MalformedError, match="1 of 2 rows"):
        rows(x=cell)


@pytest.mark.parametrize("outcome", [math.nan, 0.5, -1.0, 2.0, math.inf])
def test_outcomes_are_0_or_1(outcome: float) -> None:
    with pytest.raises(MalformedError, match="1 of 2 outcomes"):
        rows(bad=outcome)


@pytest.mark.parametrize("share", [math.nan, -1e-9, 1 + 1e-9, math.inf])
def test_shares_are_between_0_and_1(share: float) -> None:
    with pytest.raises(MalformedError, match="1 of 2 shares"):
        rows(share=share)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 2, 1)])
def test_shapes_must_belong_together(shape: tuple[int, ...]) -> None:
    with pytest.raises(MalformedError, match="do not belong together"):
        EncodedRows(np.zeros(shape), np.zeros(2), np.ones(2))


def test_lawful_rows_are_read_only_and_may_be_none() -> None:
    made = rows(x=5e-324)
    assert (len(made), made.width) == (2, 2)
    with pytest.raises(ValueError, match="read-only"):
        made.x[0, 0] = 1.0
    assert len(EncodedRows(np.zeros((0, 3)), np.zeros(0), np.zeros(0))) == 0


def test_the_callers_own_array_stays_writable() -> None:
    x = np.zeros((1, 1))
    EncodedRows(x, np.zeros(1), np.ones(1))
    x[0, 0] = 1.0
