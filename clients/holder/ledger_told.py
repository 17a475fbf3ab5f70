"""The privacy ledger as the desk reads it: what each release cost, and what one person has spent. No handle is told."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from clients.holder.consents import standings_of
from clients.holder.coverage import Counted, read_count
from clients.holder.desk import Desk
from clients.holder.ledger import PrivacyLedger, ReleaseRecord
from clients.holder.run import Run, decode_opening, run_of
from federated.coverage import is_coverage, run_counted_for
from federated.encoder import Encoder
from federated.releases import measurement_stage
from federated.schema_toml import load_schema
from privacy.accounting import Spend, epsilon_of, mu_squared_of, total_epsilon
from privacy.consent.budget import allowance_mu_squared, tier_of
from privacy.consent.record import ConsentRecord, Purpose, TrainingBudget

UNIT: Final = "one person"
NEIGHBOURING: Final = "add or remove one person"
HOW_TO_READ: Final = (
    f"Privacy unit: {UNIT}; neighbouring relation: {NEIGHBOURING}. A person whose share is less than 1 pays that part "
    "of mu. Costs add up in mu squared, not in epsilon."
)
IN_THE_HOUSE: Final = "How many people were charged stays in the house: two releases apart, it tells who withdrew."


@dataclass(frozen=True, slots=True)
class Told:
    """One release as people name it. `epsilon` is at the plan's delta, None where the plan is not known here.

    `counted` is what was told of a count of people, whose `stage` is 0; None for all other releases, and for a count
    that was charged and never told.
    """

    record: ReleaseRecord
    run: str
    stage: int
    known: Run | None
    counted: Counted | None

    @property
    def what(self) -> str:
        """Which round it was, or the measurement, or the count before the run."""
        if self.stage == 0:
            return "count of the people who may be trained on"
        if self.known is None:
            return f"release {self.stage}"
        if self.stage == measurement_stage(self.known.recipe):
            return "measurement on held-out people"
        return f"round {self.stage} of {self.known.recipe.rounds}"

    @property
    def delta(self) -> float | None:
        """The plan's."""
        if self.known is not None:
            return self.known.plan.privacy.delta
        return None if self.counted is None else self.counted.delta

    @property
    def plan(self) -> str | None:
        """The plan's name."""
        if self.known is not None:
            return self.known.plan.name
        return None if self.counted is None else self.counted.plan


@dataclass(frozen=True, slots=True)
class Cost:
    """What some releases cost together; `mu` is None where sampled ones are among them and no delta is known."""

    mu: float | None
    epsilon: float | None
    delta: float | None

    @classmethod
    def of(cls, spends: Sequence[Spend], delta: float | None) -> "Cost":
        """The cost to a person with share 1 of all `spends`."""
        if delta is not None:
            return cls(math.sqrt(mu_squared_of(spends, delta)), total_epsilon(spends, delta), delta)
        try:
            return cls(math.sqrt(mu_squared_of(spends, math.nan)), None, None)
        except ValueError:  # not Gaussian alone
            return cls(None, None, None)

    @classmethod
    def of_mu_squared(cls, mu_squared: float, delta: float) -> "Cost":
        """The cost of what adds up to this mu squared."""
        mu = math.sqrt(max(mu_squared, 0.0))
        return cls(mu, epsilon_of(mu, delta), delta)

    def text(self) -> str:
        """For people, to four digits."""
        if self.mu is None:
            return "a cost that only its plan tells, and the plan is not kept here"
        if self.epsilon is None:
            return f"mu {self.mu:.4g}; the plan, which names delta, is not kept here"
        return f"mu {self.mu:.4g}, epsilon {self.epsilon:.4g} at delta {self.delta:g}"

    def facts(self) -> dict[str, float | None]:
        """For machines."""
        return {"mu": self.mu, "epsilon": self.epsilon, "delta": self.delta}


