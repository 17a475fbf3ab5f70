"""A dry run for people and for machines: who would take part, with about how many, and what a run would cost."""

import math
from collections.abc import Iterator
from typing import Any, Final

from federated.coverage import COVERAGE_SPEND, DEVIATION
from federated.plan import TrainingPlan
from federated.trust import told as trust_told
from privacy.accounting import epsilon_of
from privacy.discrete import mu_on_grid
from server.deploy.dry_run import DryRun, Said, Stand
from server.deploy.refusals import meaning

UNIT: Final = "one person"
NEIGHBOURING: Final = "add or remove one person"
DEVIATIONS: Final = 2
"""Told on either side of a count; noise goes further once in 22 times."""

ABOUT_COUNTS: Final = (
    f"Counts have noise of standard deviation {DEVIATION:.0f} and are told within {DEVIATIONS} deviations. People who "
    "may be trained on and allow too little to be counted are not in them, so the truth may be larger. Asked again "
    "over the same lane heads, a data holder tells the same number and charges nobody."
)
COUNTS_EXCLUDE: Final = (
    "of the counts: that a data holder answers with one says that its policy's fewest people are there, whoever they "
    "are; and where people have been in sampled steps, the number of rows that set their cost is taken to be public"
)
UNSIGNED: Final = "A refusal is not signed: it may come from somebody else's node. A yes is signed by the data holder."


def tell(dry_run: DryRun) -> tuple[dict[str, Any], list[str]]:
    """Facts and lines."""
    return _facts(dry_run), [*_head(dry_run), *_people(dry_run), *_privacy(dry_run), *_traffic(dry_run)]


def estimate(count: int, holders: int = 1) -> tuple[int, int, int]:
    """A noisy count of so many data holders, with its lower and upper end; nobody is fewer than no people."""
    reach = round(DEVIATIONS * DEVIATION * math.sqrt(holders))
    return max(count, 0), max(count - reach, 0), max(count + reach, 0)


def _head(dry_run: DryRun) -> Iterator[str]:
    plan = dry_run.coordinator.plan
    yield f"Plan {plan.name}, {dry_run.coordinator.signed.digest[:16]}; this dry run has begun no run."
    for one in dry_run.said:
        yield f"  {one.holder}: {_said(one)}"
    if dry_run.strangers:
        yield f"  {dry_run.strangers} nodes answered in the name of nobody in the plan's roster"
    if any(one.stand is Stand.REFUSES for one in dry_run.said):
        yield UNSIGNED


def _said(one: Said) -> str:
    match one:
        case Said(stand=Stand.TAKES_PART, count=int() as count):
            middle, low, high = estimate(count)
            return f"would take part, with about {middle} people ({low} to {high})"
        case Said(stand=Stand.REFUSES, code=code) if code is not None:
            return f"refuses ({code.value}): {meaning(code)}"
        case Said(stand=Stand.UNUSABLE, wrong=wrong):
            return f"no usable answer: {wrong}"
        case _:
            return "no answer before the deadline. Ask its operator whether `fedcredit holder serve` runs."


def _people(dry_run: DryRun) -> Iterator[str]:
    plan, takers = dry_run.coordinator.plan, dry_run.takers
    if takers:
        middle, low, high = _total(dry_run)
        yield f"In all about {middle} people ({low} to {high}) at {len(takers)} data holders."
        yield ABOUT_COUNTS
    enough = "enough" if _enough(dry_run) else "too few: ask the others' operators, or write a plan that fits"
    yield f"The plan needs {plan.minimum_holders} data holders and has {len(takers)}: {enough}."
    yield (
        f"It needs {plan.minimum_people} people at each; whoever has fewer refuses (cohort), so all of those who would "
        "take part have as many."
    )


def _privacy(dry_run: DryRun) -> Iterator[str]:
    plan, recipe = dry_run.coordinator.plan, dry_run.coordinator.recipe
    privacy = plan.privacy
    if plan.seed is not None:
        yield "NOT PRIVATE: the noise of this plan comes from a seed."
    yield (
        f"One run costs a person who takes part in full epsilon {privacy.epsilon:g} for training, or "
        f"{privacy.measurement_epsilon:g} for being measured, at delta {privacy.delta:g}; "
        f"{privacy.releases_per_window} runs, which a cap must cover, {epsilon_of_runs(plan):.4g}. Smaller shares and "
        "caps cost less."
    )
    yield (
        f"Having been counted now has cost everybody counted mu {COVERAGE_SPEND.mu:g}, which alone is epsilon "
        f"{epsilon_of(COVERAGE_SPEND.mu, privacy.delta):.4g}, out of the hundredth of every budget set aside for it."
    )
    yield f"Unit: {UNIT}; neighbouring relation: {NEIGHBOURING}; accountant: {recipe.accountant}."
    yield f"Trust: {_trust(dry_run)}"
    yield from (f"Not covered: {text}." for text in (*recipe.excludes(), COUNTS_EXCLUDE))


