"""Whose rows a run may use: the gate's decisions by what people said, and by what the whole run would cost each."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.holder.gate import Decisions, PermittedRows, Question, decide_all, permitted_rows
from clients.holder.lane import LaneCopy
from clients.holder.ledger import PrivacyLedger
from clients.holder.run import Run
from clients.holder.settings import HolderSettings
from federated.releases import measurement_spend, measurement_stage, measurement_weight, release_name
from federated.schema import Schema
from privacy.accounting import Spend
from privacy.consent.gate import GatePolicy
from privacy.consent.record import Purpose


class Permits:
    """The permitted rows of one data holder's runs; read again whenever anybody's decision has changed."""

    def __init__(
        self, directory: Path, settings: HolderSettings, schema: Schema, lane: LaneCopy, ledger: PrivacyLedger
    ) -> None:
        self._directory, self._settings, self._schema = directory, settings, schema
        self._lane, self._ledger = lane, ledger
        self._read: dict[tuple[str, Purpose], tuple[Decisions, PermittedRows]] = {}

    def rows(self, run: Run, purpose: Purpose) -> PermittedRows:
        """The rows permitted in `run`: by its pinned prefix, less who has withdrawn since, less whom it could cost
        more than they allow.

        Everybody here can pay for all of the run's releases, so that nobody passes a cap in the middle of it.
        RefusalError if too few are left.
        """
        key, decisions = (run.name, purpose), self._decisions(run, purpose)
        if key not in self._read or not self._read[key][0].same_as(decisions):
            self._read[key] = decisions, self._rows_of(purpose, decisions)
        rows, left = self._read[key][1], decisions
        while (dropped := self._cannot_pay(run, purpose, rows)).any():
            # Fewer rows can mean a larger cost for each of the others, where people are sampled.
            left = left.without({handle for handle, drop in zip(rows.handles, dropped.tolist(), strict=True) if drop})
            rows = self._rows_of(purpose, left)
            self._read[key] = decisions, rows
        return rows

    def _decisions(self, run: Run, purpose: Purpose) -> Decisions:
        links, plan = self._lane.links(), run.plan
        spent = self._ledger.spent_outside(run.name, list(links.values()), delta=plan.privacy.delta)
        question = Question(
            views=(
                partial(self._lane.projection, run.pinned),
                self._lane.projection,
                partial(self._lane.projection, direct=True),
            ),
            links=links,
            plan=plan,
            purpose=purpose,
            categories=self._schema.categories,
            policy=GatePolicy(clock_skew_s=self._settings.policy.clock_skew_s),
            spent=dict(zip(links.values(), spent.tolist(), strict=True)),
        )
        return decide_all(question)

    def _rows_of(self, purpose: Purpose, decisions: Decisions) -> PermittedRows:
        measuring = purpose is Purpose.VALIDATE
        return permitted_rows(
            self._directory / (self._settings.held_out if measuring else self._settings.rows),
            self._schema,
            decisions,
            fewest=self._settings.policy.fewest_people,
        )

    def _cannot_pay(self, run: Run, purpose: Purpose, rows: PermittedRows) -> NDArray[np.bool_]:
        """Whether each of `rows` would pass the allowance by the end of the run, or allows too little to count."""
        delta = run.plan.privacy.delta
        if purpose is Purpose.VALIDATE:
            # What somebody who is in the other sample too has paid for training counts; nobody has before it.
            stage = measurement_stage(run.recipe)
            name = release_name(run.name, stage)
            planned: list[Spend] = [measurement_spend(run.plan)]
            too_little = ~(measurement_weight(run.shape(stage).weights(rows.shares)) >= 0)
        else:
            name, stages = run.name, range(1, run.recipe.rounds + 1)
            planned = [run.recipe.spend(number, len(rows.handles)) for number in stages]
            # Whose share rounding alone would use up is in no round.
            weights = [run.shape(number).weights(rows.shares) for number in stages]
            too_little = ~(np.min(weights, axis=0) > 0)
        costs = [(spend, rows.shares) for spend in planned]
        return too_little | self._ledger.would_pass(name, rows.handles, costs, rows.allowances, delta=delta)
