import random
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.consent.gate import Allow, Deny, GatePolicy, Interval, Reason, decide
from privacy.consent.lane import Head, Stub
from privacy.consent.record import ConsentRecord, Purpose, encode_record
from privacy.consent.sealing import commitment_of
from privacy.consent.signing import SMALL_ORDER_ENCODINGS, PayloadType
from privacy.consent.view import (
    Conflict,
    Entry,
    LaneView,
    Link,
    is_from,
    linked_twice,
    links_in_force,
    open_entry,
    unseal,
)
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent.samples import (
    CATEGORIES,
    COORDINATOR,
    EPOCH,
    HOLDER,
    KEYS,
    LANE,
    LANE_KEY,
    NOW,
    SMALL_LANE_KEY,
    Person,
    budget,
    digest,
    entry,
    garbage,
    grant,
    head_of,
    record,
    rewritten,
    sealed_entry,
    view_of,
)

ALICE, BOB, CAROL = PEOPLE = (Person("alice"), Person("bob"), Person("carol"))
LINKS = [person.link() for person in PEOPLE]
HEAD = Head(1, digest("root"))
GRANT = record(ALICE, grant())
WITHDRAWAL = record(ALICE, seq=2)


def trains(view: LaneView, person: Person = ALICE) -> Allow | Deny:
    return decide(
        view,
        person.handle,
        purpose=Purpose.TRAIN,
        recipient=COORDINATOR,
        interval=Interval(NOW, NOW + 60),
        categories=frozenset(CATEGORIES),
        policy=GatePolicy(clock_skew_s=120),
    )


def test_a_lane_gives_each_subject_its_newest_record() -> None:
    lane = [
        entry(ALICE, GRANT, name="1"),
        entry(BOB, record(BOB, grant()), name="2"),
        entry(ALICE, WITHDRAWAL, name="3"),
    ]
    view = view_of(lane, ALICE.link(), BOB.link(), CAROL.link())
    assert view.head == head_of(lane)
    assert view.standing(ALICE.handle) == WITHDRAWAL
    assert trains(view, BOB) == Allow(budget())
    assert view.standing(CAROL.handle) is None
    assert [trains(view, person) for person in (ALICE, CAROL)] == [Deny(Reason.PURPOSE), Deny(Reason.NONE)]


def test_an_empty_lane_is_a_lane() -> None:
    assert view_of([], ALICE.link()).standing(ALICE.handle) is None


def test_both_suites_serve() -> None:
    lane = [entry(ALICE, GRANT, key=SMALL_LANE_KEY)]
    assert view_of(lane, ALICE.link(), keys={EPOCH: SMALL_LANE_KEY}).standing(ALICE.handle) == GRANT
    assert view_of(lane, ALICE.link()).standing(ALICE.handle) is None


def test_each_epoch_opens_with_its_own_key_and_none_without() -> None:
    old = entry(ALICE, GRANT, name="1")
    rotated = record(BOB, grant(), aud_kid=2)
    lane = [old, entry(BOB, rotated, name="2", epoch=2, key=SMALL_LANE_KEY)]
    both = view_of(lane, ALICE.link(), BOB.link(), keys={1: LANE_KEY, 2: SMALL_LANE_KEY})
    assert (both.standing(ALICE.handle), both.standing(BOB.handle)) == (GRANT, rotated)
    for keys, alice, bob in (({1: LANE_KEY}, GRANT, None), ({2: SMALL_LANE_KEY}, None, rotated), ({}, None, None)):
        one = view_of(lane, ALICE.link(), BOB.link(), keys=keys)
        assert (one.standing(ALICE.handle), one.standing(BOB.handle)) == (alice, bob)
    swapped = view_of(lane, ALICE.link(), BOB.link(), keys={1: SMALL_LANE_KEY, 2: LANE_KEY})
    assert (swapped.standing(ALICE.handle), swapped.standing(BOB.handle)) == (None, None)


