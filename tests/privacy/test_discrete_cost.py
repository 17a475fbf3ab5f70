"""How much discrete noise a release needs, against hostile rounding, and what it costs more than a Gaussian: by brute
force over all whole numbers that matter."""

import itertools
import math
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.accounting import delta_of, mu_of
from privacy.discrete import (
    excess_is_covered,
    float_slack,
    grid_excess,
    mu_on_grid,
    noise_variance,
    share_on_grid,
)
from privacy.errors import MalformedError
from privacy.grid import Grid

Floats = NDArray[np.float64]
SENSITIVITIES = st.floats(0.01, 100)
MUS = st.floats(0.01, 3)


@given(SENSITIVITIES, MUS, st.integers(1, 5000), st.integers(-33, -10), st.floats(0, 1e-3))
def test_variance_is_the_formula_rounded_up(
    sensitivity: float, mu: float, length: int, step_log2: int, slack: float
) -> None:
    variance = noise_variance(sensitivity=sensitivity, mu=mu, length=length, step_log2=step_log2, slack=slack)
    with mpmath.workdps(60):
        step = mpmath.mpf(2) ** step_log2
        moved = mpmath.mpf(sensitivity) * (1 + mpmath.mpf("1e-9")) / step + mpmath.sqrt(length) * (1 + slack / step)
        exact = (moved / mu) ** 2
        assert exact <= variance < exact * (1 + 3e-12) + 2


def hostile_pair(
    chance: np.random.Generator, length: int, sensitivity: float, step: float, lean: float
) -> tuple[Floats, Floats]:
    """Two vectors at a distance of at most `sensitivity`, on both sides of as many rounding borders as possible."""
    direction = np.asarray(np.abs(chance.normal(size=length)) + lean, dtype=np.float64)
    apart = direction * (sensitivity / math.sqrt(float(np.sum(direction**2))))
    # The first lies just below a border, so it is rounded down, and the second just above another.
    steps = np.ceil(apart / step)
    border = np.asarray((chance.integers(-1000, 1000, length) + 0.5) * step, dtype=np.float64)
    # The first lies just below a border, so it is rounded down, and the second just above another.
    first: Floats = border - step * 1e-6
    nudged = border + (steps - 1) * step + step * 1e-6
    second: Floats = np.where(nudged <= first + apart, nudged, first + apart)
    return first, second


@given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0.01, 40), st.floats(0, 20), st.floats(0.1, 3))
def test_no_pair_of_neighbours_is_rounded_further_apart_than_the_noise_covers(
    seed: int, length: int, steps_apart: float, lean: float, mu: float
) -> None:
    chance, grid = np.random.default_rng(seed), Grid(-10, 40)
    sensitivity = math.ldexp(steps_apart, -10)
    anywhere, direction = chance.normal(size=(2, length))
    for first, second in (
        hostile_pair(chance, length, sensitivity, 2.0**-10, lean),
        (anywhere, anywhere + direction * (sensitivity / np.linalg.norm(direction))),
    ):
        assert np.linalg.norm(first - second) <= sensitivity * (1 + 1e-9)
        moved = [grid.encode(vector).view(np.int64).astype(object) for vector in (first, second)]
        apart = math.sqrt(sum((a - b) ** 2 for a, b in zip(*moved, strict=True)))
        assert apart <= steps_apart + math.sqrt(length)
        variance = noise_variance(sensitivity=sensitivity, mu=mu, length=length, step_log2=-10, slack=0.0)
        assert apart / math.sqrt(variance) <= mu


def test_rounding_does_reach_what_the_noise_covers() -> None:
    # 100 numbers move by 2e-6 steps each, and every one of them is rounded to another step.
    first = np.full(100, 0.5 - 1e-6)
    grid = Grid(0, 40)
    apart = float(np.linalg.norm(grid.decode(grid.encode(first + 2e-6)) - grid.decode(grid.encode(first))))
    assert apart == 10
    variance = noise_variance(sensitivity=2e-5, mu=1.0, length=100, step_log2=0, slack=0.0)
    assert 100 <= variance <= 101


