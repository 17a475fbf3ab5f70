"""One-shot statistics: a Newton step of the logistic loss, found with scikit-learn's help and by hand."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from federated.recipes.sufficient_statistics import SufficientStatistics
from federated.rows import EncodedRows
from privacy.accounting import mu_of
from privacy.errors import MalformedError
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, P, auc, empty, one, parted, people, released, unit, walk

R = 2.0
MIDDLE = (0.2,) * P


def recipe(epsilon: float | None = 1.0) -> SufficientStatistics:
    return SufficientStatistics(P, R, epsilon, DELTA, schema_digest="d", middle=MIDDLE)


def test_the_release_is_the_moments_written_out() -> None:
    rows = people(200)
    total = released(recipe(), 1, recipe().start(), [rows])
    a = unit(rows.x, np.array(MIDDLE), R)
    pairs = [(j, k) for j in range(P + 1) for k in range(j, P + 1)]
    moments = [0.5 * sum(w * row[j] * row[k] for w, row in zip(rows.share, a, strict=True)) for j, k in pairs]
    cross = sum(w * (y - 0.5) * row for w, y, row in zip(rows.share, rows.bad, a, strict=True))
    np.testing.assert_allclose(total, [*moments, *cross], atol=1e-10)


def test_without_noise_it_is_one_newton_step_from_the_base_rate() -> None:
    """With weights base rate x its complement a Newton step is a least-squares fit of the residuals."""
    rows = people(2000)
    last = walk(recipe(None), [rows], None)[-1]
    a = unit(rows.x, np.array(MIDDLE), R)
    rate = float(np.average(rows.bad, weights=rows.share))
    fit = LinearRegression(fit_intercept=False).fit(a, rows.bad - rate, sample_weight=rows.share)
    expected = fit.coef_ / (rate * (1 - rate))
    expected[-1] += math.log(rate / (1 - rate)) / math.sqrt(0.1)
    np.testing.assert_allclose(last["direction"], expected, rtol=1e-6)


def test_noise_included_it_is_the_solution_written_out() -> None:
    rows, size = people(3000), P + 1
    last = walk(recipe(), [rows], SeededNoise(3, "a"))[-1]
    a, mu = unit(rows.x, np.array(MIDDLE), R), mu_of(1.0, DELTA)
    deviation = math.sqrt(0.91 / 4 + 0.25) / mu
    noise = SeededNoise(3, "a").gaussian(size * (size + 1) // 2 + size, deviation)
    upper = np.zeros((size, size))
    upper[np.triu_indices(size)] = noise[:-size] / 0.5
    moments = (a * rows.share[:, None]).T @ a + np.triu(upper) + np.triu(upper, 1).T
    cross = a.T @ (rows.share * (rows.bad - 0.5)) + noise[-size:]
    heads = moments[-1, -1] / 0.1
    rate = (cross[-1] / math.sqrt(0.1) + heads / 2) / heads
    values, vectors = np.linalg.eigh(moments)
    inverse = (vectors / (np.maximum(values, 0) + 2 * math.sqrt(size) * deviation / 0.5)) @ vectors.T
    pull = cross + (0.5 - rate) * moments[:, -1] / math.sqrt(0.1)
    expected = inverse @ pull / (rate * (1 - rate))
    expected[-1] += math.log(rate / (1 - rate)) / math.sqrt(0.1)
    np.testing.assert_allclose(last["direction"], expected, rtol=1e-4)


def test_it_learns_in_one_round_and_does_not_care_who_holds_whom() -> None:
    rows, fresh = people(20_000), people(4000, seed=9)
    best = auc(2 * fresh.x[:, 0] - fresh.x[:, 1], fresh.bad)
    ends = [walk(recipe(3.0), parted(rows, k, "labels"), SeededNoise(1, "a")) for k in (1, 7)]
    assert len(ends[0]) == 2
    np.testing.assert_allclose(ends[0][-1]["direction"], ends[1][-1]["direction"], atol=1e-9)
    model = recipe(3.0).model(ends[0][-1])
    assert auc(model.log_odds(fresh.x), fresh.bad) > best - 0.015 > 0.7
    assert model.log_odds(fresh.x).mean() == pytest.approx(math.log(fresh.bad.mean() / (1 - fresh.bad.mean())), abs=0.3)


@pytest.mark.parametrize("rows", [empty(), one([0.1] * P), people(40)])
def test_hardly_anybody_is_no_division_by_a_noisy_zero(rows: EncodedRows) -> None:
    for seed in range(5):
        last = walk(recipe(0.5), [rows], SeededNoise(seed, "few"))[-1]
        assert np.isfinite(recipe().model(last).coefficients).all()


@pytest.mark.parametrize(
    "change_of",
    [{"width": 0}, {"radius": 0.0}, {"epsilon": math.nan}, {"delta": 0.0}, {"middle": (0.0,) * (P + 1)}],
)
def test_unlawful_settings_are_refused(change_of: dict[str, object]) -> None:
    lawful = {"width": P, "radius": R, "epsilon": 1.0, "delta": DELTA, "middle": MIDDLE}
    SufficientStatistics(**lawful, schema_digest="d")  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="coordinator must"):
        SufficientStatistics(**{**lawful, **change_of}, schema_digest="d")  # type: ignore[arg-type]
