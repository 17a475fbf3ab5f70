"""The training plans of the demo and the benchmarks."""

from experiments.wishes import COORDINATOR
from federated.plan import PrivacyTerms, RosterEntry, TrainingPlan
from federated.recipes.registry import FixedHessianSettings, settings_to_dict
from federated.schema import Schema
from federated.scorecard import PointScale

DELTA = 1e-5
STEPS = 8
RELEASES_PER_WINDOW = 2
FEWEST_PEOPLE = 30
MOST_PEOPLE = 1_000_000
MEASUREMENT_BANDS = 44
HOUR_S = 3600

# 600 points at four goods for each bad, 50 points to double that; published between 300 and 850, as bureaus do.
SCALE = PointScale(base_score=600, base_good_bad_odds=4, points_to_double_odds=50, minimum=300, maximum=850)


def default_plan(
    name: str,
    schema: Schema,
    roster: list[RosterEntry],
    *,
    epsilon: float,
    at: int,
    seed: int | None,
    steps: int = STEPS,
    fewest_people: int = FEWEST_PEOPLE,
) -> TrainingPlan:
    """The default recipe at `epsilon` for training, and as much again for the held-out people who are counted."""
    recipe = FixedHessianSettings(
        radius=schema.radius, centred_radius=schema.centred_radius, epsilon=epsilon, delta=DELTA, steps=steps
    )
    return TrainingPlan(
        version=1,
        name=name,
        coordinator=COORDINATOR,
        schema_digest=schema.digest,
        recipe=settings_to_dict(recipe),
        privacy=PrivacyTerms(
            epsilon=epsilon, delta=DELTA, measurement_epsilon=epsilon, releases_per_window=RELEASES_PER_WINDOW
        ),
        roster=roster,
        minimum_holders=2,
        minimum_people=fewest_people,
        most_people=MOST_PEOPLE,
        not_before=at - HOUR_S,
        ends=at + 23 * HOUR_S,
        point_scale={name: float(value) for name, value in SCALE.to_dict().items() if isinstance(value, int | float)},
        measurement_bands=MEASUREMENT_BANDS,
        seed=seed,
    )