def test_rounding_costs_little_on_a_fitted_grid() -> None:
    for mu, length, people in ((0.08, 2080, 30_000), (0.0268, 65, 100_000), (1.0, 20_000, 1_000_000)):
        step_log2 = Grid.fit(reach=float(people), deviation=1 / mu).step_log2
        slack = float_slack(people=people, reach=float(people))
        variance = noise_variance(sensitivity=1.0, mu=mu, length=length, step_log2=step_log2, slack=slack)
        assert 1 <= math.ldexp(math.sqrt(variance), step_log2) * mu < 1.003


@pytest.mark.parametrize("bad", [{"sensitivity": 0.0}, {"mu": math.inf}, {"length": 0}, {"slack": -1.0}, {"mu": 0.0}])
def test_unlawful_releases_are_a_fault_of_the_program(bad: dict[str, float]) -> None:
    lawful = {"sensitivity": 1.0, "mu": 1.0, "length": 3, "step_log2": -20, "slack": 0.0}
    with pytest.raises(ValueError, match="requires"):
        noise_variance(**{**lawful, **bad})  # type: ignore[arg-type]


def test_more_noise_than_can_be_drawn_is_refused() -> None:
    with pytest.raises(MalformedError, match="coarser grid"):
        noise_variance(sensitivity=1.0, mu=1e-3, length=3, step_log2=-60, slack=0.0)


@given(SENSITIVITIES, MUS, st.integers(1, 5000), st.integers(-33, 0), st.floats(0, 1e-3), st.floats(0, 1))
def test_a_share_pays_for_its_own_rounding(
    sensitivity: float, mu: float, length: int, step_log2: int, slack: float, share: float
) -> None:
    terms = {"sensitivity": sensitivity, "length": length, "step_log2": step_log2, "slack": slack}
    (kept,) = share_on_grid(np.array([share]), **terms)  # type: ignore[arg-type]
    assert 0 <= kept <= share
    variance = noise_variance(mu=mu, **terms)  # type: ignore[arg-type]
    rounding = math.sqrt(length) * (1 + slack / 2.0**step_log2)
    moved = kept * sensitivity / 2.0**step_log2 + rounding
    assert kept == 0 or moved / math.sqrt(variance) <= share * mu * (1 + 1e-12)
    # Nothing is given away: a person with 0 left could not have afforded the rounding.
    assert kept > 0 or rounding >= share * (sensitivity / 2.0**step_log2 + rounding) * (1 - 1e-8)
    assert share_on_grid(np.ones(1), **terms).tolist() == [1.0]  # type: ignore[arg-type]


def in_blocks(rows: Floats) -> float:
    """A float64 sum in blocks of 2048 rows, each one after the other: the worst order there is."""
    blocks = [float(np.cumsum(rows[start : start + 2048])[-1]) for start in range(0, len(rows), 2048)]
    total = 0.0
    for block in blocks:
        total += block
    return total


@given(st.integers(0, 2**32), st.integers(2, 9000), st.integers(0, 40))
@settings(max_examples=60)
def test_float_sums_of_neighbours_differ_by_no_more_than_the_slack(seed: int, people: int, spread: int) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.uniform(-1, 1, people) * 2.0 ** -chance.integers(0, spread + 1, people)
    gone = int(chance.integers(people))
    with_all, without = in_blocks(rows), in_blocks(np.delete(rows, gone))
    gap = abs(Fraction(with_all) - Fraction(without) - Fraction(float(rows[gone])))
    assert gap <= float_slack(people=people, reach=float(np.abs(rows).sum()))


def test_the_slack_is_needed() -> None:
    # Beside a first row of 1, each of the others is rounded away; without it they add up.
    rows = np.append(1.0, np.full(2047, 2.0**-53))
    gap = in_blocks(rows) - in_blocks(rows[1:]) - 1.0
    assert gap == -2047 * 2.0**-53
    assert abs(gap) < float_slack(people=2048, reach=1.0) < 8 * abs(gap)
    with pytest.raises(ValueError, match="people"):
        float_slack(people=0, reach=1.0)


# What noise on the grid costs more than a Gaussian -------------------------------------------------------------------


def law(variance: int, reach: int) -> Floats:
    """Chance of each of -reach..reach in one draw, from the definition in 50 digits."""
    with mpmath.workdps(50):
        half = [mpmath.exp(-mpmath.mpf(k * k) / (2 * variance)) for k in range(2 * reach)]
        total = 2 * mpmath.fsum(half) - 1
        return np.array([float(half[abs(k)] / total) for k in range(-reach, reach + 1)])


