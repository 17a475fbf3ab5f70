import json
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.consent.canonical import base64url, from_base64url
from privacy.consent.lane import Head, Stub, write_checkpoint
from privacy.consent.merkle import TreeHead, inclusion_proof, leaf_hash
from privacy.consent.promise import Promise, write_promise
from privacy.consent.receipt import Receipt, read_receipt, verify_receipt, write_receipt
from privacy.consent.record import encode_record
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import FedcreditError, MalformedError, TamperingError
from tests.privacy.consent.samples import (
    EPOCH,
    LANE,
    NOW,
    REGISTRY,
    Person,
    digest,
    entry,
    garbage,
    grant,
    record,
)

ALICE, BOB = Person("alice"), Person("bob")
RECORD = record(ALICE, grant())
PAYLOAD = encode_record(RECORD)
ENTRY = entry(ALICE, RECORD)
POSITION = 3
LOG = [garbage(str(number)) for number in range(POSITION)] + [ENTRY] + [garbage(str(number)) for number in range(4, 7)]
TREE = TreeHead(leaf_hash(one.stub.leaf()) for one in LOG)
LEAF = leaf_hash(ENTRY.stub.leaf())


def checkpoint(size: int = 7, *, lane: str = LANE, key: SigningKey = REGISTRY) -> str:
    return write_checkpoint(Head(size, TREE.root_at(size)), f"fedcredit/{lane}", key)


def promise(key: SigningKey = REGISTRY, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "lane": LANE,
        "leaf": base64url(LEAF),
        "position": POSITION,
        "received_at": NOW,
        "merge_by": NOW + 60,
    }
    return write_promise(Promise(**(fields | changes)), key).decode()


RECEIPT = Receipt(
    lane=LANE,
    epoch=EPOCH,
    tag=base64url(ENTRY.stub.tag),
    payload=base64url(PAYLOAD),
    signature=base64url(ALICE.key.sign(PayloadType.CONSENT, PAYLOAD)),
    rho=base64url(digest("rho entry")),
    ciphertext_sha256=base64url(ENTRY.stub.beside_sha256),
    position=POSITION,
    proof=tuple(base64url(node) for node in inclusion_proof(TREE, POSITION, 7)),
    checkpoint=checkpoint(),
    promise=promise(),
)
DATA = write_receipt(RECEIPT)


def changed(**changes: Any) -> Receipt:
    return msgspec.structs.replace(RECEIPT, **changes)


def verified(receipt: Receipt, person: Person = ALICE) -> tuple[object, Head, int]:
    found = verify_receipt(receipt, registry_key=REGISTRY.public, person_key=person.key.public)
    return found.record, found.head, found.position


def test_a_receipt_proves_its_record_with_nobody_asked() -> None:
    assert read_receipt(DATA) == RECEIPT
    assert rfc8785.dumps(msgspec.to_builtins(RECEIPT)) == DATA
    assert RECEIPT.stub == ENTRY.stub
    assert isinstance(RECEIPT.stub, Stub)
    for receipt in (read_receipt(DATA), changed(promise=None)):
        assert verified(receipt) == (RECORD, Head(7, TREE.root), POSITION)


@pytest.mark.parametrize("size", [4, 5, 6])
def test_any_head_that_covers_the_entry_will_do(size: int) -> None:
    proof = tuple(base64url(node) for node in inclusion_proof(TREE, POSITION, size))
    assert verified(changed(checkpoint=checkpoint(size), proof=proof))[1].size == size


OTHER = record(ALICE, grant(), seq=2)
OTHER_PAYLOAD = encode_record(OTHER)
FORWARDED = encode_record(record(ALICE, grant(), aud="holder-02"))
OLD_EPOCH = encode_record(record(ALICE, grant(), aud_kid=EPOCH + 1))
OTHER_KID = encode_record(record(ALICE, grant(), kid=record(BOB).kid))


def signed(payload: bytes) -> dict[str, str]:
    return {
        "payload": base64url(payload),
        "signature": base64url(ALICE.key.sign(PayloadType.CONSENT, payload)),
    }


