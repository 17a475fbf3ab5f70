"""FedAvg, FedProx and SCAFFOLD over local private SGD, in numpy alone.

Each data holder takes noisy steps on its own rows and releases the change of the model's vector; the coordinator
averages the changes, every data holder alike. All noise is inside the steps.

FedAvg: McMahan et al. 2017 (arXiv:1602.05629). FedProx adds strength x (vector - start of the round) to every step's
gradient (Li et al. 2020, arXiv:1812.06127, section 3.2); it reads no rows, so it is neither clipped nor charged.

SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1) corrects every step by c - c_i, where c_i is the data
holder's own gradient and c the mean of all. What differs here, because a data holder keeps no state between rounds
and the coordinator must not see a single c_i:

- c_i is the paper's option I, the gradient at the vector that the round starts from: the mean of an epoch of noisy
  Poisson batches at that vector.
- One round of the paper takes two rounds. In odd ones data holders release their c_i and the vector stands still; in
  even ones they walk. A c from the round before would belong to another vector: where data holders take many steps
  the walk then overshoots, because nothing cancels the difference.
- For its walk a data holder draws c_i anew, at the same vector. Both draws are charged like all other steps, so a
  round of the paper costs `local_epochs` + 2 epochs.
- c is a mean over whoever took part in the odd round; where somebody leaves in between, the corrections of the even
  one do not quite cancel.
"""

import math
from dataclasses import KW_ONLY, asdict, dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np

from federated.encoder import Encoder
from federated.model import Model
from federated.recipes.base import (
    Arrays,
    RecipeName,
    read_array,
    require_keys,
    require_round,
    require_total,
    round_of,
)
from federated.recipes.clipped_sums import clipped_sums
from federated.recipes.layers import Layers
from federated.recipes.local_steps import LAWFUL_STEPS, StepSchedule, lawful_steps, poisson_batch, require_small
from federated.rows import EncodedRows
from privacy.accounting import Spend
from privacy.errors import MalformedError
from privacy.noise import NoiseSource, Vector

LARGEST_CHANGE = 1024.0
"""A number that moved further than this in one round has diverged; it is sent as this much."""

NOISE_NUMBERS = 65_536
"""Noise is drawn for several steps at a time, up to so many numbers: a draw costs more to begin than to continue."""


class LocalAlgorithm(StrEnum):
    """What data holders do between two averages."""

    FEDAVG = "fedavg"
    FEDPROX = "fedprox"
    SCAFFOLD = "scaffold"


@dataclass(frozen=True, slots=True)
class LocalSgdSettings:
    """Settings of `LocalSgd`. `proximal_strength` is above 0 for fedprox and 0 for the others; scaffold takes two
    `rounds` for each of the paper's."""

    algorithm: LocalAlgorithm
    proximal_strength: float
    hidden: tuple[int, ...]
    learning_rate: float
    batch_size: int
    local_epochs: int
    rounds: int
    clipping_norm: float
    epsilon: float | None
    delta: float

    name: ClassVar[RecipeName] = RecipeName.LOCAL_SGD

    def recipe(self, encoder: Encoder) -> "LocalSgd":
        """The recipe over the columns of `encoder`. Raises MalformedError."""
        return LocalSgd(width=encoder.width, schema_digest=encoder.schema.digest, **asdict(self))


