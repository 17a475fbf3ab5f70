"""A private step against the same step without privacy, in numpy and in torch: same shapes, batches and rows.

Every contender takes the steps of one round: batches drawn, rows gathered, gradients, and the vector moved. Ours draws
Poisson batches, clips every person's gradient and adds noise as well; the others deal out shuffled batches.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.speed import Work
from federated.model import probability_of
from federated.recipes.layers import Layers
from federated.recipes.local_sgd import LocalAlgorithm, LocalSgd
from federated.rows import EncodedRows
from privacy.noise import SecureNoise

LEARNING_RATE = 0.1
FEWEST_STEPS = {True: 24, False: 96}  # in a round of a network, or not: what is set up once a round must not show

Numbers = NDArray[Any]  # float64 or float32
Places = slice | np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def epochs_for(people: int, hidden: tuple[int, ...], batch_size: int) -> int:
    """Epochs of a round of at least `FEWEST_STEPS` steps."""
    return -(-FEWEST_STEPS[bool(hidden)] // (-(-people // batch_size)))


def private_round(rows: EncodedRows, hidden: tuple[int, ...], batch_size: int) -> Work:
    """A round of the project's own local private steps at epsilon 1, as a data holder takes it."""
    recipe = LocalSgd(
        algorithm=LocalAlgorithm.FEDAVG, proximal_strength=0.0, hidden=hidden, learning_rate=LEARNING_RATE,
        batch_size=batch_size, local_epochs=epochs_for(len(rows), hidden, batch_size), rounds=1, clipping_norm=1.0,
        epsilon=1.0, delta=1e-5, width=rows.width, schema_digest="0" * 64,
    )  # fmt: skip
    instruction, chance = recipe.instruction(recipe.start()), SecureNoise()
    return lambda: recipe.contribution(1, instruction, rows, chance=chance)


def numpy_round(rows: EncodedRows, hidden: tuple[int, ...], batch_size: int) -> Work:
    """As many steps of plain stochastic gradient descent in numpy; like ours, in 32 bits for networks, else in 64."""
    layers, chance = Layers(rows.width, hidden), np.random.default_rng(1)
    kind = np.float32 if hidden else np.float64
    x, bad = rows.x.astype(kind), rows.bad.astype(kind)
    rate = kind(LEARNING_RATE)

    def steps() -> Numbers:
        vector: Numbers = layers.start().astype(kind)
        for batch in shuffled(len(rows), batch_size, epochs_for(len(rows), hidden, batch_size), chance):
            vector -= rate * mean_gradient(layers, vector, x[batch], bad[batch])
        return vector

    return steps


def mean_gradient(layers: Layers, vector: Numbers, x: Numbers, bad: Numbers) -> Numbers:
    """Of the mean log loss of rows (n, width) with outcomes (n,); shaped like `vector`, and of its precision."""
    inputs, weights = [x], layers.split(vector)
    for matrix, offset in weights[:-1]:
        after = inputs[-1] @ matrix.T
        after += offset
        inputs.append(np.maximum(after, 0.0, out=after))
    matrix, offset = weights[-1]
    back = ((probability_of(inputs[-1] @ matrix[0] + offset[0]) - bad) / len(x))[:, None]
    parts = [back.sum(axis=0), (back.T @ inputs[-1]).ravel()]
    for layer in range(len(weights) - 2, -1, -1):
        back = back @ weights[layer + 1][0]
        back *= inputs[layer + 1] > 0
        parts += [back.sum(axis=0), (back.T @ inputs[layer]).ravel()]
    return np.concatenate(parts[::-1])


def shuffled(people: int, batch_size: int, epochs: int, chance: np.random.Generator) -> Iterator[Places]:
    """The batches of a round, everybody once an epoch; all of them at once need no gathering."""
    for _ in range(epochs):
        if batch_size >= people:
            yield slice(None)
            continue
        order = chance.permutation(people)
        for start in range(0, people, batch_size):
            yield order[start : start + batch_size]