def test_a_record_that_names_another_epoch_than_its_entry_is_not_one() -> None:
    # Both keys are known: only the comparison of the two epochs refuses it.
    keys = {EPOCH: LANE_KEY, EPOCH + 1: LANE_KEY}
    payload = encode_record(GRANT)
    signature = ALICE.key.sign(PayloadType.CONSENT, payload)
    for epoch, standing in ((EPOCH, GRANT), (EPOCH + 1, None)):
        lane = [sealed_entry(payload, signature, epoch=epoch)]
        assert view_of(lane, ALICE.link(), keys=keys).standing(ALICE.handle) == standing


def test_unsealing_tells_everything_but_who_signed() -> None:
    payload = encode_record(GRANT)
    signature = BOB.key.sign(PayloadType.CONSENT, payload)
    forged = sealed_entry(payload, signature, name="forged")
    unsealed = unseal(forged, keys=KEYS, lane=LANE, holder=HOLDER)
    assert unsealed is not None
    assert (unsealed.payload, unsealed.signature, unsealed.record) == (payload, signature, GRANT)
    assert commitment_of(payload, signature, unsealed.rho) == Stub.parse(forged.stub.leaf()).commit
    assert not is_from(unsealed, ALICE.link(), 0)
    genuine = unseal(entry(ALICE, GRANT), keys=KEYS, lane=LANE, holder=HOLDER)
    assert genuine is not None
    assert is_from(genuine, ALICE.link(), 0)
    assert is_from(genuine, ALICE.link(at_size=3), 3)
    assert not is_from(genuine, ALICE.link(at_size=4), 3)
    assert is_from(genuine, replace(ALICE.link(), ended_at_size=4), 3)
    assert not is_from(genuine, replace(ALICE.link(), ended_at_size=3), 3)
    assert not is_from(genuine, Link(BOB.handle, ALICE.key.public, 0), 0)
    assert not is_from(genuine, Link(ALICE.handle, BOB.key.public, 0), 0)


def test_a_grant_replayed_after_the_withdrawal_stays_withdrawn() -> None:
    old = entry(ALICE, GRANT, name="old")
    sealed_again = entry(ALICE, GRANT, name="sealed again")
    lane = [old, entry(ALICE, WITHDRAWAL, name="withdrawal"), old, sealed_again]
    assert trains(view_of(lane, ALICE.link())) == Deny(Reason.PURPOSE)


def test_freezing_and_unfreezing_are_records_like_others() -> None:
    frozen = record(ALICE, grant(), seq=2, frozen=True)
    thawed = record(ALICE, grant(), seq=3)
    lane = [entry(ALICE, GRANT, name="1"), entry(ALICE, frozen, name="2")]
    assert trains(view_of(lane, ALICE.link())) == Deny(Reason.FROZEN)
    lane.append(entry(ALICE, thawed, name="3"))
    assert trains(view_of(lane, ALICE.link())) == Allow(budget())


def test_two_records_with_one_seq_deny_until_a_newer_one() -> None:
    lane = [entry(ALICE, GRANT, name="1"), entry(ALICE, record(ALICE, grant(), frozen=True), name="2")]
    view = view_of(lane, ALICE.link())
    assert view.standing(ALICE.handle) == Conflict(seq=1)
    assert trains(view) == Deny(Reason.CONFLICT)
    lane.append(entry(ALICE, record(ALICE, grant(), seq=2), name="3"))
    assert trains(view_of(lane, ALICE.link())) == Allow(budget())


def test_the_same_record_twice_is_no_conflict() -> None:
    lane = [entry(ALICE, GRANT, name="1"), entry(ALICE, GRANT, name="2")]
    assert view_of(lane, ALICE.link()).standing(ALICE.handle) == GRANT


def test_records_before_the_link_do_not_count() -> None:
    lane = [entry(ALICE, GRANT, name="1"), garbage("x")]
    assert trains(view_of(lane, ALICE.link(at_size=0))) == Allow(budget())
    assert trains(view_of(lane, ALICE.link(at_size=1))) == Deny(Reason.NONE)
    lane.append(entry(ALICE, GRANT, name="again"))
    assert trains(view_of(lane, ALICE.link(at_size=2))) == Allow(budget())


