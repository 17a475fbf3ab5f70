"""A made-up federation to audit this installation's own code on: no row, key or ledger of anybody is touched.

The numbers go the way that a data holder's go: the recipe's exact contribution, the public grid, discrete noise in
whole grid steps. The coordinator is the worst one may meet: it knows everybody else's rows and lies in its
instructions, so that one person moves every sum as far as the recipe lets them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clients.holder import release as holder_release
from clients.holder.release import noisy_words
from federated.characteristics import Category, Characteristic, Form, Numbers, Risk, Transform
from federated.derive import Derivation, Derive
from federated.encoder import Encoder
from federated.plan import PrivacyTerms, RosterEntry, TrainingPlan
from federated.recipes.base import Arrays, Recipe
from federated.recipes.registry import RecipeSettings, recipe_from, settings_to_dict
from federated.releases import Shape, shape_of_round
from federated.rows import EncodedRows
from federated.schema import CellType, Column, Outcome, Schema, Source
from federated.trust import Aggregation, TrustModel
from privacy.accounting import mu_of
from privacy.grid import Words
from privacy.noise import NoiseSource, Vector

Chances = Callable[[str], NoiseSource]
"""A fresh source for each label, as a data holder takes a fresh one for each release."""


def own_chance(label: str) -> NoiseSource:
    """What this installation's data holders draw from for a release of a plan without a seed."""
    return holder_release.chance_of(None, label)


DELTA: Final = 1e-5
HOLDERS: Final = 5
DROPOUTS: Final = 1
MOST_PEOPLE: Final = 100_000
MEASUREMENT_BANDS: Final = 400
FAR: Final = 1e6
"""A cell so large that whatever bounds a row has bounded it."""

CERTAIN: Final = -60.0
"""A log-odds at which the model is sure of good, so that a bad person's residual is 1 to a float's last bit."""


@dataclass(frozen=True, slots=True)
class Target:
    """A recipe under a claim: epsilon at `DELTA`, for everything that one run releases about a person with share 1."""

    recipe: Recipe
    plan: TrainingPlan
    width: int  # columns of an encoded row
    shapes: tuple[Shape, ...]  # of the rounds, from 1

    @property
    def epsilon(self) -> float:
        """The claim."""
        return self.plan.privacy.epsilon

    @property
    def mu(self) -> float:
        """The claim in Gaussian terms."""
        return mu_of(self.epsilon, DELTA)

    @property
    def rounds(self) -> range:
        """The numbers of its rounds."""
        return range(1, self.recipe.rounds + 1)

    def shape(self, number: int) -> Shape:
        """What a round's release is made of."""
        return self.shapes[number - 1]

    def exact(self, number: int, instruction: Arrays, rows: EncodedRows, chances: Chances) -> Vector:
        """A data holder's contribution, before the grid and the noise."""
        return self.recipe.contribution(number, instruction, rows, chance=chances("contribution"))

    def release(self, number: int, instruction: Arrays, rows: EncodedRows, chances: Chances) -> Words:
        """What a data holder that adds all the noise itself sends."""
        shape = self.shape(number)
        variance = shape.holder_variance(TrustModel.HOLDER_NOISE, members=1, dropouts_tolerated=0)
        exact = self.exact(number, instruction, rows, chances)
        return noisy_words(shape, exact, variance, chances(f"noise/{number}"))


def target(settings: RecipeSettings, encoder: Encoder) -> Target:
    """The recipe of `settings` in a plan of `HOLDERS` data holders that tolerates `DROPOUTS` drop-outs."""
    if settings.epsilon is None:
        raise ValueError("requires a recipe with noise")
    plan = TrainingPlan(
        version=1,
        name="audit",
        coordinator="auditor",
        schema_digest=encoder.schema.digest,
        recipe=settings_to_dict(settings),
        reason="an audit of this installation",
        trust=TrustModel.SHARED_NOISE,
        aggregation=Aggregation.SUM,
        dropouts_tolerated=DROPOUTS,
        privacy=PrivacyTerms(settings.epsilon, settings.delta, settings.epsilon, 1),
        roster=[RosterEntry(f"holder-{i}", bytes([i]) * 32) for i in range(HOLDERS)],
        minimum_holders=HOLDERS,
        minimum_people=1,
        most_people=MOST_PEOPLE,
        not_before=0,
        ends=1,
        point_scale={},
        measurement_bands=MEASUREMENT_BANDS,
        seed=None,
    )
    recipe = recipe_from(settings, encoder=encoder)
    shapes = tuple(shape_of_round(recipe, number + 1, plan) for number in range(recipe.rounds))
    return Target(recipe, plan, encoder.width, shapes)


def instructions(of: Target, rows: EncodedRows, chances: Chances, *, lying: bool) -> list[Arrays]:
    """What the coordinator sends, round by round, in one run over `rows`.

    An honest one makes each instruction from what was released before. A lying one instead centres nobody and starts
    everybody with a bad outcome at certain good.
    """
    state, sent = of.recipe.start(), []
    for number in of.rounds:
        instruction = of.recipe.instruction(state)
        sent.append(_lie(instruction) if lying else instruction)
        total = of.shape(number).grid.decode(of.release(number, sent[-1], rows, chances))
        state = of.recipe.advance(state, total, contributors=1)
    return sent


def _lie(instruction: Arrays) -> Arrays:
    told = dict(instruction)
    for name, array in instruction.items():
        if name == "centre":
            told[name] = np.zeros_like(array)
        elif name != "round":  # coefficients of the columns, then the intercept
            told[name] = np.append(np.full(array.size - 1, CERTAIN), 0.0)
    return told


def canaries(width: int) -> EncodedRows:
    """`width` people with a bad outcome, each far out on a coordinate of its own."""
    return EncodedRows(FAR * np.eye(width), np.ones(width), np.ones(width))


def nobody(width: int) -> EncodedRows:
    """No people at all."""
    return EncodedRows(np.zeros((0, width)), np.zeros(0), np.zeros(0))


def together(one: EncodedRows, other: EncodedRows) -> EncodedRows:
    """The people of both."""
    return EncodedRows(
        np.concatenate([one.x, other.x]),
        np.concatenate([one.bad, other.bad]),
        np.concatenate([one.share, other.share]),
    )


def chosen(rows: EncodedRows, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> EncodedRows:
    """The people of `rows` at which `which`, shape (n,), is true."""
    return EncodedRows(rows.x[which], rows.bad[which], rows.share[which])


def made_up_encoder(width: int) -> Encoder:
    """Encodes made-up amounts, each in two columns for its two attributes. Requires an even `width`."""
    names = [f"amount_{i}" for i in range(width // 2)]
    numbers = Numbers(Transform.IDENTITY, 1.0, -10, 10, (0.0,), 0.0, 1.0, ())
    derive = Derive(("",), Derivation.VALUE, None, (), (), 1.0, None)
    schema = Schema(
        name="made_up",
        title="Made-up amounts",
        source=Source("Made up", "This audit", "none", "none"),
        subject_column=None,
        outcome=Outcome("bad", (1,), (0,), "Made up."),
        columns=tuple(Column(name, "Amount", CellType.NUMBER, "", -10, 10, (), (), ()) for name in names),
        ignored=(),
        audit=(),
        characteristics=tuple(
            Characteristic(
                name, "Amount", "The amount", Category.CHARACTERISTICS, Risk.NONE, replace(derive, of=(name,)),
                Form.BINS, numbers, (),
            )
            for name in names
        ),
        radius=4.5,
        centred_radius=2.0,
    )  # fmt: skip
    return Encoder(schema)
