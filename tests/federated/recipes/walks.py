"""Walking a recipe in one process, with its noise added as floats; made-up people and adversarial ones."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from federated.recipes.base import Arrays, Recipe
from federated.rows import EncodedRows
from privacy.grid import Grid, add_words
from privacy.noise import NoiseSource, SeededNoise

Floats = NDArray[np.float64]
P = 5
DELTA = 1e-5


def people(n: int, seed: int = 0, width: int = P) -> EncodedRows:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, width)) * 0.7 + 0.3
    bad = (random.random(n) < 1 / (1 + np.exp(1 - 2 * x[:, 0] + x[:, 1]))).astype(float)
    return EncodedRows(x, bad, random.uniform(0.1, 1, size=n))


def part(rows: EncodedRows, indices: NDArray[np.intp]) -> EncodedRows:
    return EncodedRows(rows.x[indices], rows.bad[indices], rows.share[indices])


def parted(rows: EncodedRows, holders: int, split: str) -> list[EncodedRows]:
    """Everybody at one of so many data holders: evenly, with skewed sizes ("sizes") or sorted by outcome ("labels")."""
    order = np.argsort(rows.bad, kind="stable") if split == "labels" else np.arange(len(rows))
    edges = (np.linspace(0, 1, holders + 1) ** (3 if split == "sizes" else 1) * len(rows)).astype(int)
    return [part(rows, order[low:high]) for low, high in itertools.pairwise(edges)]


def empty(width: int = P) -> EncodedRows:
    return EncodedRows(np.zeros((0, width)), np.zeros(0), np.zeros(0))


def one(x: Sequence[float] | Floats, bad: float = 1.0, share: float = 1.0) -> EncodedRows:
    return EncodedRows(np.array([x], dtype=float), np.array([bad]), np.array([share]))


def deviation(made: Recipe, number: int) -> float:
    return made.sensitivity(number) / made.mu(number)


def released(made: Recipe, number: int, state: Arrays, holders: Sequence[EncodedRows]) -> Floats:
    """The round's exact sum."""
    told, chance = made.instruction(state), SeededNoise(0, "none is drawn")
    parts = [made.contribution(number, told, rows, chance=chance) for rows in holders]
    assert all(numbers.shape == (made.length(number),) for numbers in parts)
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def walk(
    made: Recipe, holders: Sequence[EncodedRows], chance: NoiseSource | None, *, through_grid: bool = False
) -> list[Arrays]:
    """States before each round and after the last. Noise from `chance`, or none."""
    states = [made.start()]
    for number in range(1, made.rounds + 1):
        if through_grid:
            grid = Grid.fit(reach=made.reach(number, people=10**5, holders=len(holders)), deviation=0.0)
            exact = [released(made, number, states[-1], [rows]) for rows in holders]
            total = grid.decode(add_words(grid.encode(numbers) for numbers in exact))
        else:
            total = released(made, number, states[-1], holders)
        if chance is not None and math.isfinite(made.mu(number)):
            total = total + chance.gaussian(len(total), deviation(made, number))
        states.append(made.advance(states[-1], total, contributors=len(holders)))
    return states


def auc(log_odds: Floats, bad: Floats) -> float:
    wins = stats.mannwhitneyu(log_odds[bad == 1], log_odds[bad == 0]).statistic
    return float(wins / (bad.sum() * (1 - bad).sum()))


def unit(x: Floats, centre: Floats, radius: float) -> Floats:
    """Unit rows, written out: columns clipped and scaled to sqrt(0.9), then sqrt(0.1)."""
    centred = x - centre
    clipped = centred * np.minimum(1, radius / np.maximum(np.linalg.norm(centred, axis=1), 1e-300))[:, None]
    return np.hstack([math.sqrt(0.9) * clipped / radius, np.full((len(x), 1), math.sqrt(0.1))])


def optimum(rows: EncodedRows, centre: Floats, radius: float) -> Floats:
    """Coefficients of unit rows that minimise the weighted logistic loss, by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    fitted.fit(unit(rows.x, centre, radius), rows.bad, sample_weight=rows.share)
    return np.asarray(fitted.coef_[0], dtype=np.float64)
