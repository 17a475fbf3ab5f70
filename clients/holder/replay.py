"""Replaying a run from the log: were all subjects that this data holder committed to under a consent in force?

The same replay as an auditor's (`privacy.consent.audit`), over what this data holder would show one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clients.audit.opening import show
from clients.holder.disclosure import Disclosure
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy, LaneSource
from clients.holder.ledger import PrivacyLedger
from clients.holder.run import Run
from clients.holder.settings import HolderSettings
from federated.releases import measurement_stage, release_name
from privacy.consent.audit import Flaw, LaneReplay, Terms
from privacy.consent.gate import GatePolicy, Interval
from privacy.consent.record import Purpose
from privacy.errors import TamperingError


@dataclass(frozen=True, slots=True)
class Replay:
    """Everything a replay reads: the run, which knows the head it was pinned to, and what this data holder keeps.

    `source` is the registry, asked only for entries that the lane copy could not open; None believes the copy.
    """

    run: Run
    settings: HolderSettings
    categories: frozenset[str]
    keys: HolderKeys
    lane: LaneCopy
    ledger: PrivacyLedger
    source: Callable[[], LaneSource] | None

    def rows_used_without_consent(self, commitments: Mapping[str, bytes]) -> int:
        """Over all releases in `commitments` (name to root): subjects charged, and not allowed by the log.

        Every record of the pinned prefix is verified anew and each decision taken anew; a subject whose consent was
        erased since counts, because it can no longer be shown. TamperingError if the ledger's subjects are not those
        committed to, or the lane does not hold.
        """
        plan, holder = self.run.plan, self.settings.holder
        shown = Disclosure(holder, self.run, self.keys, self.lane, self.ledger, self.source)
        terms = Terms(
            holder=holder,
            identity=self.keys.identity.public,
            pinned=self.run.pinned,
            later=self.lane.head,
            recipient=plan.coordinator,
            interval=Interval(plan.not_before, plan.ends),
            categories=self.categories,
            policy=GatePolicy(clock_skew_s=self.settings.policy.clock_skew_s),
        )
        replay = LaneReplay(terms, self.lane.links_ever())
        for line in shown.entries():
            show(line, replay)
        judge = replay.close()
        if not judge.lane.adds_up:
            raise TamperingError(
                f"The {terms.pinned.size} entries that this run was pinned to are not what this lane copy holds: one "
                "was left out, changed or moved. This data holder should keep the copy, use nobody's rows, and tell "
                "the registry's operator and the auditor."
            )
        measured = release_name(self.run.name, measurement_stage(self.run.recipe))
        for name, commitment in commitments.items():
            purpose = Purpose.VALIDATE if name == measured else Purpose.TRAIN
            used = self.ledger.subjects_of(name)
            judge.release(name, purpose, salt=self.keys.round_salt(name), commitment=commitment, used=used)
        findings = judge.findings()
        for finding in findings:
            if finding.flaw is Flaw.COMMITMENT:
                raise TamperingError(
                    f"The {finding.of} subjects that this data holder's ledger names for release {finding.release} "
                    "are not those committed to in it. The data holder should keep the ledger and tell the auditor."
                )
        return sum(finding.count for finding in findings)
