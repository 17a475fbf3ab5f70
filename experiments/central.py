"""A recipe run over rows in memory: the same sums as a federation's, without its messages, masks and consents."""

from collections.abc import Sequence

import numpy as np

from federated.model import Model
from federated.recipes.base import Recipe, round_of
from federated.rows import EncodedRows
from privacy.noise import NoiseSource


def run_centrally(
    recipe: Recipe,
    parts: Sequence[EncodedRows],
    chance: NoiseSource,
    *,
    shares: Sequence[float] | None = None,
) -> Model:
    """The model that `recipe` makes of the rows of each part (one a data holder).

    `shares` are the parts' public fractions of noise or of the average and sum to 1; equal when None.
    """
    fractions = [1 / len(parts)] * len(parts) if shares is None else list(shares)
    state = recipe.start()
    while (number := round_of(state)) <= recipe.rounds:
        instruction = recipe.instruction(state)
        contributions = [
            recipe.contribution(number, instruction, part, chance=chance, noise_share=fraction)
            for part, fraction in zip(parts, fractions, strict=True)
        ]
        state = recipe.advance(state, np.sum(contributions, axis=0))
    return recipe.model(state)
