"""What a recipe charges for each round is what the worst person loses in it: never less, and nothing is left out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.audit.privacy_audits import adversarial_rows, recipes_at
from federated.rows import EncodedRows
from privacy.accounting import GaussianSpend, at_share, epsilon_of
from privacy.discrete import mu_on_grid
from tests.privacy.proof.losses import losses, sent, small

DELTA = 1e-5
NUMBERS = range(len(recipes_at(1.0)))


def spends(number: int, epsilon: float = 1.0) -> list[float]:
    of = small(recipes_at(epsilon)[number])
    found = [of.recipe.spend(round_number, 100) for round_number in of.rounds]
    assert all(isinstance(spend, GaussianSpend) for spend in found)
    return [spend.mu**2 for spend in found if isinstance(spend, GaussianSpend)]


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("number", NUMBERS)
def test_all_rounds_together_are_charged_what_the_plan_says(number: int, epsilon: float) -> None:
    total = math.sqrt(math.fsum(spends(number, epsilon)))
    assert total == pytest.approx(mu_on_grid(epsilon, DELTA), rel=1e-9)
    assert epsilon_of(total, DELTA) <= epsilon


@pytest.mark.parametrize("lying", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_no_round_costs_anybody_more_than_it_is_charged(number: int, lying: bool) -> None:
    of, charged = small(recipes_at(1.0)[number]), spends(number)
    instructed = sent(of, lying=lying)
    for person in adversarial_rows(of.width):
        for loss, charge in zip(losses(of, instructed, person), charged, strict=True):
            assert loss <= charge


@pytest.mark.parametrize("number", NUMBERS)
def test_the_worst_person_loses_what_every_round_is_charged(number: int) -> None:
    of, charged = small(recipes_at(1.0)[number]), spends(number)
    instructed = sent(of, lying=True)
    worst = np.max([losses(of, instructed, person) for person in adversarial_rows(of.width)], axis=0)
    # The least tight round is the curvature, whose upper triangle cannot be longer than 0.954 of its bound.
    assert (worst >= 0.85 * np.array(charged)).all()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_share_costs_its_square(number: int, share: float) -> None:
    of = small(recipes_at(1.0)[number])
    instructed = sent(of, lying=True)
    for person in adversarial_rows(of.width):
        whole = losses(of, instructed, person)
        part = losses(of, instructed, EncodedRows(person.x, person.bad, np.full(1, share)))
        for round_number, loss, full in zip(of.rounds, part, whole, strict=True):
            assert loss == pytest.approx(share**2 * full, rel=1e-3, abs=1e-12)
            charge = at_share(of.recipe.spend(round_number, 100), share)
            assert isinstance(charge, GaussianSpend)
            assert loss <= charge.mu**2 * (1 + 1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30), min_size=4, max_size=4),
    st.sampled_from([0.0, 1.0]),
    st.floats(0.05, 1),
    st.sampled_from(NUMBERS),
    st.booleans(),
)
def test_no_row_at_all_costs_more_than_its_charge(
    row: list[float], bad: float, share: float, number: int, lying: bool
) -> None:
    of = small(recipes_at(1.0)[number])
    person = EncodedRows(np.array([row]), np.array([bad]), np.array([share]))
    lost = math.fsum(losses(of, sent(of, lying=lying), person))
    assert lost <= share**2 * math.fsum(spends(number)) * (1 + 1e-4)