@dataclass(frozen=True, slots=True)
class LocalSgd:
    """Logistic regression (`hidden` empty) or a network of one or two hidden layers, by local private SGD.

    `batch_size` is the expected size of a Poisson batch. `epsilon`, `delta` hold for all rounds of one data holder
    together, whatever its number of rows; `epsilon` None is the researcher's baseline without noise (still clipped).
    """

    algorithm: LocalAlgorithm
    proximal_strength: float
    hidden: tuple[int, ...]
    learning_rate: float
    batch_size: int
    local_epochs: int
    rounds: int
    clipping_norm: float
    epsilon: float | None
    delta: float
    _: KW_ONLY
    width: int
    schema_digest: str

    name: ClassVar[RecipeName] = RecipeName.LOCAL_SGD
    accountant: ClassVar[str] = "Rényi DP of the Poisson-sampled Gaussian, an upper bound"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "algorithm", LocalAlgorithm(self.algorithm))
        except ValueError as error:
            raise _unlawful(f"algorithm must be one of {[each.value for each in LocalAlgorithm]}") from error
        is_prox = self.algorithm is LocalAlgorithm.FEDPROX
        for lawful, needed in (
            (min(self.width, self.batch_size, self.local_epochs, self.rounds) >= 1, "whole numbers must be at least 1"),
            (
                not (self._has_control and self.rounds % 2),
                "rounds must be even for scaffold, which takes them in pairs",
            ),
            (
                len(self.hidden) <= 2 and all(units >= 1 for units in self.hidden),
                "hidden must be 0 to 2 layers of units",
            ),
            (lawful_steps(self.learning_rate, self.clipping_norm), f"it needs {LAWFUL_STEPS}"),
            (
                0 < self.proximal_strength < math.inf if is_prox else self.proximal_strength == 0,
                "proximal_strength must be above 0 for fedprox, and 0 for the others",
            ),
            (self.epsilon is None or 0 < self.epsilon < math.inf, "epsilon must be above 0"),
            (0 < self.delta < 1, "delta must lie between 0 and 1"),
        ):
            if not lawful:
                raise _unlawful(needed)

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    @property
    def layers(self) -> Layers:
        """The model's shape."""
        return Layers(self.width, self.hidden)

    @property
    def schedule(self) -> StepSchedule:
        """The steps of a data holder in all rounds."""
        epochs = sum(self._epochs(number) for number in range(1, self.rounds + 1))
        return StepSchedule(self.batch_size, epochs, self.epsilon, self.delta)

    @property
    def _has_control(self) -> bool:
        return self.algorithm is LocalAlgorithm.SCAFFOLD

    def _stands_still(self, round_number: int) -> bool:
        """Whether that round only asks for the data holders' gradients at the vector."""
        return self._has_control and round_number % 2 == 1

    def _epochs(self, round_number: int) -> int:
        """How often a person is drawn in that round, in expectation."""
        return 1 if self._stands_still(round_number) else self.local_epochs + self._has_control

    def _keys(self, round_number: int) -> tuple[str, ...]:
        walks = self._has_control and not self._stands_still(round_number)
        return ("round", "vector", "control") if walks else ("round", "vector")

    def _require_round_number(self, round_number: int) -> None:
        if not 1 <= round_number <= self.rounds:
            raise MalformedError(
                f"round {round_number} was asked of a recipe with {self.rounds} rounds; the coordinator must follow "
                "the plan"
            )

    def length(self, round_number: int) -> int:
        """The numbers of the model, in every round."""
        self._require_round_number(round_number)
        return self.layers.parameters

    def reach(self, round_number: int, *, people: int, holders: int) -> float:  # noqa: ARG002 (people do not matter)
        """Every data holder's numbers are held to 1,024, whoever its people are."""
        self._require_round_number(round_number)
        return holders * LARGEST_CHANGE

    def sensitivity(self, round_number: int) -> float:
        """What the bound on every number allows. The guarantee does not rest on it: the noise is inside the steps."""
        return 2 * LARGEST_CHANGE * math.sqrt(self.length(round_number))

    def mu(self, round_number: int) -> float:
        """Infinite: no noise is added to the sum."""
        self._require_round_number(round_number)
        return math.inf

    def spend(self, round_number: int, rows: int) -> Spend:
        """This round's steps."""
        self._require_round_number(round_number)
        return self.schedule.spend(rows, epochs=self._epochs(round_number))

    def start(self) -> Arrays:
        """The public start of the model."""
        return {"round": np.ones(1), "vector": self.layers.start()}

    def instruction(self, state: Arrays) -> Arrays:
        """The model's vector, and in SCAFFOLD's even rounds the mean control."""
        number = round_of(state)
        self._require_round_number(number)
        return {key: state[key] for key in self._keys(number)}

    def contribution(self, round_number: int, instruction: Arrays, rows: EncodedRows, *, chance: NoiseSource) -> Vector:
        """The change of the vector, or the own control in SCAFFOLD's odd rounds; nothing is weighted."""
        require_round(instruction, round_number)
        self._require_round_number(round_number)
        keys = self._keys(round_number)
        require_keys(instruction, keys)
        vector = read_array(instruction, "vector", (self.layers.parameters,))
        if rows.width != self.width:
            raise MalformedError(
                f"rows have {rows.width} encoded columns, the plan needs {self.width}; the data holder must encode by "
                "the plan's schema"
            )
        if self.hidden:
            for key in keys[1:]:
                require_small(instruction[key])
        walk = _Walk(self, rows, chance)
        if self._stands_still(round_number):
            sent = walk.gradient_at(vector)
        elif self._has_control:
            common = read_array(instruction, "control", (self.layers.parameters,))
            sent = walk.change(vector, common - walk.gradient_at(vector))
        else:
            sent = walk.change(vector, None)
        # Post-processing of a value that is private already. It must not be refused: nothing is charged for a
        # refusal, so the same round could be asked for again and its noise drawn anew.
        finite = np.nan_to_num(sent, nan=0.0, posinf=LARGEST_CHANGE, neginf=-LARGEST_CHANGE)
        held: Vector = np.clip(finite, -LARGEST_CHANGE, LARGEST_CHANGE)
        return held

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:
        """The vector moved by the average change, or beside it the average control."""
        number = round_of(state)
        require_total(total, self.length(number))
        if contributors < 1:
            raise ValueError("requires contributors >= 1")
        average = total / contributors
        vector = read_array(state, "vector", (self.layers.parameters,))
        after = {"round": np.array([number + 1.0])}
        if self._stands_still(number):
            return {**after, "vector": vector, "control": average}
        return {**after, "vector": vector + average}

    def model(self, state: Arrays) -> Model:
        """A linear model without hidden layers, so that it can become a scorecard; else a network."""
        require_round(state, self.rounds + 1)
        vector = read_array(state, "vector", (self.layers.parameters,))
        return self.layers.model(vector, schema_digest=self.schema_digest)

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        if self.epsilon is None:
            return ("no noise was added: this training is NOT PRIVATE",)
        return (
            "floating-point Gaussian noise, added in 64-bit arithmetic, stands in for the exact Gaussian",
            *(
                ("the gradients of a network are summed in 32-bit arithmetic, whose rounding depends on everybody",)
                if self.hidden
                else ()
            ),
            "the number of rows of each data holder, which sets its sampling rate and its steps, is taken to be public",
            "each data holder's claim stands alone: a person at several data holders is not bounded by shared noise",
        )


