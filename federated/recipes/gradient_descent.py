"""Full-batch private gradient descent with momentum: a plainer neighbour of the fixed Hessian, for researchers.

Round 1 is the centre of the fixed Hessian (5 % of mu²): it centres the rows, starts the intercept at the base rate
and counts heads, and the head count sets the step. Every further round is one noisy gradient of unit rows, equal
parts of the rest, and b moves by -step / n of it, with the last move times `momentum` added (Polyak 1964).

The length of the whole walk, steps · step / (1 - momentum), is `length_factor` · n mu / sqrt(p + 1), so the noise it
gathers in b is about `length_factor` long, whatever n. No step is longer than 4, one over the largest curvature that
the mean loss of unit rows can have: near the optimum longer ones are stable with momentum, but from afar they have been
seen to run in circles. Without noise, that is the step. On credit data 50 steps with momentum 0.9 and a length factor
of 2 to 5 do well.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from federated.encoder import ColumnBlock, Encoder
from federated.model import LinearModel
from federated.recipes import unit_rows
from federated.recipes.base import (
    Arrays,
    RecipeName,
    read_array,
    require_keys,
    require_round,
    require_total,
    round_of,
)
from federated.recipes.monotone import cone_of, directed
from federated.rows import EncodedRows
from privacy.accounting import GaussianSpend, Spend, UnprotectedSpend
from privacy.errors import MalformedError
from privacy.noise import NoiseSource, Vector

CENTRE_PART = 0.05
LONGEST_STEP = 4.0
"""Of b, for a mean gradient of length 1."""


@dataclass(frozen=True, slots=True)
class GradientDescentSettings:
    """Settings of `GradientDescent`; radii in units of encoded columns."""

    radius: float
    centred_radius: float
    epsilon: float | None
    delta: float
    steps: int = 50
    momentum: float = 0.9
    length_factor: float = 2.0
    monotone: bool = False
    start: tuple[float, ...] | None = None

    name: ClassVar[RecipeName] = RecipeName.GRADIENT_DESCENT

    def recipe(self, encoder: Encoder) -> "GradientDescent":
        """The recipe over the columns of `encoder`. Raises MalformedError."""
        return GradientDescent(
            width=encoder.width,
            radius=self.radius,
            centred_radius=self.centred_radius,
            epsilon=self.epsilon,
            delta=self.delta,
            steps=self.steps,
            momentum=self.momentum,
            length_factor=self.length_factor,
            schema_digest=encoder.schema.digest,
            monotone=directed(encoder.blocks) if self.monotone else (),
            public_start=self.start,
        )


@dataclass(frozen=True, slots=True)
class GradientDescent:
    """1 round for centre and head count, then `steps` for gradients; see the module's text.

    `width` p encoded columns; `radius` L2 bound of an encoded row, `centred_radius` of a centred one, both public.
    `epsilon` None is the researcher's baseline without noise. `monotone` and `public_start` as in `FixedHessian`.
    """

    width: int
    radius: float
    centred_radius: float
    epsilon: float | None
    delta: float
    steps: int
    momentum: float
    length_factor: float
    _: KW_ONLY
    schema_digest: str
    monotone: tuple[ColumnBlock, ...] = ()
    public_start: tuple[float, ...] | None = None

    name: ClassVar[RecipeName] = RecipeName.GRADIENT_DESCENT
    accountant: ClassVar[str] = "exact Gaussian DP"

    def __post_init__(self) -> None:
        low, high = unit_rows.SMALLEST_RADIUS, unit_rows.LARGEST_RADIUS
        lawful = (
            self.width >= 1
            and self.steps >= 1
            and low <= self.radius <= high
            and low <= self.centred_radius <= high
            and 0 <= self.momentum < 1
            and 0 < self.length_factor < math.inf
            and (self.epsilon is None or 0 < self.epsilon < math.inf)
            and 0 < self.delta < 1
        )
        if not lawful:
            raise MalformedError(
                f"gradient_descent needs width and steps of at least 1, radii from {low:g} to {high:g}, momentum from "
                "0 to below 1, a length factor and epsilon above 0 and delta between 0 and 1; the coordinator must "
                "correct the plan's settings"
            )
        unit_rows.require_lawful_start(self.public_start, self.width)

    @property
    def rounds(self) -> int:
        """1 + `steps`."""
        return 1 + self.steps

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    def length(self, round_number: int) -> int:
        """p + 2 in round 1, then p + 1."""
        unit_rows.require_round_number(round_number, self.rounds)
        return self.width + 2 if round_number == 1 else self.width + 1

    def sensitivity(self, round_number: int) -> float:
        """sqrt(radius² + 2) in round 1, then 1."""
        unit_rows.require_round_number(round_number, self.rounds)
        return math.sqrt(self.radius**2 + 2) if round_number == 1 else 1.0

    def reach(self, round_number: int, *, people: int, holders: int) -> float:  # noqa: ARG002 (the interface's)
        """`people` times the most that one person adds to a single number."""
        unit_rows.require_round_number(round_number, self.rounds)
        return people * (max(self.radius, 1.0) if round_number == 1 else 1.0)

    def mu(self, round_number: int) -> float:
        """The square root of the round's part of mu²: 5 % in round 1, an equal part of the rest in the others."""
        unit_rows.require_round_number(round_number, self.rounds)
        part = CENTRE_PART if round_number == 1 else (1 - CENTRE_PART) / self.steps
        return self._total_mu() * math.sqrt(part)

    def _total_mu(self) -> float:
        return math.inf if self.epsilon is None else unit_rows.total_mu(self.epsilon, self.delta)

    def spend(self, round_number: int, rows: int) -> Spend:  # noqa: ARG002 (the interface's; other recipes need it)
        """A Gaussian release; the same whatever the number of rows."""
        mu = self.mu(round_number)
        return GaussianSpend(mu) if self.is_private else UnprotectedSpend()

    def start(self) -> Arrays:
        """Nothing but the round number: the start of the coefficients comes with the centre."""
        return {"round": np.ones(1)}

    def _keys(self, round_number: int) -> tuple[str, ...]:
        unit_rows.require_round_number(round_number, self.rounds)
        return ("round",) if round_number == 1 else ("round", "centre", "direction")

    def instruction(self, state: Arrays) -> Arrays:
        """From round 2 on the centre and the coefficients of unit rows."""
        return {key: state[key] for key in self._keys(round_of(state))}

    def contribution(
        self,
        round_number: int,
        instruction: Arrays,
        rows: EncodedRows,
        *,
        chance: NoiseSource,  # noqa: ARG002 (the interface's: the release adds this recipe's noise)
    ) -> Vector:
        """This holder's part of the round's exact sum."""
        require_round(instruction, round_number)
        require_keys(instruction, self._keys(round_number))
        unit_rows.require_width(rows, self.width)
        if round_number == 1:
            return unit_rows.centre_sum(rows, self.radius)
        centre, direction = self._centre(instruction), self._direction(instruction)
        return unit_rows.gradient_sum(rows, centre, self.centred_radius, direction)

    def _centre(self, arrays: Arrays) -> Vector:
        return read_array(arrays, "centre", (self.width,))

    def _direction(self, arrays: Arrays) -> Vector:
        return read_array(arrays, "direction", (self.width + 1,))

    def step(self, heads: float) -> float:
        """How far b moves along the mean gradient of `heads` people."""
        walk = self.length_factor * heads * self._total_mu() / math.sqrt(self.width + 1)
        return min(LONGEST_STEP, walk * (1 - self.momentum) / self.steps)

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:  # noqa: ARG002 (sums, no averages)
        """After round 1 centre, head count and start; after each other one step with momentum."""
        number = round_of(state)
        require_total(total, self.length(number))
        after = {**state, "round": np.array([number + 1.0])}
        if number == 1:
            centre, heads, base_rate = unit_rows.mean_and_base_rate(total)
            direction = unit_rows.intercept_of(base_rate, self.width)
            if self.public_start is not None:
                direction = unit_rows.direction_of(self.public_start, centre, self.centred_radius)
            begun = {"centre": centre, "heads": np.array([heads]), "direction": direction}
            return {**after, **begun, "move": np.zeros(self.width + 1)}
        direction, move = self._direction(state), read_array(state, "move", (self.width + 1,))
        heads = float(read_array(state, "heads", (1,))[0])
        moved = direction + self.momentum * move - (self.step(heads) / heads) * total
        if self.monotone:
            moved = cone_of(self.monotone, self.width + 1).minimiser(np.eye(self.width + 1), moved)
        return {**after, "direction": moved, "move": moved - direction}

    def model(self, state: Arrays) -> LinearModel:
        """The linear model in a finished state."""
        require_round(state, self.rounds + 1)
        return unit_rows.linear_model(
            self._direction(state), self._centre(state), self.centred_radius, self.schema_digest
        )

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        return (unit_rows.PUBLIC_CONSTANTS,) if self.is_private else (unit_rows.NOT_PRIVATE,)
