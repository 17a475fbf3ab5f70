from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.gate import Allow, Deny, GatePolicy, Interval, Reason, decide
from privacy.consent.lane import Head
from privacy.consent.projection import CODES, REASON_CODES, Projection
from privacy.consent.record import ConsentRecord, Grant, Purpose, Uses
from privacy.consent.view import Conflict, LaneView
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

SKEW_S = 120
POLICY = GatePolicy(clock_skew_s=SKEW_S)
ROUND = Interval(NOW, NOW + 60)
HEAD = Head(1, digest("root"))

Standing = ConsentRecord | Conflict


def projected(*standings: Standing, purpose: Purpose = Purpose.TRAIN, recipient: str = COORDINATOR) -> Projection:
    return Projection.of(
        [(digest(str(row)), standing) for row, standing in enumerate(standings)],
        purpose=purpose,
        recipient=recipient,
        categories=frozenset(CATEGORIES),
    )


def test_codes_are_the_reasons_in_the_gates_order_and_zero_is_to_allow() -> None:
    assert dict(REASON_CODES) == dict(enumerate(Reason, start=1))
    assert {CODES[reason]: reason for reason in Reason} == REASON_CODES
    assert 0 not in REASON_CODES


def test_each_standing_gets_its_reason() -> None:
    alice = Person("alice")
    standings: dict[Standing, str] = {
        record(alice, grant()): "allow",
        Conflict(3): "conflict",
        record(alice, grant(), frozen=True): "frozen",
        record(alice): "purpose",
        record(alice, grant(to="lender-9")): "purpose",
        record(alice, grant(Purpose.VALIDATE)): "purpose",
        record(alice, grant(exp=NOW, reconfirm_by=NOW)): "time",
        record(alice, grant(nbf=NOW)): "time",
        record(alice, grant(reconfirm_by=NOW)): "reconfirm",
        record(alice, grant(data=("capacity",))): "data",
        record(alice, grant(dp=budget(eps_milli=249))): "budget",
        record(alice, grant(dp=budget(eps_milli=250))): "allow",
    }
    found = projected(*standings).reasons(ROUND, POLICY)
    assert found.dtype == np.uint8
    assert [REASON_CODES[code].value if code else "allow" for code in found.tolist()] == list(standings.values())
    limited = projected(record(alice, grant(Purpose.SCORE)), purpose=Purpose.SCORE, recipient=LENDER)
    assert limited.reasons(ROUND, POLICY).tolist() == [CODES[Reason.USES]]


def test_budgets_are_those_of_the_grant_asked_for() -> None:
    alice = Person("alice")
    mine = budget(share_milli=7, eps_milli=500, delta_log10=-9, window_s=DAY)
    rows = projected(
        record(alice, grant(dp=mine), grant(Purpose.VALIDATE)),
        record(alice, grant(Purpose.VALIDATE)),
        Conflict(1),
        record(alice, grant(dp=mine), frozen=True),
    )
    assert rows.rows == {digest(str(row)): row for row in range(4)}
    assert rows.share_milli.tolist() == [7, 0, 0, 0]
    assert rows.eps_milli.tolist() == [500, 0, 0, 0]
    assert rows.delta_log10.tolist() == [-9, 0, 0, 0]
    assert rows.window_s.tolist() == [DAY, 0, 0, 0]


def test_nobody_at_all_is_no_rows() -> None:
    nobody = projected()
    assert nobody.rows == {}
    assert nobody.reasons(ROUND, POLICY).shape == nobody.share_milli.shape == (0,)


def test_a_subject_has_one_row() -> None:
    twice: list[tuple[bytes, Standing]] = [(digest("alice"), record(Person("alice"))), (digest("alice"), Conflict(2))]
    with pytest.raises(MalformedError, match="1 of 2"):
        Projection.of(twice, purpose=Purpose.TRAIN, recipient=COORDINATOR, categories=frozenset())


def test_several_purposes_are_answered_from_one_reading_as_each_is_alone() -> None:
    alice = Person("alice")
    said: list[tuple[bytes, Standing]] = [
        (digest("both"), record(alice, grant(dp=budget(share_milli=7)), grant(Purpose.VALIDATE))),
        (digest("one"), record(alice, grant(Purpose.VALIDATE, dp=budget(share_milli=9)))),
        (digest("none"), Conflict(1)),
    ]
    purposes = (Purpose.TRAIN, Purpose.VALIDATE)
    rest = {"recipient": COORDINATOR, "categories": frozenset(CATEGORIES)}
    found = Projection.of_each(iter(said), purposes=purposes, **rest)  # type: ignore[arg-type]
    assert tuple(found) == purposes
    for purpose in purposes:
        alone = Projection.of(said, purpose=purpose, **rest)  # type: ignore[arg-type]
        assert found[purpose].rows == alone.rows
        assert found[purpose].share_milli.tolist() == alone.share_milli.tolist()
        assert found[purpose].reasons(ROUND, POLICY).tolist() == alone.reasons(ROUND, POLICY).tolist()
    assert found[Purpose.TRAIN].share_milli.tolist() == [7, 0, 0]


