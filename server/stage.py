"""One release of a run as the coordinator asks for it, and how large its sum can lawfully be."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from federated.channel import Act
from federated.plan import TrainingPlan
from federated.recipes.base import Recipe
from federated.releases import (
    Shape,
    measurement_stage,
    release_name,
    shape_of_measurement,
    shape_of_round,
)
from privacy.noise import Vector

DEVIATIONS_ALLOWED = 12.0
"""Noise goes further with chance 4e-33 a number: whoever is beyond is not unlucky."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The release number `number` of a run: the rounds from 1, then the measurement.

    `reach` maps a number of data holders to the largest absolute value of any number of their exact sum.
    """

    number: int
    what: str
    act: Act
    shape: Shape
    reach: Callable[[int], float]

    def name(self, run: str) -> str:
        """The release's name in that run."""
        return release_name(run, self.number)

    @property
    def step(self) -> float:
        """The grid's step, in the numbers' own unit."""
        return math.ldexp(1.0, self.shape.grid.step_log2)

    def can_be(self, values: Vector, *, holders: int, variance: int) -> bool:
        """Whether the plan's people and noise of `variance` squared grid steps can sum to `values` over `holders`."""
        # Every data holder rounds its own numbers once, and sums in float64.
        rounding = holders * self.step + 1e-9 * self.reach(holders)
        most = self.reach(holders) + rounding + DEVIATIONS_ALLOWED * math.sqrt(variance) * self.step
        return bool((np.abs(values) <= most).all())


def stages(recipe: Recipe, plan: TrainingPlan) -> tuple[Stage, ...]:
    """Every release that a run of `plan` can have, in order. MalformedError if one fits no grid."""

    def reach(number: int, holders: int) -> float:
        return recipe.reach(number, people=plan.most_people, holders=holders)

    rounds = [
        Stage(number, f"round {number}", Act.TRAIN, shape_of_round(recipe, number, plan), partial(reach, number))
        for number in range(1, recipe.rounds + 1)
    ]
    measurement = Stage(
        measurement_stage(recipe),
        "the measurement",
        Act.EVALUATE,
        shape_of_measurement(plan),
        lambda _: float(plan.most_people),
    )
    return (*rounds, measurement)
