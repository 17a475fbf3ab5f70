"""What the coordinator makes sure of before its first letter: that the plan's sums fit and its guarantee holds."""

from collections.abc import Iterator, Sequence

from federated.plan import TrainingPlan
from federated.recipes.base import Recipe
from federated.trust import Aggregation, TrustModel
from privacy.discrete import excess_is_covered
from privacy.errors import MalformedError
from server.stage import Stage, stages


def checked_stages(recipe: Recipe, plan: TrainingPlan) -> tuple[Stage, ...]:
    """The releases of a run of `plan`, in order. MalformedError, with the reason, for a plan that does not add up."""
    if plan.aggregation is Aggregation.TRIMMED_MEAN and plan.minimum_holders <= 2 * plan.dropouts_tolerated:
        raise MalformedError(
            f"A trimmed mean leaves out {plan.dropouts_tolerated} updates at either end, and the plan allows sums of "
            f"{plan.minimum_holders}: nothing would be left. The coordinator should ask for more data holders."
        )
    found = stages(recipe, plan)
    *rounds, measurement = found
    for of, what, epsilon in (
        (rounds, "the training rounds", plan.privacy.epsilon),
        ([measurement], "the measurement", plan.privacy.measurement_epsilon),
    ):
        for releases in _releases(of, plan):
            if releases and not excess_is_covered(releases, epsilon=epsilon, delta=plan.privacy.delta):
                raise MalformedError(
                    f"The noise of {what} lies on a grid too coarse for epsilon {epsilon:g} at delta "
                    f"{plan.privacy.delta:g}: what whole numbers cost beyond a Gaussian is not covered. The "
                    "coordinator should plan a larger epsilon, or fewer numbers."
                )
    return found


def _releases(found: Sequence[Stage], plan: TrainingPlan) -> Iterator[list[tuple[int, int, int]]]:
    """(numbers, variance of one draw, draws) of each noisy release, at the fewest and the most data holders."""
    tolerated = plan.dropouts_tolerated
    for members in (plan.minimum_holders, len(plan.roster)):
        for draws in (members - tolerated, members) if plan.trust is TrustModel.SHARED_NOISE else (1,):
            yield [
                (
                    stage.shape.length,
                    stage.shape.holder_variance(plan.trust, members=members, dropouts_tolerated=tolerated)
                    or stage.shape.variance,  # all of it is the coordinator's
                    draws,
                )
                for stage in found
                if stage.shape.variance > 0
            ]
