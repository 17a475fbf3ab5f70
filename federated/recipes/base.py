"""What a recipe is: rounds of noisy sums over people. It knows neither who holds whom nor how sums are kept secret."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from federated.model import Model
from federated.rows import LARGEST_CELL, EncodedRows
from privacy.accounting import Spend
from privacy.errors import MalformedError
from privacy.noise import NoiseSource, Vector

Arrays = Mapping[str, NDArray[np.float64]]
"""Named float64 arrays; the key "round" has shape (1,) and holds the number of the round to run, from 1.

A state whose "round" is `rounds + 1` is finished.
"""


class RecipeName(StrEnum):
    """The recipes a training plan may name: a closed set."""

    FIXED_HESSIAN = "fixed_hessian"
    UNCENTRED_FIXED_HESSIAN = "uncentred_fixed_hessian"
    GRADIENT_DESCENT = "gradient_descent"
    SUFFICIENT_STATISTICS = "sufficient_statistics"
    HISTOGRAM_SCORECARD = "histogram_scorecard"
    LOCAL_SGD = "local_sgd"
    OPACUS_FEDAVG = "opacus_fedavg"


class Recipe(Protocol):
    """Training as a walk: instruction out, contributions in, their sum advances the state. Pure but for `chance`."""

    @property
    def name(self) -> RecipeName:
        """Which recipe this is."""
        ...

    @property
    def rounds(self) -> int:
        """How many rounds it takes."""
        ...

    @property
    def is_private(self) -> bool:
        """False for the researcher's baseline without noise; its spends can never be charged."""
        ...

    @property
    def accountant(self) -> str:
        """How epsilon and delta are computed from the spends, for statements and reports."""
        ...

    def start(self) -> Arrays:
        """The coordinator's state before round 1; the same for everybody."""
        ...

    def instruction(self, state: Arrays) -> Arrays:
        """What the data holders are told in the round that `state` is about to run."""
        ...

    def length(self, round_number: int) -> int:
        """How many numbers each data holder releases in that round."""
        ...

    def reach(self, round_number: int, *, people: int, holders: int) -> float:
        """Largest absolute value that any number of the whole sum can have before noise, for the grid's range proof.

        `people` and `holders` are public bounds over the whole sum.
        """
        ...

    def sensitivity(self, round_number: int) -> float:
        """Largest L2 norm of what one person with share 1 adds to that round's sum; linear in the share."""
        ...

    def mu(self, round_number: int) -> float:
        """Gaussian-DP parameter that noise ADDED TO THE SUM gives that round, for a person with share 1.

        Infinite where none is added to the sum: a recipe whose noise is inside the contributions, or NOT PRIVATE.
        """
        ...

    def spend(self, round_number: int, rows: int) -> Spend:
        """Cost of that round to a person with share 1 at a data holder with `rows` permitted rows."""
        ...

    def contribution(self, round_number: int, instruction: Arrays, rows: EncodedRows, *, chance: NoiseSource) -> Vector:
        """One data holder's numbers, shape (length(round_number),), whose sum over data holders goes to `advance`.

        EXACT where `mu` is finite: the release adds the noise, as whole numbers on the grid. `chance` is for a recipe
        whose noise is inside. Raises MalformedError for an unlawful instruction.
        """
        ...

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:
        """The state after the round whose contributions, of `contributors` data holders, sum to `total`.

        A recipe that averages divides by `contributors`. Raises MalformedError.
        """
        ...

    def model(self, state: Arrays) -> Model:
        """The model in a finished state. Raises MalformedError if rounds are still missing."""
        ...

    def excludes(self) -> tuple[str, ...]:
        """What the stated epsilon and delta do not cover, as sentences for reports."""
        ...


def round_of(arrays: Arrays) -> int:
    """The round number that `arrays` carry. Raises MalformedError if it is missing or not a whole number from 1."""
    number = arrays.get("round")
    if number is None or number.shape != (1,) or not float(number[0]).is_integer() or not number[0] >= 1:
        raise MalformedError(
            'the arrays carry no lawful "round"; they are not a recipe\'s: the coordinator must start the run again'
        )
    return int(number[0])


def read_array(arrays: Arrays, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The array `name`, checked: present, of `shape`, finite, within 2^100. Raises MalformedError."""
    array = arrays.get(name)
    if array is None or array.shape != shape or not (np.abs(array) <= LARGEST_CELL).all():
        raise MalformedError(
            f'"{name}" is missing, not finite, too large or not of shape {shape}; '
            "the coordinator must send the round's instruction again or resume from its last checkpoint"
        )
    return array


def require_keys(arrays: Arrays, names: Collection[str]) -> None:
    """MalformedError unless `arrays` have exactly these names."""
    if arrays.keys() != set(names):
        raise MalformedError(
            f"the instruction has missing arrays {sorted(set(names) - arrays.keys())} and "
            f"{len(arrays.keys() - set(names))} unknown ones; the coordinator must send the one its recipe makes"
        )


def require_total(total: Vector, length: int) -> None:
    """MalformedError unless `total` has shape (`length`,) and is finite."""
    if total.shape != (length,) or not np.isfinite(total).all():
        raise MalformedError(
            f"the round's sum is not {length} finite numbers; the coordinator must abort the round and look at its log"
        )


def require_round(arrays: Arrays, round_number: int) -> None:
    """MalformedError unless `arrays` carry this very round."""
    if (found := round_of(arrays)) != round_number:
        raise MalformedError(
            f"the arrays are of round {found}, round {round_number} was due; the coordinator must send the right round"
        )