class _Walk:
    """One round's steps at one data holder: every use of rows is one noisy sum over one Poisson batch."""

    def __init__(self, recipe: LocalSgd, rows: EncodedRows, chance: NoiseSource) -> None:
        self._recipe, self._rows, self._chance = recipe, len(rows), chance
        self._sums = clipped_sums(recipe.layers, rows, clipping_norm=recipe.clipping_norm)
        self._rate = recipe.schedule.sampling_rate(len(rows))
        self._deviation = recipe.schedule.noise_multiplier(len(rows)) * recipe.clipping_norm
        self._noise = np.empty((0, recipe.layers.parameters))

    def _noisy_gradient(self, vector: Vector, steps_left: int) -> Vector:
        """The mean over the expected batch, with noise; costs one step."""
        summed = self._sums.clipped_sum(vector, poisson_batch(self._rows, self._rate, self._chance))
        if self._deviation:
            summed += self._next_noise(steps_left)
        summed /= self._recipe.batch_size
        return summed

    def _next_noise(self, steps_left: int) -> Vector:
        """Noise of one step. It is drawn for several, each row of it is handed out once."""
        if not len(self._noise):
            size = self._recipe.layers.parameters
            steps = min(steps_left, max(1, NOISE_NUMBERS // size))
            self._noise = self._chance.gaussian(steps * size, self._deviation).reshape(steps, size)
        noise: Vector = self._noise[0]
        self._noise = self._noise[1:]
        return noise

    def gradient_at(self, vector: Vector) -> Vector:
        """The mean of one epoch of noisy gradients at `vector`, standing still."""
        steps = self._recipe.schedule.steps_per_epoch(self._rows)
        total = np.zeros_like(vector)
        for taken in range(steps):
            total += self._noisy_gradient(vector, steps - taken)
        return total / steps

    def change(self, start: Vector, correction: Vector | None) -> Vector:
        """How far the steps move from `start`, each with the same `correction` added to its gradient."""
        recipe, vector = self._recipe, start.copy()
        steps = recipe.local_epochs * recipe.schedule.steps_per_epoch(self._rows)
        with np.errstate(over="ignore", invalid="ignore"):
            for taken in range(steps):
                gradient = self._noisy_gradient(vector, steps - taken)
                if recipe.algorithm is LocalAlgorithm.FEDPROX:
                    gradient += recipe.proximal_strength * (vector - start)
                if correction is not None:
                    gradient += correction
                gradient *= recipe.learning_rate
                vector -= gradient
            return vector - start


def _unlawful(needed: str) -> MalformedError:
    return MalformedError(f"local_sgd: {needed}; the coordinator must correct the plan's settings")
