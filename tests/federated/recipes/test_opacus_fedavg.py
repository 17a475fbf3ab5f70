"""The classic recipe: its clipping, shares, noise and accounting judged by closed forms and by privacy loss
distributions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer

from federated.encoder import Encoder
from federated.model import LinearModel, NetworkModel
from federated.recipes.base import Arrays
from federated.recipes.opacus_fedavg import OpacusFedAvg, OpacusFedAvgSettings
from federated.rows import EncodedRows
from privacy.accounting import SampledSpend, Spend, UnprotectedSpend, total_epsilon
from privacy.errors import MalformedError
from privacy.noise import SecureNoise, SeededNoise
from tests.federated.schema_samples import sample

Floats = NDArray[np.float64]
DELTA = 1e-5


def recipe(
    *,
    width: int = 3,
    hidden: tuple[int, ...] = (),
    learning_rate: float = 0.1,
    batch_size: int = 64,
    local_epochs: int = 1,
    rounds: int = 5,
    clipping_norm: float = 1.0,
    epsilon: float | None = 1.0,
) -> OpacusFedAvg:
    return OpacusFedAvg(
        hidden,
        learning_rate,
        batch_size,
        local_epochs,
        rounds,
        clipping_norm,
        epsilon,
        DELTA,
        width=width,
        schema_digest="d",
    )


def people(n: int, width: int = 3, share: float = 1.0, seed: int = 0) -> EncodedRows:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, width))
    bad = (random.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(float)
    return EncodedRows(x, bad, np.full(n, share))


def one(x: Sequence[float], bad: float, share: float = 1.0) -> EncodedRows:
    return EncodedRows(np.array([x], dtype=float), np.array([bad]), np.array([share]))


def first(made: OpacusFedAvg, rows: EncodedRows, label: str = "a") -> Floats:
    """The first round's contribution."""
    return made.contribution(1, made.instruction(made.start()), rows, chance=SeededNoise(1, label))


# Accounting.


@pytest.mark.parametrize("rows", [1, 50, 64, 1000, 22_500])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
def test_all_rounds_together_meet_epsilon_whatever_the_number_of_rows(rows: int, epsilon: float) -> None:
    made = recipe(epsilon=epsilon, rounds=5, local_epochs=2)
    spends: list[Spend] = [made.spend(number, rows) for number in range(1, 6)]
    total = total_epsilon(spends, DELTA)
    # At rate 1 the recipe's calibration (Rényi) is looser than the closed form that judges it here.
    assert (0.98 if rows > 64 else 0.7) * epsilon <= total <= epsilon
    # One round alone, which is what a fresh accountant per round would report for ever, is far below.
    assert total_epsilon(spends[:1], DELTA) < 0.85 * epsilon
    assert made.schedule.noise_multiplier(rows) > recipe(
        epsilon=epsilon, rounds=1, local_epochs=2
    ).schedule.noise_multiplier(rows)


def test_the_exact_loss_of_the_whole_run_is_below_epsilon() -> None:
    made = recipe(rounds=5, local_epochs=2)
    accountant = PLDAccountant()
    for number in range(1, 6):
        spend = made.spend(number, 1000)
        assert isinstance(spend, SampledSpend)
        event = dp_accounting.PoissonSampledDpEvent(
            spend.sampling_rate, dp_accounting.GaussianDpEvent(spend.noise_multiplier)
        )
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, spend.steps))
    assert 0.6 < accountant.get_epsilon(DELTA) <= 1.0


class Counted(SeededNoise):
    """Writes down what was drawn from it."""

    def __init__(self) -> None:
        super().__init__(1, "counted")
        self.drawn: list[tuple[int, float]] = []
        self.bytes_asked: list[int] = []

    def gaussian(self, n: int, standard_deviation: float) -> Floats:
        self.drawn.append((n, standard_deviation))
        return super().gaussian(n, standard_deviation)

    def random_bytes(self, n: int) -> bytes:
        self.bytes_asked.append(n)
        return super().random_bytes(n)