@contextmanager
def ledger_of(desk: Desk) -> Iterator[PrivacyLedger]:
    """The desk's ledger, checked against the head that the lane copy remembers."""
    with closing(PrivacyLedger.open(desk.directory / "ledger.db", last_known=desk.lane.ledger_head())) as ledger:
        yield ledger


def tell_releases(desk: Desk, ledger: PrivacyLedger) -> tuple[dict[str, Any], list[str]]:
    """Every release with its cost to a person with share 1, by run, and the person who has spent most."""
    told = _told(desk, ledger)
    runs = [[release for release in told if release.run == run] for run in dict.fromkeys(each.run for each in told)]
    lines: list[str] = []
    facts: list[dict[str, Any]] = []
    for releases in runs:
        lines += _run_lines(releases)
        facts += [_release_facts(release) for release in releases]
    totals = _totals(ledger, told)
    lines.append(
        f"In all, releases: {len(told)}, runs: {len(runs)}. The person who has spent most: {totals.text()}."
        if told
        else "Nothing was ever charged here."
    )
    lines += [HOW_TO_READ, IN_THE_HOUSE]
    return (
        {
            "unit": UNIT,
            "neighbouring": NEIGHBOURING,
            "releases": facts,
            "totals": {"releases": len(told), "runs": len(runs), "most_spent": totals.facts()},
            "stays_in_the_house": True,
        },
        lines,
    )


def tell_person(desk: Desk, ledger: PrivacyLedger, customer: str) -> tuple[dict[str, Any], list[str]]:
    """What was spent of one linked customer's cap, by run and in all, and what is left of it for each purpose.

    RefusalError if the customer is not linked.
    """
    handle, newest, in_lane = standings_of(desk, customer)
    paid = dict(ledger.paid(handle))
    told = [release for release in _told(desk, ledger) if release.record.release_id in paid]
    lines, runs = [], []
    for run in dict.fromkeys(release.run for release in told):
        releases = [release for release in told if release.run == run]
        cost = Cost.of([paid[release.record.release_id] for release in releases], releases[0].delta)
        lines.append(f"{_named(releases[0])}: {len(releases)} releases, {cost.text()}")
        runs.append({"run": run, "plan": releases[0].plan, "releases": len(releases), **cost.facts()})
    caps = []
    for purpose in (Purpose.TRAIN, Purpose.VALIDATE):
        budgets = [_budget(desk, standing, purpose) for standing in (newest, in_lane)]
        line, cap = _cap(ledger, handle, purpose, [budget for budget in budgets if budget], allowed=all(budgets))
        lines.append(line)
        caps.append(cap)
    if not told:
        lines.insert(0, "Nothing was charged to this person.")
    lines.append(HOW_TO_READ)
    return {"unit": UNIT, "neighbouring": NEIGHBOURING, "runs": runs, "caps": caps, "stays_in_the_house": True}, lines


def _told(desk: Desk, ledger: PrivacyLedger) -> list[Told]:
    """Every release, oldest first, with its run as far as this lane copy has kept it."""
    known: dict[str, Run | None] = {}
    found = []
    for record in ledger.releases():
        name, counted = record.release_id, None
        if is_coverage(name):
            run, stage, kept = run_counted_for(name), "0", ledger.kept(name)
            counted = None if kept is None else read_count(kept)
        else:
            run, _, stage = name.rpartition("/")
        if run not in known:
            known[run] = _run(desk, run)
        found.append(Told(record, run, int(stage), known[run], counted))
    return found


def _run(desk: Desk, name: str) -> Run | None:
    kept = desk.lane.kept_run(name)
    if kept is None:
        return None
    encoder = Encoder(load_schema(desk.directory / desk.settings.schema))
    return run_of(decode_opening(kept), desk.settings, encoder=encoder)


