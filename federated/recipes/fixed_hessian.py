"""The default recipe: logistic regression by a fixed Hessian. Few noisy sums over people, no tuning.

Centred, budget in mu²: centre 5 %, curvature 9.5 %, gradients 85.5 % in equal parts. Uncentred, for few people:
curvature 10 %, gradients 90 %; nothing is spent on a centre, the schema's public middle stands in. All rounds
together are exactly mu-GDP, and a person with share w is exactly (w mu)-GDP. Every release is a sum over people, so
the result is the central one whoever holds whom. The curvature bounds every logistic Hessian from above (Böhning,
Lindsay 1988), so each step, also one that keeps monotone constraints, lowers the noiseless loss.
"""

import math
from dataclasses import KW_ONLY, dataclass
from enum import Enum, auto
from typing import ClassVar, assert_never

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
"""Of mu², in the centred recipe."""

CURVATURE_PART = 0.1
"""Of the mu² that the centre leaves."""

RIDGE = 2.0
"""Times the size of the curvature's noise. On Taiwan, against 1, AUC gained 0.002 to 0.006 with 700 to 2,000 people at
epsilon 0.5 to 3 and nothing changed with 22,500; 4 was no better. Other data were not compared."""

RIDGE_WITHOUT_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class FixedHessianSettings:
    """Settings of the centred recipe; radii in units of encoded columns, see `FixedHessian`."""

    radius: float
    centred_radius: float
    epsilon: float | None
    delta: float
    steps: int
    monotone: bool = False
    start: tuple[float, ...] | None = None

    name: ClassVar[RecipeName] = RecipeName.FIXED_HESSIAN

    def recipe(self, encoder: Encoder) -> "FixedHessian":
        """The recipe over the columns of `encoder`. Raises MalformedError."""
        return FixedHessian(
            width=encoder.width,
            radius=self.radius,
            centred_radius=self.centred_radius,
            epsilon=self.epsilon,
            delta=self.delta,
            steps=self.steps,
            schema_digest=encoder.schema.digest,
            monotone=directed(encoder.blocks) if self.monotone else (),
            public_start=self.start,
        )


@dataclass(frozen=True, slots=True)
class UncentredFixedHessianSettings:
    """Settings of the uncentred recipe; `radius` bounds an encoded row around the schema's middle."""

    radius: float
    epsilon: float | None
    delta: float
    steps: int
    monotone: bool = False
    start: tuple[float, ...] | None = None

    name: ClassVar[RecipeName] = RecipeName.UNCENTRED_FIXED_HESSIAN

    def recipe(self, encoder: Encoder) -> "FixedHessian":
        """The recipe over the columns of `encoder`. Raises MalformedError."""
        return FixedHessian(
            width=encoder.width,
            radius=self.radius,
            centred_radius=None,
            epsilon=self.epsilon,
            delta=self.delta,
            steps=self.steps,
            schema_digest=encoder.schema.digest,
            middle=tuple(encoder.middle.tolist()),
            monotone=directed(encoder.blocks) if self.monotone else (),
            public_start=self.start,
        )


class _Stage(Enum):
    """What a round's sum is about."""

    CENTRE = auto()
    CURVATURE = auto()
    GRADIENT = auto()


