"""The gate: a pure decision whether one subject's row may be used. Default deny."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from privacy.consent.budget import tier_of
from privacy.consent.record import Grant, Purpose, TrainingBudget
from privacy.consent.view import Conflict, LaneView
from privacy.errors import MalformedError


class Reason(StrEnum):
    """Why a row may not be used, in the order in which the gate asks."""

    NONE = "none"
    CONFLICT = "conflict"
    FROZEN = "frozen"
    PURPOSE = "purpose"
    TIME = "time"
    RECONFIRM = "reconfirm"
    DATA = "data"
    USES = "uses"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Interval:
    """The instants from `t_lo` to `t_hi`, both included, UTC seconds: all of a round, or one score."""

    t_lo: int
    t_hi: int

    def __post_init__(self) -> None:
        if type(self.t_lo) is not int or type(self.t_hi) is not int or self.t_lo > self.t_hi:
            raise MalformedError(
                "an interval needs two whole UTC seconds, the first not after the second; "
                "whoever planned the round must correct it."
            )


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """`clock_skew_s` seconds by which any two parties' clocks may differ; 120 is the design's figure."""

    clock_skew_s: int

    def __post_init__(self) -> None:
        if type(self.clock_skew_s) is not int or self.clock_skew_s < 0:
            raise MalformedError("the gate's clock_skew_s must be a whole number of seconds, 0 or more.")


@dataclass(frozen=True, slots=True)
class Allow:
    """The row may be used; `budget` bounds what statistics about it may cost (train and validate only)."""

    budget: TrainingBudget | None


@dataclass(frozen=True, slots=True)
class Deny:
    """The row may not be used."""

    reason: Reason


_DENIALS: Final = {reason: Deny(reason) for reason in Reason}


def decide(
    view: LaneView,
    handle: bytes,
    *,
    purpose: Purpose,
    recipient: str,
    interval: Interval,
    categories: frozenset[str],
    policy: GatePolicy,
    past_uses: Sequence[int] | None = None,
) -> Allow | Deny:
    """Whether `handle`'s row may be used for `purpose` and `recipient` in `interval`, reading `categories`.

    The interval is widened by the clock skew on both sides, so consent cannot run out in mid-round.
    `past_uses` are the UTC seconds of earlier answers about this subject for this purpose and recipient; a
    grant with a limit of uses is denied while they are unknown (None). Whether a budget is spent is the
    privacy ledger's to say; here a cap below the smallest tier is refused.
    """
    standing = view.standing(handle)
    if standing is None:
        return _DENIALS[Reason.NONE]
    if isinstance(standing, Conflict):
        return _DENIALS[Reason.CONFLICT]
    if standing.frozen:
        return _DENIALS[Reason.FROZEN]
    for grant in standing.grants:
        if grant.purpose is purpose and grant.to == recipient:
            reason = _objection(grant, interval, categories, policy, past_uses)
            return Allow(grant.dp) if reason is None else _DENIALS[reason]
    return _DENIALS[Reason.PURPOSE]


def _objection(
    grant: Grant,
    interval: Interval,
    categories: frozenset[str],
    policy: GatePolicy,
    past_uses: Sequence[int] | None,
) -> Reason | None:
    t_lo = interval.t_lo - policy.clock_skew_s
    t_hi = interval.t_hi + policy.clock_skew_s
    if not (grant.nbf <= t_lo and t_hi < grant.exp):
        return Reason.TIME
    if t_hi >= grant.reconfirm_by:
        return Reason.RECONFIRM
    if not categories.issubset(grant.data):
        return Reason.DATA
    if grant.uses is not None:
        since = t_lo - grant.uses.per_s
        if past_uses is None or sum(use > since for use in past_uses) >= grant.uses.n:
            return Reason.USES
    if grant.dp is not None and tier_of(grant.dp.eps_milli / 1000) is None:
        return Reason.BUDGET
    return None
