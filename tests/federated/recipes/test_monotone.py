"""Monotone constraints: against scipy's optimisers, an isotonic regression, and the points of a scorecard."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize  # type: ignore[import-untyped]
from sklearn.isotonic import IsotonicRegression

from federated.attributes import AttributeKind
from federated.characteristics import Form, Risk
from federated.encoder import ColumnBlock, Encoder
from federated.model import LinearModel
from federated.recipes.base import Recipe
from federated.recipes.fixed_hessian import FixedHessian, FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescentSettings
from federated.recipes.monotone import Cone, bounded_minimiser, directed
from federated.recipes.registry import RecipeSettings, recipe_from, settings_from_dict, settings_to_dict
from federated.recipes.sufficient_statistics import SufficientStatisticsSettings
from federated.rows import EncodedRows
from federated.scorecard import PointScale, scorecard_from
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, Floats, optimum, unit, walk
from tests.federated.schema_samples import sample

BLOCKS = (
    ColumnBlock("income", 0, 2, 1, Form.LINE, Risk.DECREASING),  # and an indicator of missing
    ColumnBlock("late", 2, 7, 4, Form.BINS, Risk.INCREASING),
    ColumnBlock("home", 7, 10, 0, Form.CODES, Risk.INCREASING),  # codes have no order
    ColumnBlock("amount", 10, 13, 3, Form.KNOTS, Risk.NONE),
    ColumnBlock("paid", 13, 17, 4, Form.KNOTS, Risk.DECREASING),
)
SIZE = 18
RISES = [(2, 3), (3, 4), (4, 5)]
FALLS = [(13, 14), (14, 15), (15, 16)]


def holds(vector: Floats) -> bool:
    return bool(
        vector[0] <= 0
        and all(vector[low] <= vector[high] for low, high in RISES)
        and all(vector[low] >= vector[high] for low, high in FALLS)
    )


def constraint_rows() -> Floats:
    """`holds`, as rows whose product with the vector is at least 0."""
    rows = np.zeros((7, SIZE))
    for row, (low, high) in zip(rows, [*RISES, *((high, low) for low, high in FALLS)], strict=False):
        row[low], row[high] = -1.0, 1.0
    rows[6, 0] = -1.0
    return rows


def problem(seed: int, size: int = SIZE) -> tuple[Floats, Floats]:
    """A curvature of condition number up to 1e4 or so, and a linear term."""
    random = np.random.default_rng(seed)
    factors = random.normal(size=(size + 3, size)) * 10 ** random.uniform(-1, 1, size=size)
    return factors.T @ factors + 0.01 * np.eye(size), random.normal(size=size) * 30


def value(curvature: Floats, linear: Floats, vector: Floats) -> float:
    return float(vector @ curvature @ vector / 2 - linear @ vector)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), limits=st.lists(st.booleans(), min_size=9, max_size=9))
def test_bounded_minimiser_is_the_one_of_scipy(seed: int, limits: list[bool]) -> None:
    curvature, linear = problem(seed, 9)
    limited = np.array(limits)
    found = bounded_minimiser(curvature, linear, limited)
    assert (found[limited] >= 0).all()
    # v'Cv/2 - l·v is |L'v - inv(L) l|² / 2 and a constant.
    factor = np.linalg.cholesky(curvature)
    goal = np.linalg.solve(factor, linear)
    best = optimize.lsq_linear(factor.T, goal, (np.where(limited, 0.0, -np.inf), np.inf), method="bvls", tol=1e-14).x
    scale = np.abs(best).max() + 1e-12
    np.testing.assert_allclose(found, best, atol=1e-6 * scale)


@pytest.mark.parametrize("seed", range(8))
def test_the_minimiser_in_the_cone_is_the_one_of_a_general_optimiser(seed: int) -> None:
    curvature, linear = problem(seed)
    found = Cone(BLOCKS, SIZE).minimiser(curvature, linear)
    assert holds(found)
    best = optimize.minimize(
        lambda v: value(curvature, linear, v),
        np.zeros(SIZE),
        jac=lambda v: curvature @ v - linear,
        constraints=optimize.LinearConstraint(constraint_rows(), 0, np.inf),
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    least = value(curvature, linear, found)
    assert least <= best.fun + 1e-9 * abs(best.fun)
    assert least == pytest.approx(best.fun, rel=1e-4)
    free = np.asarray(np.linalg.solve(curvature, linear), dtype=np.float64)
    assert not holds(free)  # or the constraints were idle and nothing was tested


def test_in_the_plain_norm_it_is_isotonic_regression() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        vector = random.normal(size=SIZE)
        found = Cone(BLOCKS, SIZE).minimiser(np.eye(SIZE), vector)
        np.testing.assert_allclose(found[2:6], IsotonicRegression().fit_transform(np.arange(4), vector[2:6]))
        falling = IsotonicRegression(increasing=False).fit_transform(np.arange(4), vector[13:17])
        np.testing.assert_allclose(found[13:17], falling)
        assert found[0] == pytest.approx(min(vector[0], 0.0))
        free = [1, 6, 7, 8, 9, 10, 11, 12, 17]
        np.testing.assert_allclose(found[free], vector[free])


@settings(max_examples=60, deadline=None)
@given(vector=st.lists(st.floats(-1e6, 1e6), min_size=SIZE, max_size=SIZE), seed=st.integers(0, 99))
def test_the_order_holds_exactly_not_nearly(vector: list[float], seed: int) -> None:
    assert holds(Cone(BLOCKS, SIZE).minimiser(problem(seed)[0], np.array(vector)))


def test_without_a_direction_it_is_the_plain_solution() -> None:
    curvature, linear = problem(1)
    plain = tuple(ColumnBlock(b.id, b.start, b.stop, b.ordered, b.form, Risk.NONE) for b in BLOCKS)
    assert directed(plain) == ()
    np.testing.assert_allclose(Cone(plain, SIZE).minimiser(curvature, linear), np.linalg.solve(curvature, linear))
    assert [block.id for block in directed(BLOCKS)] == ["income", "late", "paid"]


# In recipes, over a schema with declared directions and rows that say the contrary.

ENCODER = Encoder(sample())
SCALE = PointScale(600, 20, 30, 300, 850)
EPSILON = 1.0
SETTINGS: list[RecipeSettings] = [
    FixedHessianSettings(3.5, 2.0, EPSILON, DELTA, 8, monotone=True),
    UncentredFixedHessianSettings(2.0, EPSILON, DELTA, 8, monotone=True),
    GradientDescentSettings(3.5, 2.0, EPSILON, DELTA, 50, monotone=True),
    SufficientStatisticsSettings(2.0, EPSILON, DELTA, monotone=True),
]


def contrary_people(n: int = 3000) -> EncodedRows:
    """Rows whose outcomes fall where the schema says they rise and rise where it says they fall."""
    random = np.random.default_rng(1)
    x = np.zeros((n, ENCODER.width))
    pull = np.zeros(n)
    for block in ENCODER.blocks:
        if block.form is Form.LINE:
            x[:, block.start] = random.normal(size=n)
            towards: Floats = x[:, block.start]
        else:
            place = random.integers(0, block.stop - block.start, size=n)
            x[np.arange(n), block.start + place] = 1.0
            towards = np.asarray(place - (block.stop - block.start) / 2, dtype=np.float64)
        pull += {Risk.INCREASING: -1.0, Risk.DECREASING: 1.0, Risk.NONE: 0.0}[block.risk] * towards
    bad = (random.random(n) < 1 / (1 + np.exp(-pull))).astype(float)
    return EncodedRows(x, bad, np.ones(n))


def lawful_points(model: LinearModel) -> bool:
    card = scorecard_from(model, ENCODER, SCALE)
    for scored, coder in zip(card.characteristics, ENCODER.coders, strict=True):
        points = [p for p, a in zip(scored.points, scored.attributes, strict=True) if a.kind is AttributeKind.INTERVAL]
        match coder.characteristic.risk:
            case Risk.INCREASING:
                lawful = all(low >= high for low, high in pairwise(points))
            case Risk.DECREASING:
                lawful = all(low <= high for low, high in pairwise(points))
            case Risk.NONE:
                lawful = True
        if not lawful:
            return False
    return True


def made_model(settings_of: RecipeSettings, rows: EncodedRows) -> LinearModel:
    made: Recipe = recipe_from(settings_of, encoder=ENCODER)
    model = made.model(walk(made, [rows], SeededNoise(2, "m"))[-1])
    assert isinstance(model, LinearModel)
    return model


def test_the_sample_schema_declares_both_directions_in_several_forms() -> None:
    assert {(block.form, block.risk) for block in directed(ENCODER.blocks)} >= {
        (Form.BINS, Risk.INCREASING),
        (Form.KNOTS, Risk.INCREASING),
    }


@pytest.mark.parametrize("chosen", SETTINGS, ids=lambda s: s.name.value)
def test_points_never_fall_where_the_schema_says_they_rise(chosen: RecipeSettings) -> None:
    rows = contrary_people()
    assert lawful_points(made_model(chosen, rows))
    plain = settings_from_dict({**settings_to_dict(chosen), "monotone": False})
    assert not lawful_points(made_model(plain, rows))


def test_constrained_steps_reach_the_constrained_optimum_of_the_logistic_loss() -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(800, SIZE - 1)) * 0.5
    truth = random.normal(size=SIZE - 1) * 2
    bad = (random.random(800) < 1 / (1 + np.exp(-x @ truth))).astype(float)
    made = FixedHessian(SIZE - 1, 9.0, 4.0, None, DELTA, 200, schema_digest="d", monotone=directed(BLOCKS))
    last = walk(made, [EncodedRows(x, bad, np.ones(800))], None)[-1]
    rows = unit(x, last["centre"], 4.0)

    def loss(direction: Floats) -> float:
        return float(np.logaddexp(0, rows @ direction).sum() - bad @ (rows @ direction))

    best = optimize.minimize(
        loss,
        np.zeros(SIZE),
        jac=lambda v: rows.T @ (1 / (1 + np.exp(-rows @ v)) - bad),
        constraints=optimize.LinearConstraint(constraint_rows(), 0, np.inf),
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    assert holds(last["direction"])
    np.testing.assert_allclose(loss(last["direction"]), best.fun, rtol=1e-8)
    np.testing.assert_allclose(last["direction"], best.x, atol=0.01)
    assert not holds(optimum(EncodedRows(x, bad, np.ones(800)), last["centre"], 4.0))
