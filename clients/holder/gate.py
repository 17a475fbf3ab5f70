"""The gate: the only code that turns a data holder's rows into permitted rows.

Whom it lets through is decided for everybody at once by `privacy.consent.projection`, a pure function of the lane.
Rows are asked for by the customer number alone; a row whose subject it does not let through is passed over unread.
"""

from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from federated.plan import TrainingPlan
from federated.schema import Schema
from federated.table import RawTable, is_query, read_table
from privacy.consent.budget import aggregation_share, allowance_mu_squared, set_aside
from privacy.consent.gate import GatePolicy, Interval, Reason
from privacy.consent.projection import ALLOW, CODES, REASON_CODES, Projection
from privacy.consent.record import Purpose, TrainingBudget
from privacy.discrete import mu_on_grid
from privacy.errors import MalformedError, RefusalCode, RefusalError

_NONE: Final = CODES[Reason.NONE]
_BUDGET: Final = CODES[Reason.BUDGET]
_UNLINKED: Final = "unlinked"
_OTHER_SAMPLE: Final = "in_the_other_sample"

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]


class View(Protocol):
    """What people said, as far as one prefix of the lane or the side door goes."""

    def __call__(self, *, purpose: Purpose, recipient: str, categories: frozenset[str]) -> Projection:
        """Everybody's standing, for one purpose, recipient and set of categories."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What the gate is asked about every linked subject.

    `views` are the run's pinned prefix, the newest one, and that with the records that came in by the side door: all
    must allow, so that a withdrawal applies at once and a new grant from the next run on.
    """

    views: tuple[View, ...]
    links: Mapping[str, bytes]  # customer number -> handle
    plan: TrainingPlan
    purpose: Purpose
    categories: frozenset[str]  # of the schema, that the task reads
    policy: GatePolicy
    spent: Mapping[bytes, float]  # mu squared charged in earlier runs, by handle
    counted: Mapping[bytes, float]  # mu squared charged for being counted


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """The gate's answer about every linked subject; only `decide_all` makes it.

    `links` is the question's. In its order, shape (n,): `codes` (0 allows, the rest are `REASON_CODES`), `shares` and
    `allowances` (mu squared), which mean nothing where the code is not 0.
    """

    links: Mapping[str, bytes]
    codes: Codes
    shares: Floats
    allowances: Floats

    def same_as(self, other: "Decisions") -> bool:
        """Whether exactly the same is allowed to exactly the same subjects."""
        # In order too: the arrays are in the order of the links.
        return list(self.links.items()) == list(other.links.items()) and all(
            np.array_equal(ours, theirs)
            for ours, theirs in (
                (self.codes, other.codes),
                (self.shares, other.shares),
                (self.allowances, other.allowances),
            )
        )

    def without(self, handles: Collection[bytes]) -> "Decisions":
        """The same, but for these subjects, who are refused because of their budget."""
        dropped = np.fromiter((handle in handles for handle in self.links.values()), dtype=np.bool_)
        codes = np.where(dropped & (self.codes == ALLOW), np.uint8(_BUDGET), self.codes)
        return replace(self, codes=codes)


@dataclass(frozen=True, slots=True)
class PermittedRows:
    """Rows that passed the gate for one purpose and interval. Only `permitted_rows` makes them.

    `outcome` (n,; 1 is bad), `handles`, `shares` (n,) and `allowances` (n,; mu squared) go with the rows of `table`,
    in order. `refusals` counts the subjects of the table who did not pass, by reason, and stays with the data holder.
    """

    table: RawTable
    outcome: Floats
    handles: tuple[bytes, ...]
    shares: Floats
    allowances: Floats
    refusals: Mapping[str, int]

    def still_permitted(self, later: "PermittedRows") -> bool:
        """Whether everybody here passes in `later` too, for no smaller share and no smaller allowance."""
        if later is self:
            return True
        row_of = {handle: row for row, handle in enumerate(later.handles)}
        rows = [row_of.get(handle, -1) for handle in self.handles]
        return -1 not in rows and bool(
            np.all(later.shares[rows] >= self.shares) and np.all(later.allowances[rows] >= self.allowances)
        )


def decide_all(question: Question) -> Decisions:
    """Every linked subject's decision, and what it allows; the same question always has the same answer."""
    handles = list(question.links.values())
    codes = np.zeros(len(handles), dtype=np.uint8)
    shares, allowances = np.full((2, len(handles)), np.inf)
    spent, counted = (
        np.fromiter((paid[handle] for handle in handles), dtype=np.float64, count=len(handles))
        for paid in (question.spent, question.counted)
    )
    asked: list[Projection] = []
    for view in question.views:
        projection = view(purpose=question.purpose, recipient=question.plan.coordinator, categories=question.categories)
        if any(projection is before for before in asked):
            continue
        asked.append(projection)
        allowed = _allowed_in(projection, handles, spent, counted, question)
        codes = np.where(codes == ALLOW, allowed.codes, codes)
        shares = np.minimum(shares, allowed.shares)
        allowances = np.minimum(allowances, allowed.allowances)
    if not asked:  # an empty "all of" would let everybody through
        codes[:] = _NONE
    return Decisions(question.links, codes, shares, allowances)


