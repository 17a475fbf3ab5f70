"""What a run's epsilon and delta do not cover: one list for whoever plans, publishes or reports."""

import math

from federated.coverage import COVERAGE_SPEND, DEVIATION
from federated.plan import TrainingPlan
from federated.recipes.base import Recipe
from federated.trust import TrustModel
from privacy.accounting import epsilon_of, mu_of


def exclusions(plan: TrainingPlan, recipe: Recipe, *, holders: int) -> tuple[str, ...]:
    """What a run of `plan` with `holders` data holders leaves out, as whole sentences."""
    privacy = plan.privacy
    mu = mu_of(privacy.epsilon, privacy.delta)
    return (
        *recipe.excludes(),
        *_colluders(plan, recipe, mu, holders),
        "whether a data holder takes part at all, which tells that it has at least the fewest people planned",
        "whether somebody in a release has since withdrawn: it is then not sent again, which whoever repeats the "
        "instruction can see",
        "who is erased and linked again: they begin with a new budget, and what was spent before stands under a "
        "number that leads nowhere",
        "a data holder's single updates once its identity key is known to somebody who kept the masked ones",
        "how the schema's characteristics were chosen, where somebody looked at rows for it",
        f"being counted: before runs, dry runs may have counted people, each time at mu {COVERAGE_SPEND.mu:g} with "
        f"noise of {DEVIATION:.0f} people, until a hundredth of what each allows was used up",
        "each run is a release of its own: people used in two such runs have spent up to epsilon "
        f"{epsilon_of(math.sqrt(2) * mu, privacy.delta):.2f}, within the cap of each",
    )


def _colluders(plan: TrainingPlan, recipe: Recipe, mu: float, holders: int) -> tuple[str, ...]:
    """What data holders know of the noise that they added themselves, where it is one noise for all."""
    if plan.trust is not TrustModel.SHARED_NOISE or not math.isfinite(recipe.mu(1)):
        return ()
    if plan.dropouts_tolerated:
        return (
            f"more than {plan.dropouts_tolerated} of the {holders} data holders that leave in one round, or tell "
            "others what noise they added themselves",
        )
    if holders < 2:
        return ()
    inside = epsilon_of(mu * math.sqrt(holders / (holders - 1)), plan.privacy.delta)
    return (
        f"noise that a data holder added itself and can subtract again: against one of the {holders} in this run, "
        f"curious and alone, epsilon is {inside:.2f}",
    )
