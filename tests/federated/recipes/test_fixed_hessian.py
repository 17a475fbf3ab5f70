"""The default recipe against a literal central version, and its privacy against replayed transcripts."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from federated.model import LinearModel
from federated.recipes.base import Arrays
from federated.recipes.fixed_hessian import LARGEST_RADIUS, SMALLEST_RADIUS, FixedHessian
from federated.rows import EncodedRows
from privacy.accounting import GaussianSpend, Spend, UnprotectedSpend, epsilon_of, mu_of, total_epsilon
from privacy.errors import MalformedError
from privacy.grid import Grid, add_words
from privacy.noise import NoiseSource, SecureNoise, SeededNoise

Floats = NDArray[np.float64]
P, R, RC = 5, 2.0, 1.0
DELTA = 1e-5


def recipe(epsilon: float | None = 1.0, width: int = P) -> FixedHessian:
    return FixedHessian(width, R, RC, epsilon, DELTA, schema_digest="d")


def people(n: int, seed: int = 0, width: int = P) -> EncodedRows:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, width)) * 0.7 + 0.3
    bad = (random.random(n) < 1 / (1 + np.exp(1 - 2 * x[:, 0] + x[:, 1]))).astype(float)
    return EncodedRows(x, bad, random.uniform(0.1, 1, size=n))


def part(rows: EncodedRows, indices: NDArray[np.intp]) -> EncodedRows:
    return EncodedRows(rows.x[indices], rows.bad[indices], rows.share[indices])


def train(
    made: FixedHessian, holders: Sequence[EncodedRows], chance: NoiseSource, *, through_grid: bool = False
) -> tuple[list[Arrays], list[Floats]]:
    """States before each round and after the last; the released sums."""
    states, totals = [made.start()], []
    for number in range(1, made.rounds + 1):
        told = made.instruction(states[-1])
        parts = [made.contribution(number, told, rows, chance=chance, noise_share=1 / len(holders)) for rows in holders]
        assert all(released.shape == (made.length(number),) for released in parts)
        if through_grid:
            grid = Grid.fit(
                people=10**5,
                bound=made.bound(number),
                standard_deviation=made.noise_standard_deviation(number),
            )
            total = grid.decode(add_words(grid.encode(released) for released in parts))
        else:
            total = np.sum(parts, axis=0)
        totals.append(total)
        states.append(made.advance(states[-1], total))
    return states, totals


def central(rows: EncodedRows, mu: float, chance: NoiseSource, steps: int = 8) -> tuple[Floats, Floats]:
    """The prototype, word for word: (centre, coefficients of unit rows)."""
    x, y, w = rows.x, rows.bad, rows.share
    n, p = x.shape

    def noise(deviation: float, size: int) -> Floats:
        return chance.gaussian(size, deviation) if np.isfinite(mu) else np.zeros(size)

    def clip(z: Floats, r: float) -> Floats:
        out: Floats = z * np.minimum(1, r / np.maximum(1e-12, np.linalg.norm(z, axis=1)))[:, None]
        return out

    m1 = mu * np.sqrt(0.05)
    s = np.concatenate([(w[:, None] * clip(x, R)).sum(0), [w.sum()], [(w * y).sum()]])
    s = s + noise(math.sqrt(R * R + 2) / m1, p + 2)
    heads = max(s[p], 50)
    m = s[:p] / heads
    base = np.clip(s[p + 1] / heads, 0.01, 0.99)
    mu2 = mu * np.sqrt(0.95)
    a = np.hstack([np.sqrt(0.9) * clip(x - m, RC) / RC, np.full((n, 1), np.sqrt(0.1))])
    h = (a * w[:, None]).T @ a / 4
    e = np.zeros_like(h)
    e[np.triu_indices(p + 1)] = noise(0.25 / (mu2 * np.sqrt(0.1)), (p + 1) * (p + 2) // 2)
    e = np.triu(e) + np.triu(e, 1).T
    ev, v = np.linalg.eigh(h + e)
    lam = 0.5 * np.sqrt(p + 1) / (mu2 * np.sqrt(0.1)) if np.isfinite(mu) else 1e-6
    hi = (v / (np.maximum(ev, 0) + lam)) @ v.T
    b = np.zeros(p + 1)
    b[-1] = np.log(base / (1 - base)) / np.sqrt(0.1)
    for _ in range(steps):
        g = a.T @ (w * (1 / (1 + np.exp(-a @ b)) - y)) + noise(np.sqrt(steps) / (mu2 * np.sqrt(0.9)), p + 1)
        b = b - hi @ g
    return m, b


@pytest.mark.parametrize("epsilon", [None, 0.5, 1.0, 8.0])
def test_one_holder_is_the_central_prototype_noise_included(epsilon: float | None) -> None:
    rows = people(3000)
    states, _ = train(recipe(epsilon), [rows], SeededNoise(3, "a"))
    mu = math.inf if epsilon is None else mu_of(epsilon, DELTA)
    centre, direction = central(rows, mu, SeededNoise(3, "a"))
    np.testing.assert_allclose(states[-1]["centre"], centre, rtol=1e-9)
    np.testing.assert_allclose(states[-1]["direction"], direction, rtol=1e-7)


@pytest.mark.parametrize("holders", [1, 5, 50])
@pytest.mark.parametrize("split", ["even", "sizes", "labels"])
def test_without_noise_the_model_is_the_same_whoever_holds_whom(holders: int, split: str) -> None:
    rows = people(2000)
    order = np.argsort(rows.bad, kind="stable") if split == "labels" else np.arange(2000)
    edges = (np.linspace(0, 1, holders + 1) ** (3 if split == "sizes" else 1) * 2000).astype(int)
    parts = [part(rows, order[low:high]) for low, high in itertools.pairwise(edges)]
    assert len(parts) == holders
    states, _ = train(recipe(None), parts, SeededNoise(1, "unused"), through_grid=True)
    model = recipe(None).model(states[-1])
    centre, direction = central(rows, math.inf, SeededNoise(1, "unused"))
    # Each of the holders rounds each number to half a grid step, 2^-33; nothing else may differ.
    np.testing.assert_allclose(model.centre, centre, atol=holders * 2.0**-33)
    np.testing.assert_allclose(states[-1]["direction"], direction, atol=1e-6)


def test_the_model_scores_as_its_unit_rows_do() -> None:
    rows = people(500)
    states, _ = train(recipe(), [rows], SeededNoise(1, "a"))
    model: LinearModel = recipe().model(states[-1])
    centred = rows.x - states[-1]["centre"]
    clipped = centred * np.minimum(1, RC / np.linalg.norm(centred, axis=1))[:, None]
    unit = np.hstack([math.sqrt(0.9) * clipped / RC, np.full((500, 1), math.sqrt(0.1))])
    np.testing.assert_allclose(model.log_odds(rows.x), unit @ states[-1]["direction"])
    assert model.schema_digest == "d"


def auc(log_odds: Floats, bad: Floats) -> float:
    wins = stats.mannwhitneyu(log_odds[bad == 1], log_odds[bad == 0]).statistic
    return float(wins / (bad.sum() * (1 - bad).sum()))


def test_it_learns() -> None:
    states, _ = train(recipe(3.0), [people(20_000)], SeededNoise(1, "a"))
    fresh = people(4000, seed=9)
    best = auc(2 * fresh.x[:, 0] - fresh.x[:, 1], fresh.bad)
    assert auc(recipe(3.0).model(states[-1]).log_odds(fresh.x), fresh.bad) > best - 0.01 > 0.7


# Privacy. An adversarial row is any lawful row; what it changes in each released sum, replayed, is its loss.


def one(x: Sequence[float] | Floats, bad: float = 1.0, share: float = 1.0) -> EncodedRows:
    return EncodedRows(np.array([x], dtype=float), np.array([bad]), np.array([share]))


def change(made: FixedHessian, number: int, state: Arrays, row: EncodedRows) -> Floats:
    """What one person adds to the round's sum: the contribution of a holder of nobody else, without the noise."""
    silent = FixedHessian(made.width, made.radius, made.centred_radius, None, DELTA, made.steps, schema_digest="d")
    return silent.contribution(number, made.instruction(state), row, chance=SeededNoise(0, ""), noise_share=1.0)


