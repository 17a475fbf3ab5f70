"""The training plan: everything agreed before the first round. It is signed, and its digest is its name."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from federated.encoder import Encoder
from federated.recipes.base import Recipe
from federated.recipes.registry import recipe_from, settings_from_dict
from federated.trust import Aggregation, TrustModel
from privacy.consent.signing import PayloadType, SigningKey, verify
from privacy.errors import MalformedError, RefusalCode, RefusalError

HOLDER_ID = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
LARGEST_PEOPLE = 100_000_000


class RosterEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data holder of the plan."""

    holder: str
    identity: bytes  # Ed25519 public key


class PrivacyTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one run may cost a person who takes part in full; neighbouring relation: add or remove one person."""

    epsilon: float
    delta: float
    measurement_epsilon: float  # for held-out people, whose scores make the histogram that is released
    releases_per_window: int  # how many runs of this kind a person's cap must cover


class TrainingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The terms of a run. `seed` is None unless the run is NOT PRIVATE."""

    version: int
    name: str
    coordinator: str
    schema_digest: str
    recipe: dict[str, Any]
    reason: str  # why this recipe, for people
    trust: TrustModel
    aggregation: Aggregation
    dropouts_tolerated: int  # data holders that may leave, or collude with the coordinator, in one round
    privacy: PrivacyTerms
    roster: list[RosterEntry]
    minimum_holders: int
    minimum_people: int  # per data holder
    most_people: int  # public bound over all data holders, for the proof that sums cannot overflow
    not_before: int  # UTC seconds; the consent of everybody used must cover [not_before, ends]
    ends: int
    point_scale: dict[str, float]
    measurement_bands: int
    seed: int | None


@dataclass(frozen=True, slots=True)
class SignedPlan:
    """A plan as it travels: the signed bytes, never re-encoded by anybody."""

    payload: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, in hex: the plan's name."""
        return hashlib.sha256(self.payload).hexdigest()


def sign_plan(plan: TrainingPlan, key: SigningKey) -> SignedPlan:
    """The plan in canonical JSON with the coordinator's signature."""
    payload = msgspec.json.encode(_checked(plan), order="sorted")
    return SignedPlan(payload, key.sign(PayloadType.PLAN, payload))


def read_plan(signed: SignedPlan, coordinator_key: bytes) -> TrainingPlan:
    """The plan, after checking the coordinator's signature (TamperingError) and every field (MalformedError)."""
    verify(coordinator_key, PayloadType.PLAN, signed.payload, signed.signature)
    try:
        plan = msgspec.json.decode(signed.payload, type=TrainingPlan, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(
            f"The training plan cannot be read: {error}. The coordinator should write it anew."
        ) from error
    if msgspec.json.encode(plan, order="sorted") != signed.payload:
        raise MalformedError("The training plan is not in canonical form. The coordinator should write it anew.")
    return _checked(plan)


def recipe_of(plan: TrainingPlan, encoder: Encoder) -> Recipe:
    """The plan's recipe over the columns of `encoder`. RefusalError (schema) for another schema's."""
    if encoder.schema.digest != plan.schema_digest:
        raise RefusalError(
            "The training plan is for another schema than the one here. Coordinator and data holders should agree on "
            "one schema file, then the coordinator writes the plan anew.",
            RefusalCode.SCHEMA,
        )
    return recipe_from(settings_from_dict(plan.recipe), encoder=encoder)


def run_id(signed: SignedPlan, checkpoints: dict[str, str]) -> str:
    """The name of one run of a plan: 32 hex digits over the plan's digest and the pinned lane heads.

    The same plan over the same lanes is the same run, so a repeated run repeats its releases and charges nobody
    twice; after a withdrawal the heads differ and so does the run.
    """
    pinned = msgspec.json.encode([signed.digest, checkpoints], order="sorted")
    return hashlib.sha256(b"fedcredit/run/v1" + pinned).hexdigest()[:32]


def _is_line(text: str, most: int) -> bool:
    """Without line breaks, escapes and marks of direction: nobody's text passes for another line, or for ours."""
    return 0 < len(text) <= most and text.isprintable()


def _checked(plan: TrainingPlan) -> TrainingPlan:
    holders = [entry.holder for entry in plan.roster]
    privacy, recipe = plan.privacy, settings_from_dict(plan.recipe)
    for holds, text in (
        (plan.version == 1, "version must be 1"),
        (len(set(holders)) == len(holders) > 0, "the roster must name each data holder once"),
        (
            all(HOLDER_ID.match(holder) for holder in holders),
            "a data holder's id must be lower case, digits, hyphens",
        ),
        (
            all(len(entry.identity) == 32 for entry in plan.roster),
            "an identity must be an Ed25519 public key",
        ),
        (0 < privacy.epsilon <= 100, "epsilon must lie in (0, 100]"),
        (0 < privacy.measurement_epsilon <= 100, "the measurement's epsilon must lie in (0, 100]"),
        (0 < privacy.delta < 0.01, "delta must lie in (0, 0.01)"),
        (
            (recipe.epsilon, recipe.delta) == (privacy.epsilon, privacy.delta),
            "the recipe's epsilon and delta must be those of the privacy terms",
        ),
        (1 <= privacy.releases_per_window <= 1000, "releases per window must lie in 1..1000"),
        (1 <= plan.minimum_holders <= len(holders), "the fewest data holders must lie in 1..roster"),
        (
            0 <= plan.dropouts_tolerated < plan.minimum_holders,
            "the drop-outs tolerated must be fewer than the fewest data holders",
        ),
        (
            # Otherwise a coordinator that tells half of them another story about who left could unmask one update.
            not plan.trust.is_masked or 3 * plan.dropouts_tolerated < plan.minimum_holders >= 2,
            "a secure sum needs at least 2 data holders, and more than 3 for each drop-out tolerated",
        ),
        (
            plan.aggregation is Aggregation.SUM or not plan.trust.is_masked,
            f"{plan.aggregation} needs to see single updates, which {plan.trust} hides",
        ),
        # All of them are printed to people who decide by what they read.
        (_is_line(plan.name, 64), "its name must have 1 to 64 printable characters"),
        (_is_line(plan.coordinator, 64), "its coordinator's name must have 1 to 64 printable characters"),
        (_is_line(plan.reason, 500), "the reason for the recipe must have 1 to 500 printable characters"),
        (plan.minimum_people >= 1, "the fewest people must be at least 1"),
        (1 <= plan.most_people <= LARGEST_PEOPLE, f"the most people must lie in 1..{LARGEST_PEOPLE}"),
        (0 <= plan.not_before < plan.ends, "the plan must end after it begins"),
        (len({entry.identity for entry in plan.roster}) == len(holders), "each data holder needs its own identity"),
        (2 <= plan.measurement_bands <= 1000, "measurement bands must lie in 2..1000"),
    ):
        if not holds:
            raise MalformedError(f"The training plan does not add up: {text}. The coordinator should correct it.")
    return plan
