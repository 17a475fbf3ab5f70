"""The default recipe: logistic regression by a centred fixed Hessian. Three kinds of noisy sums over people,
no tuning.

Budget in mu²: centre 5 %, curvature 9.5 %, gradients 85.5 % in equal parts; all rounds together are exactly
mu-GDP, and a person with share w is exactly (w mu)-GDP. Every release is a sum over people, so the result is
the central one whoever holds whom. The curvature bounds every logistic Hessian from above (Böhning, Lindsay
1988).
"""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from federated.model import LinearModel, clip_to_norm, probability_of
from federated.recipes.base import (
    TRUST_IN_MASKS,
    Arrays,
    RecipeName,
    read_array,
    require_keys,
    require_round,
    require_total,
    round_of,
)
from federated.rows import EncodedRows
from privacy.accounting import GaussianSpend, Spend, UnprotectedSpend, mu_of
from privacy.errors import MalformedError
from privacy.noise import NoiseSource, Vector

CENTRE_PART = 0.05
CURVATURE_PART = 0.95 * 0.1
GRADIENT_PART = 0.95 * 0.9

COLUMN_PART = 0.9
"""Share of the squared unit norm that the columns get in a row; the rest is the intercept's."""

INTERCEPT_COLUMN = math.sqrt(1 - COLUMN_PART)
"""The intercept's constant cell in a unit row."""

FEWEST_HEADS = 50.0
"""The noisy head count is floored here: it is divided by."""

SMALLEST_BASE_RATE = 0.01
RIDGE_WITHOUT_NOISE = 1e-6
SMALLEST_RADIUS = 1e-3
LARGEST_RADIUS = 1e6
"""Radii outside are refused: with cells up to 2^101, the ratio that clips a row stays far from the subnormal
numbers, which round by up to their own size and would let a clipped row be longer than its radius."""

