"""What the coordinator makes sure of before its first letter: that the plan's sums fit and its guarantee holds."""

from federated.plan import TrainingPlan
from federated.plan_checks import require_sound
from federated.recipes.base import Recipe
from server.stage import Stage, stages


def checked_stages(recipe: Recipe, plan: TrainingPlan) -> tuple[Stage, ...]:
    """The releases of a run of `plan`, in order. MalformedError, with the reason, for a plan that does not add up."""
    require_sound(recipe, plan)
    return stages(recipe, plan)
