"""What a wallet tells its owner: each data holder's grants, records and receipts, and every alarm."""

from datetime import UTC, datetime
from typing import Any

from clients.wallet.state import Account, Alarm, AlarmKind, State, Written
from privacy.consent.budget import TIERS, tier_of
from privacy.consent.limits import DAY_S
from privacy.consent.promise import read_promise
from privacy.consent.record import Grant

MEANINGS = {
    AlarmKind.SIGNATURE: "a checkpoint carries no valid signature by the registry",
    AlarmKind.WENT_BACK: "the lane became shorter than it was",
    AlarmKind.CONSISTENCY: "the lane's earlier entries are not what they were",
    AlarmKind.INCLUSION: "a record is not where the registry promised it",
    AlarmKind.PROMISE: "a promise is forged, or for another record than was handed in",
    AlarmKind.OVERDUE: "the registry has not shown a record in the lane, after the time that it promised",
    AlarmKind.POSITION: "the registry says that a record is in the lane, and cannot prove it",
    AlarmKind.KEY_SET: "the registry serves keys that are not the data holder's, or older ones than before",
}


def day(at: int) -> str:
    """An instant as a UTC date and time, for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}Z"


def told(alarm: Alarm) -> str:
    """An alarm in one line."""
    about = "" if alarm.seq is None else f", record {alarm.seq}"
    return f"{alarm.holder}{about}, seen {day(alarm.at)}: {MEANINGS[alarm.kind]}"


def status_of(state: State, *, at: int) -> dict[str, Any]:
    """Everything in force, waiting and wrong, as plain values. No secret, handle or key is among them."""
    return {
        "alarms": [
            {"holder": alarm.holder, "kind": alarm.kind.value, "record": alarm.seq, "at": alarm.at,
             "meaning": MEANINGS[alarm.kind]}
            for alarm in state.alarms
        ],
        "holders": [_holder(account, at) for account in state.accounts],
        "share_lent_milli": sum(account.memory.share_milli(at) for account in state.accounts),
    }  # fmt: skip


def _holder(account: Account, at: int) -> dict[str, Any]:
    wishes, newest = account.wishes, account.newest
    return {
        "holder": account.holder,
        "linked_at": account.linked_at,
        "known": account.known,
        "outdated": account.outdated,
        "frozen": wishes is not None and wishes.frozen,
        "share_lent_milli": account.memory.share_milli(at),
        "grants": [] if wishes is None else [_grant(grant, wishes.frozen, at) for grant in wishes.grants],
        "unsent": 0 if account.unsent is None else 1,
        "superseded": len(account.superseded),
        "record": None if newest is None else _record(account, newest),
    }


def _grant(grant: Grant, frozen: bool, at: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "purpose": grant.purpose.value,
        "to": grant.to,
        "data": list(grant.data),
        "state": _state(grant, frozen, at),
        "from": grant.nbf,
        "until": grant.exp,
        "reconfirm_by": grant.reconfirm_by,
        "retain_s": grant.retain_s,
    }
    if grant.dp is not None:
        tier = tier_of(grant.dp.eps_milli / 1000)
        told |= {"epsilon": grant.dp.eps_milli / 1000, "epsilon_counted": tier, "delta_log10": grant.dp.delta_log10,
                 "window_s": grant.dp.window_s, "share_milli": grant.dp.share_milli}  # fmt: skip
    if grant.uses is not None:
        told |= {"uses": grant.uses.n, "per_s": grant.uses.per_s}
    return told


def _state(grant: Grant, frozen: bool, at: int) -> str:
    if at >= grant.exp:
        return "expired"
    if frozen:
        return "frozen"
    if at < grant.nbf:
        return "not yet"
    if at >= grant.reconfirm_by:
        return "paused: grant it again"
    if grant.dp is not None and tier_of(grant.dp.eps_milli / 1000) is None:
        return f"in force, takes no part: epsilon below {TIERS[0]:g}"
    return "in force"


def _record(account: Account, written: Written) -> dict[str, Any]:
    position = None
    if written.receipt is not None:
        position = written.receipt.position
    elif written.promise is not None:
        position = read_promise(written.promise.encode(), registry_key=account.registry_key).position
    return {
        "number": written.seq,
        "written_at": written.written_at,
        "position": position,
        "promised": written.promise is not None,
        "handed_directly": written.handed_directly_at is not None,
        "receipt": written.receipt is not None,
        "refused": written.lost,
        "perhaps_unreadable": written.perhaps_unreadable,
    }


def limits_line(grant: dict[str, Any]) -> str:
    """What a grant may cost: epsilon in each window at a share, or so many answers; empty without a grant."""
    if "epsilon" in grant:
        share, days = grant["share_milli"] / 1000, grant["window_s"] // DAY_S
        return f"epsilon {grant['epsilon']:g} in {days} days, share {share:g}"
    if "uses" in grant:
        return f"{grant['uses']} answers in {grant['per_s'] // DAY_S} days"
    return ""


def record_line(record: dict[str, Any] | None) -> str:
    """How far a data holder's newest record came, in a few words."""
    if record is None:
        return "no record"
    number = f"record {record['number']}"
    if record["perhaps_unreadable"]:
        return f"{number} sealed to an EXPIRED key, perhaps unreadable; run: fedcredit wallet status"
    if record["receipt"]:
        return f"{number} at position {record['position']}, receipt kept"
    if record["promised"]:
        return f"{number} promised at position {record['position']}, no receipt yet"
    if record["handed_directly"]:
        return f"{number} handed over directly, not in the lane yet"
    if record["refused"]:
        return f"{number} REFUSED for good by the registry; run the same command again"
    return f"{number} NOT DELIVERED; run: fedcredit wallet status"
