"""Calibration finds the level and the slope that the released counts show, and never the order of people."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from experiments.plans import SCALE
from federated.metrics import ScoreHistogram
from federated.model import LinearModel, probability_of
from federated.scorecard import PointScale
from server.calibration import AS_TRAINED, BaseRate, Calibration, calibration_from

EDGES = np.linspace(300, 851, 45)
UNKNOWN = BaseRate(0.0, 0.0, 0.0)  # so that the level is the histogram's own
COARSE_MIDDLES = (EDGES[:-1:4] + EDGES[4::4]) / 2


def _released(intercept: float, slope: float, people: float = 10_000.0) -> ScoreHistogram:
    """People around 600 points whose log-odds of bad are `intercept + slope` times what their scores say."""
    middles = np.repeat(COARSE_MIDDLES, 4)
    shape = np.exp(-(((middles - 600) / 90) ** 2) / 2)
    counts = people * shape / shape.sum()
    bads = counts * probability_of(intercept + slope * SCALE.log_odds_of_bad(middles))
    return ScoreHistogram(EDGES, counts - bads, bads)


@given(intercept=st.floats(-1, 1), slope=st.floats(0.4, 2.5))
def test_what_was_wrong_is_found_exactly_where_there_is_no_noise(intercept: float, slope: float) -> None:
    found = calibration_from(_released(intercept, slope), SCALE, UNKNOWN, deviation=0.0)
    assert (found.intercept, found.slope) == pytest.approx((intercept, slope), abs=1e-6)


def test_it_agrees_with_an_unpenalised_logistic_regression_on_the_same_counts() -> None:
    chance = np.random.default_rng(3)
    exact = _released(0.3, 0.7, people=3_000)
    noisy = ScoreHistogram(EDGES, exact.goods + chance.normal(0, 4, 44), exact.bads + chance.normal(0, 4, 44))
    coarse = noisy.coarser(4)
    rows = np.repeat(SCALE.log_odds_of_bad(COARSE_MIDDLES), 2)[:, None]
    outcomes = np.tile([0, 1], len(COARSE_MIDDLES))
    counts = np.maximum(np.column_stack([coarse.goods, coarse.bads]).ravel(), 0)
    judge = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(rows, outcomes, sample_weight=counts)
    found = calibration_from(noisy, SCALE, UNKNOWN, deviation=4.0)
    assert (found.intercept, found.slope) == pytest.approx((judge.intercept_[0], judge.coef_[0, 0]), abs=1e-4)


def test_the_calibrated_model_says_what_the_calibration_says() -> None:
    model = LinearModel("0" * 64, np.array([0.1, 0.2]), np.array([1.0, -2.0]), -1.0, 1.5)
    x = np.array([[0.3, 0.1], [2.0, 5.0]])
    calibrated = Calibration(0.25, 0.8).model(model)
    assert calibrated.additive_log_odds(x) == pytest.approx(0.25 + 0.8 * model.additive_log_odds(x))


def test_the_histogram_keeps_its_people_and_its_ranking_figures() -> None:
    released = _released(0.3, 0.7)
    moved = Calibration(0.3, 0.7).histogram(released, SCALE)
    assert (moved.auc, moved.ks, moved.people) == (released.auc, released.ks, released.people)
    expected = (moved.goods + moved.bads) @ probability_of(SCALE.log_odds_of_bad(moved.midpoints))
    assert expected == pytest.approx(moved.bads.sum(), rel=0.02)


@pytest.mark.parametrize(("goods", "bads"), [(1.0, 1.0), (1000.0, -5.0), (-800.0, 1000.0), (1000.0, 1000.0)])
def test_counts_that_say_too_little_change_nothing(goods: float, bads: float) -> None:
    released = ScoreHistogram(EDGES, np.full(44, goods / 44), np.full(44, bads / 44))
    assert calibration_from(released, SCALE, UNKNOWN, deviation=0.0) == AS_TRAINED


@pytest.mark.parametrize("bands", [2, 3, 4, 8, 20])
@pytest.mark.parametrize("people", [1e3, 1e7, 1e8, 1e12])
def test_few_bands_of_many_people_never_end_a_run(bands: int, people: float) -> None:
    """All people in one wide band: slope and intercept cannot be told apart, whatever the size of the numbers."""
    edges = np.linspace(300, 851, bands + 1)
    for seed in range(5):
        chance = np.random.default_rng(seed)
        counts = people * chance.dirichlet(np.ones(bands))
        bads = counts * chance.uniform(0.05, 0.4, bands)
        released = ScoreHistogram(edges, counts - bads, bads)
        found = calibration_from(released, SCALE, BaseRate(people, float(bads.sum()), 30.0), deviation=3.0)
        assert np.isfinite([found.intercept, found.slope]).all()


def test_what_is_found_does_not_depend_on_how_many_people_there_are() -> None:
    """One wide band, in which only some of what could be said is known: the nearest to what was trained is found."""
    found = [
        calibration_from(
            ScoreHistogram(np.array([500.0, 560.0, 620.0]), np.full(2, 0.8 * people), np.full(2, 0.2 * people)),
            SCALE,
            UNKNOWN,
            deviation=0.0,
        )
        for people in (1e3, 1e9, 1e14)
    ]
    assert found[0] is not AS_TRAINED
    for other in found[1:]:
        assert (other.intercept, other.slope) == pytest.approx((found[0].intercept, found[0].slope), abs=1e-6)


def test_counts_at_the_very_ends_of_the_scale_never_end_a_run() -> None:
    """Chances so near 0 and 1 that the curvature vanishes."""
    wide = PointScale(base_score=0.0, base_good_bad_odds=1.0, points_to_double_odds=1.0, minimum=-1e3, maximum=1e3)
    edges = np.linspace(-1e3, 1e3, 9)
    goods, bads = np.full(8, 1e6), np.zeros(8)
    bads[0] = 1e6
    released = ScoreHistogram(edges, goods, bads)
    assert np.isfinite(calibration_from(released, wide, UNKNOWN, deviation=0.0).intercept)
