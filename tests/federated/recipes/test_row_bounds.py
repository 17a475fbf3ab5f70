"""Privacy of the recipes that release sums of unit rows: no row and no instruction gets past the sensitivity.

An adversarial row is any lawful row; what it changes in each released sum, replayed, is its loss.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from federated.recipes.base import Arrays, Recipe
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.gradient_descent import GradientDescent
from federated.recipes.sufficient_statistics import SufficientStatistics
from federated.recipes.unit_rows import LARGEST_RADIUS, SMALLEST_RADIUS
from federated.rows import EncodedRows
from privacy.accounting import GaussianSpend, Spend, UnprotectedSpend, epsilon_of, mu_of, total_epsilon
from privacy.errors import MalformedError
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, Floats, P, deviation, empty, one, people, released, walk

R, RC = 2.0, 1.0
KINDS = ["centred", "uncentred", "descent", "statistics"]


def recipe(kind: str, epsilon: float | None = 1.0, radius: float = R, centred_radius: float = RC) -> Recipe:
    match kind:
        case "centred":
            return FixedHessian(P, radius, centred_radius, epsilon, DELTA, schema_digest="d")
        case "uncentred":
            return FixedHessian(P, radius, None, epsilon, DELTA, schema_digest="d", middle=(0.2,) * P)
        case "descent":
            return GradientDescent(P, radius, centred_radius, epsilon, DELTA, 10, 0.9, 2.0, schema_digest="d")
        case "statistics":
            return SufficientStatistics(P, radius, epsilon, DELTA, schema_digest="d", middle=(0.2,) * P)
        case _:
            raise AssertionError(kind)


def state_at(number: int, centre: Sequence[float] | Floats, direction: Sequence[float] | Floats) -> Arrays:
    """A state that tells these arrays in that round, as far as the round's instruction tells any."""
    return {"round": np.array([float(number)]), "centre": np.array(centre), "direction": np.array(direction)}


def transcript_loss(made: Recipe, states: Sequence[Arrays], row: EncodedRows) -> float:
    """Sum over rounds of |change|² / variance: mu² of this row, given everything released before."""
    return math.fsum(
        float(np.sum(released(made, number, states[number - 1], [row]) ** 2)) / deviation(made, number) ** 2
        for number in range(1, made.rounds + 1)
    )


