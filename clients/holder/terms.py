"""A plan's terms, held one by one against a data holder's policy, which has the last word."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from clients.holder.policy import in_hours
from clients.holder.run import Run
from clients.holder.settings import HolderSettings
from federated.schema import Schema
from privacy.consent.record import Purpose
from privacy.errors import RefusalCode, RefusalError

NEEDED: Final = (Purpose.TRAIN, Purpose.VALIDATE)
"""What every run uses rows for: who could not measure would end the run for everybody at its end."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a plan: what it asks for, whether policy allows it, and else why not."""

    name: str
    asked: str  # by the plan, for people
    holds: bool
    refusal: str
    code: RefusalCode


def terms_of(run: Run, settings: HolderSettings, schema: Schema, *, identity: bytes, at: int) -> list[Term]:
    """Every term of the run's plan, in the order in which one is refused."""
    return [
        *_parties(run, settings, identity),
        *_people(run, settings),
        *_training(run, settings, schema),
        *_time(run, settings, at),
    ]


def check_terms(run: Run, settings: HolderSettings, schema: Schema, *, identity: bytes, at: int) -> None:
    """RefusalError for the first term of the plan that stands against this data holder's policy."""
    for term in terms_of(run, settings, schema, identity=identity, at=at):
        if not term.holds:
            raise RefusalError(
                f"The training plan is refused: {term.refusal}. Its coordinator may propose another.", term.code
            )


def _parties(run: Run, settings: HolderSettings, identity: bytes) -> list[Term]:
    plan, policy = run.plan, settings.policy
    others = {name: key for name, key in run.identities.items() if name != settings.holder}
    return [
        Term(
            "coordinator",
            f"planned by {plan.coordinator}",
            plan.coordinator == policy.coordinator,
            "it comes from another coordinator",
            RefusalCode.POLICY,
        ),
        Term(
            "our own name",
            f"{settings.holder} takes part",
            run.identities.get(settings.holder) == identity,
            "its roster lacks us",
            RefusalCode.PLAN,
        ),
        Term(
            "the other data holders",
            f"with {', '.join(sorted(others)) or 'nobody else'}",
            # Invented data holders would add no noise, and unmask us: everybody else in the roster must be known.
            all(policy.peers.get(name) == key.hex() for name, key in others.items()),
            "its roster names a data holder that is not among our peers, or with another identity",
            RefusalCode.POLICY,
        ),
        Term(
            "fewest data holders",
            f"begins with {plan.minimum_holders} or more",
            plan.minimum_holders >= policy.fewest_holders,
            f"it may begin with {plan.minimum_holders} data holders, and we take part with at least "
            f"{policy.fewest_holders}",
            RefusalCode.POLICY,
        ),
    ]


def _people(run: Run, settings: HolderSettings) -> list[Term]:
    plan, policy = run.plan, settings.policy
    missing = [purpose.value for purpose in NEEDED if purpose not in policy.purposes]
    return [
        Term(
            "fewest people",
            f"asks whether we have {plan.minimum_people}; we tell of {policy.fewest_people}",
            # The threshold is ours and one: a coordinator that could move it would count our people by asking.
            plan.minimum_people <= policy.fewest_people,
            f"it asks whether we have {plan.minimum_people} people, and we tell of {policy.fewest_people} only",
            RefusalCode.POLICY,
        ),
        Term(
            "most people",
            f"room for {plan.most_people:,} people",
            # A sum with room for fewer could run over, and whether it does would depend on people's rows.
            plan.most_people >= policy.most_people,
            f"its sums have room for {plan.most_people} people, and we count on {policy.most_people}",
            RefusalCode.POLICY,
        ),
        Term(
            "purposes",
            f"uses rows for {' and '.join(purpose.value for purpose in NEEDED)}",
            not missing,
            f"it uses rows to {' and to '.join(missing)}, and policy.purposes does not allow that here",
            RefusalCode.POLICY,
        ),
    ]


def _training(run: Run, settings: HolderSettings, schema: Schema) -> list[Term]:
    plan, policy, privacy = run.plan, settings.policy, run.plan.privacy
    # Nobody pays for both: who is in the training sample is not measured.
    epsilon = max(privacy.epsilon, privacy.measurement_epsilon)
    costs = f"epsilon {epsilon:g} at delta {privacy.delta:g}"
    return [
        Term(
            "schema",
            f"schema {schema.name}",
            plan.schema_digest == schema.digest,
            "it is for another schema",
            RefusalCode.SCHEMA,
        ),
        Term(
            "recipe",
            f"{run.recipe.name.value}, {run.recipe.rounds} rounds",
            run.recipe.name in policy.recipes,
            f"recipe {run.recipe.name} is not allowed here",
            RefusalCode.POLICY,
        ),
        Term("noise", "adds noise", run.recipe.is_private, "it adds no noise", RefusalCode.POLICY),
        Term(
            "trust model",
            plan.trust.value,
            plan.trust in policy.trust_models,
            f"trust model {plan.trust} is not allowed here",
            RefusalCode.POLICY,
        ),
        Term(
            "cost",
            f"{costs} for one person; at most {policy.largest_epsilon:g} at {policy.largest_delta:g} here",
            epsilon <= policy.largest_epsilon and privacy.delta <= policy.largest_delta,
            f"it costs {costs}, and at most {policy.largest_epsilon:g} at {policy.largest_delta:g} is allowed here",
            RefusalCode.BUDGET,
        ),
        Term(
            "secret noise",
            "noise from secure chance" if plan.seed is None else "noise from a seed: NOT PRIVATE",
            plan.seed is None or policy.accept_seeded_noise,
            "its noise is seeded",
            RefusalCode.POLICY,
        ),
    ]


def _time(run: Run, settings: HolderSettings, at: int) -> list[Term]:
    plan, hours = run.plan, settings.policy.hours
    due, now = f"from {_utc(plan.not_before)} to {_utc(plan.ends)}", _utc(at)
    return [
        Term(
            "time",
            due,
            plan.not_before <= at < plan.ends,
            f"it is not due now: it runs {due}, and here it is {now}. If that is not the time, the data holder's "
            "clock is wrong; if it is, the coordinator should look at its own",
            RefusalCode.PLAN,
        ),
        Term(
            "hours",
            f"now, {now}; we answer at {hours} UTC",
            in_hours(hours, at=at),
            f"this data holder answers at {hours} UTC only (policy.hours), and here it is {now}. The coordinator may "
            "ask again then; if it is that time, the data holder's clock is wrong",
            RefusalCode.POLICY,
        ),
    ]


def _utc(instant: int) -> str:
    # A plan may name any number of seconds, and calendars end.
    try:
        return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {instant}"
