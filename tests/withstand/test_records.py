"""Hostile records: whatever lies in the lane or comes in by the side door, a withdrawal stands and others keep theirs.

Every attack claims to be a newer grant of somebody who has withdrawn, so one that is believed shows at once.
"""

from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.consent.canonical import base64url
from privacy.consent.lane import Stub
from privacy.consent.limits import RECORD_BUCKET_BYTES
from privacy.consent.record import Purpose, encode_record, key_id
from privacy.consent.sealing import LaneKey, Suite, commitment_of, open_sealed
from privacy.consent.sealing import Sealed as SealedBytes
from privacy.consent.signing import SMALL_ORDER_ENCODINGS, PayloadType, pre_authentication_encoding
from privacy.consent.view import Conflict, Entry, Link
from privacy.errors import RefusalError, TamperingError
from tests.privacy.consent.samples import (
    COORDINATOR,
    EPOCH,
    LANE,
    LANE_KEY,
    LANE_KEYS,
    LENDER,
    NOW,
    SMALL_LANE_KEY,
    digest,
    entry,
    garbage,
    grant,
    record,
    rewritten,
    sealed_entry,
)
from tests.withstand.beds import (
    ALICE,
    BOB,
    NEWER,
    STRANGER,
    Bed,
    assert_harmless,
    bed,
    handed_in,
    says,
    under_its_hash,
    wanted,
)

HOSTILE = (
    "../../etc/passwd", "..", "/", "a/b", "a\\b", "x'; DROP TABLE entries;--", "x' OR '1'='1", "%2e%2e%2f", "a\x00b",
    "holder-01\n", "holder-01\u200b", "hоlder-01", "${jndi:x}", "{{7*7}}",
)  # fmt: skip


def test_the_untouched_grant_would_have_counted(withdrawn: Bed) -> None:
    withdrawn.take(says(encode_record(wanted()), "untouched"))
    assert (withdrawn.seq(), withdrawn.asks()) == (NEWER, "allow")
    withdrawn.take(says(rewritten(wanted(seq=4)), "rewritten without a change"))
    assert (withdrawn.seq(), withdrawn.asks()) == (4, "allow")


def test_a_forged_signature_grants_nothing(withdrawn: Bed) -> None:
    payload = encode_record(wanted())
    good = ALICE.key.sign(PayloadType.CONSENT, payload)
    signatures = {
        "another key's": STRANGER.sign(PayloadType.CONSENT, payload),
        "the data holder's other subject's": BOB.key.sign(PayloadType.CONSENT, payload),
        "of another record": ALICE.key.sign(PayloadType.CONSENT, encode_record(record(ALICE, grant()))),
        "zeros": bytes(64),
        "another nonce": STRANGER.sign(PayloadType.CONSENT, payload)[:32] + good[32:],
        "an s that is not reduced": good[:32] + (int.from_bytes(good[32:], "little") + 2**252
                                                 + 27742317777372353535851937790883648493).to_bytes(32, "little"),
        **{f"under type {kind.name}": ALICE.key.sign(kind, payload) for kind in PayloadType
           if kind is not PayloadType.CONSENT},
        **{f"bit {bit} flipped": good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :]
           for bit in range(0, 512, 37)},
    }  # fmt: skip
    assert len(signatures) > 20
    assert_harmless(withdrawn, *(sealed_entry(payload, signature, name=name) for name, signature in signatures.items()))


def test_somebody_elses_key_inside_the_record_grants_nothing(withdrawn: Bed) -> None:
    stolen = encode_record(wanted(kid=key_id(STRANGER.public)))
    assert_harmless(withdrawn, says(stolen, "own key", by=STRANGER), says(stolen, "own key, her signature"))


def test_the_small_order_attack_is_a_real_one() -> None:
    """OpenSSL takes such signatures: what the next test tries would succeed there."""
    taken = 0
    for small in SMALL_ORDER_ENCODINGS:
        message = pre_authentication_encoding(PayloadType.CONSENT, encode_record(record(ALICE, kid=key_id(small))))
        for first in SMALL_ORDER_ENCODINGS:
            with suppress(InvalidSignature, ValueError):
                Ed25519PublicKey.from_public_bytes(small).verify(first + bytes(32), message)
                taken += 1
    assert taken >= 8


