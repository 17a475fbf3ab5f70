"""FedAvg, FedProx and SCAFFOLD by local private SGD: judged by plain gradient descent, closed forms and accountants."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.encoder import Encoder
from federated.model import LinearModel, NetworkModel
from federated.recipes.base import Arrays
from federated.recipes.local_sgd import LARGEST_CHANGE, LocalAlgorithm, LocalSgd, LocalSgdSettings
from federated.recipes.local_steps import StepSchedule, poisson_batch
from federated.rows import EncodedRows
from privacy.accounting import SampledSpend, Spend, UnprotectedSpend, total_epsilon
from privacy.errors import MalformedError
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, Floats, P, auc, empty, one, part, people, walk
from tests.federated.schema_samples import sample

FEDAVG, FEDPROX, SCAFFOLD = LocalAlgorithm.FEDAVG, LocalAlgorithm.FEDPROX, LocalAlgorithm.SCAFFOLD


def recipe(
    algorithm: LocalAlgorithm = FEDAVG,
    *,
    hidden: tuple[int, ...] = (),
    epsilon: float | None = 1.0,
    width: int = P,
    **changes: Any,
) -> LocalSgd:
    made = LocalSgd(
        algorithm,
        0.5 if algorithm is FEDPROX else 0.0,
        hidden,
        0.5,
        64,
        1,
        6,
        1.0,
        epsilon,
        DELTA,
        width=width,
        schema_digest="d",
    )
    return replace(made, **changes)


def first(made: LocalSgd, rows: EncodedRows, label: str = "a", *, told: Arrays | None = None) -> Floats:
    """The first round's contribution."""
    return made.contribution(1, told or made.instruction(made.start()), rows, chance=SeededNoise(1, label))


def gradient(rows: EncodedRows, vector: Floats) -> Floats:
    """Of logistic regression, the sum over people weighted by share, not clipped."""
    inputs = np.column_stack([rows.x, np.ones(len(rows))])
    residual = 1 / (1 + np.exp(-inputs @ vector)) - rows.bad
    return np.asarray((rows.share * residual) @ inputs, dtype=np.float64)


# What a round does, without noise.


def test_full_batches_without_clipping_are_plain_gradient_descent() -> None:
    rows = people(64)
    made = recipe(epsilon=None, clipping_norm=1e6, local_epochs=3)
    vector = np.zeros(P + 1)
    for _ in range(3 * 6):
        vector -= 0.5 * gradient(rows, vector) / 64
    found = made.model(walk(made, [rows], None)[-1])
    assert isinstance(found, LinearModel)
    np.testing.assert_allclose(np.append(found.coefficients, found.intercept), vector, rtol=1e-9)


def test_each_step_is_divided_by_the_expected_batch_whatever_came() -> None:
    made, row = recipe(epsilon=None, batch_size=8, clipping_norm=0.3), one([3.0] * P, 1.0, 0.5)
    pull = np.append([3.0] * P, 1.0)
    np.testing.assert_allclose(first(made, row), 0.5 * 0.5 * 0.3 * pull / np.linalg.norm(pull) / 8, rtol=1e-8)


@pytest.mark.parametrize("hidden", [(), (6,), (5, 4)])
def test_prox_without_strength_would_be_the_plain_average_and_strength_holds_back(hidden: tuple[int, ...]) -> None:
    rows, plain = people(200), recipe(hidden=hidden, local_epochs=5)
    # 1e-30 is lost in rounding: as near to 0 as the settings allow.
    faint, strong = (recipe(FEDPROX, hidden=hidden, local_epochs=5, proximal_strength=s) for s in (1e-30, 1.0))
    np.testing.assert_array_equal(first(faint, rows), first(plain, rows))
    assert np.linalg.norm(first(strong, rows)) < 0.9 * np.linalg.norm(first(plain, rows))


def test_the_proximal_pull_is_the_papers() -> None:
    rows, made = people(64), recipe(FEDPROX, epsilon=None, clipping_norm=1e6, local_epochs=3)
    start = np.random.default_rng(1).normal(size=P + 1)
    vector = start.copy()
    for _ in range(3):
        vector -= 0.5 * (gradient(rows, vector) / 64 + 0.5 * (vector - start))
    told = {"round": np.ones(1), "vector": start}
    np.testing.assert_allclose(first(made, rows, told=told), vector - start, rtol=1e-9)