BLOCK_ROWS = 2048
"""Rows worked on at a time, so that a block's copies stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class FixedHessian:
    """1 round for the centre, 1 for the curvature, `steps` for gradients; see the module's text.

    `width` p encoded columns; `radius` L2 bound of an encoded row, `centred_radius` of a centred one, both
    public; `epsilon` None is the researcher's baseline without noise.
    """

    width: int
    radius: float
    centred_radius: float
    epsilon: float | None
    delta: float
    steps: int = 8
    _: KW_ONLY
    schema_digest: str

    name: ClassVar[RecipeName] = RecipeName.FIXED_HESSIAN
    accountant: ClassVar[str] = "exact Gaussian DP"
    trust_model: ClassVar[str] = (
        "Each data holder adds its part of one common noise to whole numbers and masks them with keys agreed with "
        f"every other data holder, so the coordinator sees sums over all of them only. {TRUST_IN_MASKS} Epsilon also "
        "assumes that the data holders in the plan are real and add their parts of the noise."
    )

    def __post_init__(self) -> None:
        lawful = (
            self.width >= 1
            and self.steps >= 1
            and SMALLEST_RADIUS <= self.radius <= LARGEST_RADIUS
            and SMALLEST_RADIUS <= self.centred_radius <= LARGEST_RADIUS
            and (self.epsilon is None or 0 < self.epsilon < math.inf)
            and 0 < self.delta < 1
        )
        if not lawful:
            raise MalformedError(
                f"fixed_hessian needs width and steps of at least 1, radii from {SMALLEST_RADIUS:g} to "
                f"{LARGEST_RADIUS:g}, epsilon above 0 and delta between 0 and 1; the coordinator must correct the "
                "plan's settings"
            )

    @property
    def rounds(self) -> int:
        """2 + `steps`."""
        return 2 + self.steps

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    @property
    def mu(self) -> float:
        """Of all rounds together; infinite without noise."""
        return math.inf if self.epsilon is None else mu_of(self.epsilon, self.delta)

    def _part(self, round_number: int) -> float:
        """This round's part of mu²."""
        self._require_round_number(round_number)
        match round_number:
            case 1:
                return CENTRE_PART
            case 2:
                return CURVATURE_PART
            case _:
                return GRADIENT_PART / self.steps

    def _require_round_number(self, round_number: int) -> None:
        if not 1 <= round_number <= self.rounds:
            raise MalformedError(
                f"round {round_number} was asked of a recipe with {self.rounds} rounds; the coordinator must follow "
                "the plan"
            )

    def length(self, round_number: int) -> int:
        """p + 2, then (p + 1)(p + 2) / 2, then p + 1 in every gradient round."""
        self._require_round_number(round_number)
        match round_number:
            case 1:
                return self.width + 2
            case 2:
                return (self.width + 1) * (self.width + 2) // 2
            case _:
                return self.width + 1

    def sensitivity(self, round_number: int) -> float:
        """Largest L2 norm of what one person adds to that round's sum."""
        self._require_round_number(round_number)
        match round_number:
            case 1:
                return math.sqrt(self.radius**2 + 2)
            case 2:
                return 0.25
            case _:
                return 1.0

    def bound(self, round_number: int) -> float:
        """Largest absolute value one person adds to any single number of that round's sum."""
        return max(self.radius, 1.0) if round_number == 1 else self.sensitivity(round_number)

    def noise_standard_deviation(self, round_number: int) -> float:
        """Of the whole sum's noise, per number: sensitivity / mu of the round; 0 without noise."""
        if self.epsilon is None:
            return 0.0
        return self.sensitivity(round_number) / (self.mu * math.sqrt(self._part(round_number)))

    def spend(self, round_number: int, rows: int) -> Spend:  # noqa: ARG002 (the interface's; other recipes need it)
        """A Gaussian release; the same whatever the number of rows."""
        part = self._part(round_number)
        return UnprotectedSpend() if self.epsilon is None else GaussianSpend(self.mu * math.sqrt(part))

    def start(self) -> Arrays:
        """Nothing but the round number: the start of the coefficients comes from the base rate."""
        return {"round": np.ones(1)}

    def _keys(self, round_number: int) -> tuple[str, ...]:
        match round_number:
            case 1:
                return ("round",)
            case 2:
                return ("round", "centre")
            case _:
                return ("round", "centre", "direction")

    def instruction(self, state: Arrays) -> Arrays:
        """The centre from round 2 on, and the coefficients of unit rows from round 3 on."""
        number = round_of(state)
        self._require_round_number(number)
        return {key: state[key] for key in self._keys(number)}

    def contribution(
        self,
        round_number: int,
        instruction: Arrays,
        rows: EncodedRows,
        *,
        chance: NoiseSource,
        noise_share: float,
    ) -> Vector:
        """This holder's part of the round's sum, with `noise_share` of the noise's variance."""
        require_round(instruction, round_number)
        self._require_round_number(round_number)
        require_keys(instruction, self._keys(round_number))
        if not 0 < noise_share <= 1:
            raise ValueError("requires 0 < noise_share <= 1")
        if rows.width != self.width:
            raise MalformedError(
                f"rows have {rows.width} encoded columns, the plan needs {self.width}; the data holder must encode by "
                "the plan's schema"
            )
        match round_number:
            case 1:
                total = self._centre_sum(rows)
            case 2:
                total = self._curvature_sum(rows, self._centre(instruction))
            case _:
                direction = read_array(instruction, "direction", (self.width + 1,))
                total = self._gradient_sum(rows, self._centre(instruction), direction)
        if self.epsilon is None:
            return total
        deviation = self.noise_standard_deviation(round_number) * math.sqrt(noise_share)
        return total + chance.gaussian(len(total), deviation)

    def _centre(self, arrays: Arrays) -> Vector:
        return read_array(arrays, "centre", (self.width,))

    def _centre_sum(self, rows: EncodedRows) -> Vector:
        total = np.zeros(self.width + 2)
        for start in range(0, len(rows), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            total[: self.width] += rows.share[block] @ clip_to_norm(rows.x[block], self.radius)
        total[self.width] = rows.share.sum()
        total[self.width + 1] = rows.share @ rows.bad
        return total

    def _unit_rows(self, rows: EncodedRows, centre: Vector) -> Iterator[tuple[slice, NDArray[np.float64], Vector]]:
        """Blocks of (rows, centred rows c_i of shape (block, p), factors f_i of shape (block,)).

        The unit row is a_i = [f_i c_i, sqrt(0.1)], of norm at most 1 with the intercept's column inside; it
        is left factored because scaling every cell would cost more than all the rest.
        """
        scale = math.sqrt(COLUMN_PART) / self.centred_radius
        for start in range(0, len(rows), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            centred = rows.x[block] - centre
            norms = np.sqrt(np.einsum("ij,ij->i", centred, centred))
            factors: Vector = scale * np.minimum(1.0, self.centred_radius / np.maximum(norms, 1e-12))
            yield block, centred, factors

    def _curvature_sum(self, rows: EncodedRows, centre: Vector) -> Vector:
        total = np.zeros((self.width + 1, self.width + 1))
        for block, centred, factors in self._unit_rows(rows, centre):
            unit = np.empty((len(centred), self.width + 1))
            np.multiply(centred, factors[:, None], out=unit[:, :-1])
            unit[:, -1] = INTERCEPT_COLUMN
            total += (unit * rows.share[block, None]).T @ unit
        upper: Vector = total[np.triu_indices(self.width + 1)] / 4
        return upper

    def _gradient_sum(self, rows: EncodedRows, centre: Vector, direction: Vector) -> Vector:
        total = np.zeros(self.width + 1)
        for block, centred, factors in self._unit_rows(rows, centre):
            log_odds = (centred @ direction[:-1]) * factors + direction[-1] * INTERCEPT_COLUMN
            residual = rows.share[block] * (probability_of(log_odds) - rows.bad[block])
            total[:-1] += (residual * factors) @ centred
            total[-1] += residual.sum() * INTERCEPT_COLUMN
        return total

    def advance(self, state: Arrays, total: Vector) -> Arrays:
        """After the centre: centre and start; after the curvature: its inverse; then one step down the gradient."""
        number = round_of(state)
        require_total(total, self.length(number))
        after = {**state, "round": np.array([number + 1.0])}
        match number:
            case 1:
                heads = max(float(total[self.width]), FEWEST_HEADS)
                base_rate = float(np.clip(total[self.width + 1] / heads, SMALLEST_BASE_RATE, 1 - SMALLEST_BASE_RATE))
                direction = np.zeros(self.width + 1)
                direction[-1] = math.log(base_rate / (1 - base_rate)) / INTERCEPT_COLUMN
                return {**after, "centre": total[: self.width] / heads, "direction": direction}
            case 2:
                return {**after, "inverse_curvature": self._inverse_curvature(total)}
            case _:
                shape = (self.width + 1, self.width + 1)
                inverse = read_array(state, "inverse_curvature", shape)
                direction = read_array(state, "direction", (self.width + 1,))
                return {**after, "direction": direction - inverse @ total}

    def _inverse_curvature(self, upper: Vector) -> NDArray[np.float64]:
        size = self.width + 1
        curvature = np.zeros((size, size))
        curvature[np.triu_indices(size)] = upper
        curvature += np.triu(curvature, 1).T
        values, vectors = np.linalg.eigh(curvature)
        ridge = 2 * math.sqrt(size) * self.noise_standard_deviation(2) if self.is_private else RIDGE_WITHOUT_NOISE
        inverse: NDArray[np.float64] = (vectors / (np.maximum(values, 0) + ridge)) @ vectors.T
        return inverse

    def model(self, state: Arrays) -> LinearModel:
        """The linear model in a finished state."""
        require_round(state, self.rounds + 1)
        direction = read_array(state, "direction", (self.width + 1,))
        return LinearModel(
            schema_digest=self.schema_digest,
            centre=self._centre(state),
            coefficients=direction[:-1] * (math.sqrt(COLUMN_PART) / self.centred_radius),
            intercept=float(direction[-1]) * INTERCEPT_COLUMN,
            centred_radius=self.centred_radius,
        )

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        if self.epsilon is None:
            return ("no noise was added: this training is NOT PRIVATE",)
        return (
            "floating-point Gaussian noise rounded to the public grid stands in for the exact discrete Gaussian",
            "the schema's bounds, centres, spreads and the radii are taken to be public, not learnt from the rows",
        )