CONTRADICTIONS: dict[str, Receipt] = {
    "another record": changed(**signed(OTHER_PAYLOAD)),
    "signature by another": changed(signature=base64url(BOB.key.sign(PayloadType.CONSENT, PAYLOAD))),
    "signature as another type": changed(signature=base64url(ALICE.key.sign(PayloadType.LINK, PAYLOAD))),
    "another rho": changed(rho=base64url(digest("x"))),
    "another tag": changed(tag=base64url(bytes(16))),
    "another ciphertext": changed(ciphertext_sha256=base64url(digest("x"))),
    "another position": changed(position=POSITION - 1, promise=None),
    "a position beyond the head": changed(position=7, promise=None),
    "proof cut": changed(proof=RECEIPT.proof[:-1]),
    "proof longer": changed(proof=(*RECEIPT.proof, RECEIPT.proof[0])),
    "no proof": changed(proof=()),
    "head before the entry": changed(checkpoint=checkpoint(POSITION)),
    "another head": changed(checkpoint=checkpoint(6)),
    "head by another registry": changed(checkpoint=checkpoint(key=BOB.key)),
    "head of another lane": changed(checkpoint=checkpoint(lane="holder-02")),
    "another epoch": changed(epoch=EPOCH + 1),
    "promise by another registry": changed(promise=promise(BOB.key)),
    "promise of another lane": changed(promise=promise(lane="holder-02")),
    "promise of another leaf": changed(promise=promise(leaf=base64url(digest("x")))),
    "promise of another position": changed(promise=promise(position=POSITION + 1)),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_receipt_that_contradicts_itself_is_tampering(name: str) -> None:
    with pytest.raises(TamperingError):
        verified(CONTRADICTIONS[name])


def logged_alone(receipt: Receipt) -> Receipt:
    """The receipt with a log around it that is sound throughout: a registry logs what it cannot read."""
    tree = TreeHead([leaf_hash(receipt.stub.leaf())])
    note = write_checkpoint(Head(1, tree.root), f"fedcredit/{receipt.lane}", REGISTRY)
    return msgspec.structs.replace(receipt, position=0, proof=(), checkpoint=note, promise=None)


@pytest.mark.parametrize(
    ("payload", "lane"),
    [(FORWARDED, LANE), (OLD_EPOCH, LANE), (OTHER_KID, LANE), (PAYLOAD, "holder-02")],
    ids=["data holder", "epoch", "key", "lane"],
)
def test_a_record_logged_where_it_does_not_belong_is_no_receipt(payload: bytes, lane: str) -> None:
    assert verified(logged_alone(RECEIPT))[2] == 0
    with pytest.raises(TamperingError, match="another data holder, epoch or key"):
        verified(logged_alone(changed(**signed(payload), lane=lane)))


def test_a_logged_record_that_the_person_never_signed_is_no_receipt() -> None:
    for key, kind in ((BOB.key, PayloadType.CONSENT), (ALICE.key, PayloadType.LINK)):
        with pytest.raises(TamperingError, match="signature"):
            verified(logged_alone(changed(signature=base64url(key.sign(kind, PAYLOAD)))))


def test_another_person_cannot_show_it() -> None:
    with pytest.raises(TamperingError):
        verified(RECEIPT, BOB)


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": RECEIPT.payload + "="},
        {"payload": RECEIPT.payload[:-1]},
        {"signature": RECEIPT.signature[:-1] + "B"},
        {"rho": "A" * 42},
        {"tag": "A" * 21},
        {"proof": ["A" * 43] * 64},
        {"position": -1},
        {"position": 3.0},
        {"checkpoint": "x" * 16_385},
        {"promise": "x" * 16_385},
        {"promise": 1},
        {"epoch": 0},
        {"lane": "../x"},
        {"v": 2},
        {"typ": "fedcredit.consent"},
        {"extra": 1},
    ],
)
def test_a_receipt_that_breaks_a_rule_cannot_be_read(changes: dict[str, object]) -> None:
    fields = msgspec.to_builtins(RECEIPT) | changes
    with pytest.raises(MalformedError):
        read_receipt(json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


@pytest.mark.parametrize("text", ["", "not a note", "é\n\n— x\n", "{}"])
def test_texts_that_are_no_note_or_promise_are_malformed(text: str) -> None:
    for receipt in (changed(checkpoint=text), changed(promise=text)):
        with pytest.raises(MalformedError):
            verified(read_receipt(write_receipt(receipt)))


def test_a_receipt_that_cannot_be_read_is_not_written() -> None:
    for wrong in (changed(payload="A"), changed(signature="A" * 85 + "B"), changed(position=-1)):
        with pytest.raises(MalformedError):
            write_receipt(wrong)


@settings(max_examples=200)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 255))
def test_a_receipt_changed_anywhere_proves_nothing_else(place: int, byte: int) -> None:
    data = DATA[:place] + bytes([byte]) + DATA[place + 1 :]
    if data != DATA:
        with pytest.raises(FedcreditError):
            verified(read_receipt(data))
    with pytest.raises(MalformedError):
        read_receipt(DATA[:place])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_crash_the_reader(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_receipt(data)


@given(st.text("AQgw-_=", max_size=40))
def test_a_payload_has_one_spelling(text: str) -> None:
    try:
        data = write_receipt(changed(payload=text))
    except MalformedError:
        return
    assert base64url(read_receipt(data).payload_bytes) == text
    assert from_base64url(text, size=len(read_receipt(data).payload_bytes)) == read_receipt(data).payload_bytes


def test_no_error_or_repr_names_a_person() -> None:
    secrets = [RECORD.sub, RECORD.kid, ALICE.handle.hex(), ALICE.key.public.hex(), RECEIPT.payload]
    found = verify_receipt(RECEIPT, registry_key=REGISTRY.public, person_key=ALICE.key.public)
    said = [repr(found), repr(RECEIPT)]
    for receipt in CONTRADICTIONS.values():
        with pytest.raises(TamperingError) as caught:
            verified(receipt)
        said.append(str(caught.value))
    assert not [secret for secret in secrets for text in said if secret in text]
