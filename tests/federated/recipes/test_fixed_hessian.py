"""The default recipe against a literal central version, an independent optimum, and its own uncentred sibling."""

import math
from typing import Protocol

import numpy as np
import pytest

from federated.model import LinearModel
from federated.recipes.base import RecipeName
from federated.recipes.fixed_hessian import FixedHessian
from federated.rows import EncodedRows
from privacy.accounting import mu_of
from privacy.errors import MalformedError
from privacy.noise import NoiseSource, SeededNoise
from tests.federated.recipes.walks import DELTA, Floats, P, auc, deviation, empty, one, optimum, parted, people, walk

R, RC = 2.0, 1.0
MIDDLE = (0.2,) * P


class Make(Protocol):
    def __call__(
        self, epsilon: float | None = 1.0, steps: int = 8, start: tuple[float, ...] | None = None
    ) -> FixedHessian: ...


def centred(epsilon: float | None = 1.0, steps: int = 8, start: tuple[float, ...] | None = None) -> FixedHessian:
    return FixedHessian(P, R, RC, epsilon, DELTA, steps, schema_digest="d", public_start=start)


def uncentred(epsilon: float | None = 1.0, steps: int = 8, start: tuple[float, ...] | None = None) -> FixedHessian:
    return FixedHessian(P, R, None, epsilon, DELTA, steps, schema_digest="d", middle=MIDDLE, public_start=start)


