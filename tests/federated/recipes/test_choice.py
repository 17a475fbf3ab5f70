"""The choice of a recipe: the three cases, its boundary, and a reason that holds the numbers."""

import pytest

from federated.encoder import Encoder
from federated.recipes.choice import LEAST_CENTRED, choose
from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.registry import recipe_from, settings_from_dict, settings_to_dict
from federated.schema import Schema
from privacy.accounting import mu_of
from privacy.errors import MalformedError
from tests.federated.schema_samples import sample

SCHEMA: Schema = sample()


@pytest.mark.parametrize(
    ("people", "epsilon", "centred", "said"),
    [
        (22_500, 1.0, True, ["22,500 people", "0.268", "6,0", "at least 400"]),
        (3_000, 0.5, True, ["3,000 people", "0.142", "427", "at least 400"]),
        (1_000, 1.0, False, ["1,000 people", "0.268", "268", "below 400"]),
        (750, 1.0, False, ["750 people", "201", "below 400"]),
        (599, 8.0, False, ["599 people", "998", "fewer than 600", "too few", "join"]),
        (30, 1.0, False, ["30 people", "too few", "join"]),
    ],
)
def test_people_times_mu_decide(people: int, epsilon: float, centred: bool, said: list[str]) -> None:
    choice = choose(people=people, epsilon=epsilon, delta=1e-5, schema=SCHEMA)
    assert isinstance(choice.settings, FixedHessianSettings if centred else UncentredFixedHessianSettings)
    assert choice.settings.monotone
    assert (choice.settings.epsilon, choice.settings.delta) == (epsilon, 1e-5)
    assert choice.settings.radius == (SCHEMA.radius if centred else SCHEMA.centred_radius)
    for words in said:
        assert words in choice.reason
    assert len(choice.reason) <= 300
    assert choice.reason.count(". ") <= 1


def test_the_boundary_is_at_400() -> None:
    edge = LEAST_CENTRED / mu_of(1.0, 1e-5)
    below, above = (
        choose(people=round(edge * factor), epsilon=1.0, delta=1e-5, schema=SCHEMA) for factor in (0.99, 1.01)
    )
    assert isinstance(below.settings, UncentredFixedHessianSettings)
    assert isinstance(above.settings, FixedHessianSettings)


def test_the_chosen_settings_can_stand_in_a_plan() -> None:
    for people in (100, 1_000, 100_000):
        settings = choose(people=people, epsilon=1, delta=1e-5, schema=SCHEMA).settings
        assert settings_from_dict(settings_to_dict(settings)) == settings
        assert recipe_from(settings, encoder=Encoder(SCHEMA)).is_private


@pytest.mark.parametrize(
    "wrong",
    [{"people": 0}, {"epsilon": 0.0}, {"epsilon": float("inf")}, {"epsilon": float("nan")}, {"delta": 0.0}],
)
def test_terms_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(MalformedError, match="correct these terms"):
        choose(**{"people": 1000, "epsilon": 1.0, "delta": 1e-5, **wrong}, schema=SCHEMA)  # type: ignore[arg-type]