@pytest.mark.parametrize("small", sorted(SMALL_ORDER_ENCODINGS), ids=bytes.hex)
def test_a_small_order_key_signs_nothing_even_if_it_was_linked(tmp_path: Path, small: bytes) -> None:
    """For such a key R = the key and s = 0 would verify under every message."""
    with bed(tmp_path, BOB) as made:
        made.lane.link({"small": Link(ALICE.handle, small, 0)})
        payload = encode_record(record(ALICE, grant(), kid=key_id(small)))
        signatures = [first + bytes(32) for first in SMALL_ORDER_ENCODINGS]
        attacks = [sealed_entry(payload, signature, name=signature.hex()) for signature in signatures]
        assert len(attacks) == 14
        made.take(entry(BOB, record(BOB, grant()), name="bob"), *attacks)
        assert (made.seq(), made.asks(), made.asks(BOB)) == (None, "none", "allow")
        with pytest.raises(RefusalError):
            made.lane.take(handed_in(attacks[0]), at=NOW)


def test_a_grant_replayed_after_the_withdrawal_stays_withdrawn(withdrawn: Bed) -> None:
    old = withdrawn.source.entries_[0]
    assert isinstance(old.stub, Stub)
    resealed = says(encode_record(record(ALICE, grant())), "sealed once more")
    again = replace(old, stub=replace(old.stub, tag=digest("another tag")[:16]))
    withdrawn.take(old, again, resealed, old)
    assert not withdrawn.lane.take(handed_in(resealed), at=NOW)
    withdrawn.restart()
    assert (withdrawn.seq(), withdrawn.asks()) == (2, "purpose")


@pytest.mark.parametrize("suite", list(Suite))
def test_a_ciphertext_cut_at_every_length_and_flipped_at_every_byte_grants_nothing(
    tmp_path: Path, suite: Suite
) -> None:
    key = LANE_KEYS[suite]
    with bed(tmp_path, keys={EPOCH: key}) as made:
        made.take(entry(ALICE, record(ALICE, seq=2), name="withdrawn", key=key))
        target = says(encode_record(wanted()), "target", key=key)
        sealed = target.beside or b""
        assert len(sealed) > RECORD_BUCKET_BYTES
        cut = [sealed[:length] for length in range(len(sealed))]
        flipped = [sealed[:k] + bytes([sealed[k] ^ 1 << k % 8]) + sealed[k + 1 :] for k in range(len(sealed))]
        attacks = [under_its_hash(target, beside, str(k)) for k, beside in enumerate([*cut, *flipped, sealed + b"\0"])]
        made.take(*attacks)
        assert (made.seq(), made.asks()) == (2, "purpose")
        for attack in attacks[:: len(attacks) // 40]:
            with pytest.raises(RefusalError):
                made.lane.take(handed_in(attack), at=NOW)
        made.take(target)
        assert (made.seq(), made.asks()) == (NEWER, "allow")


def test_a_ciphertext_changed_under_its_own_stub_fails_the_whole_lane(withdrawn: Bed) -> None:
    target = says(encode_record(wanted()), "target")
    sealed, before = target.beside or b"", withdrawn.lane.head
    for place in range(0, len(sealed), 199):
        for changed in (sealed[:place], sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]):
            withdrawn.source.entries_[3:] = [replace(target, beside=changed)]
            with pytest.raises(TamperingError):
                withdrawn.lane.sync(withdrawn.source, at=NOW)
            assert withdrawn.lane.head == before
            with pytest.raises(RefusalError):
                withdrawn.lane.take(handed_in(replace(target, beside=changed)), at=NOW)
    withdrawn.source.entries_[3:] = [target]
    withdrawn.take()
    assert withdrawn.asks() == "allow"


