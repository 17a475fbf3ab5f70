import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.gate import Allow, Deny, GatePolicy, Interval, Reason, decide
from privacy.consent.lane import Head
from privacy.consent.record import ConsentRecord, Grant, Purpose, Uses, encode_record
from privacy.consent.view import LaneView
from privacy.errors import MalformedError
from tests.privacy.consent.samples import (
    CATEGORIES,
    COORDINATOR,
    DAY,
    LENDER,
    NOW,
    Person,
    budget,
    digest,
    grant,
    record,
)

ALICE = Person("alice")
HEAD = Head(1, digest("root"))
SKEW_S = 120
POLICY = GatePolicy(clock_skew_s=SKEW_S)
ROUND = Interval(NOW, NOW + 60)


def view(*wishes: ConsentRecord) -> LaneView:
    return LaneView.of(HEAD, [encode_record(one) for one in wishes])


def asked(known: LaneView, **changes: Any) -> Allow | Deny:
    settings: dict[str, Any] = {
        "purpose": Purpose.TRAIN,
        "recipient": COORDINATOR,
        "interval": ROUND,
        "categories": frozenset(CATEGORIES),
        "policy": POLICY,
    }
    return decide(known, ALICE.handle, **(settings | changes))


GRANTED = view(record(ALICE, grant()))


def test_a_grant_in_force_allows_with_its_budget() -> None:
    assert asked(GRANTED) == Allow(budget())
    assert asked(GRANTED, categories=frozenset({"capacity"})) == Allow(budget())
    score = view(record(ALICE, grant(Purpose.SCORE)))
    assert asked(score, purpose=Purpose.SCORE, recipient=LENDER, past_uses=()) == Allow(None)


@pytest.mark.parametrize(
    ("known", "changes", "reason"),
    [
        (view(), {}, Reason.NONE),
        (view(record(Person("bob"), grant())), {}, Reason.NONE),
        (view(record(ALICE, grant()), record(ALICE)), {}, Reason.CONFLICT),
        (view(record(ALICE, grant(), frozen=True)), {}, Reason.FROZEN),
        (view(record(ALICE, frozen=True)), {}, Reason.FROZEN),
        (view(record(ALICE)), {}, Reason.PURPOSE),
        (view(record(ALICE, grant(Purpose.SCORE, to=COORDINATOR))), {}, Reason.PURPOSE),
        (view(record(ALICE, grant(Purpose.VALIDATE))), {}, Reason.PURPOSE),
        (GRANTED, {"purpose": Purpose.VALIDATE}, Reason.PURPOSE),
        (GRANTED, {"recipient": "coordinator-2"}, Reason.PURPOSE),
        (GRANTED, {"recipient": ""}, Reason.PURPOSE),
        (GRANTED, {"categories": frozenset({"capacity", "behaviour"})}, Reason.DATA),
        (view(record(ALICE, grant(dp=budget(eps_milli=249)))), {}, Reason.BUDGET),
    ],
)
def test_each_reason_to_deny(known: LaneView, changes: dict[str, Any], reason: Reason) -> None:
    assert asked(known, **changes) == Deny(reason)


@pytest.mark.parametrize(
    ("nbf", "exp", "expected"),
    [
        (NOW - SKEW_S, NOW + 60 + SKEW_S + 1, None),
        (NOW - SKEW_S + 1, NOW + DAY, Reason.TIME),
        (NOW - DAY, NOW + 60 + SKEW_S, Reason.TIME),
        (NOW - DAY, NOW + 30, Reason.TIME),  # runs out in mid-round
        (NOW + 30, NOW + DAY, Reason.TIME),  # begins in mid-round
        (NOW - DAY, NOW - DAY + 1, Reason.TIME),
        (NOW + DAY, NOW + 2 * DAY, Reason.TIME),
    ],
)
def test_the_grant_covers_the_round_and_the_clock_skew(nbf: int, exp: int, expected: Reason | None) -> None:
    known = view(record(ALICE, grant(nbf=nbf, exp=exp, reconfirm_by=exp)))
    assert asked(known) == (Allow(budget()) if expected is None else Deny(expected))


