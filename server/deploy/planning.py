"""A training plan from the settings and the enrolled data holders: checked as data holders will, signed, and told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from federated.encoder import Encoder
from federated.exclusions import exclusions
from federated.files import write_whole
from federated.plan import PrivacyTerms, RosterEntry, SignedPlan, TrainingPlan, read_plan, recipe_of, sign_plan
from federated.recipes.base import Recipe, RecipeName
from federated.recipes.by_name import settings_named
from federated.recipes.choice import choose
from federated.recipes.registry import RecipeSettings, settings_to_dict
from federated.releases import measurement_edges
from federated.round_log import Event
from federated.schema import Schema
from federated.schema_toml import load_schema
from privacy.errors import RefusalCode, RefusalError, UsageError
from privacy.secure_sum.secrets import sealed_bytes
from server.deploy.members import Member, Members
from server.deploy.round_log import RoundLog
from server.deploy.settings import Home
from server.plan_checks import checked_stages
from server.stage import Stage

CLOCKS_APART_S: Final = 120
"""A plan holds from this much before it is written, so that data holders whose clocks are behind can answer at once.
Who consented since is in the next plan."""

_WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Told:
    """A plan and what follows from it, as it is shown to people before they sign anything themselves."""

    signed: SignedPlan
    plan: TrainingPlan
    recipe: Recipe
    stages: Sequence[Stage]

    @classmethod
    def of(cls, signed: SignedPlan, plan: TrainingPlan, schema: Schema) -> "Told":
        """MalformedError, with the reason, for a plan that does not add up."""
        recipe = recipe_of(plan, Encoder(schema))
        measurement_edges(plan)  # of the scale, which nobody else looks at before scores are counted
        return cls(signed, plan, recipe, checked_stages(recipe, plan))

    @property
    def exchanges(self) -> int:
        """How often everybody is asked: joining, dealing and delivery once, then each release, with its masks."""
        masked = self.plan.trust.is_masked
        return (3 if masked else 1) + (2 if masked else 1) * len(self.stages)

    @property
    def bytes_sent(self) -> int:
        """What each data holder sends in numbers and sealed shares, if everybody takes part; headers come on top."""
        numbers = sum(_WORD_BYTES * stage.shape.length for stage in self.stages)
        others = len(self.plan.roster) - 1
        return numbers + (others * sealed_bytes(len(self.stages)) if self.plan.trust.is_masked else 0)

    @property
    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover, if everybody takes part."""
        return exclusions(self.plan, self.recipe, holders=len(self.plan.roster))

    def to_dict(self) -> dict[str, Any]:
        """Everything by name."""
        privacy = self.plan.privacy
        return {
            "digest": self.signed.digest,
            "name": self.plan.name,
            "holders": [entry.holder for entry in self.plan.roster],
            "recipe": self.recipe.name.value,
            "reason": self.plan.reason,
            "trust": self.plan.trust.value,
            "aggregation": self.plan.aggregation.value,
            "dropouts_tolerated": self.plan.dropouts_tolerated,
            "minimum_holders": self.plan.minimum_holders,
            "minimum_people": self.plan.minimum_people,
            "most_people": self.plan.most_people,
            "privacy": {
                "epsilon": privacy.epsilon,
                "measurement_epsilon": privacy.measurement_epsilon,
                "delta": privacy.delta,
                "unit": "person",
                "neighbouring_relation": "add or remove one person",
                "accountant": self.recipe.accountant,
                "excludes": list(self.excludes),
            },
            "rounds": self.recipe.rounds,
            "exchanges": self.exchanges,
            "bytes_sent_by_each_holder": self.bytes_sent,
            "not_before": self.plan.not_before,
            "ends": self.plan.ends,
            "not_private": self.plan.seed is not None,
        }