def transcript_loss(made: FixedHessian, states: Sequence[Arrays], row: EncodedRows) -> float:
    """Sum over rounds of |change|² / variance: mu² of this row, given everything released before."""
    return math.fsum(
        float(np.sum(change(made, number, states[number - 1], row) ** 2)) / made.noise_standard_deviation(number) ** 2
        for number in range(1, made.rounds + 1)
    )


ADVERSARIAL = [
    [0.0] * P,
    [1e30] * P,
    [-1e30] + [0.0] * (P - 1),
    [5e-324] * P,
    [2.0**100] * P,
    [R] + [0.0] * (P - 1),
    [1e-200, 1e200**0.15, -3.0, 0.0, 7.0],
]


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("bad", [0.0, 1.0])
@pytest.mark.parametrize("x", ADVERSARIAL)
def test_exact_transcript_loss_is_within_mu_squared(epsilon: float, bad: float, x: list[float]) -> None:
    made = recipe(epsilon)
    states, _ = train(made, [people(400)], SeededNoise(5, "a"))
    mu_squared = mu_of(epsilon, DELTA) ** 2
    assert transcript_loss(made, states, one(x, bad)) <= mu_squared * (1 + 1e-9)


def adversarial_states(made: FixedHessian) -> list[Arrays]:
    """A state for each round in which one row does its worst: it lies at the centre's opposite and is sure of
    itself."""
    direction = np.zeros(P + 1)
    direction[0], direction[-1] = -1e4, -1e4
    return [
        {"round": np.array([float(n)]), "centre": np.zeros(P), "direction": direction}
        for n in range(1, made.rounds + 1)
    ]


