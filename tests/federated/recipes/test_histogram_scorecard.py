"""The additive scorecard from histograms: judged by counting, by scikit-learn's optimum and by adversarial rows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from federated.characteristics import Form, Risk
from federated.encoder import ColumnBlock, Encoder
from federated.recipes.base import Arrays
from federated.recipes.histogram_scorecard import HistogramScorecard, HistogramScorecardSettings
from federated.rows import EncodedRows
from federated.schema_toml import load_schema
from federated.table import read_table
from privacy.accounting import GaussianSpend, Spend, UnprotectedSpend, mu_of, total_epsilon
from privacy.discrete import mu_on_grid
from privacy.errors import MalformedError
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, Floats, deviation, one, parted, released, walk
from tests.federated.schema_samples import sample

DATA = Path(__file__).parents[3] / "experiments" / "data"

TABLES = (
    ColumnBlock("late", 0, 3, 3, Form.BINS, Risk.INCREASING),
    ColumnBlock("paid", 3, 8, 4, Form.KNOTS, Risk.DECREASING),  # the last column: missing
    ColumnBlock("home", 8, 10, 0, Form.CODES, Risk.NONE),
)
WIDTH = 10


def recipe(epsilon: float | None = 1.0, steps: int = 8, *, monotone: bool = False) -> HistogramScorecard:
    return HistogramScorecard(TABLES, epsilon, DELTA, steps, monotone=monotone, schema_digest="d")


def people(n: int, seed: int = 0, *, share: float | None = None) -> EncodedRows:
    """Rows as the encoder makes them: one 1 in each table, or two parts of it between two knots."""
    random = np.random.default_rng(seed)
    x = np.zeros((n, WIDTH))
    late, home = random.integers(0, 3, n), random.integers(0, 2, n)
    knot, between = random.integers(0, 3, n), random.random(n)
    x[np.arange(n), late] = 1
    x[np.arange(n), 3 + knot], x[np.arange(n), 4 + knot] = 1 - between, between
    missing = random.random(n) < 0.1
    x[missing, 3:8] = [0, 0, 0, 0, 1]
    x[np.arange(n), 8 + home] = 1
    log_odds = -1 + 0.8 * late - 0.5 * (knot + between) + 0.4 * home + 0.6 * missing
    bad = (random.random(n) < 1 / (1 + np.exp(-log_odds))).astype(float)
    return EncodedRows(x, bad, random.uniform(0.1, 1, n) if share is None else np.full(n, share))


def test_the_first_release_counts_goods_and_bads_by_attribute() -> None:
    rows = people(200)
    goods, bads = released(recipe(), 1, recipe().start(), [rows]).reshape(2, WIDTH) * math.sqrt(3)
    for column in range(WIDTH):
        for found, outcome in ((goods, 0), (bads, 1)):
            counted = math.fsum(rows.share[i] * rows.x[i, column] for i in range(200) if rows.bad[i] == outcome)
            assert found[column] == pytest.approx(counted, rel=1e-12)
    # Every table counts the same people.
    heads = goods + bads
    assert heads[:3].sum() == pytest.approx(rows.share.sum())
    assert heads[3:8].sum() == pytest.approx(rows.share.sum())


def test_later_releases_are_the_gradient_of_the_weighted_log_loss() -> None:
    rows, made = people(100), recipe()
    coefficients = np.random.default_rng(3).normal(size=WIDTH + 1)
    state: Arrays = {"round": np.array([4.0]), "coefficients": coefficients}
    found = released(made, 4, state, [rows]) * math.sqrt(3)

    def loss(moved: Floats) -> float:
        log_odds = rows.x @ moved[:-1] + moved[-1]
        return float(rows.share @ (np.logaddexp(0, log_odds) - rows.bad * log_odds))

    for column in range(WIDTH):
        ahead, behind = coefficients.copy(), coefficients.copy()
        ahead[column] += 1e-5
        behind[column] -= 1e-5
        assert found[column] == pytest.approx((loss(ahead) - loss(behind)) / 2e-5, rel=1e-5, abs=1e-6)


def test_without_noise_the_steps_lead_to_the_optimum_whoever_holds_whom() -> None:
    rows = people(4000)
    made = recipe(None, 400)
    model = made.model(walk(made, [rows], None)[-1])
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    fitted.fit(rows.x, rows.bad, sample_weight=rows.share)
    np.testing.assert_allclose(model.log_odds(rows.x), fitted.decision_function(rows.x), atol=0.02)
    few = recipe(None)
    together = few.model(walk(few, [rows], None)[-1])
    for split in ("sizes", "labels"):
        apart = few.model(walk(few, parted(rows, 5, split), None)[-1])
        np.testing.assert_allclose(apart.coefficients, together.coefficients, atol=1e-10)


def test_the_one_shot_scorecard_orders_attributes_by_their_bad_rate() -> None:
    rows, made = people(4000), recipe(None, 0)
    assert made.rounds == 1
    coefficients = made.model(walk(made, [rows], None)[-1]).coefficients
    rates = rows.bad @ rows.x / rows.x.sum(axis=0)
    for table in TABLES:
        own = slice(table.start, table.stop)
        assert (np.argsort(coefficients[own]) == np.argsort(rates[own])).all()


@pytest.mark.parametrize("seed", range(5))
def test_directions_of_the_schema_are_kept_under_any_noise(seed: int) -> None:
    free, kept = (
        made.model(walk(made, [people(60, seed)], SeededNoise(seed, "a"))[-1]).coefficients
        for made in (recipe(0.5), recipe(0.5, monotone=True))
    )
    assert (np.diff(kept[:3]) >= 0).all()
    assert (np.diff(kept[3:7]) <= 0).all()
    assert (np.diff(free[:3]) < 0).any() or (np.diff(free[3:7]) > 0).any()


# Privacy.


def transcript_loss(made: HistogramScorecard, states: Sequence[Arrays], row: EncodedRows) -> float:
    """Sum over rounds of |change|² / variance: mu² of this row, given everything released before."""
    return math.fsum(
        float(np.sum(released(made, number, states[number - 1], [row]) ** 2)) / deviation(made, number) ** 2
        for number in range(1, made.rounds + 1)
    )


ADVERSARIAL = [
    [1.0] * WIDTH,
    [2.0**100] * WIDTH,
    [-(2.0**100)] + [0.0] * (WIDTH - 1),
    [5e-324] * WIDTH,
    [0.0] * WIDTH,
    [0, 0, 1, 0.5, 0.5, 0, 0, 0, 0, 1],
]


@pytest.mark.parametrize("steps", [0, 1, 8])
@pytest.mark.parametrize("x", ADVERSARIAL)
def test_exact_transcript_loss_is_within_mu_squared(x: list[float], steps: int) -> None:
    for epsilon in (0.5, 3.0):
        made = recipe(epsilon, steps)
        states = walk(made, [people(300)], SeededNoise(5, "a"))
        for bad in (0.0, 1.0):
            whole = transcript_loss(made, states, one(x, bad))
            assert whole <= mu_of(epsilon, DELTA) ** 2
            assert transcript_loss(made, states, one(x, bad, 0.3)) == pytest.approx(0.09 * whole, rel=1e-9)


def test_a_row_of_the_encoder_uses_its_whole_bound_at_a_bad_guess() -> None:
    # Otherwise the bound could be far too wide, and nobody would see it.
    made, row = recipe(), one([0, 0, 1, 1, 0, 0, 0, 0, 0, 1], 1.0)
    assert np.linalg.norm(released(made, 1, made.start(), [row])) == pytest.approx(1.0)
    sure = np.append(np.zeros(WIDTH), -50.0)
    later: Arrays = {"round": np.array([2.0]), "coefficients": sure}
    assert np.linalg.norm(released(made, 2, later, [row])) == pytest.approx(1.0)


@given(
    x=st.lists(st.floats(-(2.0**100), 2.0**100), min_size=WIDTH, max_size=WIDTH),
    bad=st.sampled_from([0.0, 1.0]),
    share=st.floats(0, 1),
    told=st.lists(st.floats(-1e6, 1e6), min_size=WIDTH + 1, max_size=WIDTH + 1),
)
@settings(max_examples=200, deadline=None)
def test_no_row_and_no_instruction_gets_past_the_sensitivity(
    x: list[float], bad: float, share: float, told: list[float]
) -> None:
    made, row = recipe(), one(x, bad, share)
    for number in (1, 2, 9):
        state: Arrays = {"round": np.array([float(number)]), "coefficients": np.array(told)}
        numbers = released(made, number, state, [row])
        assert math.hypot(*numbers) <= share * made.sensitivity(number) * (1 + 1e-9)  # no square underflows
        assert np.abs(numbers).max() <= made.reach(number, people=1, holders=1) * (1 + 1e-9)


@pytest.mark.parametrize("steps", [0, 4, 8])
def test_all_rounds_together_are_exactly_the_claim(steps: int) -> None:
    made = recipe(1.0, steps)
    spends: list[Spend] = [made.spend(number, 10) for number in range(1, made.rounds + 1)]
    assert spends[0] == GaussianSpend(made.mu(1))
    assert math.fsum(made.mu(number) ** 2 for number in range(1, made.rounds + 1)) == pytest.approx(
        mu_on_grid(1.0, DELTA) ** 2
    )
    assert 0.9999 < total_epsilon(spends, DELTA) <= 1.0
    assert recipe(None).spend(1, 10) == UnprotectedSpend()
    assert recipe(None).mu(1) == math.inf
    assert any("NOT PRIVATE" in text for text in recipe(None).excludes())
    assert any("public" in text for text in made.excludes())


# Refusals.


def test_a_line_has_no_attributes_and_is_refused_by_name() -> None:
    encoder = Encoder(sample())
    lines = [block.id for block in encoder.blocks if block.form is Form.LINE]
    assert lines
    with pytest.raises(MalformedError, match=lines[0]):
        HistogramScorecardSettings(1.0, DELTA, 8).recipe(encoder)


def test_unlawful_settings_rows_and_sums_are_refused() -> None:
    made, chance = recipe(), SeededNoise(0, "a")
    for wrong in ({"steps": -1}, {"epsilon": 0.0}, {"epsilon": math.nan}, {"delta": 1.0}, {"tables": ()}):
        with pytest.raises(MalformedError, match="must correct the plan"):
            replace(made, **wrong)
    told = made.instruction(made.start())
    narrow = EncodedRows(np.zeros((1, 3)), np.zeros(1), np.ones(1))
    for number, given_told, rows in (
        (1, told, narrow),
        (2, told, people(3)),
        (1, {**told, "x": np.ones(1)}, people(3)),
    ):
        with pytest.raises(MalformedError):
            made.contribution(number, given_told, rows, chance=chance)
    with pytest.raises(MalformedError):
        made.advance(made.start(), np.full(2 * WIDTH, math.nan), contributors=1)
    with pytest.raises(MalformedError):
        made.model(made.start())
    with pytest.raises(MalformedError):
        made.mu(10)


# The embedded data.


def aucs(name: str, wanted: HistogramScorecardSettings, most: int | None = None) -> float:
    schema = load_schema(DATA / name / "schema.toml")
    encoder, table = Encoder(schema), read_table(DATA / name / "data.csv.gz", schema)
    assert table.outcome is not None
    x, bad = encoder.encode(table), table.outcome
    train, test = train_test_split(np.arange(len(x)), test_size=0.25, stratify=bad, random_state=0)
    rows = EncodedRows(x[train][:most], bad[train][:most], np.ones(len(train))[:most])
    made = wanted.recipe(encoder)
    found = [
        roc_auc_score(bad[test], made.model(walk(made, [rows], SeededNoise(draw, "data"))[-1]).log_odds(x[test]))
        for draw in range(4)
    ]
    return float(np.mean(found))


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_taiwan_keeps_its_accuracy_under_privacy(epsilon: float) -> None:
    # Split 0: logistic regression without privacy has 0.7769 with the same columns.
    found = aucs("taiwan_default", HistogramScorecardSettings(epsilon, DELTA, 8, monotone=True))
    assert (0.770 if epsilon < 1 else 0.774) < found < 0.79
