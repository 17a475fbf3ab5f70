"""What people allow at this instant, counted for the house or told in plain words to one person at the desk."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from clients.holder.desk import Desk
from privacy.consent.gate import Allow, Deny, GatePolicy, Interval, Reason, decide
from privacy.consent.projection import REASON_CODES, Projection
from privacy.consent.record import ConsentRecord, Grant, Purpose
from privacy.consent.view import Conflict, LaneView
from privacy.errors import RefusalCode, RefusalError, UsageError

Standing = ConsentRecord | Conflict | None
Target = tuple[Purpose, str]

NOBODY_LEFT_OUT: Mapping[Purpose, Collection[str]] = {}

WORDS: Mapping[Reason, str] = {
    Reason.NONE: "no record has arrived",
    Reason.CONFLICT: "two records with one number contradict each other; a new record from the wallet ends that",
    Reason.FROZEN: "frozen by the person",
    Reason.PURPOSE: "not granted, or withdrawn",
    Reason.TIME: "the grant has not begun or has run out",
    Reason.RECONFIRM: "waiting for the person to confirm again",
    Reason.DATA: "the grant does not cover all categories of this data holder's schema",
    Reason.USES: "the agreed number of answers is used up for now",
    Reason.BUDGET: "the privacy budget in the grant is too small to take part",
}


@dataclass(frozen=True, slots=True)
class Count:
    """How many linked customers allow one purpose for one recipient, and how many do not, by reason."""

    purpose: Purpose
    to: str
    allowed: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether one person allows one purpose for one recipient; `until` (exclusive, UTC seconds) if so, else why not."""

    purpose: Purpose
    to: str
    reason: Reason | None
    until: int | None


def targets_of(purpose: str | None, recipient: str | None) -> list[Target] | None:
    """The purpose and recipient asked for; None if neither is. UsageError for one without the other."""
    if (purpose is None) != (recipient is None):
        raise UsageError("--purpose and --to go together: give both, or neither for all.")
    return None if purpose is None or recipient is None else [(Purpose(purpose), recipient)]


def counts(
    desk: Desk, targets: Iterable[Target] | None, *, at: int, among: Mapping[Purpose, Collection[str]] = NOBODY_LEFT_OUT
) -> list[Count]:
    """For each of `targets`, or each that a record names and the coordinator's own, the linked customers by decision.

    `among` are the customers who count for a purpose; all do for one that it does not name.
    Both the lane and the lane with the records that came through the side door must allow. What the privacy ledger has
    charged does not count here: it is the run's to ask.
    """
    links = desk.lane.links()
    alone, over = (dict(desk.lane.standings(direct=direct)) for direct in (False, True))
    categories, found = desk.categories, []
    for purpose, to in sorted(_named(desk, over.values()) if targets is None else set(targets)):
        some = among.get(purpose)
        handles = [handle for customer, handle in links.items() if some is None or customer in some]
        refused: Counter[Reason] = Counter()
        reasons = [_reasons(desk, view, purpose, to, categories, at=at) for view in (over, alone)]
        for handle in handles:
            # The newest record speaks first, as in the answer to one person.
            reason = next((told[handle] for told in reasons if handle in told), None)
            if reason is not None:
                refused[reason] += 1
        ordered = {reason.value: refused[reason] for reason in Reason if refused[reason]}
        found.append(Count(purpose, to, len(handles) - refused.total(), ordered))
    return found


def standings_of(desk: Desk, customer: str) -> tuple[bytes, Standing, Standing]:
    """A linked customer's handle, the newest record, also if it came through the side door, and that of the lane."""
    handle = desk.lane.links().get(customer)
    if handle is None:
        raise RefusalError(
            "This customer is not linked to a wallet, so nothing about this person is used. To link: "
            "fedcredit holder link CUSTOMER --out FILE, and the person's wallet must answer.",
            RefusalCode.CONSENT,
        )
    return handle, desk.lane.standing(handle), desk.lane.view().standing(handle)