@dataclass(frozen=True, slots=True)
class FixedHessian:
    """1 round for the centre, where there is one, 1 for the curvature, `steps` for gradients; see the module's text.

    `width` p encoded columns; `radius` L2 bound of an encoded row, `centred_radius` of a centred one, both public;
    None drops the round for the centre, and `radius` bounds rows around the public `middle` (0 when empty). `epsilon`
    None is the researcher's baseline without noise. `monotone` are the blocks of columns whose coefficients keep the
    schema's direction. `public_start`, intercept first, then a coefficient per encoded column, replaces the start at
    the base rate (centred) or at 0 (uncentred).
    """

    width: int
    radius: float
    centred_radius: float | None
    epsilon: float | None
    delta: float
    steps: int = 8
    _: KW_ONLY
    schema_digest: str
    middle: tuple[float, ...] = ()
    monotone: tuple[ColumnBlock, ...] = ()
    public_start: tuple[float, ...] | None = None

    accountant: ClassVar[str] = "exact Gaussian DP"

    def __post_init__(self) -> None:
        low, high = unit_rows.SMALLEST_RADIUS, unit_rows.LARGEST_RADIUS
        lawful = (
            self.width >= 1
            and self.steps >= 1
            and low <= self.radius <= high
            and (self.centred_radius is None or low <= self.centred_radius <= high)
            and (self.epsilon is None or 0 < self.epsilon < math.inf)
            and 0 < self.delta < 1
        )
        if not lawful:
            raise MalformedError(
                f"{self.name.value} needs width and steps of at least 1, radii from {low:g} to {high:g}, epsilon above "
                "0 and delta between 0 and 1; the coordinator must correct the plan's settings"
            )
        unit_rows.require_lawful_middle(self.middle, self.width)
        unit_rows.require_lawful_start(self.public_start, self.width)

    @property
    def name(self) -> RecipeName:
        """Centred or not, by name."""
        return RecipeName.FIXED_HESSIAN if self.centred else RecipeName.UNCENTRED_FIXED_HESSIAN

    @property
    def centred(self) -> bool:
        """Whether a noisy mean of the rows is subtracted before they are clipped to unit rows."""
        return self.centred_radius is not None

    @property
    def rounds(self) -> int:
        """1 + `steps`, and one more for the centre."""
        return 1 + self.centred + self.steps

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    @property
    def _clip(self) -> float:
        return self.radius if self.centred_radius is None else self.centred_radius

    def _stage(self, round_number: int) -> _Stage:
        unit_rows.require_round_number(round_number, self.rounds)
        match round_number - self.centred:
            case 0:
                return _Stage.CENTRE
            case 1:
                return _Stage.CURVATURE
            case _:
                return _Stage.GRADIENT

    def _part(self, round_number: int) -> float:
        """This round's part of mu²."""
        left = 1 - CENTRE_PART if self.centred else 1.0
        match self._stage(round_number):
            case _Stage.CENTRE:
                return CENTRE_PART
            case _Stage.CURVATURE:
                return left * CURVATURE_PART
            case _Stage.GRADIENT:
                return left * (1 - CURVATURE_PART) / self.steps
            case stage:
                assert_never(stage)

    def length(self, round_number: int) -> int:
        """p + 2 for the centre, (p + 1)(p + 2) / 2 for the curvature, then p + 1 in every gradient round."""
        match self._stage(round_number):
            case _Stage.CENTRE:
                return self.width + 2
            case _Stage.CURVATURE:
                return (self.width + 1) * (self.width + 2) // 2
            case _Stage.GRADIENT:
                return self.width + 1
            case stage:
                assert_never(stage)

    def sensitivity(self, round_number: int) -> float:
        """sqrt(radius² + 2) for the centre, 1/4 for the curvature, 1 for a gradient."""
        match self._stage(round_number):
            case _Stage.CENTRE:
                return math.sqrt(self.radius**2 + 2)
            case _Stage.CURVATURE:
                return 0.25
            case _Stage.GRADIENT:
                return 1.0
            case stage:
                assert_never(stage)

    def reach(self, round_number: int, *, people: int, holders: int) -> float:  # noqa: ARG002 (the interface's)
        """`people` times the most that one person adds to a single number."""
        if self._stage(round_number) is _Stage.CENTRE:
            return people * max(self.radius, 1.0)
        return people * self.sensitivity(round_number)

    def mu(self, round_number: int) -> float:
        """The square root of the round's part of mu²."""
        part = self._part(round_number)
        return math.inf if self.epsilon is None else unit_rows.total_mu(self.epsilon, self.delta) * math.sqrt(part)

    def spend(self, round_number: int, rows: int) -> Spend:  # noqa: ARG002 (the interface's; other recipes need it)
        """A Gaussian release; the same whatever the number of rows."""
        mu = self.mu(round_number)
        return GaussianSpend(mu) if self.is_private else UnprotectedSpend()

    def start(self) -> Arrays:
        """The round number; uncentred also the first coefficients, which else come with the centre."""
        first = {"round": np.ones(1)}
        return first if self.centred else {**first, "direction": self._first_direction(self._centre(first), 0.5)}

    def _first_direction(self, centre: Vector, base_rate: float) -> Vector:
        if self.public_start is None:
            return unit_rows.intercept_of(base_rate, self.width)
        return unit_rows.direction_of(self.public_start, centre, self._clip)

    def _keys(self, round_number: int) -> tuple[str, ...]:
        match self._stage(round_number):
            case _Stage.CENTRE:
                return ("round",)
            case _Stage.CURVATURE:
                return ("round", "centre") if self.centred else ("round",)
            case _Stage.GRADIENT:
                return ("round", "centre", "direction") if self.centred else ("round", "direction")
            case stage:
                assert_never(stage)

    def instruction(self, state: Arrays) -> Arrays:
        """The centre once there is one, and the coefficients of unit rows in gradient rounds."""
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
        match self._stage(round_number):
            case _Stage.CENTRE:
                return unit_rows.centre_sum(rows, self.radius)
            case _Stage.CURVATURE:
                return unit_rows.moment_sum(rows, self._centre(instruction), self._clip) / 4
            case _Stage.GRADIENT:
                direction = read_array(instruction, "direction", (self.width + 1,))
                return unit_rows.gradient_sum(rows, self._centre(instruction), self._clip, direction)
            case stage:
                assert_never(stage)

    def _centre(self, arrays: Arrays) -> Vector:
        if self.centred:
            return read_array(arrays, "centre", (self.width,))
        return np.array(self.middle) if self.middle else np.zeros(self.width)

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:  # noqa: ARG002 (sums, no averages)
        """After the centre: centre and start; after the curvature: its positive part; then a step down the gradient."""
        number = round_of(state)
        require_total(total, self.length(number))
        after = {**state, "round": np.array([number + 1.0])}
        size = self.width + 1
        match self._stage(number):
            case _Stage.CENTRE:
                centre, _, base_rate = unit_rows.mean_and_base_rate(total)
                return {**after, "centre": centre, "direction": self._first_direction(centre, base_rate)}
            case _Stage.CURVATURE:
                # The noise's own eigenvalues reach 2 sqrt(size) of its deviation (Wigner).
                deviation = self.sensitivity(number) / self.mu(number)
                ridge = RIDGE * 2 * math.sqrt(size) * deviation if self.is_private else RIDGE_WITHOUT_NOISE
                return {**after, "curvature": unit_rows.positive_definite(unit_rows.symmetric(total, size), ridge)}
            case _Stage.GRADIENT:
                curvature = read_array(state, "curvature", (size, size))
                direction = read_array(state, "direction", (size,))
                stepped = cone_of(self.monotone, size).minimiser(curvature, curvature @ direction - total)
                return {**after, "direction": stepped}
            case stage:
                assert_never(stage)

    def model(self, state: Arrays) -> LinearModel:
        """The linear model in a finished state."""
        require_round(state, self.rounds + 1)
        direction = read_array(state, "direction", (self.width + 1,))
        return unit_rows.linear_model(direction, self._centre(state), self._clip, self.schema_digest)

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        return (unit_rows.PUBLIC_CONSTANTS,) if self.is_private else (unit_rows.NOT_PRIVATE,)