@pytest.mark.parametrize("far", [Interval(-(2**70), -(2**70)), Interval(2**70, 2**70), Interval(-(2**70), 2**70)])
def test_an_instant_beyond_any_clock_denies(far: Interval) -> None:
    assert projected(record(Person("alice"), grant())).reasons(far, POLICY).tolist() == [CODES[Reason.TIME]]


def test_columns_cannot_be_changed_and_name_nobody() -> None:
    rows = projected(record(Person("alice"), grant()))
    for column in (rows.share_milli, rows.eps_milli, rows.delta_log10, rows.window_s):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    assert repr(rows) == "Projection(rows=1)"


near = st.integers(-200, 200).map(NOW.__add__)
targets = st.sampled_from([(purpose, to) for purpose in Purpose for to in ("a", "b")])
covered = st.sets(st.sampled_from(["capacity", "behaviour", "obligations"]), min_size=1)


@st.composite
def near_grants(draw: st.DrawFn) -> Grant:
    purpose, to = draw(targets)
    statistics = purpose in {Purpose.TRAIN, Purpose.VALIDATE}
    nbf = draw(near)
    exp = nbf + draw(st.integers(1, 500))
    return grant(
        purpose,
        to=to,
        data=tuple(sorted(draw(covered))),
        nbf=nbf,
        exp=exp,
        reconfirm_by=draw(st.integers(nbf + 1, exp)),
        dp=budget(eps_milli=draw(st.sampled_from([1, 249, 250, 251, 4000]))) if statistics else None,
        uses=None if statistics else Uses(n=draw(st.integers(1, 3)), per_s=DAY),
    )


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    if draw(st.integers(0, 9)) == 0:
        return Conflict(draw(st.integers(1, 9)))
    wanted = draw(st.lists(near_grants(), max_size=4, unique_by=lambda one: (one.purpose, one.to)))
    return record(
        Person("anybody"),
        *sorted(wanted, key=lambda one: (one.purpose.value, one.to)),
        frozen=draw(st.sampled_from([False] * 5 + [True])),
    )


@given(st.lists(standings(), max_size=12), targets, near, st.integers(0, 60), st.integers(0, 130), covered)
def test_everybody_at_once_is_what_the_gate_decides_for_each(
    found: list[Standing], target: tuple[Purpose, str], t_lo: int, length: int, skew: int, reads: set[str]
) -> None:
    known = {digest(str(row)): standing for row, standing in enumerate(found)}
    view = LaneView(HEAD, known)
    interval, policy = Interval(t_lo, t_lo + length), GatePolicy(clock_skew_s=skew)
    purpose, recipient = target
    rows = Projection.of(known.items(), purpose=purpose, recipient=recipient, categories=frozenset(reads))
    codes = rows.reasons(interval, policy)
    for handle, row in rows.rows.items():
        decision = decide(
            view,
            handle,
            purpose=purpose,
            recipient=recipient,
            interval=interval,
            categories=frozenset(reads),
            policy=policy,
        )
        match decision:
            case Deny(reason):
                assert REASON_CODES[int(codes[row])] is reason
            case Allow(cap):
                assert codes[row] == 0
                wanted = (cap.share_milli, cap.eps_milli, cap.delta_log10, cap.window_s) if cap else (0, 0, 0, 0)
                columns = (rows.share_milli, rows.eps_milli, rows.delta_log10, rows.window_s)
                assert tuple(int(column[row]) for column in columns) == wanted
    assert rows.rows.keys() == known.keys()


@given(st.integers(-3, 3), st.sampled_from(["nbf", "exp", "reconfirm_by"]))
def test_the_edge_of_a_grant_is_the_gates_edge_to_the_second(off: int, which: str) -> None:
    edge = ROUND.t_lo - SKEW_S + off if which == "nbf" else ROUND.t_hi + SKEW_S + off
    times: dict[str, Any] = {"nbf": NOW - DAY, "exp": NOW + DAY, "reconfirm_by": NOW + DAY, which: edge}
    if which == "exp":
        times["reconfirm_by"] = edge
    wishes = record(Person("alice"), grant(**times))
    allowed = off <= 0 if which == "nbf" else off >= 1
    reason = Reason.RECONFIRM if which == "reconfirm_by" else Reason.TIME
    assert projected(wishes).reasons(ROUND, POLICY).tolist() == [0 if allowed else CODES[reason]]