def reference_scaffold(holders: Sequence[EncodedRows], rounds: int, epochs: int, rate: float) -> Floats:
    """Algorithm 1 of the paper with option I and everybody in every round, on full batches."""
    x = np.zeros(P + 1)
    for _ in range(rounds):
        own = [gradient(rows, x) / 64 for rows in holders]
        common = np.mean(own, axis=0)
        moved = []
        for rows, mine in zip(holders, own, strict=True):
            y = x.copy()
            for _ in range(epochs):
                y -= rate * (gradient(rows, y) / 64 - mine + common)
            moved.append(y)
        x = np.mean(moved, axis=0)
    return x


def skewed(holders: int = 4) -> list[EncodedRows]:
    """64 people at each, sorted by outcome: the first holders have goods only, the last ones bads."""
    rows = people(64 * holders)
    return [part(rows, places) for places in np.array_split(np.argsort(rows.bad, kind="stable"), holders)]


def walked_vector(made: LocalSgd, holders: Sequence[EncodedRows]) -> Floats:
    return np.asarray(walk(made, holders, None)[-1]["vector"], dtype=np.float64)


def test_scaffold_on_full_batches_is_the_papers_algorithm_in_twice_the_rounds() -> None:
    holders = skewed()
    made = recipe(SCAFFOLD, epsilon=None, clipping_norm=1e6, local_epochs=5)
    np.testing.assert_allclose(walked_vector(made, holders), reference_scaffold(holders, 3, 5, 0.5), rtol=1e-7)


def test_scaffolds_odd_rounds_stand_still_and_tell_the_mean_gradient() -> None:
    holders = skewed(2)
    made = recipe(SCAFFOLD, epsilon=None, clipping_norm=1e6)
    states = walk(made, holders, None)
    for odd in (0, 2, 4):
        np.testing.assert_array_equal(states[odd + 1]["vector"], states[odd]["vector"])
        mean = np.mean([gradient(rows, states[odd]["vector"]) / 64 for rows in holders], axis=0)
        np.testing.assert_allclose(made.instruction(states[odd + 1])["control"], mean, rtol=1e-9)
        assert made.instruction(states[odd]).keys() == {"round", "vector"}


def test_scaffold_with_equal_holders_is_fedavg() -> None:
    # Every data holder's own gradient is the mean one, so nothing is corrected.
    rows = people(64)
    changes: dict[str, Any] = {"epsilon": None, "clipping_norm": 0.3, "local_epochs": 4}
    controlled, plain = recipe(SCAFFOLD, **changes), recipe(FEDAVG, rounds=3, **changes)
    np.testing.assert_allclose(walked_vector(controlled, [rows] * 3), walked_vector(plain, [rows] * 3), rtol=1e-9)


def test_scaffold_cures_the_drift_of_unlike_holders() -> None:
    holders, whole = skewed(), people(256)
    best = np.zeros(P + 1)
    for _ in range(5000):
        best -= 0.5 * gradient(whole, best) / 256
    plain, controlled = (
        walked_vector(recipe(a, epsilon=None, clipping_norm=1e6, local_epochs=20, rounds=rounds), holders)
        for a, rounds in ((FEDAVG, 50), (SCAFFOLD, 100))
    )
    drift = float(np.linalg.norm(plain - best))
    assert drift > 0.2
    assert np.linalg.norm(controlled - best) < 0.02 * drift


# Accounting.


@pytest.mark.parametrize("algorithm", LocalAlgorithm)
@pytest.mark.parametrize("rows", [1, 50, 64, 1000, 22_500])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
def test_all_rounds_together_meet_epsilon(algorithm: LocalAlgorithm, rows: int, epsilon: float) -> None:
    made = recipe(algorithm, epsilon=epsilon, local_epochs=2)
    spends: list[Spend] = [made.spend(number, rows) for number in range(1, 7)]
    # At rate 1 the recipe's calibration (Rényi) is looser than the closed form that judges it here.
    assert (0.98 if rows > 64 else 0.7) * epsilon <= total_epsilon(spends, DELTA) <= epsilon


@pytest.mark.parametrize("algorithm", LocalAlgorithm)
def test_the_exact_loss_of_the_whole_run_is_below_epsilon(algorithm: LocalAlgorithm) -> None:
    made, accountant = recipe(algorithm, local_epochs=2), PLDAccountant()
    for number in range(1, 7):
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
        self.numbers, self.deviations = 0, set[float]()
        self.bytes_asked: list[int] = []

    def gaussian(self, n: int, standard_deviation: float) -> Floats:
        self.numbers += n
        self.deviations.add(standard_deviation)
        return super().gaussian(n, standard_deviation)

    def random_bytes(self, n: int) -> bytes:
        self.bytes_asked.append(n)
        return super().random_bytes(n)


