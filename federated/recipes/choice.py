"""Which recipe, when nobody says: from public quantities alone, with the reason in words. "auto" never enters a plan.

The number of people is what the coordinator knows without asking rows: the plan's expectation, or counts that data
holders publish anyway. Never a head count that was not released.
"""

from dataclasses import dataclass
from typing import Final

from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.registry import RecipeSettings
from federated.schema import Schema
from privacy.discrete import mu_on_grid
from privacy.errors import MalformedError

LEAST_CENTRED: Final = 400.0
"""People times mu from which a round is spent on the centre. A rule of thumb: data differ in which recipe is ahead
where people are few. On Taiwan with 700 people the uncentred one was ahead (AUC 0.757 to 0.752), on
South German with 750 at epsilon 1 the centred one (0.747 to 0.742)."""

FEWEST_PEOPLE: Final = 600
"""Fewer people than this teach a private model little; they should join others."""

STEPS: Final = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings and why, in one or two sentences for people."""

    settings: RecipeSettings
    reason: str


def choose(*, people: int, epsilon: float, delta: float, schema: Schema) -> Choice:
    """The fixed Hessian for about `people` people over all data holders, centred where they are many.

    Coefficients keep the directions that the schema declares: that costs no privacy, and the fewer the people, the
    more accuracy it saves. Requires people >= 1; MalformedError for an epsilon or delta out of range.
    """
    if people < 1 or not (0 < epsilon < float("inf") and 0 < delta < 1):
        raise MalformedError(
            "a recipe can be chosen for at least 1 person, epsilon above 0 and delta between 0 and 1; the coordinator "
            "must correct these terms"
        )
    strength = people * mu_on_grid(epsilon, delta)
    counted = f"{people:,} people times mu {strength / people:.3g} (epsilon {epsilon:g}) is {strength:,.0f}"
    if strength >= LEAST_CENTRED and people >= FEWEST_PEOPLE:
        centred = FixedHessianSettings(
            radius=schema.radius,
            centred_radius=schema.centred_radius,
            epsilon=float(epsilon),
            delta=delta,
            steps=STEPS,
            monotone=True,
        )
        return Choice(centred, f"{counted}, at least {LEAST_CENTRED:g}: enough to spend a round on centring the rows.")
    uncentred = UncentredFixedHessianSettings(
        radius=schema.centred_radius, epsilon=float(epsilon), delta=delta, steps=STEPS, monotone=True
    )
    if people < FEWEST_PEOPLE:
        return Choice(
            uncentred,
            f"{counted}, and fewer than {FEWEST_PEOPLE} people are too few to expect much of a private model: more "
            "data holders should join. No round is spent on centring the rows.",
        )
    return Choice(uncentred, f"{counted}, below {LEAST_CENTRED:g}: too little to spend a round on centring the rows.")
