"""Models against the formulas written out row by row."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated.model import LinearModel, NetworkModel, clip_to_norm, probability_of
from privacy.errors import MalformedError

CELLS = st.floats(-1e30, 1e30)


@given(arrays(np.float64, (4, 3), elements=CELLS), st.floats(1e-3, 1e3))
def test_clipped_rows_keep_their_direction_and_never_exceed_the_norm(
    x: np.ndarray[tuple[int, int], np.dtype[np.float64]], norm: float
) -> None:
    for before, after in zip(x, clip_to_norm(x, norm), strict=True):
        length = math.hypot(*before)
        assert math.hypot(*after) <= norm * (1 + 1e-12)
        np.testing.assert_allclose(after, before * min(1.0, norm / length) if length else before, rtol=1e-9)


def test_linear_model_by_hand() -> None:
    model = LinearModel("d", np.array([1.0, 0.0]), np.array([2.0, -1.0]), 0.5, 5.0)
    x = np.array([[1.0, 0.0], [4.0, 4.0], [7.0, 8.0]])
    np.testing.assert_allclose(model.log_odds(x), [0.5, 0.5 + 6 - 4, 0.5 + 6 - 4])
    np.testing.assert_allclose(model.additive_log_odds(x), [0.5, 0.5 + 6 - 4, 0.5 + 12 - 8])
    unclipped = LinearModel("d", model.centre, model.coefficients, 0.5, None)
    np.testing.assert_allclose(unclipped.log_odds(x), model.additive_log_odds(x))


def test_a_start_is_the_additive_form() -> None:
    model = LinearModel("d", np.array([1.0, 0.5]), np.array([2.0, -1.0]), 0.5, 5.0)
    assert model.as_start() == (0.5 - 2.0 + 0.5, 2.0, -1.0)
    x = np.random.default_rng(0).normal(size=(9, 2)) * 10
    np.testing.assert_allclose(model.additive_log_odds(x), model.as_start()[0] + x @ np.array(model.as_start()[1:]))


def test_network_by_hand() -> None:
    hidden = (np.array([[1.0, -1.0], [0.0, 2.0]]), np.array([0.0, -1.0]))
    output = (np.array([[3.0, 5.0]]), np.array([0.25]))
    model = NetworkModel("d", (hidden, output))
    x = np.array([[2.0, 1.0], [0.0, 3.0], [0.0, 0.0]])
    np.testing.assert_allclose(model.log_odds(x), [3 * 1 + 5 * 1 + 0.25, 5 * 5 + 0.25, 0.25])


def test_probability_is_the_logistic_function_and_never_overflows() -> None:
    z = np.array([-1e308, -800.0, -1.0, 0.0, 2.0, 800.0, 1e308])
    exact = [0, 0, 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2)), 1, 1]
    np.testing.assert_allclose(probability_of(z), exact, atol=1e-16)


@pytest.mark.parametrize("broken", [np.array([math.nan, 0.0]), np.array([1.0]), np.zeros((2, 1))])
def test_damaged_models_are_refused(broken: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    whole = np.zeros(2)
    with pytest.raises(MalformedError, match="maker must send it again"):
        LinearModel("d", broken, whole, 0.0, None)
    with pytest.raises(MalformedError, match="maker must send it again"):
        LinearModel("d", whole, np.array([math.inf, 0.0]), 0.0, None)
    with pytest.raises(MalformedError, match="maker must send it again"):
        LinearModel("d", whole, whole, math.nan, None)
    with pytest.raises(MalformedError, match="maker must send it again"):
        LinearModel("d", whole, whole, 0.0, -1.0)
    with pytest.raises(MalformedError, match="maker must send it again"):
        NetworkModel("d", ((np.full((1, 2), math.nan), np.zeros(1)),))
    with pytest.raises(MalformedError, match="maker must send it again"):
        NetworkModel("d", ((np.zeros((1, 2)), np.zeros(2)),))


def test_models_cannot_be_changed() -> None:
    model = LinearModel("d", np.zeros(2), np.zeros(2), 0.0, None)
    with pytest.raises(ValueError, match="read-only"):
        model.coefficients[0] = 1.0