def test_steps_and_noise_taken_are_the_ones_charged() -> None:
    made, rows, chance = recipe(local_epochs=3, clipping_norm=0.7), people(300), Counted()
    made.contribution(1, made.instruction(made.start()), rows, chance=chance)
    spend = made.spend(1, 300)
    assert isinstance(spend, SampledSpend)
    deviation = spend.noise_multiplier * 0.7
    assert chance.drawn == [(3, deviation), (1, deviation)] * spend.steps  # columns, then the intercept
    assert chance.bytes_asked.count(300) == spend.steps == 3 * 5  # a batch a step


def test_batches_are_poisson_samples_of_the_charged_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = recipe(batch_size=20, local_epochs=12), people(200)
    sizes: list[int] = []
    whole = DPOptimizer.step

    def counted(optimizer: Any) -> None:
        sizes.append(len(optimizer.shares))
        whole(optimizer)

    monkeypatch.setattr(DPOptimizer, "step", counted)
    first(made, rows)
    spread = math.sqrt(200 * 0.1 * 0.9)
    assert len(sizes) == 120
    assert np.mean(sizes) == pytest.approx(20, abs=5 * spread / math.sqrt(120))
    assert np.std(sizes) == pytest.approx(spread, rel=0.35)


def test_without_noise_nothing_can_be_charged_and_the_report_says_so() -> None:
    assert recipe(epsilon=None).spend(1, 10) == UnprotectedSpend()
    assert not recipe(epsilon=None).is_private
    assert any("NOT PRIVATE" in text for text in recipe(epsilon=None).excludes())
    assert recipe().is_private
    assert any("32-bit arithmetic" in text for text in recipe().excludes())
    assert any("stands alone" in text for text in recipe().excludes())
    assert "upper bound" in recipe().accountant
    assert any("ChaCha20" in text and "secure mode" in text for text in recipe().excludes())
    assert any("number of rows" in text for text in recipe().excludes())
    assert recipe().mu(1) == math.inf  # the noise is inside: a release adds none
    assert recipe().reach(1, people=10**6, holders=7) == 7 * 1024


# Clipping, shares and noise.


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_one_persons_step_is_share_times_the_clipped_gradient(share: float, scale: float, bad: float) -> None:
    made = recipe(epsilon=None, clipping_norm=0.3, batch_size=8)
    x = np.array([1.0, -2.0, 0.5]) * scale
    gradient = (0.5 - bad) * np.append(x, 1.0)
    clipped = gradient * min(1.0, 0.3 / float(np.linalg.norm(gradient)))
    expected = -0.1 * share * clipped / 8
    np.testing.assert_allclose(first(made, one(x.tolist(), bad, share)), expected, rtol=1e-4, atol=1e-7)


def test_several_people_add_up_to_one_step_divided_once_by_the_expected_batch() -> None:
    made = recipe(epsilon=None, clipping_norm=1.0, batch_size=8)
    rows = EncodedRows(
        np.array([[1.0, -2.0, 0.5], [0.0, 0.1, 0.0], [9.0, 9.0, 9.0]]),
        np.array([0.0, 1.0, 1.0]),
        np.array([1.0, 0.5, 0.25]),
    )
    expected = np.zeros(4)
    for x, bad, share in zip(rows.x, rows.bad, rows.share, strict=True):
        gradient = (0.5 - bad) * np.append(x, 1.0)
        expected -= 0.1 * share * gradient * min(1.0, 1.0 / float(np.linalg.norm(gradient))) / 8
    np.testing.assert_allclose(first(made, rows), expected, rtol=1e-4)


