"""Private gradient descent: an independent optimum, its step, and a literal walk."""

import math

import numpy as np
import pytest

from federated.recipes.gradient_descent import GradientDescent
from federated.rows import EncodedRows
from privacy.accounting import mu_of
from privacy.errors import MalformedError
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, P, auc, optimum, parted, people, unit, walk

R, RC = 2.0, 1.0


def recipe(
    epsilon: float | None = 1.0, steps: int = 50, momentum: float = 0.9, start: tuple[float, ...] | None = None
) -> GradientDescent:
    return GradientDescent(P, R, RC, epsilon, DELTA, steps, momentum, 2.0, schema_digest="d", public_start=start)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_without_noise_it_ends_at_the_optimum_of_the_clipped_rows(momentum: float) -> None:
    rows = people(1500)
    last = walk(recipe(None, 1500, momentum), [rows], None)[-1]
    np.testing.assert_allclose(last["direction"], optimum(rows, last["centre"], RC), atol=1e-4)


def test_noise_included_it_is_the_walk_written_out() -> None:
    rows, mu, chance = people(3000), mu_of(1.0, DELTA), SeededNoise(3, "a")
    last = walk(recipe(), [rows], SeededNoise(3, "a"))[-1]
    clipped = rows.x * np.minimum(1, R / np.linalg.norm(rows.x, axis=1))[:, None]
    counts = [rows.share.sum(), rows.share @ rows.bad]
    total = np.append(rows.share @ clipped, counts) + chance.gaussian(P + 2, math.sqrt(6) / (mu * math.sqrt(0.05)))
    heads, base_rate = total[P], total[P + 1] / total[P]
    a = unit(rows.x, total[:P] / heads, RC)
    step = min(4.0, 2.0 * heads * mu / math.sqrt(P + 1) * 0.1 / 50)
    b, move = np.zeros(P + 1), np.zeros(P + 1)
    b[-1] = math.log(base_rate / (1 - base_rate)) / math.sqrt(0.1)
    for _ in range(50):
        gradient = a.T @ (rows.share * (1 / (1 + np.exp(-a @ b)) - rows.bad))
        gradient = gradient + chance.gaussian(P + 1, 1 / (mu * math.sqrt(0.95 / 50)))
        move = 0.9 * move - step * gradient / heads
        b = b + move
    np.testing.assert_allclose(last["direction"], b, rtol=1e-4, atol=1e-6)


def test_it_learns_and_does_not_care_who_holds_whom() -> None:
    rows, fresh = people(20_000), people(4000, seed=9)
    best = auc(2 * fresh.x[:, 0] - fresh.x[:, 1], fresh.bad)
    ends = [walk(recipe(3.0), parted(rows, k, "labels"), SeededNoise(1, "a"))[-1] for k in (1, 7)]
    np.testing.assert_allclose(ends[0]["direction"], ends[1]["direction"], atol=1e-9)
    assert auc(recipe(3.0).model(ends[0]).log_odds(fresh.x), fresh.bad) > best - 0.01 > 0.7


def test_the_walk_is_as_long_as_its_factor_says_and_no_step_is_unstable() -> None:
    made = recipe()
    heads = 1000.0
    walked = made.steps * made.step(heads) / (1 - made.momentum)
    assert walked == pytest.approx(2.0 * heads * mu_of(1.0, DELTA) / math.sqrt(P + 1), rel=1e-5)
    assert made.step(1e9) == 4.0
    assert recipe(None).step(10.0) == 4.0


@pytest.mark.parametrize("far", [1.0, 30.0])
def test_the_longest_step_is_stable_where_all_rows_are_one(far: float) -> None:
    """The worst curvature that unit rows can have, 1/4 along one direction; from near and far."""
    # Beyond the radius of 2, so the centre is at 2 and every centred row is as long as its own radius lets it be.
    bad = np.tile([0.0, 1.0, 1.0, 1.0], 50)
    same = EncodedRows(np.tile([3.0, 0, 0, 0, 0], (200, 1)), bad, np.ones(200))
    made = recipe(None, 400, start=(far, -far, 0, 0, 0, 0))
    last = walk(made, [same], None)[-1]
    assert np.linalg.norm(unit(same.x, last["centre"], RC), axis=1) == pytest.approx(1.0)
    np.testing.assert_allclose(made.model(last).log_odds(same.x), math.log(3), atol=1e-6)


def test_a_good_public_start_saves_steps() -> None:
    rows = people(1500)
    made = recipe(None, 1500)
    best = made.model(walk(made, [rows], None)[-1])
    goal = best.additive_log_odds(rows.x)
    gaps = [
        np.abs(few.model(walk(few, [rows], None)[-1]).additive_log_odds(rows.x) - goal).max()
        for few in (recipe(None, 5), recipe(None, 5, start=best.as_start()))
    ]
    assert gaps[1] < 1e-3 < 0.1 < gaps[0]


@pytest.mark.parametrize(
    "change_of",
    [
        {"width": 0},
        {"radius": 0.0},
        {"centred_radius": math.nan},
        {"epsilon": 0.0},
        {"delta": 1.0},
        {"steps": 0},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"length_factor": 0.0},
        {"length_factor": math.inf},
        {"public_start": (0.0,)},
    ],
)
def test_unlawful_settings_are_refused(change_of: dict[str, object]) -> None:
    lawful = {
        "width": P, "radius": R, "centred_radius": RC, "epsilon": 1.0, "delta": DELTA, "steps": 8, "momentum": 0.9,
        "length_factor": 2.0,
    }  # fmt: skip
    GradientDescent(**lawful, schema_digest="d")  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="coordinator must"):
        GradientDescent(**{**lawful, **change_of}, schema_digest="d")  # type: ignore[arg-type]
