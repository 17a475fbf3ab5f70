"""The gate: the only code that turns a data holder's rows into permitted rows.

Whom it lets through is decided by `privacy.consent.gate`, a pure function of the lane's pinned prefix. It is asked
row by row with the customer number alone; a row whose subject it does not let through is passed over unread.
"""

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from federated.plan import TrainingPlan
from federated.schema import Schema
from federated.table import RawTable, read_table
from privacy.accounting import mu_of
from privacy.consent.budget import aggregation_share, allowance_mu_squared
from privacy.consent.gate import Allow, Deny, GatePolicy, Interval, decide
from privacy.consent.record import Purpose
from privacy.consent.view import LaneView
from privacy.errors import MalformedError, RefusalCode, RefusalError


@dataclass(frozen=True, slots=True)
class Question:
    """What the gate is asked about every subject of a table.

    `views` are the run's pinned prefix and, once the data holder has synced again, the newest one too: both must
    allow, so that a withdrawal applies at once and a new grant from the next run on.
    """

    views: tuple[LaneView, ...]
    links: Mapping[str, bytes]  # customer number -> handle
    plan: TrainingPlan
    purpose: Purpose
    categories: frozenset[str]  # of the schema, that the task reads
    policy: GatePolicy
    spent: Mapping[bytes, float]  # mu squared charged in earlier runs, by handle


@dataclass(frozen=True, slots=True)
class PermittedRows:
    """Rows that passed the gate for one purpose and interval. Only `permitted_rows` makes them.

    `outcome` (n,; 1 is bad), `handles`, `shares` (n,) and `allowances` (n,; mu squared) go with the rows of `table`,
    in order. `refusals` counts the subjects of the table who did not pass, by reason, and stays with the data holder.
    """

    table: RawTable
    outcome: NDArray[np.float64]
    handles: tuple[bytes, ...]
    shares: NDArray[np.float64]
    allowances: NDArray[np.float64]
    refusals: Mapping[str, int]


def permitted_rows(path: Path, schema: Schema, question: Question, *, fewest: int) -> PermittedRows:
    """The rows of `path` whose subjects the gate lets through, and no other row.

    RefusalError if fewer than `fewest` remain. MalformedError if the table does not fit the schema.
    """
    gatekeeper = _Gatekeeper(question)
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
    permits = [gatekeeper.permits[customer] for customer in table.subjects]
    return PermittedRows(
        table=table,
        outcome=table.outcome,
        handles=tuple(permit.handle for permit in permits),
        shares=np.array([permit.share for permit in permits]),
        allowances=np.array([permit.allowance for permit in permits]),
        refusals=dict(gatekeeper.refusals),
    )


@dataclass(frozen=True, slots=True)
class _Permit:
    handle: bytes
    share: float
    allowance: float


@dataclass(slots=True)
class _Gatekeeper:
    """Answers `customer in gatekeeper` by the decision on that subject, and remembers what it answered."""

    question: Question
    permits: dict[str, _Permit] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    plan_mu: float = field(init=False)

    def __post_init__(self) -> None:
        privacy = self.question.plan.privacy
        measuring = self.question.purpose is Purpose.VALIDATE
        self.plan_mu = mu_of(privacy.measurement_epsilon if measuring else privacy.epsilon, privacy.delta)

    def __contains__(self, customer: object) -> bool:
        permit = self._permit(str(customer))
        if isinstance(permit, _Permit):
            self.permits[str(customer)] = permit
            return True
        self.refusals[permit] += 1
        return False

    def _permit(self, customer: str) -> _Permit | str:
        handle = self.question.links.get(customer)
        if handle is None:
            return "unlinked"
        share = allowance = math.inf
        for view in self.question.views:
            permit = self._permit_in(view, handle)
            if isinstance(permit, str):
                return permit
            share, allowance = min(share, permit.share), min(allowance, permit.allowance)
        return _Permit(handle, share, allowance)

    def _permit_in(self, view: LaneView, handle: bytes) -> _Permit | str:
        question, privacy = self.question, self.question.plan.privacy
        decision = decide(
            view,
            handle,
            purpose=question.purpose,
            recipient=question.plan.coordinator,
            interval=Interval(question.plan.not_before, question.plan.ends),
            categories=question.categories,
            policy=question.policy,
        )
        match decision:
            case Deny(reason):
                return reason.value
            case Allow(budget):
                if budget is None:  # a release without a budget in the record is nobody's wish
                    return "budget"
                share = aggregation_share(
                    budget,
                    plan_mu=self.plan_mu,
                    delta=privacy.delta,
                    releases_per_window=privacy.releases_per_window,
                )
                allowance = allowance_mu_squared(budget)
                # The whole run must fit, or the person is left out of all of it; the slack covers rounding only.
                after = question.spent[handle] + (share * self.plan_mu) ** 2
                if share == 0.0 or after > allowance * (1 + 1e-9):
                    return "budget"
                return _Permit(handle, share, allowance)
            case _:
                assert_never(decision)


def rows_to_score(paths: Sequence[Path], schema: Schema, allowed: Container[str]) -> list[RawTable]:
    """The rows, in whichever table they lie, of the customers in `allowed`, whose consent to be scored is in force."""
    return [table for path in paths if (table := read_table(path, schema, only=allowed)).subjects]
