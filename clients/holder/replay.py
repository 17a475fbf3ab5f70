"""Replaying a run from the log: were all subjects that this data holder committed to under a consent in force?"""

from collections.abc import Mapping
from dataclasses import dataclass

from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.ledger import PrivacyLedger
from clients.holder.run import Run
from clients.holder.settings import HolderSettings
from federated.releases import measurement_stage, release_name
from privacy.consent.commitment import subjects_without_consent
from privacy.consent.gate import Allow, GatePolicy, Interval, decide
from privacy.consent.lane import Head
from privacy.consent.record import Purpose
from privacy.consent.view import LaneView, project


@dataclass(frozen=True, slots=True)
class Replay:
    """Everything a replay reads: the run, which knows the head it was pinned to, and what this data holder keeps."""

    run: Run
    settings: HolderSettings
    categories: frozenset[str]
    keys: HolderKeys
    lane: LaneCopy
    ledger: PrivacyLedger
    views: dict[Head, LaneView]  # of this data holder's replays so far: a prefix opened once is opened for all runs

    def rows_used_without_consent(self, commitments: Mapping[str, bytes]) -> int:
        """Over all releases in `commitments` (name to root): subjects charged, and not allowed by the log.

        The lane's pinned prefix is opened and verified anew from its ciphertexts, and each decision taken anew.
        TamperingError if the ledger's subjects are not those committed to, or the lane does not hold.
        """
        view = self._view()
        decided: dict[tuple[Purpose, bytes], bool] = {}
        total = 0
        for name, commitment in commitments.items():
            measured = name == release_name(self.run.name, measurement_stage(self.run.recipe))
            purpose = Purpose.VALIDATE if measured else Purpose.TRAIN
            used = self.ledger.subjects_of(name)
            for handle in used:
                if (purpose, handle) not in decided:
                    decided[purpose, handle] = self._allowed(view, handle, purpose)
            allowed = {handle for handle in used if decided[purpose, handle]}
            salt = self.keys.round_salt(name)
            total += subjects_without_consent(used, salt=salt, commitment=commitment, allowed=allowed)
        return total

    def _view(self) -> LaneView:
        pinned, holder = self.run.pinned, self.settings.holder
        if pinned not in self.views:
            self.views[pinned] = project(
                self.lane.entries()[: pinned.size],
                pinned,
                key=self.keys.lane_key,
                lane=holder,
                holder=holder,
                epoch=self.settings.epoch,
                links=self.lane.links_by_handle(),
            )
        return self.views[pinned]

    def _allowed(self, view: LaneView, handle: bytes, purpose: Purpose) -> bool:
        plan = self.run.plan
        decision = decide(
            view,
            handle,
            purpose=purpose,
            recipient=plan.coordinator,
            interval=Interval(plan.not_before, plan.ends),
            categories=self.categories,
            policy=GatePolicy(clock_skew_s=self.settings.policy.clock_skew_s),
        )
        return isinstance(decision, Allow)
