"""Closed-form clipped gradients, judged by torch's automatic differentiation, one person at a time."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.recipes.clipped_sums import clipped_sums
from federated.recipes.layers import Layers
from federated.rows import EncodedRows
from tests.federated.recipes.walks import Floats, one, people

SHAPES: list[tuple[int, ...]] = [(), (4,), (6, 3)]
WIDTH = 5


def network(layers: Layers, vector: Floats) -> torch.nn.Module:
    parts: list[torch.nn.Module] = []
    for inputs, outputs in layers.sizes:
        parts += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    made = torch.nn.Sequential(*parts[:-1]).double()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(vector.copy()), made.parameters())
    return made


def gradients(layers: Layers, vector: Floats, rows: EncodedRows) -> Floats:
    """Every person's own gradient of the log loss, shape (people, parameters)."""
    made, out = network(layers, vector), []
    for x, bad in zip(rows.x, rows.bad, strict=True):
        made.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            made(torch.from_numpy(x[None].copy()))[0, 0], torch.tensor(bad, dtype=torch.float64)
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        out.append(np.concatenate([p.grad.numpy().ravel() for p in made.parameters() if p.grad is not None]))
    return np.array(out)


def vector_of(layers: Layers, seed: int = 0, scale: float = 0.7) -> Floats:
    return np.random.default_rng(seed).normal(size=layers.parameters) * scale


@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.parametrize("clipping_norm", [0.05, 0.5, 1e4])
def test_sums_are_those_of_clipped_automatic_gradients(hidden: tuple[int, ...], clipping_norm: float) -> None:
    layers, rows = Layers(WIDTH, hidden), people(40)
    vector = vector_of(layers)
    each = gradients(layers, vector, rows)
    norms = np.linalg.norm(each, axis=1)
    if clipping_norm == 0.5:  # some are clipped, some are not
        assert norms.min() < 0.5 < norms.max()
    expected = (rows.share * np.minimum(1, clipping_norm / norms)) @ each
    summed = clipped_sums(layers, rows, clipping_norm=clipping_norm)
    tolerance = 1e-8 if not hidden else 2e-5
    np.testing.assert_allclose(summed.clipped_sum(vector, None), expected, rtol=tolerance, atol=tolerance * norms.max())
    batch = np.array([3, 17, 4, 39])
    some = (rows.share * np.minimum(1, clipping_norm / norms))[batch] @ each[batch]
    np.testing.assert_allclose(summed.clipped_sum(vector, batch), some, rtol=tolerance, atol=tolerance * norms.max())
    np.testing.assert_array_equal(summed.clipped_sum(vector, batch[:0]), np.zeros(layers.parameters))


@pytest.mark.parametrize("hidden", SHAPES)
def test_blocks_do_not_matter(hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    layers, rows = Layers(WIDTH, hidden), people(500)
    vector, batch = vector_of(layers), np.arange(0, 500, 2)
    whole = [clipped_sums(layers, rows, clipping_norm=0.3).clipped_sum(vector, places) for places in (None, batch)]
    for name in ("LOGISTIC_BLOCK", "NETWORK_BLOCK"):
        monkeypatch.setattr(f"federated.recipes.clipped_sums.{name}", 64)
    parts = [clipped_sums(layers, rows, clipping_norm=0.3).clipped_sum(vector, places) for places in (None, batch)]
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    assert np.abs(whole[0]).max() > 1


@pytest.mark.parametrize("hidden", SHAPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e5, 1e30])
@pytest.mark.parametrize(
    "x",
    [
        [2.0**100] * WIDTH,
        [2.0**60, -(2.0**60), 1.0, 0.0, 0.0],
        [5e-324] * WIDTH,
        [0.0] * WIDTH,
        [1e-20] * WIDTH,
        [1e18, 1e-18, 0.0, 0.0, 0.0],
        [3.0, -2.0, 1.0, 40.0, 0.5],
    ],
)
def test_no_row_and_no_model_gets_past_share_times_the_clipping_norm(
    hidden: tuple[int, ...], scale: float, x: Sequence[float]
) -> None:
    layers = Layers(WIDTH, hidden)
    for clipping_norm in (1e-6, 0.3, 1e6):
        for bad in (0.0, 1.0):
            summed = clipped_sums(layers, one(x, bad, 0.4), clipping_norm=clipping_norm)
            for seed in range(3):
                moved = summed.clipped_sum(vector_of(layers, seed, scale), None)
                assert np.linalg.norm(moved) <= 0.4 * clipping_norm


