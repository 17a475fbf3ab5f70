import hashlib
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.consent.canonical import base64url
from privacy.consent.gate import Allow, Deny, Reason
from privacy.consent.lane import TombstoneStub, parse_leaf
from privacy.consent.merkle import leaf_hash
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.tombstone import TombstoneStatement, read_tombstone, tombstone_stub, write_tombstone
from privacy.consent.view import Entry, LaneView, check_lane, erasure, open_entry
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent.samples import (
    HOLDER,
    IDENTITY,
    KEYS,
    LANE,
    NOW,
    Person,
    budget,
    digest,
    entry,
    garbage,
    grant,
    head_of,
    record,
    tombstone,
    view_of,
)
from tests.privacy.consent.test_view import trains

ALICE, BOB = Person("alice"), Person("bob")
GRANT = entry(ALICE, record(ALICE, grant()), name="grant")
WITHDRAWAL = entry(ALICE, record(ALICE, seq=2), name="withdrawal")
BOBS = entry(BOB, record(BOB, grant()), name="bob")
LINKS = [ALICE.link(), BOB.link()]
STATEMENT = TombstoneStatement(lane=LANE, position=0, leaf=base64url(leaf_hash(GRANT.stub.leaf())), at=NOW)
ENVELOPE = write_tombstone(STATEMENT, IDENTITY)
OTHER = SigningKey.from_seed(digest("another data holder"))


def without(one: Entry) -> Entry:
    return Entry(one.stub, None)


def checked(lane: list[Entry]) -> frozenset[int]:
    return check_lane(lane, head_of(lane), identity=IDENTITY.public, lane=LANE)


def test_a_statement_is_read_by_its_lane_and_its_data_holders_key_alone() -> None:
    assert read_tombstone(ENVELOPE, identity=IDENTITY.public, lane=LANE) == STATEMENT
    with pytest.raises(TamperingError):
        read_tombstone(ENVELOPE, identity=OTHER.public, lane=LANE)
    with pytest.raises(TamperingError, match="another lane"):
        read_tombstone(ENVELOPE, identity=IDENTITY.public, lane="holder-02")
    for changes in ({"position": -1}, {"leaf": "A"}, {"at": 0}, {"lane": "Holder 1"}, {"typ": "fedcredit.promise"}):
        with pytest.raises(MalformedError):
            write_tombstone(msgspec.structs.replace(STATEMENT, **changes), IDENTITY)


def test_an_entry_has_one_tombstone_stub_whenever_it_is_erased() -> None:
    later = msgspec.structs.replace(STATEMENT, at=NOW + 1)
    first, second = (
        tombstone_stub(write_tombstone(statement, IDENTITY), statement) for statement in (STATEMENT, later)
    )
    erased = leaf_hash(GRANT.stub.leaf())
    assert first.tag == second.tag == hashlib.sha256(b"fedcredit/tombstone-tag/v1" + erased).digest()[:16]
    assert first.statement_sha256 != second.statement_sha256
    assert (first.position, first.erased_leaf) == (0, erased)
    assert first.beside_sha256 == hashlib.sha256(ENVELOPE).digest()
    assert parse_leaf(first.leaf()) == first


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_crash_the_reader(data: bytes) -> None:
    with pytest.raises((MalformedError, TamperingError)):
        read_tombstone(data, identity=IDENTITY.public, lane=LANE)


def test_a_missing_ciphertext_is_in_order_once_it_is_erased() -> None:
    lane = [GRANT, BOBS]
    assert checked(lane) == frozenset()
    with pytest.raises(TamperingError, match="1 of 2 ciphertexts"):
        checked([without(GRANT), BOBS])
    erased = [without(GRANT), BOBS, tombstone(GRANT, 0)]
    assert checked(erased) == {0}
    view = view_of(erased, *LINKS)
    assert trains(view, ALICE) == Deny(Reason.NONE)
    assert trains(view, BOB) == Allow(budget())


def test_an_erased_entry_stays_closed_where_its_ciphertext_is_still_delivered() -> None:
    assert trains(view_of([GRANT, BOBS, tombstone(GRANT, 0)], *LINKS), ALICE) == Deny(Reason.NONE)