def test_a_grant_to_another_recipient_is_no_grant(withdrawn: Bed) -> None:
    for seq, other in enumerate((LENDER, "coordinator-2", "coordinato", "coordinator.x"), start=NEWER):
        withdrawn.take(entry(ALICE, record(ALICE, grant(to=other), seq=seq), name=f"to {other}"))
        assert (withdrawn.seq(), withdrawn.asks(), withdrawn.asks(to=other)) == (seq, "purpose", "allow")
    for nobody in ("", "*", "Coordinator", f"{COORDINATOR} ", *HOSTILE):
        assert withdrawn.asks(to=nobody) == "purpose"


def test_a_record_of_another_lane_counts_nowhere_else(withdrawn: Bed) -> None:
    payload = encode_record(wanted())
    signature = ALICE.key.sign(PayloadType.CONSENT, payload)
    elsewhere = encode_record(wanted(aud="holder-02"))
    assert_harmless(
        withdrawn,
        sealed_entry(payload, signature, name="sealed for another lane", lane="holder-02"),
        sealed_entry(payload, signature, name="sealed for a longer name", lane="holder-01x"),
        says(elsewhere, "addressed elsewhere and sealed to this data holder"),
        sealed_entry(elsewhere, ALICE.key.sign(PayloadType.CONSENT, elsewhere), name="all of it", lane="holder-02"),
    )


def test_a_record_of_another_epoch_grants_nothing(tmp_path: Path) -> None:
    second = LaneKey.from_bytes(b"\x02" + digest("second epoch") * 3)
    with bed(tmp_path, keys={1: LANE_KEY, 2: second}) as made:
        made.take(entry(ALICE, record(ALICE, seq=2), name="withdrawn"), entry(BOB, record(BOB, grant()), name="bob"))
        first_payload, second_payload = encode_record(wanted()), encode_record(wanted(aud_kid=2))
        true = says(first_payload, "true")
        assert isinstance(true.stub, Stub)
        assert_harmless(
            made,
            says(second_payload, "names the second, sealed to the first"),
            says(first_payload, "names the first, sealed to the second", epoch=2, key=second),
            says(first_payload, "sealed to the first as if it were the second", epoch=2),
            says(second_payload, "sealed to the second as if it were the first", key=second),
            Entry(replace(true.stub, epoch=2), true.beside),
            says(encode_record(wanted(aud_kid=3)), "an epoch that there is not", epoch=3),
        )
        made.take(says(second_payload, "right", epoch=2, key=second))
        assert (made.seq(), made.asks()) == (NEWER, "allow")


def test_a_record_of_another_suite_grants_nothing(withdrawn: Bed) -> None:
    payload = encode_record(wanted())
    hybrid = says(payload, "hybrid")
    sealed = hybrid.beside or b""
    codes = [under_its_hash(hybrid, bytes([code]) + sealed[1:], f"suite {code}") for code in (0, 1, 3, 255)]
    assert_harmless(withdrawn, says(payload, "classical", key=SMALL_LANE_KEY), *codes)


def test_a_forwarded_record_counts_at_nobody_else(withdrawn: Bed) -> None:
    """Another data holder opens a grant that was meant for it, and hands it on in a seal of its own."""
    meant = encode_record(wanted(aud="holder-02"))
    signature = ALICE.key.sign(PayloadType.CONSENT, meant)
    theirs = LaneKey.from_bytes(b"\x02" + digest("their key") * 3)
    received = sealed_entry(meant, signature, name="received", lane="holder-02", key=theirs)
    assert isinstance(received.stub, Stub)
    opened = open_sealed(
        SealedBytes(received.stub.commit, received.beside or b""), theirs, lane="holder-02", epoch=EPOCH
    )
    forwarded = sealed_entry(opened.payload, opened.signature, name="forwarded")
    readdressed = sealed_entry(rewritten(wanted()), opened.signature, name="readdressed")
    assert_harmless(withdrawn, received, forwarded, readdressed)


