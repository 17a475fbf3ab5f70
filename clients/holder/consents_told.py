"""Consents as the desk reads them: lines for people, facts for machines. Neither holds a handle or a key."""

from typing import Any

from clients.holder.consents import WORDS, Target, answers, counts, in_words, standings_of, utc
from clients.holder.desk import Desk
from privacy.consent.gate import Reason

IN_THE_HOUSE = "These figures stay in the house: two of them, a day apart, tell who withdrew."


def tell_counts(desk: Desk, targets: list[Target] | None, *, at: int) -> tuple[dict[str, Any], list[str]]:
    """How many linked customers allow what, and why the others do not."""
    found, linked, age = counts(desk, targets, at=at), len(desk.lane.links()), desk.lane.age(at=at)
    lines = [
        f"{linked} linked customers at {utc(at)}; the lane was synced {age} s ago"
        if desk.lane.synced_at
        else f"{linked} linked customers at {utc(at)}; the lane was never synced"
    ]
    for count in found:
        lines.append(f"{count.purpose.value} for {count.to}: {count.allowed} allowed")
        lines += [f"  {number} not: {WORDS[Reason(reason)]} ({reason})" for reason, number in count.refused.items()]
    lines.append(IN_THE_HOUSE)
    facts = {
        "at": at,
        "synced_at": desk.lane.synced_at,
        "size": desk.lane.head.size,
        "linked": linked,
        "stays_in_the_house": True,
        "consents": [
            {"purpose": count.purpose.value, "to": count.to, "allowed": count.allowed, "refused": dict(count.refused)}
            for count in found
        ],
    }
    return facts, lines


def tell_one(desk: Desk, customer: str, targets: list[Target] | None, *, at: int) -> tuple[dict[str, Any], list[str]]:
    """What one customer said last, in plain words."""
    handle, standing, in_lane = standings_of(desk, customer)
    found = answers(desk, handle, (standing, in_lane), targets, at=at)
    lines = [in_words(standing)]
    if standing != in_lane:
        lines.append("It came through the side door and is not in the lane yet: until it is, it can only restrict.")
    for answer in found:
        said = f"not now: {WORDS[answer.reason]} ({answer.reason.value})" if answer.reason else "allowed"
        until = f" until {utc(answer.until)}" if answer.until is not None else ""
        lines.append(f"{answer.purpose.value} for {answer.to}: {said}{until}")
    facts = {
        "at": at,
        "standing": in_words(standing),
        "in_lane": standing == in_lane,
        "answers": [
            {
                "purpose": answer.purpose.value,
                "to": answer.to,
                "allowed": answer.reason is None,
                "reason": answer.reason.value if answer.reason else None,
                "until": answer.until,
            }
            for answer in found
        ],
    }
    return facts, lines
