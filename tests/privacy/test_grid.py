"""Fixed point: exact against Python's unbounded integers and fractions; what does not fit is an error."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import MalformedError
from privacy.grid import Grid, Words, add_words

STEPS = st.integers(-60, 10)
BITS = st.integers(8, 64)
VALUES = st.floats(-1e6, 1e6)
WORDS = st.integers(0, 2**64 - 1)


def vector(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def words(*values: int) -> Words:
    return np.array(values, dtype=np.uint64)


def signed(word: int, bits: int) -> int:
    """Two's complement by its definition: the number of `bits` bits that is congruent and lies around 0."""
    half: int = 2 ** (bits - 1)
    return (word + half) % (2 * half) - half


@given(VALUES, STEPS, BITS)
@example(0.5, 0, 64)
@example(1.5, 0, 64)
@example(-0.5, 0, 8)
@example(5e-324, -60, 8)
@example(127.5, 0, 8)
@example(-128.5, 0, 8)
def test_a_value_becomes_the_nearest_multiple_in_twos_complement(value: float, step_log2: int, bits: int) -> None:
    grid = Grid(step_log2, bits)
    steps = round(Fraction(value) / Fraction(2) ** step_log2)  # Python rounds ties to even, exactly
    if not -(2 ** (bits - 1)) <= steps < 2 ** (bits - 1):
        with pytest.raises(MalformedError, match="leave the grid"):
            grid.encode(vector(value))
        return
    word = grid.encode(vector(value))
    assert int(word[0]) == steps % 2**64
    assert grid.decode(word)[0] == float(steps) * 2.0**step_log2


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=6), st.integers(44, 64))
def test_sums_are_exact(rows: list[list[float]], bits: int) -> None:
    grid = Grid(-20, bits)
    total = grid.decode(add_words(grid.encode(np.array(row)) for row in rows))
    for k in range(3):
        exact = sum(round(Fraction(row[k]) * 2**20) for row in rows)
        assert total[k] == exact / 2**20


@given(st.lists(WORDS, min_size=1, max_size=5), STEPS, BITS)
@example([2**63], 0, 64)
@example([2**7], 0, 8)
@example([2**64 - 1, 2**64 - 1], 0, 8)
def test_only_the_low_bits_count_whoever_sent_them(sent: list[int], step_log2: int, bits: int) -> None:
    decoded = Grid(step_log2, bits).decode(add_words(words(word) for word in sent))[0]
    assert decoded == float(signed(sum(sent), bits)) * 2.0**step_log2
    assert abs(decoded) <= 2.0 ** (bits - 1 + step_log2)


@given(WORDS, st.integers(-(2**30), 2**30))
def test_no_word_moves_a_sum_out_of_the_range_that_honest_sums_have(hostile: int, honest: int) -> None:
    grid = Grid(0, 34)
    decoded = grid.decode(add_words([grid.encode(vector(honest)), words(hostile)]))[0]
    assert abs(decoded) <= 2.0**33
    # Masks are whole words, and they cancel whatever lies above the bits that count.
    back = grid.decode(add_words([grid.encode(vector(honest)), words(hostile), words(-hostile % 2**64)]))
    assert back[0] == honest


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308, -1e308, 2.0**43, -(2.0**43) - 1])
def test_what_does_not_fit_is_an_error_and_never_clipped(bad: float) -> None:
    with pytest.raises(MalformedError, match="1 of 2 numbers"):
        Grid(-20, 64).encode(vector(1.0, bad))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 8.0, -8.0 - 2.0**-20, 8.0 - 2.0**-22])
def test_nor_what_does_not_fit_fewer_bits(bad: float) -> None:
    # The last one would round up to the first step that is too many.
    with pytest.raises(MalformedError, match="24 bits"):
        Grid(-20, 24).encode(vector(bad, 1.0))


def test_the_last_values_that_fit() -> None:
    for grid, edge in (
        (Grid(-20, 64), vector(-(2.0**43), 2.0**43 - 2.0**-9)),
        (Grid(-20, 24), vector(-8.0, 8.0 - 2.0**-20)),
        (Grid(0, 8), vector(-128.0, 127.0)),
    ):
        np.testing.assert_array_equal(grid.decode(grid.encode(edge)), edge)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4), BITS)
@example([2**7 - 1, -(2**7)], 8)
@example([2**7], 8)
@example([-(2**7) - 1], 8)
def test_whole_steps_are_taken_as_they_are_or_refused(steps: list[int], bits: int) -> None:
    grid, given_steps = Grid(0, bits), np.array(steps, dtype=np.int64)
    outside = sum(signed(step, bits) != step for step in steps)
    if outside:
        with pytest.raises(MalformedError, match=f"{outside} of {len(steps)} whole numbers"):
            grid.from_steps(given_steps)
        return
    assert [int(word) for word in grid.from_steps(given_steps)] == [step % 2**64 for step in steps]


@given(st.floats(-1e3, 1e3), st.integers(-(2**40), 2**40))
def test_noise_in_steps_adds_to_encoded_values(value: float, noise: int) -> None:
    grid = Grid(-30, 44)
    total = add_words([grid.encode(vector(value)), grid.from_steps(np.array([noise], dtype=np.int64))])
    assert grid.decode(total)[0] == float(round(Fraction(value) * 2**30) + noise) / 2**30