def answers(
    desk: Desk, handle: bytes, standings: tuple[Standing, Standing], targets: Iterable[Target] | None, *, at: int
) -> list[Answer]:
    """What one person allows at `at`: each target asked for, or each grant in the newest record.

    `standings` are the newest one and that of the lane alone; both must allow.
    """
    if targets is None:
        targets = [(grant.purpose, grant.to) for grant in _grants(standings[0])]
    policy, categories, found = GatePolicy(desk.settings.policy.clock_skew_s), desk.categories, []
    for purpose, to in targets:
        decisions = [_decision(desk, handle, one, purpose, to, categories, at=at) for one in standings]
        reason = next((decision.reason for decision in decisions if isinstance(decision, Deny)), None)
        ends = [
            min(grant.exp, grant.reconfirm_by) - policy.clock_skew_s
            for standing in standings
            for grant in _grants(standing)
            if (grant.purpose, grant.to) == (purpose, to)
        ]
        found.append(Answer(purpose, to, reason, min(ends) if reason is None else None))
    return found


def in_words(standing: Standing) -> str:
    """The whole record in one sentence."""
    match standing:
        case None:
            return "Linked; no record has arrived, so nothing is used."
        case Conflict():
            return f"Two records with one number stand against each other: {WORDS[Reason.CONFLICT]}. Nothing is used."
        case ConsentRecord(frozen=True):
            return f"Frozen by the person on {utc(standing.iat)}: nothing is used until the person thaws it."
        case ConsentRecord(grants=()):
            return f"Everything was withdrawn on {utc(standing.iat)}: nothing is used."
        case ConsentRecord():
            return f"The newest record, number {standing.seq}, was signed on {utc(standing.iat)}."


def utc(instant: int) -> str:
    """An instant for people, to the minute."""
    return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M} UTC"


def _named(desk: Desk, standings: Iterable[Standing]) -> set[Target]:
    coordinator = desk.settings.policy.coordinator
    named = {(Purpose.TRAIN, coordinator), (Purpose.VALIDATE, coordinator)}
    for standing in standings:
        named.update((grant.purpose, grant.to) for grant in _grants(standing))
    return named


def _reasons(
    desk: Desk, standings: Mapping[bytes, ConsentRecord | Conflict], purpose: Purpose, to: str,
    categories: frozenset[str], *, at: int,
) -> Mapping[bytes, Reason]:  # fmt: skip
    """Why not, by handle, for every linked customer who does not allow it."""
    missing = dict.fromkeys(set(desk.lane.links().values()) - standings.keys(), Reason.NONE)
    if purpose in (Purpose.SCORE, Purpose.MONITOR):  # these have a limit of uses, which only the lane copy can count
        decisions = (
            (handle, _decision(desk, handle, standing, purpose, to, categories, at=at))
            for handle, standing in standings.items()
        )
        return missing | {handle: decision.reason for handle, decision in decisions if isinstance(decision, Deny)}
    projection = Projection.of(standings.items(), purpose=purpose, recipient=to, categories=categories)
    codes = projection.reasons(Interval(at, at), GatePolicy(desk.settings.policy.clock_skew_s)).tolist()
    return missing | {handle: REASON_CODES[codes[row]] for handle, row in projection.rows.items() if codes[row]}


def _decision(
    desk: Desk, handle: bytes, standing: Standing, purpose: Purpose, to: str, categories: frozenset[str], *, at: int
) -> Allow | Deny:
    return decide(
        LaneView(desk.lane.head, {} if standing is None else {handle: standing}),
        handle,
        purpose=purpose,
        recipient=to,
        interval=Interval(at, at),
        categories=categories,
        policy=GatePolicy(desk.settings.policy.clock_skew_s),
        past_uses=desk.lane.past_uses(handle, to),
    )


def _grants(standing: Standing) -> tuple[Grant, ...]:
    return standing.grants if isinstance(standing, ConsentRecord) else ()
