"""One round only: noisy second moments and cross moments of unit rows, solved by the coordinator on its own.

They are the sufficient statistics of a quadratic surrogate of the logistic loss (cf. Huggins, Adams, Broderick 2017,
arXiv:1709.09216). The released sum is w_i [c upper(a_i a_i'), (y_i - 1/2) a_i], and what one person adds is longest
where a_i has a single column at sqrt(0.9): sqrt(0.91 c² + 1/4). The intercept's column of the moments holds head count
and mean, so the expansion is around the log-odds z of the base rate: one Newton step from there,
b = z e / sqrt(0.1) + (sigmoid'(z) A)^-1 sum of w_i (y_i - sigmoid(z)) a_i. Rows are centred at the schema's public
middle, because nothing has been released before.
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

MOMENT_WEIGHT = 0.5
"""c: the larger, the less noise in the second moments and the more in the cross moments."""

RIDGE_WITHOUT_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class SufficientStatisticsSettings:
    """Settings of `SufficientStatistics`; `radius` bounds an encoded row around the schema's middle."""

    radius: float
    epsilon: float | None
    delta: float
    monotone: bool = False

    name: ClassVar[RecipeName] = RecipeName.SUFFICIENT_STATISTICS

    def recipe(self, encoder: Encoder) -> "SufficientStatistics":
        """The recipe over the columns of `encoder`. Raises MalformedError."""
        return SufficientStatistics(
            width=encoder.width,
            radius=self.radius,
            epsilon=self.epsilon,
            delta=self.delta,
            schema_digest=encoder.schema.digest,
            middle=tuple(encoder.middle.tolist()),
            monotone=directed(encoder.blocks) if self.monotone else (),
        )