def make_plan(
    home: Home, name: str, *, holders: Sequence[str] | None, at: int, seed: int | None = None
) -> tuple[TrainingPlan, Schema]:
    """The plan that the settings give for the enrolled data holders at the instant `at`, and the schema it is for.

    `holders` are some of them, None is all. With a seed it is NOT PRIVATE. UsageError for who is not enrolled,
    RefusalError for too few.
    """
    terms, schema = home.settings.plan, load_schema(home.schema)
    roster = [RosterEntry(holder, bytes.fromhex(member.identity)) for holder, member in _chosen(home, holders).items()]
    if len(roster) < terms.minimum_holders:
        raise RefusalError(
            f"{len(roster)} data holders are enrolled for this plan and plan.minimum_holders is "
            f"{terms.minimum_holders}. The coordinator should enrol more with `fedcredit coordinator enroll`, or "
            "change the setting as far as the data holders' policies allow.",
            RefusalCode.COHORT,
        )
    recipe, reason = _recipe(home, schema)
    plan = TrainingPlan(
        version=1,
        name=name,
        coordinator=home.settings.name,
        schema_digest=schema.digest,
        recipe=settings_to_dict(recipe),
        reason=reason,
        trust=terms.trust,
        aggregation=terms.aggregation,
        dropouts_tolerated=terms.dropouts_tolerated,
        privacy=PrivacyTerms(terms.epsilon, terms.delta, terms.measurement_epsilon, terms.releases_per_window),
        roster=roster,
        minimum_holders=terms.minimum_holders,
        minimum_people=terms.minimum_people,
        most_people=terms.most_people,
        not_before=at - CLOCKS_APART_S,
        ends=at + round(3600 * terms.valid_hours),
        point_scale={key: float(value) for key, value in msgspec.structs.asdict(terms.point_scale).items()},
        measurement_bands=terms.measurement_bands,
        seed=seed,
    )
    return plan, schema


def sign(home: Home, plan: TrainingPlan, schema: Schema, *, at: int) -> Told:
    """Check, sign and log the plan, and make it the current one.

    MalformedError, with the reason, if it does not add up. Whatever goes wrong, the earlier plan stays the current one.
    """
    key = home.key()
    signed = sign_plan(plan, key)
    told = Told.of(signed, plan, schema)
    log = RoundLog(home.round_log, key)
    content = msgspec.json.encode(signed)
    try:
        home.plans.mkdir(exist_ok=True)
    except OSError as error:
        raise RefusalError(
            f"plans/ could not be made ({error.strerror}); nothing was signed. Make room or give write permission, "
            "then run the command again.",
            RefusalCode.INTERNAL,
        ) from None
    write_whole(home.plans / f"{signed.digest}.json", content)
    log.append(Event.PLAN_SIGNED, at=at, plan=signed.digest, name=plan.name)
    write_whole(home.plan, content)
    return told


def shown(home: Home, signed: SignedPlan) -> Told:
    """A plan that was signed before."""
    return Told.of(signed, read_plan(signed, home.key().public), load_schema(home.schema))


def _chosen(home: Home, holders: Sequence[str] | None) -> Mapping[str, Member]:
    enrolled = Members(home.directory).current()
    if holders is None:
        return dict(sorted(enrolled.items()))
    strangers = sorted(set(holders) - enrolled.keys())
    if strangers:
        raise UsageError(
            f"{len(strangers)} of the data holders named are not enrolled, or were revoked: {', '.join(strangers)}. "
            "`fedcredit coordinator enroll` takes them in; `fedcredit coordinator status` lists who is."
        )
    return {holder: enrolled[holder] for holder in sorted(set(holders))}


def _recipe(home: Home, schema: Schema) -> tuple[RecipeSettings, str]:
    terms = home.settings.plan
    if terms.recipe == "auto":
        choice = choose(people=terms.people, epsilon=terms.epsilon, delta=terms.delta, schema=schema)
        return choice.settings, choice.reason
    settings = settings_named(RecipeName(terms.recipe), schema, epsilon=terms.epsilon, delta=terms.delta)
    return settings, "Asked for by name."