def permitted_rows(
    path: Path, schema: Schema, decisions: Decisions, *, fewest: int, but: Container[str] = ()
) -> PermittedRows:
    """The rows of `path` whose subjects the gate lets through, and no other row; nor those of the customers in `but`.

    RefusalError if fewer than `fewest` remain. MalformedError if the table does not fit the schema.
    """
    gatekeeper = _Gatekeeper(decisions, but)
    table = read_table(path, schema, only=gatekeeper)
    if len(table.subjects) < fewest:
        raise RefusalError(
            f"Fewer than {fewest} people in {path.name} have a consent in force that covers the plan; this data "
            "holder sits the run out. Nothing was computed or charged.",
            RefusalCode.COHORT,
        )
    if table.outcome is None:
        raise MalformedError(
            f"{path.name} has no outcome column, and there is nothing to learn without one. "
            "The data holder should add it."
        )
    places = [gatekeeper.places[customer] for customer in table.subjects]
    return PermittedRows(
        table=table,
        outcome=table.outcome,
        handles=tuple(decisions.links[customer] for customer in table.subjects),
        shares=decisions.shares[places],
        allowances=decisions.allowances[places],
        refusals=dict(gatekeeper.refusals),
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """How many rows a table has, and the customers they are about, if those were wanted.

    `has_outcome` is whether it has a column of outcomes, without which no run reads a row of it. `lasting` says whether
    this holds for as long as the file is the same: the rows of a query may change without it.
    """

    rows: int
    customers: frozenset[str]
    has_outcome: bool
    lasting: bool


def listed_in(path: Path, schema: Schema, *, named: bool) -> Listed:
    """What `path` lists, whatever anybody allows; no row is read further than to its customer."""
    lister = _Lister(named)
    table = read_table(path, schema, only=lister)
    has_outcome = table.outcome is not None
    return Listed(lister.rows, frozenset(lister.customers), has_outcome, lasting=not is_query(path))


def rows_to_score(paths: Sequence[Path], schema: Schema, allowed: Container[str]) -> list[RawTable]:
    """The rows, in whichever table they lie, of the customers in `allowed`, whose consent to be scored is in force."""
    return [table for path in paths if (table := read_table(path, schema, only=allowed)).subjects]


def _allowed_in(
    projection: Projection, handles: Sequence[bytes], spent: Floats, counted: Floats, question: Question
) -> Decisions:
    """Everybody's decision by one view alone."""
    interval = Interval(question.plan.not_before, question.plan.ends)
    reasons = projection.reasons(interval, question.policy)
    rows = np.fromiter((projection.rows.get(handle, -1) for handle in handles), dtype=np.int64, count=len(handles))
    # The last of each column, to which the row -1 points, is for a subject without a standing.
    codes = np.append(reasons, np.uint8(_NONE))[rows]
    share_of, allowance_of = _bounds(projection, question)
    shares, allowances = (np.append(column, 0.0)[rows] for column in (share_of, allowance_of))
    # The whole run must fit, or the person is left out of all of it; the slack covers rounding only.
    after = spent + (shares * _plan_mu(question)) ** 2 + set_aside(allowances, counted)
    fits = (shares > 0) & (after <= allowances * (1 + 1e-9))
    codes = np.where((codes == ALLOW) & ~fits, np.uint8(_BUDGET), codes)
    return Decisions(question.links, codes, shares, allowances)


def _bounds(projection: Projection, question: Question) -> tuple[Floats, Floats]:
    """Share and allowance of each row of a projection; 0 without a budget: a release without one is nobody's wish."""
    privacy = question.plan.privacy
    columns = (projection.share_milli, projection.eps_milli, projection.delta_log10)
    if not len(columns[0]):
        return np.zeros(0), np.zeros(0)
    # People choose among few budgets, so each is worked out once. A record's ranges keep the numbers below 2^31.
    number = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        number = number * (column.max() - column.min() + 1) + (column - column.min())
    _, first, budget_of = np.unique(number, return_index=True, return_inverse=True)
    shares, allowances = np.zeros((2, len(first)))
    for k, row in enumerate(first.tolist()):
        share_milli, eps_milli, delta_log10 = (int(column[row]) for column in columns)
        if eps_milli == 0:
            continue
        # The window says when a budget comes back; neither figure below depends on it.
        budget = TrainingBudget(share_milli=share_milli, eps_milli=eps_milli, delta_log10=delta_log10, window_s=1)
        shares[k] = aggregation_share(
            budget,
            plan_mu=_plan_mu(question),
            delta=privacy.delta,
            releases_per_window=privacy.releases_per_window,
        )
        allowances[k] = allowance_mu_squared(budget)
    return shares[budget_of], allowances[budget_of]


def _plan_mu(question: Question) -> float:
    privacy = question.plan.privacy
    measuring = question.purpose is Purpose.VALIDATE
    return mu_on_grid(privacy.measurement_epsilon if measuring else privacy.epsilon, privacy.delta)


@dataclass(slots=True)
class _Gatekeeper:
    """Answers `customer in gatekeeper` by the decision on that subject, and counts whom it turned away."""

    decisions: Decisions
    but: Container[str]
    places: dict[str, int] = field(init=False)
    refusals: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = {customer: place for place, customer in enumerate(self.decisions.links)}

    def __contains__(self, customer: object) -> bool:
        place = self.places.get(str(customer))
        code = None if place is None else int(self.decisions.codes[place])
        if code == ALLOW:
            if customer not in self.but:
                return True
            self.refusals[_OTHER_SAMPLE] += 1
        else:
            self.refusals[_UNLINKED if code is None else REASON_CODES[code].value] += 1
        return False


@dataclass(slots=True)
class _Lister:
    """Answers `customer in lister` by no, and notes who was asked about."""

    named: bool
    rows: int = 0
    customers: set[str] = field(default_factory=set)

    def __contains__(self, customer: object) -> bool:
        self.rows += 1
        if self.named:
            self.customers.add(str(customer))
        return False
