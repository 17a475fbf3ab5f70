"""A recipe run over rows in memory: the same sums as a federation's, without its messages, masks and consents.

The noise of a sum is drawn as a float Gaussian of deviation sensitivity / mu, which stands in for the whole numbers of
a release (`federated.releases`): fast, and fit for measuring accuracy on public data, not for protecting anybody.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import assert_never

import numpy as np

from federated.model import Model
from federated.recipes.base import Arrays, Recipe, round_of
from federated.rows import EncodedRows
from federated.trust import TrustModel
from privacy.noise import NoiseSource, Vector

Combine = Callable[[int, list[Vector]], tuple[Vector, int]]
"""From a round's number and the updates that the coordinator receives in it to their total, and of how many it is."""


def run_centrally(
    recipe: Recipe,
    parts: Sequence[EncodedRows],
    chance: NoiseSource,
    *,
    trust: TrustModel = TrustModel.SHARED_NOISE,
    dropouts: int = 0,
    combine: Combine | None = None,
) -> Model:
    """The model that `recipe` makes of the rows of each part (one a data holder; all stay to the end).

    `dropouts` is how many of them the shared noise is made to spare. `combine` replaces the plain sum: for weights,
    robust aggregation or an attack. It gets each update as its data holder sends it, so before the noise where that is
    not the holder's own. Noise is drawn from `chance` once a sum or once a holder, in order of the parts.
    """
    state = recipe.start()
    while round_of(state) <= recipe.rounds:
        state = one_round(recipe, state, parts, chance, trust=trust, dropouts=dropouts, combine=combine)
    return recipe.model(state)


def one_round(
    recipe: Recipe,
    state: Arrays,
    parts: Sequence[EncodedRows],
    chance: NoiseSource,
    *,
    trust: TrustModel = TrustModel.SHARED_NOISE,
    dropouts: int = 0,
    combine: Combine | None = None,
) -> Arrays:
    """The state after the round that `state` is about to run; as in `run_centrally`."""
    number = round_of(state)
    deviation = recipe.sensitivity(number) / recipe.mu(number)
    own_deviation = deviation if trust is TrustModel.HOLDER_NOISE else 0.0
    updates = _updates(recipe, state, parts, chance, own_deviation)
    total, contributors = (_sum(updates), len(parts)) if combine is None else combine(number, list(updates))
    if trust is not TrustModel.HOLDER_NOISE and deviation > 0:
        whole = math.sqrt(variances_in_the_sum(trust, holders=len(parts), dropouts=dropouts))
        total = total + chance.gaussian(len(total), deviation * whole)
    return recipe.advance(state, total, contributors=contributors)


def variances_in_the_sum(trust: TrustModel, *, holders: int, dropouts: int) -> float:
    """Noise in a sum that nobody left, in units of the variance that one sum needs.

    With shared noise each of K data holders adds 1 / (K - f) of it, so that enough is left when f leave.
    """
    if not 0 <= dropouts < holders:
        raise ValueError("requires 0 <= dropouts < holders")
    match trust:
        case TrustModel.SHARED_NOISE:
            return holders / (holders - dropouts)
        case TrustModel.HOLDER_NOISE:
            return float(holders)
        case TrustModel.COORDINATOR_NOISE:
            return 1.0
        case _:
            assert_never(trust)


def weighted(weights: Sequence[float]) -> Combine:
    """A sum whose average over the data holders is by `weights` (they sum to 1) instead of by heads."""
    factors = np.asarray(weights) * len(weights)
    return lambda _, updates: (np.asarray(factors @ np.array(updates)), len(updates))


def _updates(
    recipe: Recipe, state: Arrays, parts: Sequence[EncodedRows], chance: NoiseSource, own_deviation: float
) -> Iterator[Vector]:
    instruction = recipe.instruction(state)
    for part in parts:
        update = recipe.contribution(round_of(state), instruction, part, chance=chance)
        yield update if own_deviation == 0 else update + chance.gaussian(len(update), own_deviation)


def _sum(updates: Iterator[Vector]) -> Vector:
    # One after the other: a thousand data holders need memory for one update, not for a thousand.
    total = next(updates).copy()
    for update in updates:
        total += update
    return total
