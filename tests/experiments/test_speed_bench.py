"""Speed is measured on the same work: contenders take the same steps, sums are sums, and rows say what was timed."""

from collections.abc import Callable

import numpy as np
import pytest

from experiments.benchmarks import speed
from experiments.benchmarks.speed import interleaved, made_up_rows, memory_of_a_run, ratio, round_times
from experiments.benchmarks.speed_rows import STEP_TARGETS, SpeedSettings
from experiments.benchmarks.speed_steps import epochs_for, mean_gradient, private_round, shuffled
from experiments.benchmarks.speed_sums import SecureSums, noise_seconds
from experiments.benchmarks.training import Part, TrainingSettings, training
from federated.recipes.clipped_sums import clipped_sums
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.layers import Layers
from privacy.errors import TamperingError
from privacy.secure_sum.unmask import Unmasked, Unmasker
from server.rounds import no_progress

WIDTH = 4
SMALL = SpeedSettings(people=300, batches=(64, 300), repeats=1, many=(2, 4), sums=(4, 7), numbers=50)


def recipe() -> FixedHessian:
    return FixedHessian(
        width=WIDTH, radius=2.0, centred_radius=1.5, epsilon=1.0, delta=1e-5, steps=3, schema_digest="0" * 64
    )


@pytest.mark.parametrize("hidden", [(), (5,), (6, 3)])
def test_the_plain_gradient_is_the_private_one_without_clipping(hidden: tuple[int, ...]) -> None:
    rows, layers = made_up_rows(70, WIDTH, 3), Layers(WIDTH, hidden)
    vector = np.random.default_rng(2).normal(size=layers.parameters)
    ours = clipped_sums(layers, rows, clipping_norm=1e5).clipped_sum(vector, None) / len(rows)
    np.testing.assert_allclose(mean_gradient(layers, vector, rows.x, rows.bad), ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (6, 3)])
def test_torch_takes_the_same_step(hidden: tuple[int, ...]) -> None:
    import torch

    rows, layers = made_up_rows(70, WIDTH, 3), Layers(WIDTH, hidden)
    vector = np.random.default_rng(2).normal(size=layers.parameters)
    parameters = torch.tensor(vector, requires_grad=True)
    signal, start = torch.tensor(rows.x), 0
    for place, (inputs, outputs) in enumerate(layers.sizes):
        middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
        signal = signal @ parameters[start:middle].reshape(outputs, inputs).T + parameters[middle:end]
        signal = torch.relu(signal) if place + 1 < len(layers.sizes) else signal
        start = end
    loss = torch.nn.functional.binary_cross_entropy_with_logits(signal[:, 0], torch.tensor(rows.bad))
    loss.backward()  # type: ignore[no-untyped-call]
    assert parameters.grad is not None
    np.testing.assert_allclose(mean_gradient(layers, vector, rows.x, rows.bad), parameters.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 64, 100, 500])
def test_batches_hold_everybody_once_an_epoch(batch: int) -> None:
    chance, people = np.random.default_rng(1), np.arange(100)
    dealt = [people[places] for places in shuffled(100, batch, 3, chance)]
    assert sorted(np.concatenate(dealt)) == sorted([*people] * 3)
    assert max(len(places) for places in dealt) == min(batch, 100)


@pytest.mark.parametrize("hidden", [(), (3,)])
def test_a_round_has_steps_enough_to_hide_its_set_up(hidden: tuple[int, ...]) -> None:
    for batch in (10, 100, 1000):
        steps = epochs_for(100, hidden, batch) * -(-100 // batch)
        assert steps >= 24


def test_our_round_is_private_and_draws_anew() -> None:
    work = private_round(made_up_rows(90, WIDTH, 1), (), 30)
    first, again = work(), work()
    assert isinstance(first, np.ndarray)
    assert isinstance(again, np.ndarray)
    assert not np.array_equal(first, again)


def test_contenders_take_turns_and_the_first_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    seconds = iter([100.0, 100.0, 2.0, 1.0, 3.0, 1.0, 8.0, 2.0])
    monkeypatch.setattr(speed, "timed", lambda work: (next(seconds), work()))

    def names(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    found = interleaved({"a": names("a"), "b": names("b")}, repeats=3)
    assert order == ["a", "b"] * 4
    assert found == {"a": [2.0, 3.0, 8.0], "b": [1.0, 1.0, 2.0]}
    assert ratio(found["a"], found["b"]) == 3.0


def test_rounds_and_memory_are_of_the_whole_run() -> None:
    parts = [made_up_rows(30, WIDTH, seed) for seed in range(3)]
    times = round_times(recipe(), parts, repeats=1)
    assert times.mean > 0
    assert times.last > 0
    used = memory_of_a_run(recipe(), 3, 30, WIDTH)
    if used is not None:  # not every system tells
        assert used.rows == 3 * 30 * (WIDTH + 2) * 8
        assert used.most >= used.before > 1_000_000


def test_a_secure_sum_is_timed_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = SecureSums(4, tolerated=1)
    assert sums.set_up > 0
    for stage, dropouts in enumerate((0, 1), start=1):
        cost = sums.round(stage, 9, dropouts=dropouts)
        assert min(cost.mask, cost.reveal, cost.coordinator) > 0
    right = Unmasker.unmask

    def wrong(*arguments: object) -> Unmasked:
        unmasked = right(*arguments)  # type: ignore[arg-type]
        return Unmasked(unmasked.total + np.uint64(1), unmasked.liars)

    monkeypatch.setattr(Unmasker, "unmask", wrong)
    with pytest.raises(TamperingError, match="secure sum"):
        sums.round(3, 9, dropouts=0)
    assert noise_seconds(10, repeats=2) > 0


@pytest.mark.slow
def test_every_figure_of_speed_that_was_promised_has_its_row() -> None:
    rows = training(TrainingSettings(parts=(Part.SUMS, Part.SPEED), speed=SMALL), no_progress)
    assert len({row.name for row in rows}) == len(rows)
    promised = [row for row in rows if row.target is not None]
    assert sorted(row.target or 0 for row in promised) == sorted([*STEP_TARGETS.values(), 5.0, 1.1])
    assert all(row.in_table and not row.higher_is_better for row in promised)
    for row in rows:
        # Of tables this small the memory is lost in what else a process does between two looks.
        assert row.value is None or row.value >= 0 or row.unit == "bytes"
        assert row.unit in {"x", "ms", "bytes"}
    for holders, dropouts in ((4, 0), (4, 1), (7, 0), (7, 2)):
        told = [row for row in rows if f"{holders} holders x 50" in row.name and f"{dropouts} drop-outs" in row.name]
        assert len(told) == 2, [row.name for row in rows]
    worst = [row for row in rows if "worst size of batch" in row.name]
    assert len(worst) == 4
    for row in worst:
        kind = row.name.removesuffix(", the worst size of batch")
        of_batches = [other.value or 0 for other in rows if other.name.startswith(f"{kind}, batches of")]
        assert len(of_batches) == len(SMALL.batches)
        assert row.value == max(of_batches)
