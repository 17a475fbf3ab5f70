"""A run that a data holder takes part in: the plan it checked, under the run's name."""

from dataclasses import dataclass

import msgspec

from clients.holder.settings import HolderSettings
from federated.encoder import Encoder
from federated.messages import Opening
from federated.plan import SignedPlan, TrainingPlan, read_plan, recipe_of, run_id
from federated.plan_checks import require_sound
from federated.recipes.base import Recipe
from federated.releases import Shape, measurement_stage, shape_of_measurement, shape_of_round
from federated.schema import Schema
from privacy.consent.lane import Head, read_checkpoint
from privacy.errors import MalformedError, RefusalCode, RefusalError


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
    plan = read_plan(signed, bytes.fromhex(settings.policy.coordinator_key))
    lane = settings.holder
    if lane not in opening.checkpoints:
        raise RefusalError(
            "The run pins no head of this data holder's lane; the coordinator should pin the newest checkpoint.",
            RefusalCode.LANE,
        )
    pinned = read_checkpoint(opening.checkpoints[lane], f"fedcredit/{lane}", settings.registry.public)
    return Run(run_id(signed, opening.checkpoints), plan, signed.digest, recipe_of(plan, encoder), pinned)


def check_terms(run: Run, settings: HolderSettings, schema: Schema, *, identity: bytes, at: int) -> None:
    """Hold the plan's terms against this data holder's policy, which has the last word.

    RefusalError says which term stands against it.
    """
    plan, policy = run.plan, settings.policy
    # Nobody pays for both: who is in the training sample is not measured.
    epsilon = max(plan.privacy.epsilon, plan.privacy.measurement_epsilon)
    for holds, text, code in (
        (plan.coordinator == policy.coordinator, "it comes from another coordinator", RefusalCode.POLICY),
        (run.identities.get(settings.holder) == identity, "its roster lacks us", RefusalCode.PLAN),
        (
            # Invented data holders would add no noise, and unmask us: everybody else in the roster must be known.
            all(policy.peers.get(name) == key.hex() for name, key in run.identities.items() if name != settings.holder),
            "its roster names a data holder that is not among our peers, or with another identity",
            RefusalCode.POLICY,
        ),
        (
            # The threshold is ours and one: a coordinator that could move it would count our people by asking.
            plan.minimum_people <= policy.fewest_people,
            f"it asks whether we have {plan.minimum_people} people, and we tell of {policy.fewest_people} only",
            RefusalCode.POLICY,
        ),
        (
            # A sum with room for fewer could run over, and whether it does would depend on people's rows.
            plan.most_people >= policy.most_people,
            f"its sums have room for {plan.most_people} people, and we count on {policy.most_people}",
            RefusalCode.POLICY,
        ),
        (plan.schema_digest == schema.digest, "it is for another schema", RefusalCode.SCHEMA),
        (
            run.recipe.name in policy.recipes,
            f"recipe {run.recipe.name} is not allowed here",
            RefusalCode.POLICY,
        ),
        (run.recipe.is_private, "it adds no noise", RefusalCode.POLICY),
        (
            plan.trust in policy.trust_models,
            f"trust model {plan.trust} is not allowed here",
            RefusalCode.POLICY,
        ),
        (
            epsilon <= policy.largest_epsilon and plan.privacy.delta <= policy.largest_delta,
            f"it costs epsilon {epsilon:g} at delta {plan.privacy.delta:g}, and at most {policy.largest_epsilon:g} "
            f"at {policy.largest_delta:g} is allowed here",
            RefusalCode.BUDGET,
        ),
        (plan.seed is None or policy.accept_seeded_noise, "its noise is seeded", RefusalCode.POLICY),
        (plan.not_before <= at < plan.ends, "it is not due now", RefusalCode.PLAN),
    ):
        if not holds:
            raise RefusalError(f"The training plan is refused: {text}. Its coordinator may propose another.", code)


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