def unsound() -> dict[str, Entry]:
    """Tombstones for entry 0 that erase nothing."""
    sound, misplaced = tombstone(GRANT, 0), tombstone(GRANT, 1).stub
    assert isinstance(sound.stub, TombstoneStub)
    assert isinstance(misplaced, TombstoneStub)
    as_promise = msgspec.json.encode(
        msgspec.json.decode(ENVELOPE) | {"payloadType": PayloadType.PROMISE.value}, order="sorted"
    )
    return {
        "signed by another": tombstone(GRANT, 0, key=OTHER),
        "for another lane": tombstone(GRANT, 0, lane="holder-02"),
        "names another entry's leaf": tombstone(BOBS, 0),
        "names another position": tombstone(GRANT, 1),
        "names its own position": tombstone(GRANT, 2),
        "names a later position": tombstone(GRANT, 2**53 - 1),
        "statement withheld": without(sound),
        "statement is another's": Entry(sound.stub, tombstone(BOBS, 1).beside),
        "statement is garbage": Entry(sound.stub, b"garbage"),
        "statement under another type": Entry(
            replace(sound.stub, statement_sha256=hashlib.sha256(as_promise).digest()), as_promise
        ),
        "stub lies about the position": Entry(replace(misplaced, position=0), sound.beside),
        "stub lies about the leaf": Entry(replace(sound.stub, erased_leaf=digest("x")), sound.beside),
        "stub lies about the statement": Entry(replace(sound.stub, statement_sha256=digest("x")), sound.beside),
        "stub has a tag of its own": Entry(replace(sound.stub, tag=bytes(16)), sound.beside),
    }


UNSOUND = unsound()


@pytest.mark.parametrize("name", UNSOUND)
def test_a_tombstone_that_does_not_hold_erases_nothing_and_harms_nobody(name: str) -> None:
    lane = [GRANT, BOBS, UNSOUND[name]]
    assert checked(lane) == frozenset()
    view = view_of(lane, *LINKS)
    assert [trains(view, person) for person in (ALICE, BOB)] == [Allow(budget())] * 2
    with pytest.raises(TamperingError, match="1 of 3 ciphertexts"):
        checked([without(GRANT), BOBS, UNSOUND[name]])


def test_a_tombstone_excuses_one_entry_and_not_its_neighbour() -> None:
    with pytest.raises(TamperingError, match="1 of 3 ciphertexts"):
        checked([without(GRANT), without(BOBS), tombstone(GRANT, 0)])


def test_a_substituted_ciphertext_is_never_excused() -> None:
    swapped = Entry(GRANT.stub, BOBS.beside)
    with pytest.raises(TamperingError, match="1 of 3 ciphertexts"):
        checked([swapped, BOBS, tombstone(GRANT, 0)])


def test_a_tombstone_is_never_erased() -> None:
    first = tombstone(GRANT, 0)
    second = tombstone(first, 1)
    lane = [without(GRANT), first, second]
    assert erasure(second, 2, identity=IDENTITY.public, lane=LANE) == (1, leaf_hash(first.stub.leaf()))
    assert checked(lane) == {0}
    # With the first statement gone nothing says that entry 0 was erased.
    with pytest.raises(TamperingError):
        checked([without(GRANT), without(first), second])


def test_a_tombstone_opens_to_nothing() -> None:
    links = {link.handle: link for link in LINKS}
    opened = open_entry(tombstone(GRANT, 0), 1, keys=KEYS, lane=LANE, holder=HOLDER, links=links)
    assert opened is None


LANE_ENTRIES = [GRANT, WITHDRAWAL, BOBS, garbage("g")]


@settings(max_examples=50)
@given(
    order=st.permutations(range(4)),
    erased=st.sets(st.integers(0, 3)),
    deleted=st.sets(st.integers(0, 3)),
    junk=st.lists(st.sampled_from([name for name in UNSOUND if not name.startswith("names")]), max_size=3),
)
def test_a_tombstone_changes_nothing_but_that_its_entry_opens_to_nothing(
    order: list[int], erased: set[int], deleted: set[int], junk: list[str]
) -> None:
    lane = [LANE_ENTRIES[index] for index in order]
    tombs = [tombstone(lane[position], position) for position in sorted(erased)]
    served = [without(one) if index in deleted & erased else one for index, one in enumerate(lane)]
    view = view_of([*served, *(UNSOUND[name] for name in junk), *tombs], *LINKS)
    # Garbage of the same number stands where an erased record stood.
    plain = view_of([garbage(str(n)) if n in erased else one for n, one in enumerate(lane)], *LINKS)
    for person in (ALICE, BOB):
        assert view.standing(person.handle) == plain.standing(person.handle)
        assert trains(view, person) == trains(plain, person)
    if deleted - erased:
        missing = [without(one) if index in deleted else one for index, one in enumerate(lane)]
        with pytest.raises(TamperingError):
            view_of([*missing, *tombs], *LINKS)


def test_errors_name_nobody() -> None:
    with pytest.raises(TamperingError) as caught:
        checked([without(GRANT)])
    assert GRANT.stub.tag.hex() not in str(caught.value)
    assert isinstance(view_of([GRANT], *LINKS), LaneView)