def test_a_swapped_commitment_opens_nothing(withdrawn: Bed) -> None:
    one, other = says(encode_record(wanted()), "one"), says(encode_record(wanted(seq=4)), "other")
    assert isinstance(one.stub, Stub)
    assert isinstance(other.stub, Stub)
    plain = _inner(encode_record(wanted()))
    assert_harmless(
        withdrawn,
        Entry(replace(one.stub, commit=other.stub.commit), one.beside),
        Entry(replace(other.stub, commit=one.stub.commit), other.beside),
        Entry(replace(one.stub, commit=bytes(32)), one.beside),
        _sealed_as(plain, commit=digest("a commitment to something else")),
        _sealed_as(plain, commit=other.stub.commit),
    )


def test_padding_that_is_not_zero_is_refused(withdrawn: Bed) -> None:
    payload = encode_record(wanted())
    plain = _inner(payload)
    used = 2 + len(payload) + 64 + 32
    commit = commitment_of(payload, ALICE.key.sign(PayloadType.CONSENT, payload), digest("rho"))
    changed = [
        plain[:k] + b"\x01" + plain[k + 1 :] for k in (used, used + 1, len(plain) // 2 + used // 2, len(plain) - 1)
    ]
    assert_harmless(withdrawn, *(_sealed_as(inner, commit=commit) for inner in changed))
    withdrawn.take(_sealed_as(plain, commit=commit))
    assert (withdrawn.seq(), withdrawn.asks()) == (NEWER, "allow")


def _inner(payload: bytes) -> bytes:
    signature = ALICE.key.sign(PayloadType.CONSENT, payload)
    return (len(payload).to_bytes(2, "big") + payload + signature + digest("rho")).ljust(RECORD_BUCKET_BYTES, b"\0")


def _sealed_as(inner: bytes, *, commit: bytes) -> Entry:
    """What somebody who knows the public key can seal: any inner bytes under any commitment."""
    info = b"fedcredit/hpke/v1" + len(LANE).to_bytes(2, "big") + LANE.encode() + EPOCH.to_bytes(8, "big") + commit
    ciphertext = LANE_KEY.public.encrypt(inner, info=info)
    return Entry(Stub(sha256(ciphertext).digest()[:16], EPOCH, commit, sha256(ciphertext).digest()), ciphertext)


def test_two_records_with_one_seq_deny_until_a_newer_one(withdrawn: Bed) -> None:
    grants, withdraws = entry(ALICE, wanted(), name="grants"), entry(ALICE, record(ALICE, seq=NEWER), name="withdraws")
    assert withdrawn.lane.take(handed_in(withdraws), at=NOW)
    withdrawn.take(grants)
    assert withdrawn.lane.standing(ALICE.handle) == Conflict(NEWER)
    withdrawn.take(withdraws, grants)
    for _ in range(2):
        assert (withdrawn.asks(), withdrawn.asks(BOB)) == ("conflict", "allow")
        withdrawn.restart()
    withdrawn.take(entry(ALICE, wanted(seq=4), name="newer"))
    assert (withdrawn.seq(), withdrawn.asks()) == (4, "allow")


def test_a_second_record_with_the_same_tag_hides_neither(withdrawn: Bed) -> None:
    """A registry must refuse it (409). One that logs it all the same hides no withdrawal by it."""
    first = entry(ALICE, wanted(), name="first")
    second = entry(ALICE, record(ALICE, seq=4), name="second")
    assert isinstance(first.stub, Stub)
    assert isinstance(second.stub, Stub)
    withdrawn.take(first)
    assert withdrawn.asks() == "allow"
    withdrawn.take(replace(second, stub=replace(second.stub, tag=first.stub.tag)))
    for _ in range(2):
        assert (withdrawn.seq(), withdrawn.asks()) == (4, "purpose")
        withdrawn.restart()


def test_an_unlinked_subject_is_denied_whatever_it_signed(withdrawn: Bed) -> None:
    payload = encode_record(record(ALICE, grant(), kid=key_id(STRANGER.public), sub=base64url(digest("nobody"))))
    withdrawn.take(says(payload, "nobody", by=STRANGER), entry(ALICE, wanted(), name="alice"))
    assert digest("nobody") not in dict(withdrawn.lane.standings())
    assert withdrawn.asks() == "allow"
    withdrawn.lane.unlink("alice")
    for _ in range(2):
        assert (withdrawn.asks(), withdrawn.asks(BOB)) == ("none", "allow")
        withdrawn.restart()


def test_score_consent_does_not_train_and_none_implies_another(withdrawn: Bed) -> None:
    for seq, given in enumerate(Purpose, start=NEWER):
        # The same recipient for all: nothing but the purpose tells the grants apart.
        withdrawn.take(entry(ALICE, record(ALICE, grant(given, to=COORDINATOR), seq=seq), name=given.value))
        answers = {asked: withdrawn.asks(purpose=asked, past_uses=()) for asked in Purpose}
        assert answers == {asked: "allow" if asked is given else "purpose" for asked in Purpose}


def test_an_old_key_after_a_rotation_opens_what_it_must_and_undoes_nothing(tmp_path: Path) -> None:
    second = LaneKey.from_bytes(b"\x02" + digest("second epoch") * 3)
    with bed(tmp_path) as made:
        made.take(entry(ALICE, record(ALICE, grant()), name="1"), entry(BOB, record(BOB, grant()), name="bob"))
        made.keys[2] = second
        made.restart()
        made.take(entry(ALICE, record(ALICE, seq=2, aud_kid=2), name="2", epoch=2, key=second))
        assert (made.seq(), made.asks(), made.asks(BOB)) == (2, "purpose", "allow")
        made.take(entry(ALICE, record(ALICE, grant()), name="replayed to the old key"))
        assert made.asks() == "purpose"
        made.take(entry(BOB, record(BOB, seq=2), name="a late withdrawal to the old key"))
        assert made.asks(BOB) == "purpose"
        del made.keys[1]  # destroyed
        made.restart()
        assert (made.seq(), made.seq(BOB)) == (2, 2)
        late = entry(ALICE, wanted(), name="sealed to a key that is no more")
        assert_harmless_to(made, late)
        made.take(entry(ALICE, wanted(aud_kid=2), name="3", epoch=2, key=second))
        assert made.asks() == "allow"


def assert_harmless_to(made: Bed, attack: Entry) -> None:
    with pytest.raises(RefusalError):
        made.lane.take(handed_in(attack), at=NOW)
    made.take(attack)
    assert (made.seq(), made.asks()) == (2, "purpose")


def test_a_withdrawal_by_the_side_door_outlives_the_key_that_it_was_sealed_to(tmp_path: Path) -> None:
    """It comes into the lane, too, and there it is garbage by now: what was heard before must not go with the key."""
    with bed(tmp_path) as made:
        made.take(entry(ALICE, record(ALICE, grant()), name="1"))
        withdrawal = entry(ALICE, record(ALICE, seq=2), name="2")
        assert made.lane.take(handed_in(withdrawal), at=NOW)
        del made.keys[1]
        made.keys[2] = LaneKey.from_bytes(b"\x02" + digest("second epoch") * 3)
        made.restart()
        made.take(withdrawal)
        for _ in range(2):
            assert made.seq() == 2
            made.restart()


def test_a_persons_old_key_says_nothing_after_another_was_linked(tmp_path: Path) -> None:
    with bed(tmp_path) as made:
        made.take(entry(ALICE, record(ALICE, grant()), name="1"))
        made.lane.unlink("alice")
        made.lane.link({"alice": Link(ALICE.handle, STRANGER.public, made.lane.head.size)})
        made.take(entry(ALICE, record(ALICE, grant(), seq=9), name="2"))
        assert made.asks() == "none"
        new = encode_record(record(ALICE, grant(), kid=key_id(STRANGER.public), seq=2))
        made.take(says(new, "3", by=STRANGER))
        assert (made.seq(), made.asks()) == (2, "allow")


def test_garbage_and_nothing_at_all_change_nothing(withdrawn: Bed) -> None:
    empty = Entry(Stub(bytes(16), EPOCH, bytes(32), sha256(b"").digest()), b"")
    byte = Entry(Stub(bytes(16), EPOCH, bytes(32), sha256(b"\x02").digest()), b"\x02")
    assert_harmless(withdrawn, empty, byte, *(garbage(f"junk {k}") for k in range(20)))