def by_hand(rows: EncodedRows, mu: float, chance: NoiseSource, *, centre: Floats | None = None) -> tuple[Floats, ...]:
    """The prototype, word for word but for twice its ridge: (centre, coefficients of unit rows).

    Uncentred where a centre is given.
    """
    x, y, w = rows.x, rows.bad, rows.share
    n, p = x.shape

    def noise(deviation: float, size: int) -> Floats:
        return chance.gaussian(size, deviation) if np.isfinite(mu) else np.zeros(size)

    def clip(z: Floats, r: float) -> Floats:
        out: Floats = z * np.minimum(1, r / np.maximum(1e-12, np.linalg.norm(z, axis=1)))[:, None]
        return out

    if centre is None:
        m1, mu2, inner = mu * np.sqrt(0.05), mu * np.sqrt(0.95), RC
        s = np.concatenate([(w[:, None] * clip(x, R)).sum(0), [w.sum()], [(w * y).sum()]])
        s = s + noise(math.sqrt(R * R + 2) / m1, p + 2)
        heads = max(s[p], 50)
        centre = s[:p] / heads
        base = np.clip(s[p + 1] / heads, 0.01, 0.99)
    else:
        mu2, inner, base = mu, R, 0.5
    a = np.hstack([np.sqrt(0.9) * clip(x - centre, inner) / inner, np.full((n, 1), np.sqrt(0.1))])
    h = (a * w[:, None]).T @ a / 4
    e = np.zeros_like(h)
    e[np.triu_indices(p + 1)] = noise(0.25 / (mu2 * np.sqrt(0.1)), (p + 1) * (p + 2) // 2)
    e = np.triu(e) + np.triu(e, 1).T
    ev, v = np.linalg.eigh(h + e)
    lam = np.sqrt(p + 1) / (mu2 * np.sqrt(0.1)) if np.isfinite(mu) else 1e-6
    hi = (v / (np.maximum(ev, 0) + lam)) @ v.T
    b = np.zeros(p + 1)
    b[-1] = np.log(base / (1 - base)) / np.sqrt(0.1)
    for _ in range(8):
        g = a.T @ (w * (1 / (1 + np.exp(-a @ b)) - y)) + noise(np.sqrt(8) / (mu2 * np.sqrt(0.9)), p + 1)
        b = b - hi @ g
    return centre, b


# What the grid keeps back of epsilon and delta, a millionth, is the only thing that may differ.
@pytest.mark.parametrize("epsilon", [None, 0.5, 1.0, 8.0])
def test_it_is_the_central_prototype_noise_included(epsilon: float | None) -> None:
    rows, mu = people(3000), math.inf if epsilon is None else mu_of(epsilon, DELTA)
    last = walk(centred(epsilon), [rows], SeededNoise(3, "a"))[-1]
    centre, direction = by_hand(rows, mu, SeededNoise(3, "a"))
    np.testing.assert_allclose(last["centre"], centre, rtol=1e-5)
    np.testing.assert_allclose(last["direction"], direction, rtol=1e-4, atol=1e-5)
    last = walk(uncentred(epsilon), [rows], SeededNoise(3, "a"))[-1]
    _, direction = by_hand(rows, mu, SeededNoise(3, "a"), centre=np.array(MIDDLE))
    np.testing.assert_allclose(last["direction"], direction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("holders", [1, 5, 50])
@pytest.mark.parametrize("split", ["even", "sizes", "labels"])
def test_without_noise_the_model_is_the_same_whoever_holds_whom(holders: int, split: str) -> None:
    rows = people(2000)
    last = walk(centred(None), parted(rows, holders, split), None, through_grid=True)[-1]
    centre, direction = by_hand(rows, math.inf, SeededNoise(1, "unused"))
    # Each of the holders rounds each number to half a grid step, 2^-33; nothing else may differ.
    np.testing.assert_allclose(centred(None).model(last).centre, centre, atol=holders * 2.0**-33)
    np.testing.assert_allclose(last["direction"], direction, atol=1e-6)


def test_without_noise_it_ends_at_the_optimum_of_the_clipped_rows() -> None:
    rows = people(2000)
    for made, radius in ((centred(None, steps=60), RC), (uncentred(None, steps=60), R)):
        last = walk(made, [rows], None)[-1]
        centre = made.model(last).centre
        np.testing.assert_allclose(last["direction"], optimum(rows, centre, radius), atol=1e-5)


@pytest.mark.parametrize("made", [centred(), uncentred()])
def test_the_model_scores_as_its_unit_rows_do(made: FixedHessian) -> None:
    rows = people(500)
    last = walk(made, [rows], SeededNoise(1, "a"))[-1]
    model: LinearModel = made.model(last)
    radius = RC if made.centred else R
    away = rows.x - (last["centre"] if made.centred else np.array(MIDDLE))
    clipped = away * np.minimum(1, radius / np.linalg.norm(away, axis=1))[:, None]
    unit_rows = np.hstack([math.sqrt(0.9) * clipped / radius, np.full((500, 1), math.sqrt(0.1))])
    np.testing.assert_allclose(model.log_odds(rows.x), unit_rows @ last["direction"])
    assert model.schema_digest == "d"


@pytest.mark.parametrize("made", [centred(3.0), uncentred(3.0)])
def test_it_learns(made: FixedHessian) -> None:
    fresh = people(4000, seed=9)
    model = made.model(walk(made, [people(20_000)], SeededNoise(1, "a"))[-1])
    best = auc(2 * fresh.x[:, 0] - fresh.x[:, 1], fresh.bad)
    assert auc(model.log_odds(fresh.x), fresh.bad) > best - 0.01 > 0.7


# A public start.


@pytest.mark.parametrize("make", [centred, uncentred])
def test_with_a_good_public_start_fewer_steps_reach_the_optimum(make: Make) -> None:
    rows = people(2000)
    far = make(None, steps=60)
    best = far.model(walk(far, [rows], None)[-1])
    cold, warm = (make(None, steps=2, start=start) for start in (None, best.as_start()))
    goal = best.additive_log_odds(rows.x)
    gaps = [np.abs(made.model(walk(made, [rows], None)[-1]).additive_log_odds(rows.x) - goal) for made in (cold, warm)]
    assert gaps[1].max() < 1e-4
    assert gaps[0].max() > 100 * gaps[1].max()


@pytest.mark.parametrize("make", [centred, uncentred])
def test_a_public_start_is_told_as_it_was_written(make: Make) -> None:
    """Before the first step, the log-odds of a row within the radius are start[0] + start[1:] · x."""
    start = (0.7, 1.0, -2.0, 0.5, 0.0, 3.0)
    made = make(None, start=start)
    states = walk(made, [people(300)], None)
    begun = states[2 if made.centred else 1]
    centre = made.model(states[-1]).centre
    x = centre + np.array([0.3, -0.2, 0.1, 0.4, -0.3])
    scale = math.sqrt(0.9) / (RC if made.centred else R)
    unit_row = np.append((x - centre) * scale, math.sqrt(0.1))
    assert unit_row @ begun["direction"] == pytest.approx(start[0] + x @ np.array(start[1:]))


@pytest.mark.parametrize("start", [(), (1.0,) * P, (1.0,) * (P + 2), (math.nan,) * (P + 1), (1e7,) + (0.0,) * P])
@pytest.mark.parametrize("make", [centred, uncentred])
def test_a_start_of_another_length_or_kind_is_refused(make: Make, start: tuple[float, ...]) -> None:
    with pytest.raises(MalformedError, match="public start"):
        make(start=start)


# The walk.


def test_hardly_anybody_is_no_division_by_a_noisy_zero() -> None:
    for made in (centred(0.5), uncentred(0.5)):
        for rows in (empty(), one([0.1] * P)):
            assert np.isfinite(made.model(walk(made, [rows], SeededNoise(4, "few"))[-1]).coefficients).all()
    after = centred().advance(centred().start(), np.array([10.0] * P + [-500.0, 30.0]), contributors=1)
    np.testing.assert_allclose(after["centre"], 10 / 50)
    assert after["direction"][-1] == pytest.approx(math.log(0.6 / 0.4) / math.sqrt(0.1))


def test_a_curvature_of_noise_alone_still_gives_a_positive_step() -> None:
    made = centred()
    state = made.advance(made.start(), np.zeros(P + 2), contributors=1)
    noise = SeededNoise(1, "curvature").gaussian(made.length(2), deviation(made, 2))
    values = np.linalg.eigvalsh(made.advance(state, noise, contributors=1)["curvature"])
    ridge = math.sqrt(P + 1) / (mu_of(1.0, DELTA) * math.sqrt(0.95) * math.sqrt(0.1))
    assert values.min() == pytest.approx(ridge, rel=1e-5)


def test_holders_are_told_no_more_than_the_round_needs() -> None:
    for made, expected in (
        (centred(), [{"round"}, {"round", "centre"}] + [{"round", "centre", "direction"}] * 8),
        (uncentred(), [{"round"}] + [{"round", "direction"}] * 8),
    ):
        states = walk(made, [people(50)], SeededNoise(1, "a"))
        assert [set(made.instruction(state)) for state in states[:-1]] == expected
        with pytest.raises(MalformedError):
            made.instruction(states[-1])


def test_centred_or_not_is_in_the_name() -> None:
    assert (centred().name, centred().rounds) == (RecipeName.FIXED_HESSIAN, 10)
    assert (uncentred().name, uncentred().rounds) == (RecipeName.UNCENTRED_FIXED_HESSIAN, 9)


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
        {"middle": (0.0,) * (P - 1)},
        {"middle": (math.nan,) * P},
    ],
)
def test_unlawful_settings_are_refused(change_of: dict[str, float]) -> None:
    lawful = {"width": P, "radius": R, "centred_radius": RC, "epsilon": 1.0, "delta": DELTA, "steps": 8}
    FixedHessian(**lawful, schema_digest="d")  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="the coordinator must"):
        FixedHessian(**{**lawful, **change_of}, schema_digest="d")  # type: ignore[arg-type]