def test_the_bound_is_nearly_reached_so_the_loss_test_can_fail() -> None:
    made = recipe(1.0)
    worst = one([R] + [0.0] * (P - 1), 1.0)
    loss = transcript_loss(made, adversarial_states(made), worst)
    mu_squared = mu_of(1.0, DELTA) ** 2
    assert 0.95 * mu_squared <= loss <= mu_squared * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_scales_the_loss_exactly(share: float) -> None:
    made = recipe(1.0)
    worst = [R] + [0.0] * (P - 1)
    whole = transcript_loss(made, adversarial_states(made), one(worst))
    assert transcript_loss(made, adversarial_states(made), one(worst, share=share)) == pytest.approx(share**2 * whole)


@settings(max_examples=40, deadline=None)
@given(
    x=st.lists(st.floats(-1e29, 1e29), min_size=P, max_size=P),
    bad=st.sampled_from([0.0, 1.0]),
    share=st.floats(0, 1),
    number=st.integers(1, 10),
    centre=st.lists(st.floats(-1e29, 1e29), min_size=P, max_size=P),
    direction=st.lists(st.floats(-1e29, 1e29), min_size=P + 1, max_size=P + 1),
)
def test_no_row_and_no_instruction_get_past_sensitivity_and_bound(
    x: list[float], bad: float, share: float, number: int, centre: list[float], direction: list[float]
) -> None:
    made = recipe()
    state = {"round": np.array([float(number)]), "centre": np.array(centre), "direction": np.array(direction)}
    added = change(made, number, state, one(x, bad, share))
    assert np.linalg.norm(added) <= share * made.sensitivity(number) * (1 + 1e-9)
    assert np.abs(added).max() <= made.bound(number) * (1 + 1e-9)


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
    made = FixedHessian(P, radius, centred_radius, 1.0, DELTA, schema_digest="d")
    direction = np.full(P + 1, 1e20 if bad == 0 else -1e20)
    for number, sensitivity in ((1, math.hypot(radius, 1, 1)), (2, 0.25), (3, 1.0)):
        state = {"round": np.array([float(number)]), "centre": np.array(centre), "direction": direction}
        assert np.linalg.norm(change(made, number, state, one(x, bad))) <= sensitivity * (1 + 1e-9)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e308])