def summed_law(each: int, holders: int, reach: int) -> Floats:
    """Chance of each of -reach..reach in the sum of `holders` draws of variance `each`. All terms are positive, so
    small chances are as precise as large ones."""
    one = law(each, reach)
    total = one
    for _ in range(holders - 1):
        total = np.convolve(total, one, mode="same")
    return total


def rounded_law(variance: int, reach: int) -> Floats:
    """Chance of each of -reach..reach for a Gaussian rounded to whole numbers."""
    with mpmath.workdps(60):
        borders = [mpmath.erfc((k - 0.5) / mpmath.sqrt(2 * variance)) / 2 for k in range(reach + 2)]
        half = [float(a - b) for a, b in itertools.pairwise(borders)]
    return np.array(half[:0:-1] + half)


CASES = [(each, holders) for each in (1, 2, 4, 9, 17, 50) for holders in (1, 2, 3, 5) if 4 <= each * holders <= 90]


@pytest.mark.parametrize(("each", "holders"), CASES)
def test_log_ratios_stay_below_the_excess_and_are_not_far_below(each: int, holders: int) -> None:
    whole, epsilon, delta = each * holders, 1.0, 1e-5
    reach = 16 * (math.isqrt(whole) + 1)
    exact, rounded = summed_law(each, holders, reach), rounded_law(whole, reach)
    extra_epsilon, extra_delta = grid_excess([(1, each, holders)], epsilon=epsilon, delta=delta)
    # The Gaussian's mass outside that the bound may ignore, times e^epsilon, is a billionth of delta.
    at = np.abs(np.arange(-reach, reach + 1))
    outside = np.array([rounded[at > k].sum() for k in range(reach)])
    box = int(np.argmax(outside * math.exp(epsilon) <= delta * 1e-9))
    assert box > 4 * math.sqrt(whole)
    inside = at <= box
    ratio = np.log(exact[inside] / rounded[inside])
    truth = float(ratio.max() - ratio.min())
    assert truth <= extra_epsilon < 2.5 * truth + 20 * math.exp(-(math.pi**2) * each) * holders
    assert float(ratio.max()) * delta <= extra_delta < 0.05 * delta


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("holders", [2, 3, 5])
def test_a_sum_of_draws_is_as_near_to_one_draw_as_is_charged(each: int, holders: int) -> None:
    whole = each * holders
    reach = 10 * (math.isqrt(whole) + 1)
    inside = slice(reach // 2, -(reach // 2))  # the sum is cut short at the ends of the window
    ratio = np.log(summed_law(each, holders, reach)[inside] / law(whole, reach)[inside])
    apart, together = (
        grid_excess([(1, variance, n)], epsilon=1.0, delta=1e-5)[0] for variance, n in ((each, holders), (whole, 1))
    )
    truth = float(np.abs(ratio).max())
    assert truth <= (apart - together) / 2
    # The published bound is near the truth for two draws; more of them smooth each other, which it does not count.
    assert holders > 2 or 1e-9 < (apart - together) / 2 < 8 * truth


def true_delta(chances: Floats, shift: int, epsilon: float) -> float:
    """The least delta of noise with these chances for neighbours `shift` steps apart: the hockey stick, summed up."""
    return float(np.maximum(chances[: len(chances) - shift] - math.exp(epsilon) * chances[shift:], 0).sum())


@pytest.mark.parametrize(("each", "holders"), CASES)
@pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
def test_the_grid_keeps_its_promise_for_every_distance(each: int, holders: int, epsilon: float) -> None:
    whole = each * holders
    reach = 16 * (math.isqrt(whole) + 1)
    exact = summed_law(each, holders, reach)
    tried = 0
    for shift in range(1, 4 * math.isqrt(whole)):
        delta = delta_of(shift / math.sqrt(whole), epsilon)
        if not 1e-9 < delta < 0.5:
            continue
        extra_epsilon, extra_delta = grid_excess([(1, each, holders)], epsilon=epsilon, delta=delta)
        assert true_delta(exact, shift, epsilon + extra_epsilon) <= delta + extra_delta
        tried += 1
    assert tried >= 1


def test_the_grid_does_break_the_promise_of_the_gaussian() -> None:
    # So the excess is no empty precaution: somewhere the discrete noise is worse than the Gaussian of its variance.
    found = 0
    exact = law(4, 60)
    for shift, epsilon in itertools.product(range(1, 6), np.linspace(0.05, 4, 40).tolist()):
        delta = delta_of(shift / 2, epsilon)
        found += true_delta(exact, shift, epsilon) > delta * (1 + 1e-6)
    assert found > 0


def test_two_releases_together_keep_the_promise() -> None:
    # Both distances and both outcomes at once: 2 numbers of different variance, hockey stick over the plane.
    epsilon = 1.0
    laws = [summed_law(4, 2, 60), summed_law(5, 3, 60)]
    for shifts in ((1, 1), (2, 1), (1, 3), (3, 3)):
        mu = math.sqrt(shifts[0] ** 2 / 8 + shifts[1] ** 2 / 15)
        delta = delta_of(mu, epsilon)
        extra_epsilon, extra_delta = grid_excess([(1, 4, 2), (1, 5, 3)], epsilon=epsilon, delta=delta)
        here, there = (
            np.outer(*(chances[first : len(chances) - last] for chances, first, last in zip(laws, a, b, strict=True)))
            for a, b in (((0, 0), shifts), (shifts, (0, 0)))
        )
        true = float(np.maximum(here - math.exp(epsilon + extra_epsilon) * there, 0).sum())
        assert true <= delta + extra_delta


def test_the_excess_adds_up_over_numbers_and_releases() -> None:
    one, _ = grid_excess([(1, 2**30, 4)], epsilon=1.0, delta=1e-5)
    many, _ = grid_excess([(100, 2**30, 4)] * 10, epsilon=1.0, delta=1e-5)
    assert 1000 * one < many < 1500 * one
    again, _ = grid_excess([(500, 2**30, 4), (500, 2**30, 4)], epsilon=1.0, delta=1e-5)
    assert many == pytest.approx(again)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-12])