@dataclass(frozen=True, slots=True)
class SufficientStatistics:
    """One round; see the module's text.

    `width` p encoded columns; `radius` L2 bound of an encoded row around the public `middle` (0 when empty).
    `epsilon` None is the researcher's baseline without noise. `monotone` as in `FixedHessian`.
    """

    width: int
    radius: float
    epsilon: float | None
    delta: float
    _: KW_ONLY
    schema_digest: str
    middle: tuple[float, ...] = ()
    monotone: tuple[ColumnBlock, ...] = ()

    name: ClassVar[RecipeName] = RecipeName.SUFFICIENT_STATISTICS
    accountant: ClassVar[str] = "exact Gaussian DP"
    rounds: ClassVar[int] = 1

    def __post_init__(self) -> None:
        low, high = unit_rows.SMALLEST_RADIUS, unit_rows.LARGEST_RADIUS
        lawful = (
            self.width >= 1
            and low <= self.radius <= high
            and (self.epsilon is None or 0 < self.epsilon < math.inf)
            and 0 < self.delta < 1
        )
        if not lawful:
            raise MalformedError(
                f"sufficient_statistics needs a width of at least 1, a radius from {low:g} to {high:g}, epsilon above "
                "0 and delta between 0 and 1; the coordinator must correct the plan's settings"
            )
        unit_rows.require_lawful_middle(self.middle, self.width)

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    def length(self, round_number: int) -> int:
        """(p + 1)(p + 2) / 2 second moments and p + 1 cross moments."""
        unit_rows.require_round_number(round_number, self.rounds)
        return (self.width + 1) * (self.width + 2) // 2 + self.width + 1

    def sensitivity(self, round_number: int) -> float:
        """sqrt(0.91 c² + 1/4).

        The upper triangle of a a' has the squared norm (|a|⁴ + sum a_j⁴) / 2, at most (1 + 0.9² + 0.1²) / 2.
        """
        unit_rows.require_round_number(round_number, self.rounds)
        longest = (1 + unit_rows.COLUMN_PART**2 + (1 - unit_rows.COLUMN_PART) ** 2) / 2
        return math.sqrt(longest * MOMENT_WEIGHT**2 + 0.25)

    def reach(self, round_number: int, *, people: int, holders: int) -> float:  # noqa: ARG002 (the interface's)
        """Half of `people`: neither c a_j a_k nor a_j / 2 is more than 1/2."""
        unit_rows.require_round_number(round_number, self.rounds)
        return people * max(MOMENT_WEIGHT, 0.5)

    def mu(self, round_number: int) -> float:
        """All of mu."""
        unit_rows.require_round_number(round_number, self.rounds)
        return math.inf if self.epsilon is None else unit_rows.total_mu(self.epsilon, self.delta)

    def spend(self, round_number: int, rows: int) -> Spend:  # noqa: ARG002 (the interface's; other recipes need it)
        """A Gaussian release; the same whatever the number of rows."""
        mu = self.mu(round_number)
        return GaussianSpend(mu) if self.is_private else UnprotectedSpend()

    def start(self) -> Arrays:
        """Nothing but the round number."""
        return {"round": np.ones(1)}

    def instruction(self, state: Arrays) -> Arrays:
        """Nothing but the round number: everything else is in the plan."""
        unit_rows.require_round_number(round_of(state), self.rounds)
        return {"round": state["round"]}

    def _middle(self) -> Vector:
        return np.array(self.middle) if self.middle else np.zeros(self.width)

    def contribution(
        self,
        round_number: int,
        instruction: Arrays,
        rows: EncodedRows,
        *,
        chance: NoiseSource,  # noqa: ARG002 (the interface's: the release adds this recipe's noise)
    ) -> Vector:
        """This holder's part of the exact moments."""
        unit_rows.require_round_number(round_number, self.rounds)
        require_round(instruction, round_number)
        require_keys(instruction, ("round",))
        unit_rows.require_width(rows, self.width)
        moments = unit_rows.moment_sum(rows, self._middle(), self.radius)
        # At coefficients of 0 the gradient is the sum of w_i (1/2 - y_i) a_i: exactly the cross moments, negated.
        cross = -unit_rows.gradient_sum(rows, self._middle(), self.radius, np.zeros(self.width + 1))
        return np.concatenate([MOMENT_WEIGHT * moments, cross])

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:  # noqa: ARG002 (sums, no averages)
        """One Newton step of the logistic loss from the base rate, with a ridge of the size of the noise."""
        number = round_of(state)
        require_total(total, self.length(number))
        size = self.width + 1
        moments = unit_rows.symmetric(total[:-size] / MOMENT_WEIGHT, size)
        cross = total[-size:]
        heads = max(float(moments[-1, -1]) / unit_rows.INTERCEPT_COLUMN**2, unit_rows.FEWEST_HEADS)
        bads = float(cross[-1]) / unit_rows.INTERCEPT_COLUMN + heads / 2
        base_rate = unit_rows.held_base_rate(bads / heads)
        pull = cross + (0.5 - base_rate) * moments[:, -1] / unit_rows.INTERCEPT_COLUMN
        # The ridge is the size of the noise's own eigenvalues (Wigner): 2 sqrt(size) of its deviation.
        deviation = self.sensitivity(number) / (MOMENT_WEIGHT * self.mu(number))
        ridge = 2 * math.sqrt(size) * deviation if self.is_private else RIDGE_WITHOUT_NOISE
        curvature = base_rate * (1 - base_rate) * unit_rows.positive_definite(moments, ridge)
        first = unit_rows.intercept_of(base_rate, self.width)
        direction = cone_of(self.monotone, size).minimiser(curvature, curvature @ first + pull)
        return {"round": np.array([number + 1.0]), "direction": direction}

    def model(self, state: Arrays) -> LinearModel:
        """The linear model in a finished state."""
        require_round(state, self.rounds + 1)
        direction = read_array(state, "direction", (self.width + 1,))
        return unit_rows.linear_model(direction, self._middle(), self.radius, self.schema_digest)

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        return (unit_rows.PUBLIC_CONSTANTS,) if self.is_private else (unit_rows.NOT_PRIVATE,)