@pytest.mark.parametrize("seconds_off", [-DAY, -3600, -121, 121, 3600, DAY])
def test_a_clock_off_by_more_than_the_skew_never_stretches_a_grant(seconds_off: int) -> None:
    now = NOW + seconds_off
    ends_now = view(record(ALICE, grant(exp=NOW, reconfirm_by=NOW)))
    begins_now = view(record(ALICE, grant(nbf=NOW)))
    allowed = Allow(budget())
    assert asked(ends_now, interval=Interval(now, now)) == (allowed if seconds_off < -SKEW_S else Deny(Reason.TIME))
    assert asked(begins_now, interval=Interval(now, now)) == (allowed if seconds_off >= SKEW_S else Deny(Reason.TIME))


def test_reconfirm_by_pauses_from_its_instant_on() -> None:
    for reconfirm_by, expected in (
        (NOW + 60 + SKEW_S + 1, Allow(budget())),
        (NOW + 60 + SKEW_S, Deny(Reason.RECONFIRM)),
        (NOW - DAY, Deny(Reason.RECONFIRM)),
    ):
        assert asked(view(record(ALICE, grant(reconfirm_by=reconfirm_by)))) == expected


def test_an_hour_that_a_local_clock_shows_twice_is_two_hours_here() -> None:
    # 2027-10-31 01:30 UTC is 02:30 in Berlin for the second time; the grant ends at the first 02:30.
    first, second = 1_824_942_600, 1_824_946_200
    known = view(record(ALICE, grant(nbf=first - DAY, exp=first, reconfirm_by=first)))
    assert asked(known, interval=Interval(first - 300, first - 200)) == Allow(budget())
    assert asked(known, interval=Interval(second - 300, second - 200)) == Deny(Reason.TIME)


@pytest.mark.parametrize(
    ("past_uses", "expected"),
    [
        ((), Allow(None)),
        ((NOW - 1, NOW - 2), Allow(None)),
        ((NOW - 1, NOW - 2, NOW - 3), Deny(Reason.USES)),
        ((NOW - 1, NOW - 2, NOW - DAY - SKEW_S), Allow(None)),
        ((NOW - 1, NOW - 2, NOW - DAY - SKEW_S + 1), Deny(Reason.USES)),
        (None, Deny(Reason.USES)),
    ],
)
def test_uses_are_counted_over_the_window_and_unknown_ones_deny(past_uses: Any, expected: Any) -> None:
    known = view(record(ALICE, grant(Purpose.SCORE, uses=Uses(n=3, per_s=DAY))))
    asked_for = {"purpose": Purpose.SCORE, "recipient": LENDER, "past_uses": past_uses}
    assert asked(known, **asked_for) == expected


def literal(wishes: ConsentRecord, purpose: str, recipient: str, lo: int, hi: int, reads: set[str]) -> str:
    """Section 4 of the design, line by line, over plain dictionaries."""
    if wishes.frozen:
        return "frozen"
    table = {(one.purpose.value, one.to): one for one in wishes.grants}
    if (purpose, recipient) not in table:
        return "purpose"
    one = table[purpose, recipient]
    if not (one.nbf <= lo and hi < one.exp):
        return "time"
    if hi >= one.reconfirm_by:
        return "reconfirm"
    if reads - set(one.data):
        return "data"
    return "allow"


near = st.integers(-400, 400).map(NOW.__add__)
targets = st.sampled_from([(purpose, to) for purpose in (Purpose.TRAIN, Purpose.VALIDATE) for to in ("a", "b")])
covered = st.sets(st.sampled_from(["capacity", "behaviour", "obligations"]), min_size=1)


@st.composite
def near_grants(draw: st.DrawFn) -> Grant:
    purpose, to = draw(targets)
    nbf = draw(near)
    exp = nbf + draw(st.integers(1, 900))
    return grant(
        purpose,
        to=to,
        data=tuple(sorted(draw(covered))),
        nbf=nbf,
        exp=exp,
        reconfirm_by=draw(st.integers(nbf + 1, exp)),
    )