@given(st.floats(1e-6, 1e11), st.floats(1e-3, 1e4), st.integers(1, 1000), st.integers(1, 1000))
def test_a_fitted_grid_holds_the_worst_sum_and_is_fine_against_the_noise(
    deviations: float, deviation: float, holders: int, own_noise: int
) -> None:
    reach = deviations * deviation  # 10^8 people at epsilon 100 stay below 10^10 deviations
    grid = Grid.fit(reach=reach, deviation=deviation)
    # Every holder rounds by half a step, and may add noise for everybody: 30 deviations of that.
    worst = reach + 30 * deviation * math.sqrt(own_noise) + holders / 2 * 2.0**grid.step_log2
    np.testing.assert_allclose(grid.decode(grid.encode(vector(worst, -worst))), vector(worst, -worst), rtol=1e-9)
    assert deviation * 2.0**-25 < 2.0**grid.step_log2 <= deviation * 2.0**-24


@given(st.floats(1e-6, 1e11), st.one_of(st.just(0.0), st.floats(1e-3, 1e4)))
def test_a_fitted_grid_has_the_fewest_bits_with_one_kept_back(times: float, deviation: float) -> None:
    reach = times * (deviation or 1.0)
    grid = Grid.fit(reach=reach, deviation=deviation)
    steps = (Fraction(reach) + 1024 * Fraction(deviation)) / Fraction(2) ** grid.step_log2
    assert steps <= 2 ** (grid.bits - 2)
    assert grid.bits == 24 or steps > 2 ** (grid.bits - 3) * (1 - 1e-12)
    grid.require_room(reach=reach, deviation=deviation)
    if grid.bits > 24:
        with pytest.raises(MalformedError, match="can leave the grid"):
            Grid(grid.step_log2, grid.bits - 1).require_room(reach=reach, deviation=deviation)


@pytest.mark.parametrize(("exponent", "below"), [(0, -25), (1, -24), (-10, -35), (7, -18)])
def test_the_step_changes_exactly_at_powers_of_two(exponent: int, below: int) -> None:
    deviation = 2.0**exponent
    assert Grid.fit(reach=1.0, deviation=math.nextafter(deviation, 0)).step_log2 == below
    assert Grid.fit(reach=1.0, deviation=deviation).step_log2 == below + 1


def test_without_noise_the_grid_is_as_fine_as_it_can_be() -> None:
    assert Grid.fit(reach=135_000.0, deviation=0.0) == Grid(-32, 52)
    assert Grid.fit(reach=1e-9, deviation=0.0) == Grid(-32, 24)
    coarse = Grid.fit(reach=1e9 * 1024, deviation=0.0)
    assert -32 < coarse.step_log2 < -16
    assert coarse.bits == 64


def test_a_sum_that_could_overflow_is_refused_in_advance() -> None:
    for deviation in (0.0, 1e-6):
        with pytest.raises(MalformedError, match="can leave the grid"):
            Grid.fit(reach=1e18, deviation=deviation)
    with pytest.raises(MalformedError, match="can leave the grid"):
        Grid.fit(reach=1e308, deviation=1e-100)
    Grid(-20, 64).require_room(reach=2.0**42, deviation=0.0)
    with pytest.raises(MalformedError, match="can leave the grid"):
        Grid(-20, 64).require_room(reach=2.0**42 + 1, deviation=0.0)
    with pytest.raises(MalformedError, match="can leave the grid"):
        Grid(-20, 64).require_room(reach=2.0**42, deviation=1.0)


@pytest.mark.parametrize(
    ("reach", "deviation"), [(0.0, 1.0), (-1.0, 1.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, -1.0), (1.0, math.inf)]
)
def test_unlawful_sums_are_a_fault_of_the_program(reach: float, deviation: float) -> None:
    with pytest.raises(ValueError, match="reach"):
        Grid.fit(reach=reach, deviation=deviation)
    with pytest.raises(ValueError, match="reach"):
        Grid(0, 64).require_room(reach=reach, deviation=deviation)


@pytest.mark.parametrize(("step_log2", "bits"), [(-20, 7), (-20, 65), (513, 64), (-513, 64)])
def test_unlawful_grids_are_refused(step_log2: int, bits: int) -> None:
    with pytest.raises(MalformedError, match="lawful grid"):
        Grid(step_log2, bits)


def test_unlawful_words_are_refused() -> None:
    with pytest.raises(MalformedError, match="shape"):
        add_words([words(0, 0), words(0, 0, 0)])
    with pytest.raises(MalformedError, match="no vector"):
        add_words([])
    with pytest.raises(TypeError, match="uint64"):
        add_words([np.zeros(2, dtype=np.int64)])
    with pytest.raises(TypeError, match="uint64"):
        Grid(-20, 64).decode(np.zeros(2, dtype=np.int64))
    with pytest.raises(TypeError, match="int64"):
        Grid(-20, 64).from_steps(np.zeros(2))  # type: ignore[arg-type]


def test_adding_words_leaves_what_was_added_alone() -> None:
    first = words(2**64 - 1, 5)
    assert add_words([first, words(2, 3)]).tolist() == [1, 8]
    assert first.tolist() == [2**64 - 1, 5]
