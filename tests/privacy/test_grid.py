"""Fixed point: exact against Python's unbounded integers and fractions; what does not fit is an error."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.errors import MalformedError
from privacy.grid import Grid, add_words

STEPS = st.integers(-60, 10)
VALUES = st.floats(-1e6, 1e6)


def vector(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


@given(VALUES, STEPS)
@example(0.5, 0)
@example(1.5, 0)
@example(-0.5, 0)
@example(5e-324, -60)
def test_a_value_becomes_the_nearest_multiple_in_twos_complement(value: float, step_log2: int) -> None:
    steps = round(Fraction(value) / Fraction(2) ** step_log2)  # Python rounds ties to even, exactly
    if not -(2**63) <= steps < 2**63:
        with pytest.raises(MalformedError, match="leave the grid"):
            Grid(step_log2).encode(vector(value))
        return
    word = Grid(step_log2).encode(vector(value))
    assert int(word[0]) == steps % 2**64
    assert Grid(step_log2).decode(word)[0] == float(steps) * 2.0**step_log2


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=6))
def test_sums_are_exact(rows: list[list[float]]) -> None:
    grid = Grid(-20)
    total = grid.decode(add_words(grid.encode(np.array(row)) for row in rows))
    for k in range(3):
        exact = sum(round(Fraction(row[k]) * 2**20) for row in rows)
        assert total[k] == exact / 2**20


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308, -1e308, 2.0**43, -(2.0**43) - 1])
def test_what_does_not_fit_is_an_error_and_never_clipped(bad: float) -> None:
    with pytest.raises(MalformedError, match="1 of 2 numbers"):
        Grid(-20).encode(vector(1.0, bad))


def test_the_last_values_that_fit() -> None:
    grid = Grid(-20)
    edge = vector(-(2.0**43), 2.0**43 - 2.0**-9)
    np.testing.assert_array_equal(grid.decode(grid.encode(edge)), edge)


@given(st.integers(1, 10**7), st.floats(1e-3, 1e4), st.floats(1e-3, 1e4), st.integers(1, 200))
def test_a_fitted_grid_holds_the_worst_sum_and_is_fine_against_the_noise(
    people: int, bound: float, deviation: float, holders: int
) -> None:
    grid = Grid.fit(people=people, bound=bound, standard_deviation=deviation)
    worst = people * bound + 8.6 * deviation * math.sqrt(holders)
    assert grid.decode(grid.encode(vector(worst, -worst))) == pytest.approx(vector(worst, -worst))
    assert 2.0**grid.step_log2 <= deviation * 2.0**-16
    # Coarser than the last bits of a float that large as the noise by far, or they would show.
    assert 2.0**grid.step_log2 > deviation * 2.0**-18


def test_without_noise_the_grid_is_as_fine_as_it_can_be() -> None:
    assert Grid.fit(people=30_000, bound=4.5, standard_deviation=0.0) == Grid(-32)
    coarse = Grid.fit(people=10**9, bound=1024.0, standard_deviation=0.0)
    assert -32 < coarse.step_log2 < -16


def test_a_sum_that_could_overflow_is_refused_in_advance() -> None:
    for deviation in (0.0, 1e-6):
        with pytest.raises(MalformedError, match="can leave the grid"):
            Grid.fit(people=10**12, bound=1e6, standard_deviation=deviation)
    Grid(-20).require_room(people=2**20, bound=2.0**22, standard_deviation=0.0)
    with pytest.raises(MalformedError, match="can leave the grid"):
        Grid(-20).require_room(people=2**20, bound=2.0**22 + 1, standard_deviation=0.0)


def test_unlawful_grids_and_words_are_refused() -> None:
    with pytest.raises(MalformedError, match="64 bits"):
        Grid(-20, bits=32)
    with pytest.raises(MalformedError, match="shape"):
        add_words([np.zeros(2, dtype=np.uint64), np.zeros(3, dtype=np.uint64)])
    with pytest.raises(MalformedError, match="no vector"):
        add_words([])
    with pytest.raises(TypeError, match="uint64"):
        Grid(-20).decode(np.zeros(2, dtype=np.int64))