@pytest.mark.parametrize("hidden", [(), (16, 8)])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_no_person_moves_a_step_further_than_share_times_the_clipping_norm(
    hidden: tuple[int, ...], share: float
) -> None:
    made = recipe(hidden=hidden, epsilon=None, clipping_norm=0.3, batch_size=8)
    for x in ([1e15, -1e15, 1.0], [5e-324] * 3, [0.0] * 3, [1e3, 1.0, -1e3]):
        moved = np.linalg.norm(first(made, one(x, 1.0, share)))
        assert moved <= 0.1 * share * 0.3 / 8 * (1 + 1e-3)
    assert moved >= 0.5 * 0.1 * share * 0.3 / 8  # the last row is really clipped, so the bound can fail


@pytest.mark.parametrize("hidden", [(), (40, 20)])
def test_a_silent_update_is_noise_of_exactly_the_charged_size(hidden: tuple[int, ...]) -> None:
    made = recipe(width=400, hidden=hidden, clipping_norm=0.7, batch_size=50, learning_rate=0.2)
    rows = people(500, width=400, share=0.0)
    change = first(made, rows)
    spend = made.spend(1, 500)
    assert isinstance(spend, SampledSpend)
    claimed = 0.2 * spend.noise_multiplier * 0.7 / 50 * math.sqrt(spend.steps)
    assert change.std() == pytest.approx(claimed, rel=5 / math.sqrt(2 * len(change)))
    other = first(made, rows, label="another holder")
    assert abs(np.corrcoef(change, other)[0, 1]) < 5 / math.sqrt(len(change))


def test_the_processs_shared_generator_is_neither_read_nor_seeded() -> None:
    made, rows = recipe(hidden=(4,)), people(100)
    before = torch.random.get_rng_state()
    told = made.instruction(made.start())
    secure = [made.contribution(1, told, rows, chance=SecureNoise()) for _ in range(2)]
    assert (secure[0] != secure[1]).any()
    np.testing.assert_array_equal(first(made, rows), first(made, rows))
    assert (first(made, rows) != first(made, rows, label="b")).any()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rounds_of_one_source_draw_different_noise() -> None:
    made, rows, chance = recipe(width=200), people(100, width=200, share=0.0), SeededNoise(1, "run")
    changes = [
        made.contribution(
            number,
            {"round": np.array([float(number)]), "vector": np.zeros(201)},
            rows,
            chance=chance,
        )
        for number in (1, 2)
    ]
    assert abs(np.corrcoef(changes[0], changes[1])[0, 1]) < 5 / math.sqrt(201)


# The walk.


def test_empty_batches_and_empty_holders_do_no_harm() -> None:
    made = recipe(batch_size=1, hidden=(4,))
    assert np.isfinite(first(made, people(60))).all()
    assert np.isfinite(first(made, people(0))).all()


def test_the_vector_moves_by_the_average_update_of_whoever_contributed() -> None:
    made = recipe(hidden=(4,))
    changes = [first(made, people(80, seed=k), label=str(k)) for k in range(4)]
    after = made.advance(made.start(), np.sum(changes, axis=0), contributors=4)
    np.testing.assert_allclose(after["vector"], made.start()["vector"] + np.mean(changes, axis=0), rtol=1e-12)
    assert after["round"][0] == 2
    with pytest.raises(ValueError, match="contributors"):
        made.advance(made.start(), np.sum(changes, axis=0), contributors=0)


@pytest.mark.parametrize("hidden", [(), (64, 32)])
def test_the_start_is_public(hidden: tuple[int, ...]) -> None:
    start = recipe(hidden=hidden).start()["vector"]
    np.testing.assert_array_equal(start, recipe(hidden=hidden, epsilon=None).start()["vector"])
    assert start.shape == (recipe(hidden=hidden).length(1),)
    assert (start == 0).all() == (not hidden)
    # Another process draws the same network.
    if hidden:
        assert float(start[0]) == pytest.approx(PUBLIC_FIRST_NUMBER, abs=1e-12)


PUBLIC_FIRST_NUMBER = float(np.random.Generator(np.random.PCG64(20261121)).uniform(-1, 1)) / math.sqrt(3)


