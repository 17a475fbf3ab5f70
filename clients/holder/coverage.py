"""How many people here may be trained on, told before a run: noised, charged to everybody counted, and told once.

It is a release like any other: charge, make durable, then tell; asked again about the same run, the same bytes. A
hundredth of everybody's allowance is set aside for it, and whoever has used that up is counted no more, so being asked
costs nobody a run. The count is of at least those: who allows too little to be counted is not in it.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import numpy as np

from clients.holder.keys import HolderKeys
from clients.holder.ledger import PrivacyLedger
from clients.holder.ledger_budget import ROUNDING
from clients.holder.ledger_chain import LedgerHead
from clients.holder.permits import Permits
from clients.holder.release import chance_of, made_once
from clients.holder.run import Run
from federated.coverage import COVERAGE_SPEND, DEVIATION, coverage_name, coverage_statement, noisy_count
from federated.messages import Coverage, LedgerMark
from privacy.accounting import SampledSpend
from privacy.consent.budget import COUNTED_PART
from privacy.consent.record import Purpose
from privacy.consent.signing import PayloadType

_COST: Final = COVERAGE_SPEND.mu**2


class Counted(msgspec.Struct, frozen=True):
    """A count as it was kept: the plan that it was asked for, and the noised number. The exact one is nowhere."""

    plan: str
    delta: float
    count: int


class HeadCount:
    """Tells the coordinator about how many people of one data holder each run could train on."""

    def __init__(
        self,
        holder: str,
        keys: HolderKeys,
        ledger: PrivacyLedger,
        permits: Permits,
        remember: Callable[[LedgerHead], None],
    ) -> None:
        """`remember` keeps the ledger's head outside the ledger, durable on return."""
        self._holder, self._keys, self._ledger = holder, keys, ledger
        self._permits, self._remember = permits, remember

    def tell(self, run: Run, *, renew: Callable[[], None]) -> Coverage:
        """The signed count for `run`, which was checked; a count made before is told again, byte for byte.

        `renew` brings the lane to what the registry knows now, or raises RefusalError: nobody who has withdrawn is
        counted.
        """
        name = coverage_name(run.name)

        def make() -> bytes:
            renew()
            people = self._charged(run, name)
            chance = chance_of(run.plan.seed, f"{self._holder}/{run.name}/coverage")
            return msgspec.msgpack.encode(
                Counted(run.plan.name, run.plan.privacy.delta, noisy_count(people, chance))
            )  # fmt: skip

        counted = read_count(made_once(self._ledger, name, make, self._remember))
        head = self._ledger.kept_at(name)
        unsigned = Coverage(
            self._holder, run.name, counted.count, DEVIATION, LedgerMark(head.size, head.digest), signature=b""
        )
        signature = self._keys.identity.sign(PayloadType.COVERAGE, coverage_statement(unsigned))
        return msgspec.structs.replace(unsigned, signature=signature)

    def _charged(self, run: Run, name: str) -> int:
        """How many people are counted, every one of them charged."""
        people = self._permits.people(run)
        if self._ledger.has_charged(name):
            # A crash came before the number was kept, and it was never told: who has left since then is not in it.
            return len(people.keys() & set(self._ledger.subjects_of(name)))
        allowances = self._who_can_pay(run, name, people)
        self._ledger.charge(
            name, COVERAGE_SPEND, dict.fromkeys(allowances, 1.0), allowances, delta=run.plan.privacy.delta
        )
        return len(allowances)

    def _who_can_pay(self, run: Run, name: str, people: dict[bytes, float]) -> dict[bytes, float]:
        """Those of `people` whom one more count leaves within the part set aside for it, and within the cap."""
        handles, allowances = list(people), np.fromiter(people.values(), dtype=np.float64, count=len(people))
        counted = self._ledger.counted_mu_squared(handles)
        enough = counted + _COST <= COUNTED_PART * allowances * (1 + ROUNDING)
        # By what was spent on runs as well: a cap may have been lowered since.
        passes = partial(
            self._ledger.would_pass, name, handles, [(COVERAGE_SPEND, np.ones(len(handles)))], allowances,
            reserved=counted,
        )  # fmt: skip
        passed = passes(delta=run.plan.privacy.delta)
        if any(isinstance(release.spend, SampledSpend) for release in self._ledger.releases()):
            # What samples cost is known at one delta at a time, and people set their caps at their own.
            for own in self._permits.own_deltas(run, Purpose.TRAIN, handles):
                passed |= passes(delta=own)
        return {
            handle: people[handle] for handle, pays in zip(handles, (enough & ~passed).tolist(), strict=True) if pays
        }


def read_count(kept: bytes) -> Counted:
    """What `HeadCount` kept."""
    return msgspec.msgpack.decode(kept, type=Counted)