ADVERSARIAL = [
    [0.0] * P,
    [-0.0] * P,
    [0.7] * P,
    [1e30] * P,
    [-1e30] + [0.0] * (P - 1),
    [5e-324] * P,
    [2.0**100] * P,
    [R] + [0.0] * (P - 1),
    [1e-200, 1e200**0.15, -3.0, 0.0, 7.0],
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x", ADVERSARIAL)
def test_exact_transcript_loss_is_within_mu_squared(kind: str, x: list[float]) -> None:
    for epsilon in (0.5, 1.0, 3.0):
        made = recipe(kind, epsilon)
        states = walk(made, [people(400)], SeededNoise(5, "a"))
        for bad in (0.0, 1.0):
            assert transcript_loss(made, states, one(x, bad)) <= mu_of(epsilon, DELTA) ** 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x", ADVERSARIAL)
@pytest.mark.parametrize("share", [0.0, 1e-300, 0.3, 1.0])
def test_one_row_more_changes_no_sum_by_more_than_its_share_of_the_sensitivity(
    kind: str, x: list[float], share: float
) -> None:
    made, others, row = recipe(kind), people(300), one(x, 1.0, share)
    more = EncodedRows(*(np.concatenate(pair) for pair in zip(cells(others), cells(row), strict=True)))
    states = walk(made, [others], SeededNoise(5, "a"))
    for number in range(1, made.rounds + 1):
        with_it, without = (released(made, number, states[number - 1], [rows]) for rows in (more, others))
        # Sums of 300 people are rounded to 2^-44 or so; that is the grid's to cover, not the row's.
        rounding = 1e-11
        assert np.linalg.norm(with_it - without) <= share * made.sensitivity(number) * (1 + 1e-9) + rounding


def cells(rows: EncodedRows) -> tuple[Floats, Floats, Floats]:
    return rows.x, rows.bad, rows.share


WORST = {"centred": [R, 0, 0, 0, 0], "uncentred": [R + 0.2, *[0.2] * 4], "descent": [R, 0, 0, 0, 0]}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_nearly_reached_so_the_tests_of_it_can_fail(kind: str) -> None:
    """A row opposite to the centre that is told the coefficients which are surest of the wrong outcome."""
    made = recipe(kind)
    row = one(WORST.get(kind, [R + 0.2, *[0.2] * 4]))
    states = [state_at(n, np.zeros(P), [-1e4, 0, 0, 0, 0, -1e4]) for n in range(1, made.rounds + 1)]
    mu_squared = mu_of(1.0, DELTA) ** 2
    assert 0.95 * mu_squared <= transcript_loss(made, states, row) <= mu_squared
    reached = [
        float(np.abs(released(made, number, states[number - 1], [row])).max()) for number in range(1, made.rounds + 1)
    ]
    assert all(
        0.85 * made.reach(n, people=1, holders=1) <= value <= made.reach(n, people=1, holders=1)
        for n, value in enumerate(reached, start=1)
    )


def test_the_sensitivity_of_the_statistics_is_exact() -> None:
    made = recipe("statistics")
    changed = released(made, 1, made.start(), [one([0.2, 0.2, R + 0.2, 0.2, 0.2])])
    assert np.linalg.norm(changed) == pytest.approx(made.sensitivity(1), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_scales_what_a_person_adds_exactly(kind: str, share: float) -> None:
    made = recipe(kind)
    for number in range(1, made.rounds + 1):
        state = state_at(number, np.full(P, 0.1), np.arange(-2.0, P - 1))
        whole, partial = (released(made, number, state, [one([1.0, 2, 3, 4, 5], 1.0, w)]) for w in (1.0, share))
        np.testing.assert_allclose(partial, share * whole, rtol=1e-14)


FAR = st.floats(-1e29, 1e29)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    x=st.lists(FAR, min_size=P, max_size=P),
    bad=st.sampled_from([0.0, 1.0]),
    share=st.floats(0, 1),
    number=st.integers(1, 9),
    centre=st.lists(FAR, min_size=P, max_size=P),
    direction=st.lists(FAR, min_size=P + 1, max_size=P + 1),
)
def test_no_row_and_no_instruction_get_past_sensitivity_and_reach(
    kind: str, x: list[float], bad: float, share: float, number: int, centre: list[float], direction: list[float]
) -> None:
    made = recipe(kind)
    number = min(number, made.rounds)
    added = released(made, number, state_at(number, centre, direction), [one(x, bad, share)])
    assert np.linalg.norm(added) <= share * made.sensitivity(number) * (1 + 1e-9)
    assert np.abs(added).max() <= made.reach(number, people=1, holders=1) * (1 + 1e-9)


RADII = st.one_of(st.sampled_from([SMALLEST_RADIUS, LARGEST_RADIUS]), st.floats(SMALLEST_RADIUS, LARGEST_RADIUS))
CELLS = st.one_of(st.sampled_from([2.0**52, -(2.0**52), 2.0**100, -(2.0**100), 5e-324]), st.floats(-1e30, 1e30))
ROW = st.lists(CELLS, min_size=P, max_size=P)


@settings(max_examples=60, deadline=None)
# If the smallest radius were the smallest normal number, this row's ratio would round up by a third.
@example(radius=1.0, centred_radius=SMALLEST_RADIUS, x=[0.0] * P, centre=[-3.1e15, 0, 0, 0, 0], bad=0.0)
@example(radius=1.0, centred_radius=SMALLEST_RADIUS, x=[0.0] * P, centre=[-(2.0**52)] * P, bad=0.0)
@given(radius=RADII, centred_radius=RADII, x=ROW, centre=ROW, bad=st.sampled_from([0.0, 1.0]))
def test_lawful_radii_keep_the_sensitivity_at_any_centre(
    radius: float, centred_radius: float, x: list[float], centre: list[float], bad: float
) -> None:
    direction = np.full(P + 1, 1e20 if bad == 0 else -1e20)
    for kind in KINDS:
        made = recipe(kind, 1.0, radius, centred_radius)
        for number in range(1, min(3, made.rounds) + 1):
            added = released(made, number, state_at(number, centre, direction), [one(x, bad)])
            assert np.linalg.norm(added) <= made.sensitivity(number) * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e308])