def test_the_network_is_torchs_network() -> None:
    made = recipe(hidden=(5, 4))
    state: Arrays = {"round": np.array([6.0]), "vector": np.random.default_rng(0).normal(size=made.length(1))}
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 5),
        torch.nn.ReLU(),
        torch.nn.Linear(5, 4),
        torch.nn.ReLU(),
        torch.nn.Linear(4, 1),
    ).double()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(state["vector"]), network.parameters())
    x = np.random.default_rng(1).normal(size=(20, 3))
    model = made.model(state)
    assert isinstance(model, NetworkModel)
    np.testing.assert_allclose(model.log_odds(x), network(torch.from_numpy(x)).detach().numpy()[:, 0])


def test_logistic_regression_learns_and_can_become_a_scorecard() -> None:
    made = recipe(epsilon=8.0, learning_rate=1.0)
    state, holders = made.start(), [people(600, seed=k) for k in range(3)]
    for number in range(1, 6):
        told = made.instruction(state)
        parts = [
            made.contribution(number, told, rows, chance=SeededNoise(k, str(number))) for k, rows in enumerate(holders)
        ]
        state = made.advance(state, np.sum(parts, axis=0), contributors=3)
    model = made.model(state)
    assert isinstance(model, LinearModel)
    assert model.coefficients[0] > 3 * np.abs(model.coefficients[1:]).max()


@pytest.mark.parametrize("hidden", [(), (8, 4)])
@pytest.mark.parametrize("epsilon", [None, 1.0])
@pytest.mark.parametrize("learning_rate", [1e4, 1e6])
def test_divergence_is_cut_off_and_never_refused(
    learning_rate: float, epsilon: float | None, hidden: tuple[int, ...]
) -> None:
    # A refusal after the noise was drawn would let the same round be asked for again, free of charge.
    made = recipe(epsilon=epsilon, learning_rate=learning_rate, hidden=hidden, local_epochs=3)
    sent = first(made, people(100))
    assert np.isfinite(sent).all()
    assert np.abs(sent).max() <= 1024
    assert np.abs(first(recipe(epsilon=1.0, learning_rate=1e6), people(100))).max() == 1024


def test_one_person_whose_gradient_overflows_does_not_undo_the_noise() -> None:
    made = recipe(width=1, hidden=(2, 2, 2))
    huge = 2.0**10
    # The second hidden numbers are 2^121 for the person at 2^100, and the next layer takes infinity from infinity.
    layers: list[list[float]] = [[huge] * 2, [0, 0], [huge] * 4, [0, 0], [huge, -huge] * 2, [0, 0], [1, 1], [0]]
    vector = np.concatenate(layers)
    told = {"round": np.ones(1), "vector": vector}
    sent = made.contribution(1, told, one([2.0**100], 1.0), chance=SeededNoise(1, "a"))
    assert (sent[np.abs(vector) <= 1] != 0).all()


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_one_source_gives_one_update(hidden: tuple[int, ...]) -> None:
    made, rows = recipe(hidden=hidden), people(200)
    np.testing.assert_array_equal(first(made, rows), first(made, rows))
    assert (first(made, rows) != first(made, rows, label="b")).any()


def test_unlawful_instructions_rows_and_sums_are_refused() -> None:
    made, rows, chance = recipe(), people(10), SeededNoise(1, "a")
    good = made.instruction(made.start())
    for told, held in (
        ({**good, "vector": np.full(4, math.nan)}, rows),
        ({**good, "vector": np.zeros(5)}, rows),
        ({**good, "vector": np.full(4, 1024.5)}, rows),
        ({**good, "round": np.array([2.0])}, rows),
        ({**good, "extra": np.zeros(1)}, rows),
        (good, people(10, width=4)),
    ):
        with pytest.raises(MalformedError):
            made.contribution(1, told, held, chance=chance)
    with pytest.raises(MalformedError):
        made.advance(made.start(), np.full(4, math.inf), contributors=1)
    with pytest.raises(MalformedError):
        made.model(made.start())
    with pytest.raises(MalformedError):
        made.spend(6, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"rounds": 0},
        {"local_epochs": 0},
        {"hidden": (4, 0)},
        {"learning_rate": math.nan},
        {"learning_rate": 1e-7},
        {"learning_rate": 1e7},
        {"clipping_norm": 0.75e-45},  # a gradient of four equal numbers would be clipped to twice of it
        {"clipping_norm": 1e7},
        {"epsilon": -1.0},
    ],
)
def test_unlawful_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="must correct the plan"):
        recipe(**wrong)