def test_what_is_kept_back_covers_the_excess_of_real_runs(epsilon: float, delta: float) -> None:
    # 100 holders, 12 releases of 20,000 numbers each, on a fitted grid: at least 2^48 squared steps in all.
    assert excess_is_covered([(20_000, 2**48 // 100, 100)] * 12, epsilon=epsilon, delta=delta)
    assert not excess_is_covered([(20_000, 2**8, 4)], epsilon=epsilon, delta=delta)
    # Here delta alone would still be covered.
    assert grid_excess([(1, 2**16, 1)], epsilon=epsilon, delta=delta)[1] < 1e-6 * delta
    assert not excess_is_covered([(1, 2**16, 1)], epsilon=epsilon, delta=delta)


def test_a_forty_bit_variance_is_enough_and_the_excess_is_what_the_promise_says() -> None:
    extra_epsilon, extra_delta = grid_excess([(2000, 2**38, 4)], epsilon=1.0, delta=1e-5)
    assert extra_epsilon < 1e-7
    assert extra_delta < 1e-5 * 1e-6
    assert excess_is_covered([(2000, 2**38, 4)], epsilon=1.0, delta=1e-5)


@given(st.floats(0.01, 50), st.sampled_from([1e-3, 1e-5, 1e-9]))
def test_mu_on_the_grid_keeps_a_millionth_back(epsilon: float, delta: float) -> None:
    whole, kept = mu_of(epsilon, delta), mu_on_grid(epsilon, delta)
    assert whole * (1 - 3e-6) < kept < whole
    # By the Gaussian's own curve: what is left of both must hold the excess.
    assert delta_of(kept, epsilon * (1 - 1e-6)) <= delta * (1 - 1e-6) * (1 + 1e-12)


@pytest.mark.parametrize("releases", [[], [(0, 4, 1)], [(1, 0, 1)], [(1, 4, 0)]])
def test_unlawful_runs_are_a_fault_of_the_program(releases: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match="requires releases"):
        grid_excess(releases, epsilon=1.0, delta=1e-5)
    for epsilon, delta in ((-1.0, 0.1), (1.0, 0.0), (math.inf, 0.1)):
        with pytest.raises(ValueError, match="requires 0 <= epsilon"):
            grid_excess([(1, 4, 1)], epsilon=epsilon, delta=delta)
