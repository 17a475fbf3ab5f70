"""What both sides must compute alike about one release: its name, what is signed about it, and its integer grid."""

import hashlib
import json
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from federated.plan import TrainingPlan
from federated.recipes.base import Recipe
from federated.scorecard import PointScale
from privacy.accounting import GaussianSpend, mu_of
from privacy.errors import MalformedError
from privacy.grid import Grid


def release_name(run: str, stage: int) -> str:
    """One release of one run; no two releases share a name, and a repeated one is the same bytes."""
    return f"{run}/{stage}"


def measurement_stage(recipe: Recipe) -> int:
    """The measurement's place among the releases of a run: after the last training round."""
    return recipe.rounds + 1


def mask_key_statement(run: str, public: bytes) -> bytes:
    """What a data holder signs about its mask key, so that nobody in between can replace it."""
    return json.dumps({"public": public.hex(), "run": run}, separators=(",", ":")).encode()


def update_statement(name: str, commitment: bytes, masked: NDArray[np.uint64]) -> bytes:
    """What a data holder signs about one release."""
    return signed_release(
        name, commitment, hashlib.sha256(np.ascontiguousarray(masked, dtype="<u8").tobytes()).digest()
    )


def signed_release(name: str, commitment: bytes, masked_sha256: bytes) -> bytes:
    """The same from the digest of the masked numbers alone (little-endian, 8 bytes each): what an auditor has."""
    statement = {"commitment": commitment.hex(), "masked_sha256": masked_sha256.hex(), "release": name}
    return json.dumps(statement, separators=(",", ":")).encode()


def grid_for_round(recipe: Recipe, number: int, plan: TrainingPlan) -> Grid:
    """The grid on which the sums of one training round are exact. MalformedError if they could overflow it."""
    return Grid.fit(
        people=plan.most_people,
        bound=recipe.bound(number),
        standard_deviation=recipe.noise_standard_deviation(number),
    )


def measurement_spend(plan: TrainingPlan) -> GaussianSpend:
    """What the released histogram costs a held-out person with share 1, who moves one number by at most 1."""
    return GaussianSpend(mu_of(plan.privacy.measurement_epsilon, plan.privacy.delta))


def measurement_noise(plan: TrainingPlan) -> float:
    """Standard deviation of the noise in each number of the summed histogram: sensitivity 1 over mu."""
    return 1 / measurement_spend(plan).mu


def grid_for_measurement(plan: TrainingPlan) -> Grid:
    """The grid on which the sums of score histograms are exact."""
    return Grid.fit(people=plan.most_people, bound=1.0, standard_deviation=measurement_noise(plan))


def measurement_edges(plan: TrainingPlan) -> NDArray[np.float64]:
    """Edges of the score bands of the released histogram, shape (bands + 1,): the scale in equal parts.

    The last band includes the scale's maximum. MalformedError for a plan without a lawful scale.
    """
    scale = scale_of(plan)
    edges = np.linspace(scale.minimum, scale.maximum, plan.measurement_bands + 1)
    edges[-1] = scale.maximum + 1
    return edges


def scale_of(plan: TrainingPlan) -> PointScale:
    """The plan's point scale. MalformedError unless it has every number of one, and lawful ones."""
    wanted = {field.name for field in fields(PointScale)}
    if plan.point_scale.keys() != wanted:
        raise MalformedError(f"The plan's point scale must have {sorted(wanted)}. The coordinator should correct it.")
    return PointScale(**plan.point_scale)