def forgeries() -> dict[str, tuple[Entry, dict[str, Any]]]:
    """Entries that anybody could append, and what the data holder was given when it opened them."""
    payload = encode_record(GRANT)
    signature = ALICE.key.sign(PayloadType.CONSENT, payload)
    forwarded = record(ALICE, grant(), aud="holder-02")
    forwarded_payload = encode_record(forwarded)
    old_epoch = encode_record(record(ALICE, grant(), aud_kid=EPOCH + 1))
    other_key = encode_record(record(ALICE, grant(), kid=record(BOB).kid))
    loose = payload.replace(b'"seq":1', b'"seq": 1')
    opaque = rewritten(GRANT, extra=1)
    small = min(SMALL_ORDER_ENCODINGS)
    genuine = sealed_entry(payload, signature)
    genuine_stub = Stub.parse(genuine.stub.leaf())
    return {
        "signed by another": (sealed_entry(payload, BOB.key.sign(PayloadType.CONSENT, payload)), {}),
        "signed as another type": (sealed_entry(payload, ALICE.key.sign(PayloadType.LINK, payload)), {}),
        "signature of zeros": (sealed_entry(payload, bytes(64)), {}),
        "small-order key": (
            sealed_entry(payload, small + bytes(32)),
            {"links": {ALICE.handle: Link(ALICE.handle, small, 0)}},
        ),
        "forwarded from another data holder": (
            sealed_entry(forwarded_payload, ALICE.key.sign(PayloadType.CONSENT, forwarded_payload)),
            {},
        ),
        "for another epoch inside": (
            sealed_entry(old_epoch, ALICE.key.sign(PayloadType.CONSENT, old_epoch)),
            {},
        ),
        "under another epoch outside": (sealed_entry(payload, signature, epoch=EPOCH + 1), {}),
        "stub lies about its epoch": (
            Entry(replace(genuine_stub, epoch=EPOCH + 1), genuine.beside),
            {},
        ),
        "sealed for another lane": (sealed_entry(payload, signature, lane="holder-02"), {}),
        "sealed to another key": (sealed_entry(payload, signature, key=SMALL_LANE_KEY), {}),
        "names another key": (sealed_entry(other_key, ALICE.key.sign(PayloadType.CONSENT, other_key)), {}),
        "not canonical": (sealed_entry(loose, ALICE.key.sign(PayloadType.CONSENT, loose)), {}),
        "unknown field": (sealed_entry(opaque, ALICE.key.sign(PayloadType.CONSENT, opaque)), {}),
        "no record at all": (sealed_entry(b"", ALICE.key.sign(PayloadType.CONSENT, b"")), {}),
        "unlinked subject": (sealed_entry(payload, signature), {"links": {}}),
        "linked with another key": (
            sealed_entry(payload, signature),
            {"links": {ALICE.handle: Link(ALICE.handle, BOB.key.public, 0)}},
        ),
        "swapped commitment": (
            Entry(replace(genuine_stub, commit=digest("another")), genuine.beside),
            {},
        ),
        "garbage": (garbage("g"), {}),
        "empty ciphertext": (Entry(Stub(bytes(16), EPOCH, digest("c"), sha256(b"").digest()), b""), {}),
    }


FORGERIES = forgeries()


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_grants_nothing(name: str) -> None:
    forged, changes = FORGERIES[name]
    genuine = sealed_entry(encode_record(GRANT), ALICE.key.sign(PayloadType.CONSENT, encode_record(GRANT)))
    assert trains(view_of([genuine], ALICE.link())) == Allow(budget())
    assert trains(view_of([forged], ALICE.link(), **changes)) == Deny(Reason.NONE)


@pytest.mark.parametrize("name", [name for name, (_, changes) in FORGERIES.items() if not changes])
def test_a_forgery_harms_nobody_else_and_undoes_nothing(name: str) -> None:
    forged, _ = FORGERIES[name]
    lane = [entry(ALICE, WITHDRAWAL, name="1"), entry(BOB, record(BOB, grant()), name="2"), forged]
    view = view_of(lane, ALICE.link(), BOB.link())
    assert trains(view) == Deny(Reason.PURPOSE)
    assert trains(view, BOB) == Allow(budget())


LINE = [entry(person, record(person, grant()), name=person.name) for person in PEOPLE]


