"""What every party makes sure of before a run of a plan begins: that its sums fit and its guarantee holds."""

from collections.abc import Iterator, Sequence
from typing import Final

from federated.plan import TrainingPlan
from federated.recipes.base import Recipe
from federated.releases import Shape, shape_of_measurement, shape_of_round, stages_of
from federated.trust import Aggregation, TrustModel
from privacy.discrete import excess_is_covered
from privacy.errors import MalformedError

MOST_STAGES: Final = 10_000
"""Each has keys of its own, made before the first; no recipe comes near."""


def require_sound(recipe: Recipe, plan: TrainingPlan) -> None:
    """MalformedError, with the reason, for a plan that does not add up, though its every field is lawful."""
    if stages_of(recipe) > MOST_STAGES:
        raise MalformedError(
            f"The plan has {stages_of(recipe):,} releases, and {MOST_STAGES:,} are the most. The coordinator should "
            "plan fewer rounds."
        )
    if plan.aggregation is Aggregation.TRIMMED_MEAN and plan.minimum_holders <= 2 * plan.dropouts_tolerated:
        raise MalformedError(
            f"A trimmed mean leaves out {plan.dropouts_tolerated} updates at either end, and the plan allows sums of "
            f"{plan.minimum_holders}: nothing would be left. The coordinator should ask for more data holders."
        )
    rounds = [shape_of_round(recipe, number, plan) for number in range(1, recipe.rounds + 1)]
    for of, what, epsilon in (
        (rounds, "the training rounds", plan.privacy.epsilon),
        ([shape_of_measurement(plan)], "the measurement", plan.privacy.measurement_epsilon),
    ):
        for releases in _releases(of, plan):
            if releases and not excess_is_covered(releases, epsilon=epsilon, delta=plan.privacy.delta):
                raise MalformedError(
                    f"The noise of {what} lies on a grid too coarse for epsilon {epsilon:g} at delta "
                    f"{plan.privacy.delta:g}: what whole numbers cost beyond a Gaussian is not covered. The "
                    "coordinator should plan a larger epsilon, or fewer numbers."
                )


def _releases(shapes: Sequence[Shape], plan: TrainingPlan) -> Iterator[list[tuple[int, int, int]]]:
    """(numbers, variance of one draw, draws) of each noisy release, at the fewest and the most data holders."""
    tolerated = plan.dropouts_tolerated
    for members in (plan.minimum_holders, len(plan.roster)):
        for draws in (members - tolerated, members) if plan.trust is TrustModel.SHARED_NOISE else (1,):
            yield [
                (
                    shape.length,
                    shape.holder_variance(plan.trust, members=members, dropouts_tolerated=tolerated)
                    or shape.variance,  # all of it is the coordinator's
                    draws,
                )
                for shape in shapes
                if shape.variance > 0
            ]
