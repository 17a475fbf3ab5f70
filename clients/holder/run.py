"""A run that a data holder takes part in: the plan it checked, under the run's name."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from clients.holder.settings import HolderSettings
from federated.encoder import Encoder
from federated.messages import Opening
from federated.plan import SignedPlan, TrainingPlan, read_plan, recipe_of, run_id
from federated.plan_checks import require_sound
from federated.recipes.base import Recipe
from federated.releases import Shape, measurement_stage, shape_of_measurement, shape_of_round
from privacy.consent.lane import Head, read_checkpoint
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError


@dataclass(frozen=True, slots=True)
class Run:
    """A plan, its recipe, the lane's head that it is pinned to, and the name of this run of it."""

    name: str
    plan: TrainingPlan
    digest: str  # of the plan
    recipe: Recipe
    pinned: Head  # of this data holder's lane

    @property
    def identities(self) -> dict[str, bytes]:
        """The Ed25519 public key of every data holder in the plan's roster."""
        return {entry.holder: entry.identity for entry in self.plan.roster}

    def shape(self, stage: int) -> Shape:
        """What the release of `stage` is made of; MalformedError if its sums could overflow every grid."""
        if stage == measurement_stage(self.recipe):
            return shape_of_measurement(self.plan)
        return shape_of_round(self.recipe, stage, self.plan)


def run_of(opening: Opening, settings: HolderSettings, *, encoder: Encoder) -> Run:
    """The run that a coordinator proposes, its signatures and form checked, its terms not yet.

    `encoder` is of this data holder's schema. TamperingError or MalformedError if the plan is not what this data
    holder's coordinator signed; RefusalError (schema) if it is for another schema.
    """
    signed = SignedPlan(opening.plan, opening.plan_signature)
    plan = read_signed(signed, settings.policy.coordinator_keys)
    lane = settings.holder
    if lane not in opening.checkpoints:
        raise RefusalError(
            "The run pins no head of this data holder's lane; the coordinator should pin the newest checkpoint.",
            RefusalCode.LANE,
        )
    pinned = read_checkpoint(opening.checkpoints[lane], f"fedcredit/{lane}", settings.registry.public)
    return Run(run_id(signed, opening.checkpoints), plan, signed.digest, recipe_of(plan, encoder), pinned)


def read_signed(signed: SignedPlan, keys: Sequence[str]) -> TrainingPlan:
    """The plan, signed by one of `keys`; TamperingError if it is by none of them."""
    for key in keys:
        try:
            return read_plan(signed, bytes.fromhex(key))
        except TamperingError:
            continue
    raise TamperingError(
        "The training plan is signed by none of the keys in policy.coordinator_keys. If the coordinator has a new key, "
        "the data holder should compare it by telephone and add it; else the plan is somebody else's: report it."
    )


def check_sums(run: Run) -> None:
    """RefusalError (plan) unless the sums of all stages fit their grids and the noise on those grids is enough."""
    try:
        require_sound(run.recipe, run.plan)
    except MalformedError as error:
        raise RefusalError(f"The training plan is refused. {error}", RefusalCode.PLAN) from None


def encode_opening(opening: Opening) -> bytes:
    """An opening as this data holder keeps it, so that it knows the run again after a restart."""
    return msgspec.msgpack.encode(opening)


def decode_opening(kept: bytes) -> Opening:
    """The opening that `encode_opening` wrote."""
    return msgspec.msgpack.decode(kept, type=Opening)