@pytest.mark.parametrize(
    "delivered",
    [
        LINE[:2],
        [*LINE, LINE[0]],
        [LINE[1], LINE[0], LINE[2]],
        [LINE[0], LINE[1], Entry(LINE[2].stub, None)],
        [LINE[0], LINE[1], Entry(LINE[2].stub, LINE[1].beside)],
        [LINE[0], LINE[1], Entry(LINE[2].stub, b"")],
        [LINE[0], LINE[1], Entry(LINE[1].stub, LINE[1].beside)],
        [LINE[0], LINE[1], garbage("instead")],
        [],
    ],
    ids=[
        "dropped",
        "one more",
        "reordered",
        "withheld",
        "substituted",
        "emptied",
        "repeated",
        "replaced",
        "all",
    ],
)
def test_a_lane_that_is_not_the_one_under_its_head_fails_as_a_whole(delivered: list[Entry]) -> None:
    with pytest.raises(TamperingError):
        view_of(delivered, *LINKS, head=head_of(LINE))


@pytest.mark.parametrize(
    "head",
    [
        Head(3, digest("wrong root")),
        Head(4, head_of(LINE).root),
        Head(2, head_of(LINE).root),
        head_of(LINE[:2]),
        Head(0, head_of([]).root),
    ],
    ids=["wrong root", "future size", "smaller size", "rolled back", "empty"],
)
def test_a_head_that_is_not_the_lanes_fails_it(head: Head) -> None:
    with pytest.raises(TamperingError):
        view_of(LINE, *LINKS, head=head)


def opened_as(one: Entry, index: int) -> bytes | None:
    links = {link.handle: link for link in LINKS}
    return open_entry(one, index, keys=KEYS, lane=LANE, holder=HOLDER, links=links)


def test_verified_payloads_can_be_stored_and_loaded_again() -> None:
    lane = [*LINE, garbage("g"), entry(ALICE, WITHDRAWAL, name="w")]
    opened = [opened_as(one, index) for index, one in enumerate(lane)]
    assert opened[3] is None
    assert opened_as(Entry(LINE[0].stub, None), 0) is None
    loaded = LaneView.of(head_of(lane), [payload for payload in opened if payload is not None])
    projected = view_of(lane, *LINKS)
    assert loaded.head == projected.head
    for person in PEOPLE:
        assert loaded.standing(person.handle) == projected.standing(person.handle)
    with pytest.raises(MalformedError):
        LaneView.of(head_of(lane), [b"{}"])


def newest(history: list[ConsentRecord], person: Person) -> ConsentRecord | Conflict | None:
    """The rule in its plainest form: all records of the highest seq, and whether they are one."""
    own = [one for one in history if one.handle == person.handle]
    if not own:
        return None
    top = max(one.seq for one in own)
    candidates = {encode_record(one): one for one in own if one.seq == top}
    return next(iter(candidates.values())) if len(candidates) == 1 else Conflict(top)


wishes = st.builds(
    lambda person, seq, granted, frozen: record(person, *([grant()] if granted else []), seq=seq, frozen=frozen),
    st.sampled_from(PEOPLE[:2]),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([False, False, True]),
)
histories = st.lists(wishes, max_size=10)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_of_arrival_never_matters(history: list[ConsentRecord], chance: random.Random) -> None:
    payloads = [encode_record(one) for one in history]
    shuffled = payloads.copy()
    chance.shuffle(shuffled)
    for view in (LaneView.of(HEAD, payloads), LaneView.of(HEAD, shuffled)):
        for person in PEOPLE:
            assert view.standing(person.handle) == newest(history, person)


@given(histories, st.integers(1, 4))
def test_a_withdrawal_is_never_undone_by_anything_older(history: list[ConsentRecord], seq: int) -> None:
    withdrawal = record(ALICE, seq=seq)
    older = [one for one in history if one.seq < seq or one.handle != ALICE.handle]
    for arrived in ([withdrawal, *older], [*older, withdrawal]):
        view = LaneView.of(HEAD, [encode_record(one) for one in arrived])
        assert trains(view) == Deny(Reason.PURPOSE)


ITEMS = [
    GRANT,
    WITHDRAWAL,
    record(BOB, grant()),
    record(BOB, seq=2, frozen=True),
    record(ALICE, grant(), seq=3),
]
SEALED = [entry(ALICE if one.handle == ALICE.handle else BOB, one, name=str(n)) for n, one in enumerate(ITEMS)]
JUNK = [forged for forged, changes in FORGERIES.values() if not changes]


