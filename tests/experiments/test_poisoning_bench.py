"""Attacks do what their names say, and what comes of them is judged by the project's own bounds and aggregation."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.benchmarks.bed import Bed, alike, load_bed
from experiments.benchmarks.contenders import DEFAULT
from experiments.benchmarks.judge import auc
from experiments.benchmarks.poisoning import (
    CLEAN_AND_ATTACKED,
    EPSILON,
    HOLDERS,
    SCHEMES,
    Attack,
    Poisoned,
    PoisoningJob,
    Scheme,
    plan_of,
    poisoned,
    poisoned_auc,
    received,
    run_job,
)
from experiments.benchmarks.poisoning_rows import LOSS_TARGET, poisoning_rows
from experiments.central import run_centrally
from experiments.plans import tolerated_dropouts
from federated.recipes.base import Recipe
from federated.rows import EncodedRows
from privacy.errors import RefusalError
from privacy.noise import SeededNoise, Vector

PEOPLE = 3000
SECURE = SCHEMES[0]
BY_TITLE = {scheme.title: scheme for scheme in SCHEMES}


@pytest.fixture(scope="module")
def bed() -> Bed:
    return load_bed(PEOPLE)


def updates_of(bed: Bed, scheme: Scheme) -> tuple[Recipe, list[Vector], int]:
    """First-round updates of every data holder, without noise."""
    layout, recipe = alike(bed.bad, HOLDERS, 0), scheme.contender.recipe(bed, EPSILON)
    parts = layout.parts(bed.x, bed.bad)
    instruction, chance = recipe.instruction(recipe.start()), SeededNoise(1, "updates")
    updates = [recipe.contribution(1, instruction, part, chance=chance) for part in parts]
    return recipe, updates, len(layout.training)


@pytest.mark.parametrize("attack", list(Attack))
@pytest.mark.parametrize("title", ["secure sum", "visible updates, median", "FedAvg, mean"])
def test_nobody_malicious_is_the_clean_run(bed: Bed, title: str, attack: Attack) -> None:
    clean = poisoned_auc(bed, BY_TITLE[title], None, 0, 0)
    assert poisoned_auc(bed, BY_TITLE[title], attack, 0, 0) == clean
    assert clean is not None


def test_the_clean_secure_sum_is_the_plain_run_of_the_recipe(bed: Bed) -> None:
    layout = alike(bed.bad, HOLDERS, 0)
    model = run_centrally(
        DEFAULT.recipe(bed, EPSILON), layout.parts(bed.x, bed.bad), SeededNoise(0, "poisoning"),
        dropouts=tolerated_dropouts(HOLDERS),
    )  # fmt: skip
    plain = auc(model.log_odds(bed.x[layout.held_out]), bed.bad[layout.held_out])
    assert poisoned_auc(bed, SECURE, None, 0, 0) == pytest.approx(plain, abs=1e-4)


def test_attackers_rows_are_what_their_attack_says() -> None:
    chance = np.random.default_rng(1)
    part = EncodedRows(chance.normal(size=(50, 3)), (np.arange(50) % 3 == 0).astype(float), chance.random(50))
    flipped = poisoned(part, Attack.FLIPPED)
    np.testing.assert_array_equal(flipped.bad + part.bad, np.ones(50))
    np.testing.assert_array_equal(flipped.x, part.x)
    constant = poisoned(part, Attack.CONSTANT)
    assert len(np.unique(constant.x, axis=0)) == 1
    assert constant.x[0].tolist() in part.x[part.bad == 0].tolist()
    assert constant.bad.all()
    for attack in (Attack.SCALED, Attack.REVERSED):
        assert poisoned(part, attack) is part


@pytest.mark.parametrize("title", ["secure sum", "visible updates, sum", "FedAvg, mean"])
def test_scaled_words_are_scaled_updates(bed: Bed, title: str) -> None:
    scheme = BY_TITLE[title]
    recipe, updates, people = updates_of(bed, scheme)
    total, contributors = received(recipe, plan_of(bed, scheme, people), [3, -2])(1, updates)
    expected = 3 * updates[0] - 2 * updates[1] + np.sum(updates[2:], axis=0)
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-4)
    assert contributors == HOLDERS


def test_sums_and_updates_out_of_bounds_are_not_taken(bed: Bed) -> None:
    recipe, updates, people = updates_of(bed, SECURE)
    factor = 100  # of a tenth of the people, where 1.25 times all of them are allowed
    with pytest.raises(RefusalError):
        received(recipe, plan_of(bed, SECURE, people), [-factor])(1, updates)
    received(recipe, plan_of(bed, replace(SECURE, tight=False), people), [-factor])(1, updates)
    visible = BY_TITLE["visible updates, sum"]
    total, contributors = received(recipe, plan_of(bed, visible, people), [-factor])(1, updates)
    assert contributors == HOLDERS - 1
    np.testing.assert_allclose(total, np.sum(updates[1:], axis=0), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("title", ["visible updates, median", "visible updates, trimmed mean"])
def test_robust_aggregation_stays_among_the_honest(bed: Bed, title: str) -> None:
    scheme = BY_TITLE[title]
    recipe, updates, people = updates_of(bed, scheme)
    total, contributors = received(recipe, plan_of(bed, scheme, people), [-3, 3])(1, updates)
    honest = np.array(updates[2:])
    assert (total / contributors <= honest.max(axis=0) + 1e-6).all()
    assert (total / contributors >= honest.min(axis=0) - 1e-6).all()


def test_every_scheme_is_told_and_only_sound_ones_promise() -> None:
    figures = {
        Poisoned(scheme.title, attack, malicious): 0.78 - 0.02 * malicious * (attack is Attack.FLIPPED)
        for scheme in SCHEMES
        for attack, malicious in CLEAN_AND_ATTACKED
    }
    ended: dict[Poisoned, float | None] = {
        case: None if case.attack is Attack.REVERSED and case.scheme == SECURE.title else value
        for case, value in figures.items()
    }
    rows = poisoning_rows([figures, ended], None)
    told = {row.name: row for row in rows}
    assert len(told) == len(rows)
    promised = [row for row in rows if row.target is not None]
    assert {row.target for row in promised} == {LOSS_TARGET}
    assert len(promised) == 2 * sum(scheme.is_sound for scheme in SCHEMES) == 2 * 5
    worst = told["secure sum, the worst attack that gives a model, 2 of 10 malicious"]
    assert worst.value == pytest.approx(0.04)
    assert worst.met is False
    assert worst.peer is not None
    assert worst.peer.name.endswith(Attack.FLIPPED.value)
    refused = told["secure sum, updates x -100, 1 of 10 malicious: ended without a model"]
    assert (refused.value, refused.unit) == (0.5, "of runs")
    assert "visible updates, median, updates x -100, 1 of 10 malicious: ended without a model" not in told


def test_a_whole_job_repeats_itself(bed: Bed) -> None:
    job = PoisoningJob("FedAvg, median", 0, PEOPLE)
    first = run_job(job)
    assert first == run_job(job)
    assert first.keys() == {Poisoned(job.scheme, attack, malicious) for attack, malicious in CLEAN_AND_ATTACKED}
    clean = first[Poisoned(job.scheme, None, 0)]
    assert clean is not None
    assert 0.6 < clean < 0.85