@given(
    st.lists(near_grants(), max_size=4, unique_by=lambda one: (one.purpose, one.to)),
    st.sampled_from([False, False, False, True]),
    targets,
    near,
    st.integers(0, 50),
    st.integers(0, 130),
    covered,
)
def test_every_decision_is_the_literal_ones(
    wanted: list[Grant],
    frozen: bool,
    target: tuple[Purpose, str],
    t_lo: int,
    length: int,
    skew: int,
    reads: set[str],
) -> None:
    wishes = record(ALICE, *sorted(wanted, key=lambda one: (one.purpose.value, one.to)), frozen=frozen)
    decision = asked(
        view(wishes),
        purpose=target[0],
        recipient=target[1],
        interval=Interval(t_lo, t_lo + length),
        categories=frozenset(reads),
        policy=GatePolicy(clock_skew_s=skew),
    )
    expected = literal(wishes, target[0].value, target[1], t_lo - skew, t_lo + length + skew, reads)
    assert (decision.reason.value if isinstance(decision, Deny) else "allow") == expected


@pytest.mark.parametrize("times", [(2, 1), (1.0, 2), (1, 2.0), (True, 2), ("1", 2), (None, 2)])
def test_an_interval_is_two_whole_seconds_in_order(times: tuple[Any, Any]) -> None:
    with pytest.raises(MalformedError):
        Interval(*times)


@pytest.mark.parametrize("skew", [-1, 1.5, True, None])
def test_a_policy_has_a_whole_number_of_seconds(skew: Any) -> None:
    with pytest.raises(MalformedError):
        GatePolicy(clock_skew_s=skew)


histories = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from([False, False, False, True]),
        st.lists(near_grants(), max_size=3, unique_by=lambda one: (one.purpose, one.to)),
    ).map(
        lambda drawn: record(
            ALICE,
            *sorted(drawn[2], key=lambda one: (one.purpose.value, one.to)),
            seq=drawn[0],
            frozen=drawn[1],
        )
    ),
    max_size=6,
)


def decisions(known: LaneView, *, policy: GatePolicy = POLICY) -> list[Allow | Deny]:
    """Every decision about Alice that any of the drawn grants could sway."""
    return [
        asked(
            known,
            purpose=purpose,
            recipient=to,
            interval=Interval(NOW, NOW + 20),
            categories=frozenset({"capacity"}),
            policy=policy,
        )
        for purpose in Purpose
        for to in ("a", "b")
    ]


NO_SKEW = GatePolicy(clock_skew_s=0)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_matters(history: list[ConsentRecord], chance: random.Random) -> None:
    shuffled = history.copy()
    chance.shuffle(shuffled)
    repeated = shuffled + history[:2]
    assert decisions(view(*history), policy=NO_SKEW) == decisions(view(*shuffled), policy=NO_SKEW)
    assert decisions(view(*history), policy=NO_SKEW) == decisions(view(*repeated), policy=NO_SKEW)


@given(histories, st.integers(0, 6), st.sampled_from(["withdrawn", "frozen"]))
def test_a_withdrawal_is_never_undone_by_anything_older(history: list[ConsentRecord], place: int, how: str) -> None:
    last = record(ALICE, seq=6) if how == "withdrawn" else record(ALICE, grant(to="a"), seq=6, frozen=True)
    reason = Reason.PURPOSE if how == "withdrawn" else Reason.FROZEN
    for policy in (POLICY, NO_SKEW):
        assert set(decisions(view(*history[:place], last, *history[place:]), policy=policy)) == {Deny(reason)}


@given(histories, histories)
def test_only_the_newest_record_decides(history: list[ConsentRecord], older: list[ConsentRecord]) -> None:
    if history:
        first = min(one.seq for one in history)
        stale = [one for one in older if one.seq < first]
        newest = [one for one in history if one.seq == max(other.seq for other in history)]
        assert decisions(view(*stale, *history), policy=NO_SKEW) == decisions(view(*newest), policy=NO_SKEW)


@given(histories, histories)
def test_what_others_wish_changes_no_decision(history: list[ConsentRecord], others: list[ConsentRecord]) -> None:
    bob = Person("bob")
    theirs = [msgspec.structs.replace(one, sub=record(bob).sub, kid=record(bob).kid) for one in others]
    alone, together = view(*history), view(*theirs, *history)
    assert decisions(alone, policy=NO_SKEW) == decisions(together, policy=NO_SKEW)