def test_a_poisoned_instruction_is_refused(kind: str, poison: float) -> None:
    made = recipe(kind)
    row, chance, last = one([0.0] * P), SeededNoise(0, ""), made.rounds
    good = made.instruction(state_at(last, np.zeros(P), np.zeros(P + 1)))

    def ask(told: Arrays, number: int = last) -> None:
        made.contribution(number, told, row, chance=chance)

    ask(good)
    for name, array in good.items():
        for wrong in (np.full(array.shape, poison), np.append(array, 0.0), array[:-1]):
            with pytest.raises(MalformedError):
                ask({**good, name: wrong})
        with pytest.raises(MalformedError):
            ask({key: value for key, value in good.items() if key != name})
    with pytest.raises(MalformedError):
        ask({**good, "extra": np.zeros(1)})
    for number in (0, last + 1):
        with pytest.raises(MalformedError):
            ask({**good, "round": np.array([float(number)])}, number)
    with pytest.raises(MalformedError):
        ask({**good, "round": np.array([last + 1.0])})
    with pytest.raises(MalformedError, match="encoded columns"):
        made.contribution(last, good, one([0.0] * (P + 1)), chance=chance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_poisoned_sum_is_refused(kind: str) -> None:
    made = recipe(kind)
    length = made.length(1)
    for total in (np.full(length, math.nan), np.full(length, math.inf), np.zeros(length + 1)):
        with pytest.raises(MalformedError):
            made.advance(made.start(), total, contributors=1)


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_are_exact_and_draw_no_noise(kind: str) -> None:
    made = recipe(kind)
    states = walk(made, [people(50)], SeededNoise(1, "a"))
    for number in range(1, made.rounds + 1):
        told = made.instruction(states[number - 1])
        first, again = (made.contribution(number, told, people(50), chance=SeededNoise(s, "")) for s in (1, 2))
        np.testing.assert_array_equal(first, again)
        assert not made.contribution(number, told, empty(), chance=SeededNoise(1, "")).any()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_walk_gives_no_model(kind: str) -> None:
    made = recipe(kind)
    for state in walk(made, [people(50)], SeededNoise(1, "a"))[:-1]:
        with pytest.raises(MalformedError):
            made.model(state)


# Accounting.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_all_rounds_together_cost_epsilon_and_each_costs_something(kind: str, epsilon: float) -> None:
    made = recipe(kind, epsilon)
    spends: list[Spend] = [made.spend(number, 100) for number in range(1, made.rounds + 1)]
    claimed = mu_of(epsilon, DELTA) ** 2
    # A millionth of epsilon and delta is kept back for the grid.
    assert claimed * (1 - 1e-5) < math.fsum(made.mu(n) ** 2 for n in range(1, made.rounds + 1)) < claimed
    assert epsilon * (1 - 1e-5) < total_epsilon(spends, DELTA) <= epsilon
    for number, spend in enumerate(spends, start=1):
        assert spend == GaussianSpend(made.mu(number))
        assert epsilon_of(made.mu(number), DELTA) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_nothing_can_be_charged_and_the_report_says_so(kind: str) -> None:
    made = recipe(kind, None)
    assert not made.is_private
    assert {made.spend(number, 100) for number in range(1, made.rounds + 1)} == {UnprotectedSpend()}
    assert {made.mu(number) for number in range(1, made.rounds + 1)} == {math.inf}
    assert any("NOT PRIVATE" in text for text in made.excludes())
    assert recipe(kind).is_private
    assert any("public" in text for text in recipe(kind).excludes())
    assert recipe(kind).accountant == "exact Gaussian DP"