def _run_lines(releases: Sequence[Told]) -> Iterator[str]:
    yield _named(releases[0])
    for release in releases:
        cost = Cost.of([release.record.spend], release.delta)
        yield f"  {release.what}: {cost.text()}; {release.record.people} people charged{_answer(release)}"
    known = releases[0].known
    if known is None:
        return
    rounds = [each.record.spend for each in releases if 1 <= each.stage <= known.recipe.rounds]
    if rounds:
        yield f"  together, for a person in {len(rounds)} rounds: {Cost.of(rounds, releases[0].delta).text()}"
    yield f"  accounted by: {known.recipe.accountant}"
    yield from (f"  not covered: {text}" for text in known.recipe.excludes())


def _answer(release: Told) -> str:
    if release.stage:
        return ""
    return "; never told" if release.counted is None else f"; told, with noise: {release.counted.count}"


def _release_facts(release: Told) -> dict[str, Any]:
    known = None if release.stage == 0 else release.known  # a count is accounted for by its own mu alone
    return {
        "release": release.record.release_id,
        "run": release.run,
        "plan": release.plan,
        "what": release.what,
        **Cost.of([release.record.spend], release.delta).facts(),
        "told": None if release.counted is None else release.counted.count,
        "accountant": None if known is None else known.recipe.accountant,
        "excludes": None if known is None else list(known.recipe.excludes()),
        "people": release.record.people,
    }


def _named(release: Told) -> str:
    if release.known is None:
        if release.plan is not None:
            return f"run {release.run} of plan {release.plan}, which was asked about and not joined"
        return f"run {release.run}, whose plan is not kept here"
    plan = release.known.plan
    return f"run {release.run} of plan {plan.name}, {release.known.recipe.name.value}, {plan.trust.value}"


def _totals(ledger: PrivacyLedger, told: Sequence[Told]) -> Cost:
    """Of the person who has spent most, at the smallest delta of any plan: the larger epsilon."""
    deltas = [release.delta for release in told if release.delta is not None]
    if not deltas:
        return Cost(None, None, None)
    return Cost.of_mu_squared(ledger.most_spent(delta=min(deltas)), min(deltas))


def _budget(desk: Desk, standing: object, purpose: Purpose) -> TrainingBudget | None:
    if not isinstance(standing, ConsentRecord) or standing.frozen:
        return None
    to = desk.settings.policy.coordinator
    return next((grant.dp for grant in standing.grants if (grant.purpose, grant.to) == (purpose, to)), None)


def _cap(
    ledger: PrivacyLedger, handle: bytes, purpose: Purpose, budgets: Sequence[TrainingBudget], *, allowed: bool
) -> tuple[str, dict[str, Any]]:
    """One purpose's cap, what is spent of it and what is left, by the record that allows less."""
    if not allowed:
        return f"{purpose.value}: the person's record grants no budget now", {"purpose": purpose.value, "cap": None}
    budget = min(budgets, key=allowance_mu_squared)
    delta = 10.0**budget.delta_log10
    spent = float(ledger.spent_mu_squared([handle], delta=delta)[0])
    allowance = allowance_mu_squared(budget)
    share, cap, tier = budget.share_milli / 1000, budget.eps_milli / 1000, tier_of(budget.eps_milli / 1000)
    counted = float(ledger.counted_mu_squared([handle])[0])
    costs = [Cost.of_mu_squared(mu_squared, delta) for mu_squared in (spent, allowance, allowance - spent, counted)]
    line = (
        f"{purpose.value}: cap epsilon {cap:g} at delta {delta:g}, counted as {tier or 0:g}, share {share:g}: at most "
        f"epsilon {costs[1].epsilon:.4g} here; spent {costs[0].epsilon:.4g}, of that on being counted "
        f"{costs[3].epsilon:.4g}, left {costs[2].epsilon:.4g}"
    )
    facts = {
        "purpose": purpose.value,
        "cap": {"epsilon": cap, "delta": delta, "tier": tier, "share": share, "window_s": budget.window_s},
        "spent": costs[0].facts(),
        "allowed": costs[1].facts(),
        "left": costs[2].facts(),
        "counted": costs[3].facts(),
    }
    return line, facts
