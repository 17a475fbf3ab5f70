"""The auditor's replay: an honest opening adds up, and every fault planted in one is named as what it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.audit import (
    MOST_NAMED,
    Aside,
    Fault,
    Finding,
    Flaw,
    LaneFindings,
    LaneReplay,
    LateTombstone,
    RunReplay,
    Shown,
    Terms,
)
from privacy.consent.canonical import base64url
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.gate import GatePolicy, Interval, Reason
from privacy.consent.lane import Head, Stub
from privacy.consent.merkle import TreeHead, inclusion_proof, leaf_hash
from privacy.consent.record import ConsentRecord, Grant, Purpose, encode_record, key_id
from privacy.consent.sealing import Opened, commitment_of
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.tombstone import TombstoneStatement, tombstone_stub, write_tombstone
from privacy.consent.view import Link
from privacy.errors import MalformedError
from tests.privacy.consent.samples import (
    CATEGORIES,
    COORDINATOR,
    EPOCH,
    HOLDER,
    NOW,
    Person,
    budget,
    digest,
    grant,
    record,
    rewritten,
)

ALICE, BOB, CAROL = PEOPLE = (Person("alice"), Person("bob"), Person("carol"))
IDENTITY = SigningKey.from_seed(digest("identity"))
SALT = digest("salt")
SKEW = 120
ROUND = Interval(NOW, NOW + 600)


@dataclass(frozen=True)
class Line:
    """One entry as the data holder shows it; `shown` is what it says about it."""

    leaf: bytes
    shown: Opened | bytes | tuple[int, LateTombstone | None] | None  # record, tombstone, erased, garbage


def written(person: Person, wishes: ConsentRecord | bytes, name: str, *, epoch: int = EPOCH) -> Line:
    payload = wishes if isinstance(wishes, bytes) else encode_record(wishes)
    return logged(Opened(payload, person.key.sign(PayloadType.CONSENT, payload), digest(f"rho {name}")), name, epoch)


def logged(opened: Opened, name: str, epoch: int = EPOCH) -> Line:
    commit = commitment_of(opened.payload, opened.signature, opened.rho)
    return Line(Stub(digest(f"tag {name}")[:16], epoch, commit, digest(f"ciphertext {name}")).leaf(), opened)


def rubbish(name: str) -> Line:
    return Line(Stub(digest(name)[:16], EPOCH, digest(name), digest(name)).leaf(), None)


def leaf_of(line: Line) -> str:
    return base64url(leaf_hash(line.leaf))


def tombstone_for(erased: Sequence[Line], number: int, *, key: SigningKey = IDENTITY, **changes: Any) -> Line:
    """The tombstone of entry `number` of the lane `erased`; `changes` go into its statement."""
    fields: dict[str, Any] = {"lane": HOLDER, "position": number, "leaf": leaf_of(erased[number]), "at": NOW}
    statement = TombstoneStatement(**(fields | changes))
    envelope = write_tombstone(statement, key)
    return Line(tombstone_stub(envelope, statement).leaf(), envelope)


def head_of(lane: Sequence[Line]) -> Head:
    tree = TreeHead(leaf_hash(line.leaf) for line in lane)
    return Head(tree.size, tree.root)


def terms(lane: Sequence[Line], **changes: Any) -> Terms:
    made = Terms(
        holder=HOLDER,
        identity=IDENTITY.public,
        pinned=head_of(lane),
        later=None,
        recipient=COORDINATOR,
        interval=ROUND,
        categories=frozenset(CATEGORIES),
        policy=GatePolicy(clock_skew_s=SKEW),
    )
    return replace(made, **changes)


def walk(
    lane: Sequence[Line],
    *,
    links: Sequence[Link] | None = None,
    pinned_to: Sequence[Line] | None = None,
    receipts: Sequence[Shown] = (),
    **changes: Any,
) -> RunReplay:
    tied = [person.link() for person in PEOPLE] if links is None else links
    replay = LaneReplay(terms(lane if pinned_to is None else pinned_to, **changes), tied, receipts)
    for number, line in enumerate(lane):
        assert replay.size == number
        match line.shown:
            case Opened() as opened:
                replay.opened(line.leaf, opened)
            case bytes() as envelope:
                replay.tombstone(line.leaf, envelope)
            case (tombstone, late):
                replay.erased(line.leaf, tombstone, late)
            case None:
                replay.garbage(line.leaf)
    return replay.close()


def judged(run: RunReplay, *people: Person, purpose: Purpose = Purpose.TRAIN, **changes: Any) -> tuple[Finding, ...]:
    """What the replay says of a release that used `people`."""
    used = [person.handle for person in people]
    fields: dict[str, Any] = {"salt": SALT, "commitment": commit_to_subjects(SALT, used), "used": used}
    run.release("run/1", purpose, **(fields | changes))
    return run.findings()


def denied(run: RunReplay, *people: Person, purpose: Purpose = Purpose.TRAIN) -> dict[Reason, int]:
    findings = judged(run, *people, purpose=purpose)
    if not findings:
        return {}
    assert [finding.flaw for finding in findings] == [Flaw.CONSENT]
    assert (findings[0].release, findings[0].count, findings[0].of) == (
        "run/1", sum(findings[0].reasons.values()), len(people)
    )  # fmt: skip
    return dict(findings[0].reasons)


GRANTS = [written(person, record(person, grant()), person.name) for person in PEOPLE]
WITHDRAWAL = written(ALICE, record(ALICE, seq=2), "withdrawal")


def test_an_honest_opening_adds_up() -> None:
    run = walk([*GRANTS, rubbish("x"), WITHDRAWAL])
    assert run.lane.adds_up
    assert (run.lane.counted, run.lane.garbage, run.lane.links, run.lane.subjects) == (4, 1, 3, 3)
    assert judged(run, BOB, CAROL) == ()


def test_an_empty_lane_adds_up_and_allows_nobody() -> None:
    run = walk([])
    assert run.lane.adds_up
    assert denied(run, ALICE) == {Reason.NONE: 1}


REASONS: dict[Reason, list[Line]] = {
    Reason.NONE: [],
    Reason.CONFLICT: [GRANTS[0], written(ALICE, record(ALICE, grant(), frozen=True), "two")],
    Reason.FROZEN: [GRANTS[0], written(ALICE, record(ALICE, grant(), seq=2, frozen=True), "frozen")],
    Reason.PURPOSE: [GRANTS[0], WITHDRAWAL],
    Reason.TIME: [written(ALICE, record(ALICE, grant(nbf=NOW + 1)), "later")],
    Reason.RECONFIRM: [written(ALICE, record(ALICE, grant(reconfirm_by=NOW + 300)), "soft end")],
    Reason.DATA: [written(ALICE, record(ALICE, grant(data=CATEGORIES[:1])), "less")],
    Reason.BUDGET: [written(ALICE, record(ALICE, grant(dp=budget(eps_milli=1))), "small")],
}


@pytest.mark.parametrize("reason", REASONS)
def test_whoever_was_used_and_not_allowed_is_counted_with_the_reason(reason: Reason) -> None:
    run = walk([*REASONS[reason], *GRANTS[1:]])
    assert run.lane.adds_up
    assert denied(run, *PEOPLE) == {reason: 1}


def test_every_reason_that_training_can_give_was_planted() -> None:
    assert set(REASONS) == set(Reason) - {Reason.USES}


def test_reasons_are_counted_together_and_release_by_release() -> None:
    run = walk([*REASONS[Reason.TIME], GRANTS[1]])
    assert denied(run, *PEOPLE) == {Reason.TIME: 1, Reason.NONE: 1}
    run.release("run/2", Purpose.TRAIN, salt=SALT, commitment=commit_to_subjects(SALT, [BOB.handle]),
                used=[BOB.handle])  # fmt: skip
    assert [finding.release for finding in run.findings()] == ["run/1"]


def test_consent_to_be_scored_does_not_train_and_consent_to_train_does_not_measure() -> None:
    lane = [written(ALICE, record(ALICE, grant(Purpose.SCORE)), "score"), GRANTS[1]]
    assert denied(walk(lane), ALICE, BOB) == {Reason.PURPOSE: 1}
    assert denied(walk(lane), BOB, purpose=Purpose.VALIDATE) == {Reason.PURPOSE: 1}
    both = written(BOB, record(BOB, grant(), grant(Purpose.VALIDATE)), "both")
    assert denied(walk([both]), BOB, purpose=Purpose.VALIDATE) == {}


def test_each_release_is_judged_for_its_own_purpose() -> None:
    run = walk([GRANTS[1]])
    for name, purpose in (("run/1", Purpose.TRAIN), ("run/2", Purpose.VALIDATE), ("run/3", Purpose.TRAIN)):
        commitment = commit_to_subjects(SALT, [BOB.handle])
        run.release(name, purpose, salt=SALT, commitment=commitment, used=[BOB.handle])
    assert [found.release for found in run.findings()] == ["run/2"]


def test_consent_given_to_another_recipient_does_not_count() -> None:
    assert denied(walk(GRANTS, recipient="somebody-else"), BOB) == {Reason.PURPOSE: 1}


def test_an_old_grant_logged_again_after_the_withdrawal_is_no_excuse() -> None:
    again = replace(GRANTS[0], leaf=written(ALICE, record(ALICE, grant()), "alice").leaf)
    sealed_again = written(ALICE, record(ALICE, grant()), "sealed again")
    run = walk([GRANTS[0], WITHDRAWAL, again, sealed_again])
    assert run.lane.adds_up
    assert denied(run, ALICE) == {Reason.PURPOSE: 1}


@pytest.mark.parametrize(("off", "allowed"), [(-1, False), (0, True), (1, True)])
def test_the_clocks_may_differ_by_the_skew_at_both_ends(off: int, allowed: bool) -> None:
    ends = written(ALICE, record(ALICE, grant(exp=ROUND.t_hi + SKEW + 1 + off, reconfirm_by=NOW + 720 + 1 + off)), "e")
    begins = written(BOB, record(BOB, grant(nbf=NOW - SKEW - off)), "b")
    assert denied(walk([ends]), ALICE) == ({} if allowed else {Reason.TIME: 1})
    assert denied(walk([begins]), BOB) == ({} if allowed else {Reason.TIME: 1})
    assert denied(walk([ends], policy=GatePolicy(clock_skew_s=SKEW - 1)), ALICE) == {}


def test_a_consent_that_runs_out_in_mid_round_is_none() -> None:
    half = written(ALICE, record(ALICE, grant(exp=NOW + 300, reconfirm_by=NOW + 300)), "half")
    assert denied(walk([half]), ALICE) == {Reason.TIME: 1}


def test_a_subject_who_is_not_linked_is_told_apart() -> None:
    run = walk(GRANTS, links=[BOB.link()])
    assert run.lane.aside == {Aside.UNLINKED: 2}
    assert [(found.flaw, found.count, found.of) for found in judged(run, *PEOPLE)] == [(Flaw.UNLINKED, 2, 3)]


def test_a_commitment_to_others_is_noticed() -> None:
    others = commit_to_subjects(SALT, [ALICE.handle, BOB.handle])
    assert [found.flaw for found in judged(walk(GRANTS), ALICE, commitment=others)] == [Flaw.COMMITMENT]
    assert [found.flaw for found in judged(walk(GRANTS), *PEOPLE, commitment=others)] == [Flaw.COMMITMENT]
    assert judged(walk(GRANTS), BOB, ALICE, commitment=others) == ()


@pytest.mark.parametrize("salt", [digest("other"), SALT[:31], b""])
def test_a_wrong_salt_is_noticed(salt: bytes) -> None:
    assert [found.flaw for found in judged(walk(GRANTS), ALICE, salt=salt)] == [Flaw.COMMITMENT]


def test_a_subject_named_twice_or_by_half_a_handle_is_noticed() -> None:
    for used in ([ALICE.handle, ALICE.handle], [ALICE.handle[:31]]):
        flaws = {found.flaw for found in judged(walk(GRANTS), used=used, commitment=digest("x"))}
        assert Flaw.COMMITMENT in flaws


def swapped(lane: Sequence[Line]) -> list[Line]:
    return [lane[1], lane[0], *lane[2:]]


@pytest.mark.parametrize(
    "edit",
    [
        lambda lane: lane[:-1],
        lambda lane: lane[1:],
        swapped,
        lambda lane: [*lane, rubbish("added")],
        lambda lane: [rubbish("first"), *lane],
        lambda lane: [*lane[:1], rubbish("instead"), *lane[2:]],
        lambda lane: [*lane, lane[-1]],
        lambda _: [],
    ],
)
def test_entries_left_out_moved_added_or_replaced_are_noticed(edit: Callable[[list[Line]], list[Line]]) -> None:
    lane = [*GRANTS, WITHDRAWAL]
    run = walk(edit(lane), pinned_to=lane)
    assert not run.lane.adds_up
    assert run.lane.shown == head_of(edit(lane)) != run.lane.pinned == head_of(lane)


def altered(opened: Opened) -> dict[str, Opened]:
    flipped = bytes([opened.signature[0] ^ 1]) + opened.signature[1:]
    return {
        "payload": replace(opened, payload=encode_record(record(ALICE, grant(retain_s=0)))),
        "signature": replace(opened, signature=flipped),
        "rho": replace(opened, rho=digest("other rho")),
        "moved boundary": replace(opened, payload=opened.payload[1:], signature=opened.signature + opened.payload[:1]),
        "empty": Opened(b"", b"", b""),
    }


@pytest.mark.parametrize("part", ["payload", "signature", "rho", "moved boundary", "empty"])
def test_an_opening_that_was_altered_is_named_by_its_position(part: str) -> None:
    assert isinstance(GRANTS[0].shown, Opened)
    lane = [GRANTS[1], replace(GRANTS[0], shown=altered(GRANTS[0].shown)[part])]
    run = walk(lane)
    assert (run.lane.faults, run.lane.places) == ({Fault.OPENING: 1}, {Fault.OPENING: (1,)})
    assert run.lane.shown == run.lane.pinned
    assert not run.lane.adds_up
    assert denied(run, ALICE, BOB) == {Reason.NONE: 1}


def test_at_most_a_hundred_positions_are_named_and_all_are_counted() -> None:
    lane = [replace(GRANTS[0], shown=Opened(b"", b"", b""))] * (MOST_NAMED + 7)
    run = walk(lane)
    assert run.lane.faults == {Fault.OPENING: MOST_NAMED + 7}
    assert run.lane.places == {Fault.OPENING: tuple(range(MOST_NAMED))}


def test_an_entry_of_no_known_kind_is_named() -> None:
    lane = [replace(GRANTS[0], leaf=b"x" * 106), Line(b"y" * 106, None)]
    run = walk(lane)
    assert run.lane.places[Fault.LEAF] == (0, 1)
    assert denied(run, ALICE) == {Reason.NONE: 1}


def asides() -> dict[str, tuple[Line, Aside]]:
    """Entries that anybody could append, opened as what they are."""
    payload = encode_record(record(ALICE, grant()))
    forwarded = written(ALICE, record(ALICE, grant(), aud="holder-02"), "forwarded")
    return {
        "signed by another": (
            logged(Opened(payload, BOB.key.sign(PayloadType.CONSENT, payload), SALT), "1"), Aside.SIGNATURE,
        ),
        "signed as another type": (
            logged(Opened(payload, ALICE.key.sign(PayloadType.LINK, payload), SALT), "2"), Aside.SIGNATURE,
        ),
        "of another key": (written(ALICE, record(ALICE, grant(), kid=record(BOB).kid), "3"), Aside.SIGNATURE),
        "forwarded": (forwarded, Aside.ELSEWHERE),
        "of another epoch": (written(ALICE, record(ALICE, grant()), "4", epoch=EPOCH + 1), Aside.ELSEWHERE),
        "with an unknown field": (written(ALICE, rewritten(record(ALICE, grant()), extra=1), "5"), Aside.UNREADABLE),
        "not canonical": (written(ALICE, payload.replace(b'"seq":1', b'"seq": 1'), "6"), Aside.UNREADABLE),
        "empty": (written(ALICE, b"", "7"), Aside.UNREADABLE),
        "of a stranger": (written(Person("d"), record(Person("d"), grant()), "8"), Aside.UNLINKED),
    }  # fmt: skip


@pytest.mark.parametrize("name", asides())
def test_an_opened_entry_that_is_nobodys_wish_counts_for_nothing_and_harms_nobody(name: str) -> None:
    line, aside = asides()[name]
    run = walk([GRANTS[1], line])
    assert run.lane.adds_up
    assert run.lane.aside == {aside: 1}
    assert denied(run, ALICE, BOB) == {Reason.NONE: 1}
    assert denied(walk([GRANTS[0], line, GRANTS[1]]), ALICE, BOB) == {}


def test_a_record_from_before_the_link_does_not_count() -> None:
    run = walk(GRANTS, links=[ALICE.link(at_size=1), BOB.link(at_size=1)])
    assert run.lane.aside == {Aside.BEFORE_LINK: 1, Aside.UNLINKED: 1}
    assert denied(run, ALICE, BOB) == {Reason.NONE: 1}


# --- links that have ended

AGAIN = Person("alice with a new wallet")


def relinked(end: int, *, later_end: int | None = None) -> list[Link]:
    """Alice was linked to another key when the lane had `end` entries."""
    new = Link(ALICE.handle, AGAIN.key.public, end, later_end)
    return [replace(ALICE.link(), ended_at_size=end), new, BOB.link()]


def by_new_key(*grants: Grant, seq: int, name: str) -> Line:
    return written(AGAIN, record(ALICE, *grants, seq=seq, kid=key_id(AGAIN.key.public)), name)


def test_a_prefix_is_judged_by_the_links_of_its_time() -> None:
    lane = [*GRANTS, by_new_key(grant(), seq=1, name="new"), WITHDRAWAL]
    allowed = {}
    for size in range(6):
        run = walk(lane[:size], links=relinked(3))
        assert run.lane.adds_up
        allowed[size] = denied(run, ALICE) == {}
    # Up to the end the old key counts, from then on the new one alone: what the old one says later is nobody's.
    assert allowed == {0: False, 1: True, 2: True, 3: True, 4: True, 5: True}
    assert walk(lane, links=relinked(3)).lane.aside == {Aside.ENDED: 1, Aside.UNLINKED: 1, Aside.SIGNATURE: 1}
    silent = walk([*GRANTS, rubbish("x")], links=relinked(3))
    assert denied(silent, ALICE) == {Reason.NONE: 1}
    assert silent.lane.aside == {Aside.ENDED: 1, Aside.UNLINKED: 1}


def test_nobody_whose_link_had_ended_may_be_used() -> None:
    links = [replace(ALICE.link(), ended_at_size=2), BOB.link()]
    assert denied(walk(GRANTS[:2], links=links), ALICE) == {}
    (found,) = judged(walk(GRANTS, links=links), ALICE)
    assert (found.flaw, found.count) == (Flaw.UNLINKED, 1)


def test_two_links_for_the_same_entries_are_a_finding_and_neither_counts() -> None:
    for links in (
        [ALICE.link(), BOB.link(), ALICE.link(at_size=1)],
        [replace(ALICE.link(), ended_at_size=3), Link(ALICE.handle, AGAIN.key.public, 2), BOB.link()],
        [replace(ALICE.link(), ended_at_size=9), Link(ALICE.handle, AGAIN.key.public, 0, 9), BOB.link()],
    ):
        run = walk(GRANTS, links=links)
        assert (run.lane.linked_twice, run.lane.adds_up, run.lane.links) == (1, False, 1)
        assert judged(run, BOB) == ()
        (found,) = judged(run, ALICE)
        assert found.flaw is Flaw.UNLINKED


def test_an_invented_end_that_hides_a_withdrawal_is_caught_by_its_receipt_only() -> None:
    """The data holder says that Alice took a new wallet, whose key it made itself, after she had withdrawn."""
    lane = [*GRANTS, WITHDRAWAL, by_new_key(grant(), seq=1, name="invented")]
    hidden = walk(lane, links=relinked(4))
    assert hidden.lane.adds_up  # the limit of what an opening can show: see `privacy.consent.audit_links`
    assert denied(hidden, ALICE) == {}
    for position in (0, 3):
        caught = walk(lane, links=relinked(4), receipts=[receipt_of(lane, position), receipt_of(lane, 1)])
        assert caught.lane.places == {Fault.ENDED: (position,)}
        assert not caught.lane.adds_up


def test_an_end_moved_behind_a_withdrawal_is_caught_by_its_receipt() -> None:
    """Alice has taken a new wallet and withdrawn with it; her old grant is said to be still in force."""
    lane = [*GRANTS, by_new_key(seq=1, name="withdrawn")]
    assert denied(walk(lane, links=relinked(3)), ALICE) == {Reason.PURPOSE: 1}
    for links in (relinked(4), relinked(5), [ALICE.link(), BOB.link()]):
        hidden = walk(lane, links=links)
        assert hidden.lane.adds_up
        assert denied(hidden, ALICE) == {}
        assert walk(lane, links=links, receipts=[receipt_of(lane, 3)]).lane.places == {Fault.IGNORED: (3,)}
    early = [*GRANTS, WITHDRAWAL, by_new_key(grant(), seq=1, name="new")]
    caught = walk(early, links=relinked(3), receipts=[receipt_of(early, 3)])  # and before one by the old key
    assert caught.lane.places == {Fault.IGNORED: (3,)}


def test_whoever_has_receipts_by_both_keys_accuses_nobody() -> None:
    lane = [*GRANTS, WITHDRAWAL, by_new_key(grant(), seq=1, name="new")]
    receipts = [receipt_of(lane, position) for position in (0, 3, 4)]
    for order in (receipts, receipts[::-1]):
        run = walk(lane, links=relinked(4), receipts=order)
        assert run.lane.adds_up
        assert denied(run, ALICE) == {}
    others = [receipt_of(lane, position) for position in (1, 3)]  # somebody else's bears nothing out
    assert walk(lane, links=relinked(4), receipts=others).lane.places == {Fault.ENDED: (3,)}


# --- erasure


def erased_in_prefix() -> list[Line]:
    lane = [*GRANTS, WITHDRAWAL]
    return [replace(lane[0], shown=(4, None)), *lane[1:3], replace(lane[3], shown=(5, None)), tombstone_for(lane, 0),
            tombstone_for(lane, 3)]  # fmt: skip


def test_entries_erased_before_the_run_are_in_order_and_nobody_may_have_used_them() -> None:
    run = walk(erased_in_prefix(), links=[BOB.link(), CAROL.link()])
    assert run.lane.adds_up
    assert (run.lane.erased_before, run.lane.erased_since, run.lane.tombstones) == (2, 0, 2)
    assert [found.flaw for found in judged(run, *PEOPLE)] == [Flaw.UNLINKED]


FORGED_TOMBSTONES: dict[str, Callable[[list[Line]], Line]] = {
    "by another key": lambda lane: tombstone_for(lane, 0, key=ALICE.key),
    "for another entry's leaf": lambda lane: tombstone_for(lane, 0, leaf=leaf_of(lane[1])),
    "for another position": lambda lane: tombstone_for(lane, 0, position=1),
    "for another lane": lambda lane: tombstone_for(lane, 0, lane="holder-02"),
    "with another statement": lambda lane: replace(
        tombstone_for(lane, 0), shown=tombstone_for(lane, 0, at=NOW + 1).shown
    ),
    "without a statement": lambda lane: replace(tombstone_for(lane, 0), shown=b""),
    "that is a record": lambda lane: replace(tombstone_for(lane, 0), leaf=GRANTS[1].leaf),
    "that is nothing": lambda lane: replace(tombstone_for(lane, 0), leaf=b"z" * 106),
    "that is not there": lambda _: rubbish("no tombstone"),
}


@pytest.mark.parametrize("name", FORGED_TOMBSTONES)
def test_a_forged_tombstone_erases_nothing(name: str) -> None:
    lane = [*GRANTS, FORGED_TOMBSTONES[name](GRANTS)]
    lane[0] = replace(lane[0], shown=(3, None))
    run = walk(lane)
    assert run.lane.places[Fault.TOMBSTONE] == (0,)
    assert not run.lane.adds_up


@pytest.mark.parametrize("place", [0, 1, 2, 4, 99])
def test_an_erasure_must_name_its_own_tombstone(place: int) -> None:
    lane = [*GRANTS, tombstone_for(GRANTS, 1)]
    lane[1] = replace(lane[1], shown=(place, None))
    assert walk(lane).lane.places[Fault.TOMBSTONE] == (1,)


def test_a_tombstone_itself_is_never_erased() -> None:
    lane = [*GRANTS, tombstone_for(GRANTS, 0)]
    lane[0] = replace(lane[0], shown=(3, None))
    lane = [*lane[:3], replace(lane[3], shown=(4, None)), tombstone_for(lane, 3)]
    assert walk(lane).lane.places[Fault.KIND] == (3,)


def test_a_tombstone_of_the_prefix_is_not_one_from_after_the_run() -> None:
    """Else a subject erased before the run could pass for one who was erased since."""
    lane = [*GRANTS, tombstone_for(GRANTS, 0)]
    tree = TreeHead(leaf_hash(line.leaf) for line in lane)
    envelope = lane[3].shown
    assert isinstance(envelope, bytes)
    late = LateTombstone(envelope, tuple(inclusion_proof(tree, 3, 4)))
    run = walk([replace(lane[0], shown=(3, late)), *lane[1:]], later=head_of(lane))
    assert run.lane.places[Fault.TOMBSTONE] == (0,)
    assert run.lane.erased_since == 0


def test_one_tombstone_erases_one_entry() -> None:
    lane = [*GRANTS, tombstone_for(GRANTS, 0)]
    lane[:2] = [replace(line, shown=(3, None)) for line in lane[:2]]
    run = walk(lane)
    assert run.lane.places[Fault.TOMBSTONE] == (1,)
    assert run.lane.erased_before == 1


@pytest.mark.parametrize("shown", [GRANTS[0].shown, None])
def test_an_entry_with_a_tombstone_must_be_said_to_be_erased(shown: Any) -> None:
    lane = [replace(GRANTS[0], shown=shown), *GRANTS[1:], tombstone_for(GRANTS, 0)]
    assert walk(lane).lane.places == {Fault.UNDEAD: (0,)}


def test_an_entry_must_be_shown_as_the_kind_it_is() -> None:
    tombstone = tombstone_for(GRANTS, 0)
    for line in (
        replace(tombstone, shown=None),
        replace(tombstone, shown=GRANTS[0].shown),
        replace(GRANTS[2], shown=tombstone.shown),
    ):
        assert walk([*GRANTS, line]).lane.places == {Fault.KIND: (3,)}


def test_a_tombstone_that_erases_nothing_harms_nobody() -> None:
    real = tombstone_for(GRANTS, 0)
    honest = [*GRANTS, real]
    honest[0] = replace(honest[0], shown=(3, None))
    without = [replace(real, shown=None)]
    for more in (
        [real],  # the same one once more
        [tombstone_for(GRANTS, 1, key=ALICE.key)],
        [tombstone_for(GRANTS, 1, lane="holder-02")],
        [tombstone_for(GRANTS, 1, position=9)],
    ):
        assert walk([*honest, *more], links=[BOB.link()]).lane.adds_up
    replay = LaneReplay(terms([*GRANTS, *without]), [])
    for line in GRANTS:
        assert isinstance(line.shown, Opened)
        replay.opened(line.leaf, line.shown)
    replay.tombstone(real.leaf, None)
    assert replay.close().lane.adds_up


@dataclass(frozen=True)
class Later:
    """A lane that went on after the run was pinned: entry 0 was erased by a tombstone at position 5."""

    lane: list[Line]
    head: Head
    tombstone: LateTombstone

    @classmethod
    def make(cls, *, key: SigningKey = IDENTITY, **changes: Any) -> "Later":
        grown = [*GRANTS, rubbish("x"), WITHDRAWAL, tombstone_for(GRANTS, 0, key=key, **changes), rubbish("y")]
        tree = TreeHead(leaf_hash(line.leaf) for line in grown)
        envelope = grown[5].shown
        assert isinstance(envelope, bytes)
        late = LateTombstone(envelope, tuple(inclusion_proof(tree, 5, tree.size)))
        return cls([replace(GRANTS[0], shown=(5, late)), *GRANTS[1:]], Head(tree.size, tree.root), late)


def test_consent_that_was_erased_since_the_run_can_no_longer_be_shown_and_that_is_said() -> None:
    made = Later.make()
    run = walk(made.lane, links=[BOB.link(), CAROL.link()], later=made.head)
    assert run.lane.adds_up
    assert (run.lane.erased_before, run.lane.erased_since) == (0, 1)
    assert [(found.flaw, found.count) for found in judged(run, *PEOPLE)] == [(Flaw.ERASED, 1)]


def test_erasure_excuses_no_more_subjects_than_entries_were_erased() -> None:
    made = Later.make()
    run = walk(made.lane, links=[CAROL.link()], later=made.head)
    assert [(found.flaw, found.count) for found in judged(run, *PEOPLE)] == [(Flaw.UNLINKED, 2)]


@pytest.mark.parametrize(
    "changes", [{"key": ALICE.key}, {"position": 1}, {"lane": "holder-02"}, {"leaf": leaf_of(GRANTS[1])}]
)
def test_a_forged_late_tombstone_erases_nothing(changes: dict[str, Any]) -> None:
    made = Later.make(**changes)
    assert walk(made.lane, later=made.head).lane.places == {Fault.TOMBSTONE: (0,)}


def test_a_late_tombstone_must_be_in_the_later_log() -> None:
    made = Later.make()
    for shown, head in (
        ((5, replace(made.tombstone, proof=made.tombstone.proof[1:])), made.head),
        ((5, replace(made.tombstone, proof=())), made.head),
        ((4, made.tombstone), made.head),
        ((2, made.tombstone), made.head),
        ((5, made.tombstone), Head(made.head.size, digest("other root"))),
        ((5, made.tombstone), None),
        ((5, None), made.head),
    ):
        lane = [replace(made.lane[0], shown=shown), *made.lane[1:]]
        assert walk(lane, later=head).lane.places == {Fault.TOMBSTONE: (0,)}, shown[0]


# --- receipts that people gave to the auditor


def receipt_of(lane: Sequence[Line], position: int) -> Shown:
    opened = lane[position].shown
    assert isinstance(opened, Opened)
    return Shown(position, lane[position].leaf, opened)


def test_a_withdrawal_said_to_be_garbage_is_caught_by_its_receipt_only() -> None:
    honest = [*GRANTS, WITHDRAWAL]
    lane = [*GRANTS, replace(WITHDRAWAL, shown=None)]
    hidden = walk(lane)
    assert hidden.lane.adds_up  # the limit of what an opening can show: see the module's docstring
    assert denied(hidden, ALICE) == {}
    caught = walk(lane, receipts=[receipt_of(honest, 3), receipt_of(honest, 1)])
    assert caught.lane.places == {Fault.GARBAGE: (3,)}
    assert not caught.lane.adds_up


def test_honest_receipts_change_nothing() -> None:
    lane = [*GRANTS, WITHDRAWAL]
    shown = [receipt_of(lane, position) for position in range(4)]
    assert walk(lane, receipts=[*shown, *shown]).lane == walk(lane).lane


def test_a_receipt_for_another_entry_at_its_position_shows_two_histories() -> None:
    theirs = [*GRANTS[:2], WITHDRAWAL, GRANTS[2]]
    assert walk(GRANTS, receipts=[receipt_of(theirs, 2)]).lane.places == {Fault.OTHER: (2,)}


def test_a_receipt_from_beyond_the_pinned_prefix_says_nothing() -> None:
    assert walk(GRANTS, receipts=[receipt_of([*GRANTS, WITHDRAWAL], 3)]).lane.adds_up


def test_a_record_that_the_links_shown_set_aside_is_caught_by_its_receipt() -> None:
    lane = [*GRANTS, WITHDRAWAL]
    forged_link = Link(ALICE.handle, BOB.key.public, 0)
    for links in ([BOB.link()], [forged_link, BOB.link()]):
        assert walk(lane, links=links).lane.adds_up
        caught = walk(lane, links=links, receipts=[receipt_of(lane, 3)])
        assert caught.lane.places == {Fault.IGNORED: (3,)}
    again = [*lane, written(ALICE, record(ALICE, grant()), "sealed again")]
    moved = [ALICE.link(at_size=4), BOB.link()]
    hidden = walk(again, links=moved)
    assert hidden.lane.adds_up  # the old grant, logged again, and a link said to be younger than the withdrawal
    assert denied(hidden, ALICE) == {}
    assert walk(again, links=moved, receipts=[receipt_of(lane, 3)]).lane.places == {Fault.IGNORED: (3,)}


def test_a_withdrawal_erased_alone_is_caught_by_its_receipt_only() -> None:
    honest = [*GRANTS, WITHDRAWAL]
    lane = [*GRANTS, replace(WITHDRAWAL, shown=(4, None)), tombstone_for(honest, 3)]
    hidden = walk(lane)
    assert hidden.lane.adds_up
    assert denied(hidden, ALICE) == {}
    receipts = [receipt_of(honest, 3)]
    assert walk(lane, receipts=receipts).lane.places == {Fault.SINGLED_OUT: (3,)}
    assert walk(lane, links=[BOB.link()], receipts=receipts).lane.adds_up  # erased as a person: link and all
    for links in ([replace(ALICE.link(), ended_at_size=1)], [ALICE.link(), ALICE.link(at_size=1)], relinked(4)):
        assert walk(lane, links=links, receipts=receipts).lane.places == {Fault.SINGLED_OUT: (3,)}


def test_a_receipt_that_opens_nothing_is_refused() -> None:
    shown = receipt_of(GRANTS, 0)
    for broken in (replace(shown, leaf=GRANTS[1].leaf), replace(shown, leaf=tombstone_for(GRANTS, 0).leaf)):
        with pytest.raises(MalformedError, match="receipt"):
            walk(GRANTS, receipts=[broken])


# --- properties


@given(
    order=st.permutations(range(7)),
    used=st.sets(st.sampled_from(PEOPLE)),
    garbage_at=st.lists(st.integers(0, 7), max_size=3),
)
def test_neither_order_nor_garbage_changes_a_decision(
    order: list[int], used: set[Person], garbage_at: list[int]
) -> None:
    lane = [
        *GRANTS,
        WITHDRAWAL,
        written(BOB, record(BOB, seq=3, frozen=True), "bob 3"),
        written(BOB, record(BOB, grant(), seq=4), "bob 4"),
        written(CAROL, record(CAROL, grant(), seq=2), "carol 2"),
    ]
    shuffled = [lane[number] for number in order]
    for number, place in enumerate(garbage_at):
        shuffled.insert(place, rubbish(f"garbage {number}"))
    people = sorted(used, key=lambda person: person.name)
    expected = {Reason.PURPOSE: 1} if ALICE in used else {}
    assert denied(walk(lane), *people) == denied(walk(shuffled), *people) == expected


@given(data=st.data())
def test_any_bytes_shown_for_an_entry_are_a_finding_and_never_an_exception(data: st.DataObject) -> None:
    parts = st.binary(max_size=200)
    leaf = data.draw(st.sampled_from([line.leaf for line in erased_in_prefix()]) | parts)
    shown = data.draw(
        st.builds(Opened, payload=parts, signature=parts, rho=parts)
        | parts
        | st.none()
        | st.tuples(st.integers(0, 9), st.none() | st.builds(LateTombstone, parts, st.lists(parts).map(tuple)))
    )
    lane = [*GRANTS, Line(leaf, shown), tombstone_for(GRANTS, 0)]
    findings = walk(lane, later=Head(9, digest("root"))).lane
    assert isinstance(findings, LaneFindings)
    assert findings.faults or shown is None


def test_nothing_that_is_told_names_a_subject() -> None:
    made = Later.make()
    run = walk([*made.lane, *asides_lines()], links=[BOB.link()], later=made.head)
    told = repr((run.lane, judged(run, *PEOPLE), made.tombstone, receipt_of(GRANTS, 0)))
    for person in PEOPLE:
        for secret in (person.handle, person.key.public):
            assert secret.hex() not in told
            assert base64url(secret) not in told
            assert repr(secret) not in told


def asides_lines() -> list[Line]:
    return [line for line, _ in asides().values()]
