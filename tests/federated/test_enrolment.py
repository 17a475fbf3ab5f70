"""Requests and welcomes: only what both keys signed is read, and only for whom it was written."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from federated.certificates import certificate_pem, certify, key_pem
from federated.enrolment import (
    GOOD_FOR_S,
    MAX_FILE_BYTES,
    MAX_PEERS,
    Welcome,
    compare_fingerprint,
    fingerprint_of,
    is_welcome,
    node_key_of,
    node_key_text,
    read_request,
    read_welcome,
    write_request,
    write_welcome,
)
from privacy.consent.envelope import write_envelope
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError, RefusalError, TamperingError, UsageError

AT = 1_793_491_200
HOUR_S = 3600
IDENTITY, OTHER, COORDINATOR = (SigningKey.from_seed(sha256(name).digest()) for name in (b"i", b"o", b"c"))
NODE, OTHER_NODE = (ec.derive_private_key(number, ec.SECP384R1()) for number in (7**50, 7**51))
CA_KEY = ec.derive_private_key(7**52, ec.SECP384R1())
CA = certify(CA_KEY.public_key(), name="ca", hosts=(), signs_others=True, key=CA_KEY, issuer=None, at=AT, days=100)


def a_request() -> bytes:
    return write_request("aster-bank", IDENTITY, NODE, at=AT)


def payload_of(data: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(b64decode(json.loads(data)["payload"]))
    return payload


def resigned(kind: PayloadType, payload: dict[str, Any], key: SigningKey) -> bytes:
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    return write_envelope(kind, canonical, key)


def a_welcome(**changes: Any) -> Welcome:
    fields: dict[str, Any] = {
        "holder": "aster-bank", "identity": IDENTITY.public.hex(), "node_key": node_key_text(NODE.public_key()),
        "issued_at": AT, "coordinator": "open-scoring", "coordinator_key": COORDINATOR.public.hex(),
        "address": "fleet.example:9443", "ca": certificate_pem(CA).decode(), "schema": "ab" * 32, "bundle": "cd" * 32,
        "registry": None, "peers": {"birch-telecom": OTHER.public.hex()},
    }  # fmt: skip
    return Welcome(**(fields | changes))


def read(data: bytes, *, at: int = AT) -> Welcome:
    return read_welcome(data, signers=[bytes(32), COORDINATOR.public], at=at)


@given(st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,9}){0,4}", fullmatch=True), st.integers(AT, AT + 10**8))
def test_a_request_says_what_was_asked(holder: str, at: int) -> None:
    request = read_request(write_request(holder, IDENTITY, NODE, at=at), at=at)
    assert (request.holder, request.identity, request.issued_at) == (holder, IDENTITY.public.hex(), at)
    assert request.node_key == node_key_text(NODE.public_key())


def test_the_node_key_signs_the_request_inside_by_dsse_and_ecdsa() -> None:
    payload = payload_of(a_request())
    inner = json.dumps(payload["request"], sort_keys=True, separators=(",", ":")).encode()
    kind = b"application/vnd.fedcredit.enrolment-request.v1+json"
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(inner), inner)
    key = load_ssh_public_key(payload["request"]["node_key"].encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(bytes.fromhex(payload["possession"]), signed, ec.ECDSA(SHA384()))


def _with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda payload: payload["request"].update(changes)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (_with(holder="birch-telecom"), IDENTITY),  # our own request under another id
        (_with(identity=OTHER.public.hex()), OTHER),  # another's node key under one's own identity
        (_with(node_key=node_key_text(OTHER_NODE.public_key())), IDENTITY),  # a node key one does not have
        (_with(issued_at=AT + 60), IDENTITY),  # an old request made young
        (lambda payload: payload.update(possession="00"), IDENTITY),
        (lambda payload: payload.update(possession="abc"), IDENTITY),
        (_with(), OTHER),  # signed by another identity key than the one inside
    ],
)
def test_a_request_that_either_key_did_not_sign_is_tampering(
    change: Callable[[dict[str, Any]], None], key: SigningKey
) -> None:
    payload = payload_of(a_request())
    change(payload)
    with pytest.raises(TamperingError, match=r"request|signature"):
        read_request(resigned(PayloadType.ENROLMENT_REQUEST, payload, key), at=AT)


def test_a_node_keys_signature_for_another_purpose_proves_nothing() -> None:
    payload = payload_of(a_request())
    inner = json.dumps(payload["request"], sort_keys=True, separators=(",", ":")).encode()
    payload["possession"] = NODE.sign(inner, ec.ECDSA(SHA384())).hex()
    with pytest.raises(TamperingError, match="node key"):
        read_request(resigned(PayloadType.ENROLMENT_REQUEST, payload, IDENTITY), at=AT)


@pytest.mark.parametrize(
    "change",
    [
        _with(more=1),
        lambda payload: payload.update(more=1),
        _with(holder="Aster Bank"),
        _with(v=2),
        _with(node_key="ssh-ed25519 AAAA"),
        _with(identity="AB" * 32),
    ],
)
def test_a_request_with_anything_unknown_or_ill_formed_is_malformed(change: Callable[[dict[str, Any]], None]) -> None:
    payload = payload_of(a_request())
    change(payload)
    with pytest.raises(MalformedError):
        read_request(resigned(PayloadType.ENROLMENT_REQUEST, payload, IDENTITY), at=AT)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 40, b"[" * 3000, b" " * (MAX_FILE_BYTES + 1)])
def test_what_is_no_envelope_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_request(data, at=AT)
    with pytest.raises(MalformedError):
        read(data)
    assert not is_welcome(data)


def test_a_welcome_is_no_request_and_a_request_no_welcome() -> None:
    with pytest.raises(MalformedError, match="another type"):
        read_request(write_welcome(a_welcome(), COORDINATOR), at=AT)
    with pytest.raises(MalformedError, match="another type"):
        read(a_request())
    assert is_welcome(write_welcome(a_welcome(), COORDINATOR))
    assert not is_welcome(a_request())


@pytest.mark.parametrize(
    ("at", "taken"),
    [
        (AT - HOUR_S, True), (AT - HOUR_S - 1, False), (AT + GOOD_FOR_S - 1, True), (AT + GOOD_FOR_S, False),
    ],
)  # fmt: skip
def test_both_are_taken_for_thirty_days_and_an_hours_difference_of_clocks(at: int, taken: bool) -> None:
    for reads in (
        lambda: read_request(a_request(), at=at),
        lambda: read(write_welcome(a_welcome(), COORDINATOR), at=at),
    ):
        if taken:
            reads()
        else:
            with pytest.raises(RefusalError, match=r"days old|clocks"):
                reads()


def test_a_welcome_comes_back_as_it_was_written() -> None:
    assert read(write_welcome(a_welcome(), COORDINATOR)) == a_welcome()


def test_a_welcome_by_another_coordinator_is_tampering() -> None:
    stranger = a_welcome(coordinator_key=OTHER.public.hex(), peers={})
    with pytest.raises(TamperingError, match="coordinator_keys"):
        read(write_welcome(stranger, OTHER))
    pretended = payload_of(write_welcome(a_welcome(), COORDINATOR))
    with pytest.raises(TamperingError, match="signature"):
        read(resigned(PayloadType.WELCOME, pretended, OTHER))
    with pytest.raises(MalformedError, match="signs it"):
        write_welcome(a_welcome(), OTHER)


def _not_an_authority() -> x509.Certificate:
    return certify(
        CA_KEY.public_key(), name="ca", hosts=("a",), signs_others=False, key=CA_KEY, issuer=None, at=AT, days=9
    )  # fmt: skip


def _below_the_authority() -> x509.Certificate:
    return certify(
        NODE.public_key(), name="below", hosts=(), signs_others=True, key=CA_KEY, issuer=CA, at=AT, days=9
    )  # fmt: skip


GOOD_PEM = certificate_pem(CA).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"ca": certificate_pem(_not_an_authority()).decode()},
        {"ca": GOOD_PEM + certificate_pem(_not_an_authority()).decode()},
        {"ca": certificate_pem(_below_the_authority()).decode()},
        {"ca": GOOD_PEM + key_pem(CA_KEY).decode()},
        {"ca": "a comment\n" + GOOD_PEM},
        {"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"ca": "x"},
        {"peers": {"aster-bank": OTHER.public.hex()}},
        {"peers": {"birch-telecom": IDENTITY.public.hex()}},
        {"peers": {"birch-telecom": OTHER.public.hex(), "elm": OTHER.public.hex()}},
        {"peers": {"birch-telecom": "00" * 32}},
        {"peers": {"Birch": OTHER.public.hex()}},
        {"peers": {f"holder-{number}": f"{number + 1000:064x}" for number in range(MAX_PEERS + 1)}},
        {"address": "fleet.example"},
        {"address": "-x:1"},
        {"address": "fleet.example:9443\n"},
        {"node_key": node_key_text(NODE.public_key()) + " somebody@host"},
        {"more": 1},
    ],
)
def test_a_welcome_with_a_broken_rule_is_malformed_whoever_signed_it(changes: dict[str, Any]) -> None:
    payload = payload_of(write_welcome(a_welcome(), COORDINATOR)) | changes
    with pytest.raises(MalformedError):
        read(resigned(PayloadType.WELCOME, payload, COORDINATOR))


def test_two_authorities_may_be_in_a_welcome() -> None:
    key = OTHER_NODE
    after = certify(key.public_key(), name="next", hosts=(), signs_others=True, key=key, issuer=None, at=AT, days=9)
    both = GOOD_PEM + certificate_pem(after).decode()
    assert read(write_welcome(a_welcome(ca=both), COORDINATOR)).ca == both


def test_as_many_peers_as_there_may_be_fit_into_a_welcome_whatever_their_names() -> None:
    peers = {f"{'x' * 59}-{number:03}": f"{number + 1000:064x}" for number in range(MAX_PEERS)}
    data = write_welcome(a_welcome(peers=peers, ca=GOOD_PEM * 2), COORDINATOR)
    assert len(read(data).peers) == MAX_PEERS
    assert len(data) <= MAX_FILE_BYTES


def test_no_private_key_is_in_a_request_or_a_welcome() -> None:
    secrets = [IDENTITY.seed, COORDINATOR.seed]
    for key in (NODE, CA_KEY):
        secrets.append(key.private_numbers().private_value.to_bytes(48, "big"))
        secrets.append(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    for data in (a_request(), write_welcome(a_welcome(), COORDINATOR)):
        inner = b64decode(json.loads(data)["payload"])
        assert IDENTITY.public.hex().encode() in inner  # the search finds what is there
        for secret in secrets:
            for form in (secret, secret.hex().encode(), b64encode(secret), secret.lstrip(b"\0")):
                assert form not in data
                assert form not in inner
        assert b"PRIVATE" not in inner


@pytest.mark.parametrize(
    "text",
    [
        node_key_text(NODE.public_key()) + " comment",
        node_key_text(NODE.public_key())[:-8],
        node_key_text(NODE.public_key()) + "\n",
        ec.derive_private_key(5, ec.SECP256R1()).public_key(),
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
        "",
        "ecdsa-sha2-nistp384 !!!!",
    ],
)
def test_only_a_p384_key_in_its_one_spelling_is_a_node_key(text: Any) -> None:
    if not isinstance(text, str):
        text = text.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with pytest.raises(MalformedError, match="node key"):
        node_key_of(text)


def test_the_fingerprint_depends_on_id_identity_and_node_key() -> None:
    named = ("aster-bank", IDENTITY.public.hex(), node_key_text(NODE.public_key()))
    others = ("aster-ban", OTHER.public.hex(), node_key_text(OTHER_NODE.public_key()))
    prints = {fingerprint_of(*named)}
    for place in range(3):
        changed = list(named)
        changed[place] = others[place]
        prints.add(fingerprint_of(*changed))
    assert len(prints) == 4
    assert all([len(group) for group in shown.split()] == [3] * 8 for shown in prints)


@pytest.mark.parametrize(
    "typed", ["012 345 678 901 234 567 890 123", " 012345678901234567890123", "012-345.678 901234567890123\n"]
)
def test_a_fingerprint_may_be_typed_with_any_gaps(typed: str) -> None:
    compare_fingerprint(typed, "012 345 678 901 234 567 890 123")


def test_a_wrong_fingerprint_is_tampering_and_half_of_one_a_slip() -> None:
    right = "012 345 678 901 234 567 890 123"
    for place in range(len(right)):
        if right[place] != " ":
            wrong = right[:place] + str((int(right[place]) + 1) % 10) + right[place + 1 :]
            with pytest.raises(TamperingError, match="read out"):
                compare_fingerprint(wrong, right)
    for slip in (right[:-4], right + " 4", "", "yes", right.replace("0", "O")):
        with pytest.raises(UsageError, match="eight groups"):
            compare_fingerprint(slip, right)
