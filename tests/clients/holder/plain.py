"""What a data holder's release holds under its masks, computed anew from its permitted rows."""

from clients.holder.node import Holder
from federated.encoder import Encoder
from federated.messages import Instruction, Letter
from federated.rows import EncodedRows
from privacy.consent.record import Purpose
from privacy.discrete import discrete_gaussian
from privacy.grid import Words
from privacy.noise import SeededNoise


def plain_words(holder: Holder, letter: Letter, *, joined: int) -> Words:
    """The integers of one round before masks: the exact sum on the grid and this data holder's part of the noise.

    Only in a seeded run, which is NOT PRIVATE, is the noise known to anybody. `joined` data holders share it.
    """
    assert isinstance(letter.header, Instruction)
    number = letter.header.round_number
    run = holder.run_named(letter.header.run)
    rows = holder.permitted(run, Purpose.TRAIN)
    encoder = Encoder(holder._schema)
    shape, plan = run.shape(number), run.plan
    encoded = EncodedRows(encoder.encode(rows.table), rows.outcome, shape.weights(rows.shares))
    assert plan.seed is not None
    label = f"{holder.name}/{run.digest}/{number}"
    exact = run.recipe.contribution(
        number, letter.arrays, encoded, chance=SeededNoise(plan.seed, f"{label}/contribution")
    )
    variance = shape.holder_variance(plan.trust, members=joined, dropouts_tolerated=plan.dropouts_tolerated)
    words = shape.grid.encode(exact)
    if not variance:
        return words
    noise: Words = shape.grid.from_steps(
        discrete_gaussian(shape.length, variance, SeededNoise(plan.seed, f"{label}/noise"))
    )
    return words + noise
