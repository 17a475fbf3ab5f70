"""Nobody's probability depends on who else is there, whatever the instruction: else one person could move everybody.

A matrix times a vector adds up a row's products in an order that depends on the row's place in the matrix. Where an
instruction's numbers cancel, the order decides the result: without one row of many, all the others change.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from federated.characteristics import Form, Risk
from federated.encoder import ColumnBlock
from federated.recipes.base import Arrays, Recipe
from federated.recipes.clipped_sums import clipped_sums
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.gradient_descent import GradientDescent
from federated.recipes.histogram_scorecard import HistogramScorecard
from federated.recipes.layers import Layers
from federated.recipes.opacus_fedavg import OpacusFedAvg
from federated.recipes.row_products import row_dots, row_products
from federated.recipes.sufficient_statistics import SufficientStatistics
from federated.recipes.unit_rows import centre_sum
from federated.rows import EncodedRows
from privacy.discrete import ROWS_PER_BLOCK, float_slack
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, Floats

HEADS = range(380, 400)
WIDTHS = (8, 13, 24, 64)


def hostile(width: int, seed: int, largest: float = 2.0**90, left: float = 2.0**30) -> Floats:
    """Coefficients of which all but `left` cancels, and the intercept that this is held against."""
    made = np.zeros(width + 1)
    made[np.random.default_rng(seed).permutation(width)[:3]] = largest, -largest, left
    made[-1] = -left * 2.0**-20
    return made


def recipes(width: int) -> Iterator[tuple[Recipe, str, int]]:
    """Each recipe whose noise is added to exact sums, what its instruction calls the coefficients, and a round."""
    radius = width**0.5
    yield FixedHessian(width, radius, radius, 1.0, DELTA, schema_digest="d"), "direction", 3
    yield FixedHessian(width, radius, None, 1.0, DELTA, schema_digest="d"), "direction", 2
    yield GradientDescent(width, radius, radius, 1.0, DELTA, 4, 0.9, 2.0, schema_digest="d"), "direction", 2
    yield SufficientStatistics(width, radius, 1.0, DELTA, schema_digest="d"), "", 1
    table = ColumnBlock("one", 0, width, 0, Form.BINS, Risk.NONE)
    yield HistogramScorecard((table,), 1.0, DELTA, 4, monotone=False, schema_digest="d"), "coefficients", 2


def equal_people(n: int, width: int) -> EncodedRows:
    return EncodedRows(np.ones((n, width)), np.zeros(n), np.ones(n))


def furthest(sums: Callable[[int], Floats]) -> float:
    """The most that one of n equal people changes, for every n."""
    found = [sums(n) for n in HEADS]
    return max(float(np.linalg.norm(more - fewer)) for fewer, more in pairwise(found))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("number", range(5))
def test_no_instruction_lets_one_person_move_a_sum_further_than_the_sensitivity(number: int, width: int) -> None:
    made, coefficients, at = list(recipes(width))[number]
    for seed in range(12):
        told: Arrays = {"round": np.array([float(at)])}
        if coefficients:
            told = {**told, coefficients: hostile(width, seed)}
        if isinstance(made, GradientDescent) or (isinstance(made, FixedHessian) and made.centred):
            told = {**told, "centre": np.zeros(width)}

        def exact(n: int, told: Arrays = told) -> Floats:
            return made.contribution(at, told, equal_people(n, width), chance=SeededNoise(0, "none is drawn"))

        slack = float_slack(people=HEADS.stop, reach=made.reach(at, people=HEADS.stop, holders=1))
        bound = made.sensitivity(at) * (1 + 1e-9) + made.length(at) ** 0.5 * slack
        assert furthest(exact) <= bound


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("hidden", [(), (16,), (5,), (12, 7)])
def test_no_vector_lets_one_person_move_local_steps_further_than_the_clipping_norm(
    hidden: tuple[int, ...], width: int
) -> None:
    layers = Layers(width, hidden)
    for seed in range(8):
        vector = layers.start()
        # The numbers that cancel are in the first layer or in the last; everybody comes to the last with ones.
        matrix, offsets = layers.split(vector)[-1 if seed % 2 else 0]
        if hidden and seed % 2:
            vector[: -len(matrix[0]) - 1] = 0
            layers.split(vector)[-2][1][:] = 1
        for unit, row in enumerate(matrix):
            # The squares of 2^60 are finite in float32, too.
            row[:] = hostile(len(row), seed + unit, 2.0**60, 128.0)[:-1]
        offsets[:] = -64

        def exact(n: int, vector: Floats = vector) -> Floats:
            return clipped_sums(layers, equal_people(n, width), clipping_norm=1.0).clipped_sum(vector, None)

        # The sum itself is rounded to 24 bits of up to 400 in a network, which its recipe says.
        assert furthest(exact) <= 1 + (1e-3 if hidden else 1e-9)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13, 24, 37, 64, 130])
def test_a_row_is_worked_out_alike_at_every_place_of_every_block(width: int, kind: type[np.float64]) -> None:
    random = np.random.default_rng(width)
    wide = np.ones((4200, width + 3), dtype=kind)
    vector = (hostile(width + 2, 1, 2.0**60)[:width] + random.normal(size=width) * 2.0**40).astype(kind)
    weights = np.stack([vector, *random.normal(size=(4, width))]).astype(kind)
    dots: set[float] = set()
    for rows in (1, 2, 3, 5, 15, 16, 63, 64, 65, 299, 2047, 2048):
        for start in (0, 1, 3):
            block = slice(start, start + rows)
            lain: tuple[np.ndarray, ...] = (
                wide[block, :width],
                wide[block, 1 : width + 1],
                wide[: 2 * rows : 2, :width],
                np.asfortranarray(wide[block, :width]),
                np.broadcast_to(wide[:1, :width], (rows, width)),
            )  # fmt: skip
            for matrix in lain:
                dots |= set(row_dots(matrix, vector).tolist())
    assert len(dots) == 1
    products: set[bytes] = set()
    for rows in (64, 128, 1024, 2048):
        for start in (0, 1, 3):
            out = np.empty((rows, 8), dtype=kind)[:, :5]
            row_products(wide[start : start + rows, :width], weights, out)
            products |= {row.tobytes() for row in out}
    assert len(products) == 1


@pytest.mark.parametrize("seed", range(8))
def test_the_centres_sum_adds_up_shares_and_outcomes_in_blocks(seed: int) -> None:
    rows = 3 * ROWS_PER_BLOCK + 7
    share = np.random.default_rng(seed).uniform(size=rows)
    total = centre_sum(EncodedRows(np.zeros((rows, 2)), np.ones(rows), share), 1.0)
    heads = bads = 0.0
    for start in range(0, rows, ROWS_PER_BLOCK):
        part = share[start : start + ROWS_PER_BLOCK]
        heads += float(part.sum())
        bads += float(part @ np.ones(len(part)))
    assert total[-2:].tolist() == [heads, bads]


def test_what_torchs_rounding_lets_one_person_move_is_far_below_the_clipping_norm() -> None:
    """Opacus' products are torch's, in 32 bits: the bound on the vector bounds what their order can decide."""
    made = OpacusFedAvg((), 1.0, HEADS.stop, 1, 1, 1.0, None, DELTA, width=24, schema_digest="d")
    worst = 0.0
    for seed in range(3):
        told = {"round": np.ones(1), "vector": hostile(24, seed, 2.0**10, 2.0**-4)}
        parts = [
            made.contribution(1, told, equal_people(n, 24), chance=SeededNoise(0, "none is drawn"))
            for n in (HEADS[-2], HEADS[-1])
        ]
        worst = max(worst, float(np.linalg.norm(parts[1] - parts[0])) * made.batch_size)
    assert worst <= 1.02