def _traffic(dry_run: DryRun) -> Iterator[str]:
    traffic = dry_run.traffic()
    if traffic is None:
        return
    yield (
        f"A run with these data holders takes {traffic.exchanges} exchanges: {traffic.sent:,} bytes to them and "
        f"{traffic.received:,} back ({traffic.to_each:,} and {traffic.from_each:,} each), without what TLS and Flower "
        "wrap around them."
    )
    took = f"{dry_run.round_trip_s:.1f} s" if dry_run.whole else f"at most {dry_run.round_trip_s:.1f} s"
    yield (
        f"This exchange took {took}, so expect about {traffic.exchanges * dry_run.round_trip_s:.0f} s, and the data "
        "holders' own computing besides, which is not known here. That is rough: the first exchange, as this may have "
        "been, is slower than those after it."
    )


def epsilon_of_runs(plan: TrainingPlan) -> float:
    """What as many runs as a cap must cover cost somebody who takes part in full, as budgets count it."""
    privacy = plan.privacy
    mu = mu_on_grid(privacy.epsilon, privacy.delta) * math.sqrt(privacy.releases_per_window)
    return epsilon_of(mu, privacy.delta)


def _total(dry_run: DryRun) -> tuple[int, int, int]:
    # The sum of the numbers as they came: noise that is cut off one by one would only ever add.
    return estimate(sum(one.count or 0 for one in dry_run.takers), len(dry_run.takers))


def _enough(dry_run: DryRun) -> bool:
    return len(dry_run.takers) >= dry_run.coordinator.plan.minimum_holders


def _trust(dry_run: DryRun) -> str:
    adds_noise = math.isfinite(dry_run.coordinator.recipe.mu(1))
    return trust_told(dry_run.coordinator.plan.trust, adds_noise=adds_noise)


def _facts(dry_run: DryRun) -> dict[str, Any]:
    plan, recipe, traffic = dry_run.coordinator.plan, dry_run.coordinator.recipe, dry_run.traffic()
    privacy = plan.privacy
    return {
        "plan": {"name": plan.name, "digest": dry_run.coordinator.signed.digest},
        "run": dry_run.run,
        "holders": [
            {
                "holder": one.holder,
                "stand": one.stand.value,
                "code": None if one.code is None else one.code.value,
                "about": "" if one.stand is Stand.TAKES_PART else _said(one),
                "people": None if one.count is None else _counted(estimate(one.count)),
            }
            for one in dry_run.said
        ],
        "strangers": dry_run.strangers,
        "people": _counted(_total(dry_run)) if dry_run.takers else None,
        "count_deviation": DEVIATION,
        "minimum_holders": {"needed": plan.minimum_holders, "found": len(dry_run.takers), "met": _enough(dry_run)},
        "minimum_people": {"needed_at_each": plan.minimum_people, "met_by_all_who_take_part": True},
        "privacy": {
            "epsilon": privacy.epsilon,
            "measurement_epsilon": privacy.measurement_epsilon,
            "delta": privacy.delta,
            "runs": privacy.releases_per_window,
            "epsilon_of_runs": epsilon_of_runs(plan),
            "counted_mu": COVERAGE_SPEND.mu,
            "counted_epsilon": epsilon_of(COVERAGE_SPEND.mu, privacy.delta),
            "unit": UNIT,
            "neighbouring": NEIGHBOURING,
            "accountant": recipe.accountant,
            "trust": plan.trust.value,
            "trust_model": _trust(dry_run),
            "excludes": [*recipe.excludes(), COUNTS_EXCLUDE],
            "not_private": plan.seed is not None,
        },
        "traffic": None
        if traffic is None
        else {
            "exchanges": traffic.exchanges,
            "bytes_sent": traffic.sent,
            "bytes_received": traffic.received,
            "bytes_sent_each": traffic.to_each,
            "bytes_received_each": traffic.from_each,
        },
        "seconds": {
            "round_trip": dry_run.round_trip_s,
            "all_answered": dry_run.whole,
            "expected_without_computing": None if traffic is None else traffic.exchanges * dry_run.round_trip_s,
        },
    }


def _counted(middle_low_high: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("about", "low", "high"), middle_low_high, strict=True))
