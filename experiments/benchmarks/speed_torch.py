"""The same steps in torch without privacy: what a private step is promised to be no slower than."""

from itertools import pairwise

import numpy as np

from experiments.benchmarks.speed import Work
from experiments.benchmarks.speed_steps import LEARNING_RATE, epochs_for, shuffled
from federated.rows import EncodedRows


def torch_round(rows: EncodedRows, hidden: tuple[int, ...], batch_size: int) -> Work:
    """As many steps of plain stochastic gradient descent as torch's users write it, in its usual 32-bit numbers."""
    import torch

    torch.set_num_threads(1)
    x = torch.tensor(rows.x, dtype=torch.float32)
    bad = torch.tensor(rows.bad, dtype=torch.float32)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise((rows.width, *hidden, 1)):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    loss = torch.nn.BCEWithLogitsLoss()
    chance = np.random.default_rng(1)
    epochs = epochs_for(len(rows), hidden, batch_size)

    def steps() -> None:
        for places in shuffled(len(rows), batch_size, epochs, chance):
            batch = places if isinstance(places, slice) else torch.from_numpy(places)
            optimizer.zero_grad()
            loss(network(x[batch])[:, 0], bad[batch]).backward()
            optimizer.step()

    return steps