# Any torch module.


class Gated(torch.nn.Module):
    """Not a stack of layers: two paths that are multiplied, one of them normalised for each person alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(width, 6), torch.nn.Linear(width, 6)
        self.norm, self.out = torch.nn.LayerNorm(6), torch.nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = self.out(self.norm(torch.tanh(self.one(x))) * torch.sigmoid(self.other(x)))
        return joined


def own(epsilon: float | None = 1.0, module: Callable[[int], torch.nn.Module] = Gated, **changes: Any) -> OpacusFedAvg:
    return replace(recipe(epsilon=epsilon), module=module, **changes)


def test_a_module_of_ones_own_is_trained_person_by_person() -> None:
    rows = people(5)
    made = own(epsilon=None, clipping_norm=0.3, batch_size=8)
    start = made.start()["vector"]
    module = Gated(3)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(start).to(torch.float32), module.parameters())
    expected = np.zeros(len(start))
    for x, bad in zip(rows.x, rows.bad, strict=True):
        module.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            module(torch.from_numpy(x[None].astype(np.float32)))[:, 0], torch.tensor([bad], dtype=torch.float32)
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        gradient = np.concatenate([p.grad.numpy().ravel() for p in module.parameters() if p.grad is not None])
        expected -= 0.1 * gradient * min(1.0, 0.3 / float(np.linalg.norm(gradient))) / 8
    np.testing.assert_allclose(first(made, rows), expected, rtol=1e-3, atol=1e-7)
    assert made.length(1) == len(start) == 67


def test_a_module_of_ones_own_learns_and_comes_back_as_a_module() -> None:
    made, rows = own(epsilon=8.0, learning_rate=1.0), people(1200)
    before = torch.random.get_rng_state()
    state = made.start()
    np.testing.assert_array_equal(state["vector"], own().start()["vector"])  # public: the same for everybody
    for number in range(1, 6):
        sent = made.contribution(number, made.instruction(state), rows, chance=SeededNoise(1, str(number)))
        state = made.advance(state, sent, contributors=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    network = made.trained_module(state)
    assert isinstance(network, Gated)
    log_odds = network(torch.from_numpy(rows.x.astype(np.float32))).detach().numpy()[:, 0]
    assert log_odds[rows.bad == 1].mean() > log_odds[rows.bad == 0].mean() + 1
    with pytest.raises(TypeError, match="trained_module"):
        made.model(state)
    with pytest.raises(MalformedError):
        made.trained_module(made.start())


def test_a_module_that_mixes_people_is_refused_before_any_noise_is_drawn() -> None:
    def mixing(width: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(width, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))

    made, chance = own(module=mixing), Counted()
    with pytest.raises(MalformedError, match="mix people"):
        made.contribution(1, made.instruction(made.start()), people(20), chance=chance)
    assert not chance.drawn
    with pytest.raises(MalformedError, match="no hidden layers beside it"):
        own(hidden=(3,))


def test_no_plan_can_name_a_module() -> None:
    assert "module" not in {field.name for field in fields(OpacusFedAvgSettings)}
    encoder = Encoder(sample())
    made = OpacusFedAvgSettings((4,), 0.1, 64, 1, 5, 1.0, 1.0, DELTA).recipe(encoder)
    assert (made.width, made.schema_digest, made.module) == (encoder.width, encoder.schema.digest, None)
    assert made == replace(recipe(hidden=(4,), width=encoder.width), schema_digest=encoder.schema.digest)