def test_squares_lost_below_the_smallest_float_do_not_hide_a_long_gradient() -> None:
    # What comes back is 2e-23, whose square float32 does not have; what went in is 1.8e19; the product is 4e-4.
    layers = Layers(1, (64,))
    vector = np.concatenate([np.full(64, 1e-22), np.zeros(64), np.full(64, 2e-23), [0.0]])
    moved = clipped_sums(layers, one([1.8e19], 1.0), clipping_norm=1e-3).clipped_sum(vector, None)
    assert np.linalg.norm(moved[:64]) > 1e-6
    assert np.linalg.norm(moved) <= 1e-3


@given(
    x=st.lists(st.floats(-(2.0**100), 2.0**100), min_size=WIDTH, max_size=WIDTH),
    share=st.floats(0, 1),
    hidden=st.sampled_from(SHAPES),
    told=st.lists(st.floats(-(2.0**100), 2.0**100), min_size=61, max_size=61),
    clipping_norm=st.floats(1e-6, 1e6),
)
@settings(max_examples=300, deadline=None)
def test_no_person_changes_a_sum_by_more_than_share_times_the_clipping_norm(
    x: list[float], share: float, hidden: tuple[int, ...], told: list[float], clipping_norm: float
) -> None:
    layers = Layers(WIDTH, hidden)
    summed = clipped_sums(layers, one(x, 1.0, share), clipping_norm=clipping_norm)
    moved = summed.clipped_sum(np.array(told[: layers.parameters]), None)
    assert np.isfinite(moved).all()
    # Shares are held in float32 for networks.
    assert np.linalg.norm(moved) <= share * clipping_norm * (1 + 1e-9) + 1e-30


@pytest.mark.parametrize("hidden", SHAPES)
def test_a_person_whose_gradient_is_not_finite_counts_nothing_and_spoils_nothing(hidden: tuple[int, ...]) -> None:
    layers, rows = Layers(2, hidden), people(30, width=2)
    x, wild = rows.x.copy(), vector_of(layers)
    x[7] = [0.0, 2.0**100]
    wild[0] = math.inf  # times person 7's 0 it is not a number; with everybody else's cells it is infinite
    spoiled = clipped_sums(layers, EncodedRows(x, rows.bad, rows.share), clipping_norm=1.0)
    for places in (None, np.arange(30)):
        assert np.isfinite(spoiled.clipped_sum(wild, places)).all()
    alone = clipped_sums(layers, EncodedRows(x[7:8], rows.bad[7:8], rows.share[7:8]), clipping_norm=1.0)
    assert not alone.clipped_sum(wild, None).any()
    # The rows themselves stay as they were: a later step finds person 7 again.
    calm = vector_of(layers, seed=2)
    fresh = clipped_sums(layers, EncodedRows(x, rows.bad, rows.share), clipping_norm=1.0)
    np.testing.assert_array_equal(spoiled.clipped_sum(calm, None), fresh.clipped_sum(calm, None))


def test_layers_are_torchs_layers_in_torchs_order() -> None:
    for hidden in SHAPES:
        layers = Layers(WIDTH, hidden)
        vector = vector_of(layers)
        x = people(20).x
        expected = network(layers, vector)(torch.from_numpy(x.copy())).detach().numpy()[:, 0]
        np.testing.assert_allclose(layers.model(vector, schema_digest="d").log_odds(x), expected, rtol=1e-12)
    assert Layers(WIDTH, ()).start().tolist() == [0.0] * 6
    start = Layers(WIDTH, (6, 3)).start()
    assert float(start[0]) == pytest.approx(
        float(np.random.Generator(np.random.PCG64(20261121)).uniform(-1, 1)) / math.sqrt(5), abs=1e-12
    )