def test_a_poisoned_instruction_is_refused(poison: float) -> None:
    made = recipe()
    good: Arrays = {"round": np.array([3.0]), "centre": np.zeros(P), "direction": np.zeros(P + 1)}
    row, chance = one([0.0] * P), SeededNoise(0, "")

    def ask(told: Arrays, number: int = 3) -> None:
        made.contribution(number, told, row, chance=chance, noise_share=1.0)

    ask(good)
    for wrong in (
        {**good, "centre": np.full(P, poison)},
        {**good, "direction": np.full(P + 1, poison)},
        {**good, "direction": np.zeros(P)},
        {**good, "round": np.array([4.0])},
        {**good, "round": np.array([poison])},
        {**good, "extra": np.zeros(1)},
        {"round": good["round"], "centre": good["centre"]},
    ):
        with pytest.raises(MalformedError):
            ask(wrong)
    for number in (0, 11):
        with pytest.raises(MalformedError):
            ask({**good, "round": np.array([float(number)])}, number)
    with pytest.raises(MalformedError, match="encoded columns"):
        made.contribution(3, good, one([0.0] * (P + 1)), chance=chance, noise_share=1.0)
    for share in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="noise_share"):
            made.contribution(3, good, row, chance=chance, noise_share=share)


def test_a_poisoned_sum_is_refused() -> None:
    made = recipe()
    for total in (np.full(P + 2, math.nan), np.full(P + 2, math.inf), np.zeros(P + 1)):
        with pytest.raises(MalformedError):
            made.advance(made.start(), total)


# Noise.


def empty(width: int = P) -> EncodedRows:
    return EncodedRows(np.zeros((0, width)), np.zeros(0), np.zeros(0))


