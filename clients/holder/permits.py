"""Whose rows a run may use: the gate's decisions by what people said, and by what the whole run would cost each."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.holder.gate import Decisions, PermittedRows, Question, View, decide_all, permitted_rows
from clients.holder.lane import LaneCopy
from clients.holder.ledger import PrivacyLedger
from clients.holder.run import Run
from clients.holder.samples import Samples
from clients.holder.settings import HolderSettings
from federated.releases import measurement_spend, measurement_stage, measurement_weight, release_name
from federated.schema import Schema
from privacy.accounting import SampledSpend, Spend
from privacy.consent.budget import set_aside
from privacy.consent.gate import GatePolicy
from privacy.consent.projection import ALLOW
from privacy.consent.record import Purpose


class Permits:
    """The permitted rows of one data holder's runs; read again whenever anybody's decision has changed."""

    def __init__(
        self, directory: Path, settings: HolderSettings, schema: Schema, lane: LaneCopy, ledger: PrivacyLedger
    ) -> None:
        self._directory, self._settings, self._schema = directory, settings, schema
        self._lane, self._ledger = lane, ledger
        self._samples = Samples(directory, settings, schema)
        self._read: dict[tuple[str, Purpose], tuple[Decisions, PermittedRows]] = {}

    def rows(self, run: Run, purpose: Purpose) -> PermittedRows:
        """The rows permitted in `run`: by its pinned prefix, less who has withdrawn since, less whom it could cost
        more than they allow.

        Everybody here can pay for all of the run's releases, so that nobody passes a cap in the middle of it. Nobody
        who is listed in the training sample is measured. RefusalError if too few are left.
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

    def people(self, run: Run) -> dict[bytes, float]:
        """Whom the gate lets through to be trained on in `run`, of those in the training sample: allowance by handle.

        By each person's own consents and spends alone, so that one person more or less is one more or less here. What
        is left out is what `rows` asks about all of them together, where steps are sampled.
        """
        decisions, listed = self._decisions(run, Purpose.TRAIN), self._samples.trained_on
        asked = zip(decisions.links.items(), decisions.codes.tolist(), decisions.allowances.tolist(), strict=True)
        return {
            handle: allowance for (customer, handle), code, allowance in asked if code == ALLOW and customer in listed
        }

    def _decisions(self, run: Run, purpose: Purpose) -> Decisions:
        links, plan = self._lane.links(), run.plan
        handles = list(links.values())
        spent = self._ledger.spent_outside(run.name, handles, delta=plan.privacy.delta)
        counted = self._ledger.counted_mu_squared(handles)
        question = Question(
            views=self._views(run),
            links=links,
            plan=plan,
            purpose=purpose,
            categories=self._schema.categories,
            policy=GatePolicy(clock_skew_s=self._settings.policy.clock_skew_s),
            spent=dict(zip(links.values(), spent.tolist(), strict=True)),
            counted=dict(zip(links.values(), counted.tolist(), strict=True)),
        )
        return decide_all(question)

    def _views(self, run: Run) -> tuple[View, ...]:
        return (
            partial(self._lane.projection, run.pinned),
            self._lane.projection,
            partial(self._lane.projection, direct=True),
        )

    def own_deltas(self, run: Run, purpose: Purpose, handles: Sequence[bytes]) -> list[NDArray[np.float64]]:
        """By view, the delta at which each of `handles` set their cap, shape (len(handles),); the same ones once."""
        found: list[NDArray[np.float64]] = []
        for view in self._views(run):
            said = view(purpose=purpose, recipient=run.plan.coordinator, categories=self._schema.categories)
            deltas = np.power(10.0, said.delta_log10[[said.rows[handle] for handle in handles]])
            if not any(np.array_equal(deltas, before) for before in found):
                found.append(deltas)
        return found

    def _rows_of(self, purpose: Purpose, decisions: Decisions) -> PermittedRows:
        measuring = purpose is Purpose.VALIDATE
        self._samples.require_room()  # before anybody's decision could tell
        return permitted_rows(
            self._directory / (self._settings.held_out if measuring else self._settings.rows),
            self._schema,
            decisions,
            fewest=self._settings.policy.fewest_people,
            but=self._samples.trained_on if measuring else (),
        )

    def _cannot_pay(self, run: Run, purpose: Purpose, rows: PermittedRows) -> NDArray[np.bool_]:
        """Whether each of `rows` would pass the allowance by the end of the run, or allows too little to count."""
        delta = run.plan.privacy.delta
        if purpose is Purpose.VALIDATE:
            # Nobody here is in the training sample now; what somebody paid who was in it before counts.
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
        passes = partial(
            self._ledger.would_pass, name, rows.handles, costs, rows.allowances,
            reserved=set_aside(rows.allowances, self._ledger.counted_mu_squared(rows.handles)),
        )  # fmt: skip
        passed = too_little | passes(delta=delta)
        if any(
            isinstance(spend, SampledSpend) for spend in (*planned, *(one.spend for one in self._ledger.releases()))
        ):
            # What samples cost is known at one delta at a time, and people set their caps at their own.
            for own in self.own_deltas(run, purpose, rows.handles):
                passed |= passes(delta=own)
        return passed