@settings(max_examples=40)
@given(
    st.permutations(range(len(ITEMS))),
    st.integers(0, 5),
    st.lists(st.sampled_from(JUNK), max_size=6),
    st.data(),
)
def test_garbage_in_a_lane_changes_no_decision(
    order: list[int], kept: int, junk: list[Entry], data: st.DataObject
) -> None:
    clean = [SEALED[index] for index in order[:kept]]
    dirty = clean.copy()
    for one in junk:
        dirty.insert(data.draw(st.integers(0, len(dirty))), one)
    links = [ALICE.link(), BOB.link()]
    tidy, littered = view_of(clean, *links), view_of(dirty, *links)
    for person in PEOPLE:
        assert tidy.standing(person.handle) == littered.standing(person.handle)
        assert trains(tidy, person) == trains(littered, person)
        assert tidy.standing(person.handle) == newest([ITEMS[index] for index in order[:kept]], person)


@settings(max_examples=60)
@given(st.binary(max_size=3000))
def test_arbitrary_ciphertexts_never_crash_the_projection(ciphertext: bytes) -> None:
    junk = Entry(Stub(digest("t")[:16], EPOCH, digest("c"), sha256(ciphertext).digest()), ciphertext)
    assert trains(view_of([junk, LINE[0]], ALICE.link())) == Allow(budget())


@pytest.mark.parametrize(
    ("handle", "key", "size"),
    [(bytes(31), bytes(32), 0), (bytes(32), bytes(33), 0), (bytes(32), bytes(32), -1)],
)
def test_a_link_of_other_sizes_is_refused(handle: bytes, key: bytes, size: int) -> None:
    with pytest.raises(MalformedError):
        Link(handle, key, size)


@pytest.mark.parametrize("end", [-1, 0, 3])
def test_a_link_ends_after_it_began(end: int) -> None:
    with pytest.raises(MalformedError):
        Link(bytes(32), bytes(32), 3, end)
    assert Link(bytes(32), bytes(32), 3, 4).ended_at_size == 4


def test_a_prefix_knows_the_earliest_link_that_had_not_ended() -> None:
    old, new = replace(ALICE.link(), ended_at_size=3), Link(ALICE.handle, BOB.key.public, 3, 5)
    newest, bob = ALICE.link(at_size=7), BOB.link(at_size=6)
    for order in ([old, new, newest, bob], [bob, newest, new, old]):
        chosen = [links_in_force(order, size)[ALICE.handle] for size in range(9)]
        assert chosen == [old] * 4 + [new] * 2 + [newest] * 3
        assert all(links_in_force(order, size)[BOB.handle] == bob for size in range(9))
    assert links_in_force([old], 4) == {}
    assert links_in_force([], 0) == {}


def test_two_links_for_the_same_entries_are_noticed() -> None:
    old, bob = replace(ALICE.link(), ended_at_size=3), BOB.link()
    assert linked_twice([bob, ALICE.link(at_size=3), old]) == frozenset()
    assert linked_twice([bob, ALICE.link(at_size=4), old]) == frozenset()
    for other in (ALICE.link(at_size=2), ALICE.link(), Link(ALICE.handle, BOB.key.public, 2, 9), old):
        for links in ([bob, old, other], [other, old, bob]):
            assert linked_twice(links) == {ALICE.handle}
    assert linked_twice([ALICE.link(), ALICE.link(at_size=9)]) == {ALICE.handle}


def test_no_message_or_repr_names_a_person() -> None:
    secrets = [ALICE.handle.hex(), repr(ALICE.handle), GRANT.sub, GRANT.kid, ALICE.key.public.hex()]
    said = [repr(ALICE.link()), repr(view_of(LINE, ALICE.link()))]
    for delivered in (LINE[:2], [LINE[0], LINE[1], Entry(LINE[2].stub, None)], LINE[::-1]):
        with pytest.raises(TamperingError) as caught:
            view_of(delivered, ALICE.link(), head=head_of(LINE))
        said.append(str(caught.value))
    assert not [secret for secret in secrets for text in said if secret in text]