@pytest.mark.parametrize("holders", [1, 7])
@pytest.mark.parametrize("number", [1, 2, 3, 10])
def test_the_sum_carries_exactly_the_noise_it_claims(number: int, holders: int) -> None:
    width = 60
    made = recipe(width=width)
    state = {"round": np.array([float(number)]), "centre": np.zeros(width), "direction": np.zeros(width + 1)}
    told, chance = made.instruction(state), SeededNoise(11, f"{number} {holders}")
    draws = np.concatenate(
        [
            sum(
                made.contribution(number, told, empty(width), chance=chance, noise_share=1 / holders)
                for _ in range(holders)
            )
            for _ in range(1 + 12_000 // made.length(number))
        ]
    )
    claimed = made.sensitivity(number) / (mu_of(1.0, DELTA) * math.sqrt({1: 0.05, 2: 0.095}.get(number, 0.855 / 8)))
    assert made.noise_standard_deviation(number) == pytest.approx(claimed)
    assert draws.std() == pytest.approx(claimed, rel=5 / math.sqrt(2 * len(draws)))
    assert stats.kstest(draws / claimed, "norm").pvalue > 1e-3


@pytest.mark.parametrize("chance", [SecureNoise(), SeededNoise(2, "rounds")])
def test_noise_is_independent_across_rounds_and_holders(chance: NoiseSource) -> None:
    width = 400
    made = recipe(width=width)
    draws = []
    for number in (3, 3, 4, 5, 10):
        state = {"round": np.array([float(number)]), "centre": np.zeros(width), "direction": np.zeros(width + 1)}
        draws.append(made.contribution(number, made.instruction(state), empty(width), chance=chance, noise_share=1.0))
    for first, second in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(width)


# Accounting.


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("steps", [1, 4, 8, 16])
def test_all_rounds_together_cost_epsilon_and_each_costs_something(epsilon: float, steps: int) -> None:
    made = FixedHessian(P, R, RC, epsilon, DELTA, steps, schema_digest="d")
    spends: list[Spend] = [made.spend(number, 100) for number in range(1, made.rounds + 1)]
    assert len(spends) == steps + 2
    assert total_epsilon(spends, DELTA) == pytest.approx(epsilon, rel=1e-9)
    for number, spend in enumerate(spends, start=1):
        assert isinstance(spend, GaussianSpend)
        assert spend.mu == pytest.approx(made.sensitivity(number) / made.noise_standard_deviation(number))
        assert epsilon_of(spend.mu, DELTA) > 0


def test_without_noise_nothing_can_be_charged_and_the_report_says_so() -> None:
    made = recipe(None)
    assert not made.is_private
    assert made.spend(1, 100) == UnprotectedSpend()
    assert made.noise_standard_deviation(1) == 0
    assert any("NOT PRIVATE" in text for text in made.excludes())
    assert recipe().is_private
    assert any("floating-point Gaussian" in text for text in recipe().excludes())
    assert recipe().accountant == "exact Gaussian DP"
    assert "one common noise" in recipe().trust_model
    assert "masks" in recipe().trust_model


# The walk.


def test_hardly_anybody_is_no_division_by_a_noisy_zero() -> None:
    for rows in (empty(), one([0.1] * P)):
        states, _ = train(recipe(0.5), [rows], SeededNoise(4, "few"))
        assert np.isfinite(recipe().model(states[-1]).coefficients).all()
    after = recipe().advance(recipe().start(), np.array([10.0] * P + [-500.0, 30.0]))
    np.testing.assert_allclose(after["centre"], 10 / 50)
    assert after["direction"][-1] == pytest.approx(math.log(0.6 / 0.4) / math.sqrt(0.1))


def test_a_curvature_of_noise_alone_still_gives_a_positive_step() -> None:
    made = recipe()
    state = made.advance(made.start(), np.zeros(P + 2))
    noise = SeededNoise(1, "curvature").gaussian(made.length(2), made.noise_standard_deviation(2))
    inverse = made.advance(state, noise)["inverse_curvature"]
    values = np.linalg.eigvalsh(inverse)
    assert values.min() > 0
    ridge = 0.5 * math.sqrt(P + 1) / (mu_of(1.0, DELTA) * math.sqrt(0.95) * math.sqrt(0.1))
    assert values.max() == pytest.approx(1 / ridge)


def test_holders_are_told_no_more_than_the_round_needs() -> None:
    states, _ = train(recipe(), [people(50)], SeededNoise(1, "a"))
    told = [set(recipe().instruction(state)) for state in states[:-1]]
    assert told == [{"round"}, {"round", "centre"}] + [{"round", "centre", "direction"}] * 8
    with pytest.raises(MalformedError):
        recipe().instruction(states[-1])


def test_an_unfinished_walk_gives_no_model() -> None:
    states, _ = train(recipe(), [people(50)], SeededNoise(1, "a"))
    for state in states[:-1]:
        with pytest.raises(MalformedError):
            recipe().model(state)


@pytest.mark.parametrize(
    "change_of",
    [
        {"width": 0},
        {"radius": 0.0},
        {"radius": 1e-300},
        {"radius": 1.1e6},
        {"centred_radius": 1e-300},
        {"centred_radius": 2.3e-308},
        {"centred_radius": 1.1e6},
        {"radius": math.inf},
        {"centred_radius": math.nan},
        {"epsilon": 0.0},
        {"epsilon": math.inf},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"steps": 0},
    ],
)
def test_unlawful_settings_are_refused(change_of: dict[str, float]) -> None:
    lawful = {"width": P, "radius": R, "centred_radius": RC, "epsilon": 1.0, "delta": DELTA, "steps": 8}
    FixedHessian(**lawful, schema_digest="d")  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="must correct the plan"):
        FixedHessian(**{**lawful, **change_of}, schema_digest="d")  # type: ignore[arg-type]
