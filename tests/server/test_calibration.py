"""Calibration finds the level and the slope that the released counts show, and never the order of people."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from experiments.plans import SCALE
from federated.metrics import ScoreHistogram
from federated.model import LinearModel, probability_of
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
