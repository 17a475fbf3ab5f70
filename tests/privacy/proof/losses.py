"""What one person moves, round by round, in a recipe's sums: the judge of charges and of noise alike."""

from collections.abc import Sequence

import numpy as np

from clients.audit.privacy_harness import Target, instructions, made_up_encoder, target, together
from federated.recipes.base import Arrays
from federated.recipes.registry import RecipeSettings
from federated.rows import EncodedRows
from privacy.audit.transcript import Step, mu_squared
from privacy.noise import NoiseSource, SeededNoise


def chances(label: str) -> NoiseSource:
    return SeededNoise(11, label)


def small(settings: RecipeSettings) -> Target:
    return target(settings, made_up_encoder(4))


def crowd(width: int, n: int = 12) -> EncodedRows:
    rng = np.random.default_rng(width)
    return EncodedRows(rng.normal(size=(n, width)), (rng.random(n) < 0.3).astype(float), np.ones(n))


def sent(of: Target, *, lying: bool) -> list[Arrays]:
    return instructions(of, crowd(of.width), chances, lying=lying)


def losses(of: Target, instructed: Sequence[Arrays], person: EncodedRows) -> list[float]:
    """|change|^2 / variance of each round, on the grid."""
    others, found = crowd(of.width), []
    for number, instruction in zip(of.rounds, instructed, strict=True):
        shape = of.shape(number)
        with_person, without = (
            shape.grid.encode(of.exact(number, instruction, rows, chances))
            for rows in (together(others, person), others)
        )
        found.append(mu_squared([Step(with_person, without, shape.variance)]))
    return found