@pytest.mark.parametrize(
    ("algorithm", "number", "epochs"), [(FEDAVG, 1, 3), (FEDPROX, 1, 3), (SCAFFOLD, 1, 1), (SCAFFOLD, 2, 4)]
)
@pytest.mark.parametrize("hidden", [(), (4, 3)])
def test_steps_batches_and_noise_taken_are_the_ones_charged(
    algorithm: LocalAlgorithm, number: int, epochs: int, hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federated.recipes.local_sgd.NOISE_NUMBERS", 150)  # several draws a round
    made, rows, chance = recipe(algorithm, hidden=hidden, local_epochs=3, clipping_norm=0.7), people(300), Counted()
    state = {**made.start(), "round": np.full(1, float(number)), "control": np.zeros(made.layers.parameters)}
    made.contribution(number, made.instruction(state), rows, chance=chance)
    spend = made.spend(number, 300)
    assert isinstance(spend, SampledSpend)
    assert spend.steps == epochs * 5
    assert spend.sampling_rate == 64 / 300
    assert chance.numbers == spend.steps * made.layers.parameters
    assert chance.deviations == {spend.noise_multiplier * 0.7}
    assert chance.bytes_asked.count(300) == spend.steps  # a batch a step


def test_without_noise_nothing_can_be_charged_and_the_report_says_so() -> None:
    made, chance = recipe(epsilon=None), Counted()
    assert made.spend(1, 10) == UnprotectedSpend()
    assert not made.is_private
    assert any("NOT PRIVATE" in text for text in made.excludes())
    made.contribution(1, made.instruction(made.start()), people(100), chance=chance)
    assert chance.numbers == 0
    told = " ".join(recipe(hidden=(3,)).excludes())
    for named in ("64-bit", "32-bit", "number of rows", "stands alone"):
        assert named in told
    assert "32-bit" not in " ".join(recipe().excludes())
    assert recipe().is_private
    assert recipe().mu(1) == math.inf  # the noise is inside: a release adds none


# Batches.


@given(rate=st.floats(1e-6, 1, exclude_max=True), seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_batches_are_poisson_samples(rate: float, seed: int) -> None:
    places = poisson_batch(4000, rate, SeededNoise(seed, "batch"))
    assert places is not None
    assert (np.diff(places) > 0).all()
    assert ((places >= 0) & (places < 4000)).all()
    spread = math.sqrt(4000 * rate * (1 - rate))
    assert abs(len(places) - 4000 * rate) <= 7 * spread + 7


class Bytes(SeededNoise):
    """Bytes told beforehand."""

    def __init__(self, *told: bytes) -> None:
        super().__init__(0, "bytes")
        self.told = list(told)

    def random_bytes(self, n: int) -> bytes:
        assert len(self.told[0]) == n
        return self.told.pop(0)


def test_a_tie_is_decided_by_64_further_bits() -> None:
    # 0.3 x 256 = 76.8: below 76 in, above out, and at 76 the rest of 0.3 decides, here 0.8 of 2^64.
    rest = int(0.3 * 2.0**72) - 76 * 2**64
    further = b"".join(value.to_bytes(8, "little") for value in (rest - 1, rest, 0, 2**64 - 1))
    found = poisson_batch(7, 0.3, Bytes(bytes([76, 75, 76, 77, 76, 76, 255]), further))
    assert found is not None
    assert found.tolist() == [0, 1, 4]


def test_everybody_is_in_at_rate_1_and_rates_meet_their_share_of_people() -> None:
    assert poisson_batch(10, 1.0, SeededNoise(0, "a")) is None
    chance, counts = SeededNoise(3, "rates"), np.zeros(500)
    for _ in range(2000):
        counts[poisson_batch(500, 0.0123, chance)] += 1
    assert counts.sum() / 1e6 == pytest.approx(0.0123, rel=0.05)
    # Nobody is drawn more often than others: a chi-squared of 500 people, 4.5 deviations.
    assert ((counts - 24.6) ** 2 / 24.3).sum() == pytest.approx(500, abs=4.5 * math.sqrt(1000))


def test_the_schedule_counts_steps_in_expected_passes() -> None:
    schedule = StepSchedule(64, 15, 1.0, DELTA)
    assert [schedule.steps_per_epoch(rows) for rows in (0, 1, 64, 65, 640)] == [1, 1, 1, 2, 10]
    assert [schedule.sampling_rate(rows) for rows in (0, 64, 128)] == [1.0, 1.0, 0.5]


# Noise, bounds and the walk.


@pytest.mark.parametrize("hidden", [(), (40, 20)])
def test_a_silent_change_is_noise_of_exactly_the_charged_size(hidden: tuple[int, ...]) -> None:
    made = recipe(width=400, hidden=hidden, clipping_norm=0.7, batch_size=50, learning_rate=0.2, local_epochs=2)
    rows = people(500, width=400)
    rows = EncodedRows(rows.x, rows.bad, np.zeros(500))
    change = first(made, rows)
    spend = made.spend(1, 500)
    assert isinstance(spend, SampledSpend)
    claimed = 0.2 * spend.noise_multiplier * 0.7 / 50 * math.sqrt(spend.steps)
    assert change.std() == pytest.approx(claimed, rel=5 / math.sqrt(2 * len(change)))
    other = first(made, rows, label="another holder")
    assert abs(np.corrcoef(change, other)[0, 1]) < 5 / math.sqrt(len(change))


def test_scaffolds_control_is_the_mean_of_one_epochs_noise() -> None:
    made = recipe(SCAFFOLD, width=2000, batch_size=50)
    rows = EncodedRows(np.zeros((500, 2000)), np.zeros(500), np.zeros(500))
    own, spend = first(made, rows), made.spend(1, 500)
    assert isinstance(spend, SampledSpend)
    assert own.std() == pytest.approx(spend.noise_multiplier / 50 / math.sqrt(10), rel=5 / math.sqrt(2 * 2001))
    told = {"round": np.full(1, 2.0), "vector": np.zeros(2001), "control": np.zeros(2001)}
    change = made.contribution(2, told, rows, chance=SeededNoise(1, "a further round"))
    assert abs(np.corrcoef(change, own)[0, 1]) < 5 / math.sqrt(2001)


@pytest.mark.parametrize("algorithm", LocalAlgorithm)
@pytest.mark.parametrize("hidden", [(), (16, 8)])
def test_no_person_moves_a_step_further_than_share_times_the_clipping_norm(
    algorithm: LocalAlgorithm, hidden: tuple[int, ...]
) -> None:
    made = recipe(algorithm, hidden=hidden, epsilon=None, clipping_norm=0.3, batch_size=8, learning_rate=0.1)
    # SCAFFOLD's first round tells a gradient and takes no step along it.
    most = (1.0 if algorithm is SCAFFOLD else 0.1) * 0.5 * 0.3 / 8
    for x in ([1e15, -1e15, 1.0, 0.0, 0.0], [5e-324] * P, [0.0] * P, [2.0**100] * P, [1e3, 1.0, -1e3, 2.0, 2.0]):
        moved = max(float(np.linalg.norm(first(made, one(x, bad, 0.5)))) for bad in (0.0, 1.0))
        assert moved <= most
    assert moved >= 0.9 * most  # really clipped, so the bound can fail


@pytest.mark.parametrize("algorithm", LocalAlgorithm)
@pytest.mark.parametrize("hidden", [(), (8, 4)])
@pytest.mark.parametrize("learning_rate", [1e4, 1e6])
def test_divergence_is_cut_off_and_never_refused(
    algorithm: LocalAlgorithm, hidden: tuple[int, ...], learning_rate: float
) -> None:
    # A refusal after the noise was drawn would let the same round be asked for again, free of charge.
    made = recipe(algorithm, hidden=hidden, learning_rate=learning_rate, local_epochs=3)
    sent = first(made, people(100))
    assert np.abs(sent).max() <= LARGEST_CHANGE
    assert made.reach(1, people=10**9, holders=7) == 7 * LARGEST_CHANGE
    assert np.abs(first(recipe(learning_rate=1e6), people(100))).max() == LARGEST_CHANGE


def test_empty_batches_and_empty_holders_do_no_harm() -> None:
    for hidden in ((), (4,)):
        made = recipe(batch_size=1, hidden=hidden)
        assert np.isfinite(first(made, people(60))).all()
        assert np.isfinite(first(made, empty())).all()


def test_the_vector_moves_by_the_average_change_of_whoever_contributed() -> None:
    made = recipe(hidden=(4,))
    changes = [first(made, people(80, seed=k), label=str(k)) for k in range(4)]
    after = made.advance(made.start(), np.sum(changes, axis=0), contributors=4)
    np.testing.assert_allclose(after["vector"], made.start()["vector"] + np.mean(changes, axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match="contributors"):
        made.advance(made.start(), np.sum(changes, axis=0), contributors=0)


@pytest.mark.parametrize("algorithm", LocalAlgorithm)
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_everyone_learns_under_noise(algorithm: LocalAlgorithm, hidden: tuple[int, ...]) -> None:
    made = recipe(algorithm, hidden=hidden, epsilon=8.0, local_epochs=2)
    rows = people(3000)
    rows = EncodedRows(rows.x, rows.bad, np.ones(3000))
    model = made.model(walk(made, [part(rows, np.arange(k, 3000, 3)) for k in range(3)], None)[-1])
    assert isinstance(model, NetworkModel if hidden else LinearModel)
    assert auc(model.log_odds(rows.x), rows.bad) > 0.72


def test_one_source_gives_one_update_and_rounds_of_one_source_differ() -> None:
    made, rows, chance = recipe(width=200), people(100, width=200), SeededNoise(1, "run")
    np.testing.assert_array_equal(first(made, rows), first(made, rows))
    changes = [
        made.contribution(number, {"round": np.array([float(number)]), "vector": np.zeros(201)}, rows, chance=chance)
        for number in (1, 2)
    ]
    assert (changes[0] != changes[1]).all()


# Refusals.


def test_a_network_is_told_no_number_that_32_bits_could_round_too_far() -> None:
    for algorithm in LocalAlgorithm:
        made, number = recipe(algorithm, hidden=(4,)), 2
        good = made.instruction({**made.start(), "round": np.full(1, 2.0), "control": np.zeros(made.length(1))})
        for key in good.keys() - {"round"}:
            for value in (1024.0, -1024.5):
                told = {**good, key: np.full(made.length(1), value)}
                if abs(value) <= 1024:
                    made.contribution(number, told, people(10), chance=SeededNoise(1, "a"))
                else:
                    with pytest.raises(MalformedError, match="smaller learning rate"):
                        made.contribution(number, told, people(10), chance=SeededNoise(1, "a"))


def test_unlawful_instructions_rows_and_sums_are_refused() -> None:
    made, rows, chance = recipe(SCAFFOLD), people(10), SeededNoise(1, "a")
    good = made.instruction({**made.start(), "round": np.full(1, 2.0), "control": np.zeros(P + 1)})
    for told, held in (
        ({**good, "vector": np.full(P + 1, math.nan)}, rows),
        ({**good, "control": np.zeros(3)}, rows),
        ({**good, "round": np.array([4.0])}, rows),
        ({**good, "extra": np.zeros(1)}, rows),
        ({key: good[key] for key in ("round", "vector")}, rows),
        (good, people(10, width=4)),
    ):
        with pytest.raises(MalformedError):
            made.contribution(2, told, held, chance=chance)
    with pytest.raises(MalformedError):
        made.advance(made.start(), np.full(P + 1, math.inf), contributors=1)
    with pytest.raises(MalformedError):
        made.model(made.start())
    for call in (made.length, made.mu, lambda number: made.spend(number, 10)):
        with pytest.raises(MalformedError):
            call(7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"rounds": 0},
        {"algorithm": SCAFFOLD, "rounds": 5},
        {"local_epochs": 0},
        {"hidden": (4, 0)},
        {"hidden": (4, 4, 4)},
        {"learning_rate": math.nan},
        {"learning_rate": 1e-7},
        {"learning_rate": 1e7},
        {"clipping_norm": 1e-7},
        {"epsilon": -1.0},
        {"delta": 0.0},
        {"proximal_strength": 0.1},
        {"algorithm": "fedadam"},
        {"algorithm": FEDPROX},
    ],
)
def test_unlawful_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="must correct the plan"):
        recipe(**wrong) if "algorithm" not in wrong else replace(recipe(), **wrong)


def test_settings_make_the_recipe_of_an_encoder() -> None:
    encoder = Encoder(sample())
    made = LocalSgdSettings(FEDPROX, 0.5, (4,), 0.5, 64, 1, 6, 1.0, 1.0, DELTA).recipe(encoder)
    assert made == replace(recipe(FEDPROX, hidden=(4,), width=encoder.width), schema_digest=encoder.schema.digest)
