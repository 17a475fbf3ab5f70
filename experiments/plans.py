"""The training plans of the demo and the benchmarks."""

import math

from experiments.wishes import COORDINATOR
from federated.plan import PrivacyTerms, RosterEntry, TrainingPlan
from federated.recipes.choice import choose
from federated.recipes.registry import RecipeSettings, settings_to_dict
from federated.schema import Schema
from federated.scorecard import PointScale
from federated.trust import Aggregation, TrustModel

DELTA = 1e-5
STEPS = 8
TRAINED_ON = 0.75  # part of the people, the others are held out
RELEASES_PER_WINDOW = 2
FEWEST_PEOPLE = 30
MOST_DROPOUTS = 2
MEASUREMENT_BANDS = 44
HOUR_S = 3600

# 600 points at four goods for each bad, 50 points to double that; published between 300 and 850, as bureaus do.
SCALE = PointScale(base_score=600, base_good_bad_odds=4, points_to_double_odds=50, minimum=300, maximum=850)


def tolerated_dropouts(holders: int) -> int:
    """How many drop-outs a plan over that many data holders tolerates: the most that masks allow, and at most two.

    Each costs noise: with 2 of 10 the noise is 1.12 times what it would be with none.
    """
    return min(MOST_DROPOUTS, (holders - 1) // 3)


def default_plan(
    name: str,
    schema: Schema,
    roster: list[RosterEntry],
    *,
    epsilon: float,
    at: int,
    seed: int | None,
    people: int,
    recipe: RecipeSettings | None = None,
    trust: TrustModel = TrustModel.SHARED_NOISE,
    aggregation: Aggregation = Aggregation.SUM,
    dropouts_tolerated: int | None = None,
    fewest_people: int = FEWEST_PEOPLE,
) -> TrainingPlan:
    """The recipe at `epsilon` for training, and as much again for the held-out people who are counted.

    `people` is a public guess at how many will be trained on; it chooses the recipe where `recipe` is None. Sums have
    room for no more than the held-out people besides: the less room, the less a data holder that lies can do.
    """
    if recipe is None:
        choice = choose(people=people, epsilon=epsilon, delta=DELTA, schema=schema)
        recipe, reason = choice.settings, choice.reason
    else:
        reason = "Asked for by name."
    dropouts = tolerated_dropouts(len(roster)) if dropouts_tolerated is None else dropouts_tolerated
    return TrainingPlan(
        version=1,
        name=name,
        coordinator=COORDINATOR,
        schema_digest=schema.digest,
        recipe=settings_to_dict(recipe),
        reason=reason,
        trust=trust,
        aggregation=aggregation,
        dropouts_tolerated=dropouts,
        privacy=PrivacyTerms(
            epsilon=epsilon, delta=DELTA, measurement_epsilon=epsilon, releases_per_window=RELEASES_PER_WINDOW
        ),
        roster=roster,
        minimum_holders=max(2, 3 * dropouts + 1),
        minimum_people=fewest_people,
        most_people=math.ceil(people / TRAINED_ON),
        not_before=at - HOUR_S,
        ends=at + 23 * HOUR_S,
        point_scale={name: float(value) for name, value in SCALE.to_dict().items() if isinstance(value, int | float)},
        measurement_bands=MEASUREMENT_BANDS,
        seed=seed,
    )
