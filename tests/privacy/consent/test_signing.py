from collections import Counter

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from privacy.consent.signing import (
    SMALL_ORDER_ENCODINGS,
    PayloadType,
    SigningKey,
    pre_authentication_encoding,
    verify,
    verify_raw,
)
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent.vectors import vectors

KEY = SigningKey.from_seed(bytes(range(32)))


def test_small_order_list_is_the_fourteen_encodings_of_cctv() -> None:
    listed = vectors("cctv/low_order_points.json")
    assert len(listed) == 14
    assert {bytes.fromhex(encoding) for encoding in listed} == SMALL_ORDER_ENCODINGS


def test_no_cctv_signature_with_a_small_order_key_or_r_verifies() -> None:
    cases = [v for v in vectors("cctv/ed25519vectors.json") if {"low_order_A", "low_order_R"} & set(v["flags"] or ())]
    assert len(cases) > 700
    for case in cases:
        with pytest.raises(TamperingError):
            verify_raw(bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"]))


def test_wycheproof_verdicts_hold() -> None:
    verdicts = []
    for group in vectors("wycheproof/ed25519_test.json")["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            try:
                verify_raw(public, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
                accepted = True
            except TamperingError:
                accepted = False
            verdicts.append((case["tcId"], accepted, case["result"] == "valid"))
    assert len(verdicts) == 151
    assert [tc for tc, accepted, valid in verdicts if accepted != valid] == []


def openssl_accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def libsodium_accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        crypto_sign_open(signature + message, public)
    except (BadSignatureError, ValueError):
        return False
    return True


def accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_raw(public, message, signature)
    except TamperingError:
        return False
    return True


def test_two_libraries_agree_on_every_wycheproof_vector() -> None:
    compared = 0
    for group in vectors("wycheproof/ed25519_test.json")["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            # Glued together, a signature of another length would take bytes from the message or give it some.
            libsodium = len(signature) == 64 and libsodium_accepts(public, message, signature)
            assert libsodium == openssl_accepts(public, message, signature), case["tcId"]
            compared += 1
    assert compared == 151


def test_the_cctv_classes_on_which_two_libraries_differ_are_refused_here() -> None:
    """They differ on small-order keys and R only: OpenSSL accepts 165 of the 808, libsodium none, and so do we."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for case in vectors("cctv/ed25519vectors.json"):
        public, message, signature = bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"])
        flags = set(case["flags"] or ())
        judges = {"openssl": openssl_accepts, "libsodium": libsodium_accepts, "we": accepts}
        taken_by = [name for name, judge in judges.items() if judge(public, message, signature)]
        outcomes["small" if {"low_order_A", "low_order_R"} & flags else "large", " ".join(taken_by)] += 1
        # Only the verification with the cofactor accepts a residue of low order; two kinds must not meet in one log.
        assert "low_order_residue" not in flags or not {"libsodium", "we"} & set(taken_by)
    assert outcomes == {
        ("small", "openssl"): 165,
        ("small", ""): 643,
        ("large", ""): 63,
        ("large", "openssl libsodium we"): 43,
    }


@pytest.mark.parametrize("point", sorted(SMALL_ORDER_ENCODINGS), ids=bytes.hex)
def test_refusing_small_order_points_hangs_on_no_library(point: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.consent.signing.crypto_sign_open", lambda signed, _: signed[64:])
    verify_raw(KEY.public, b"payload", bytes([7]) * 64)
    for public, signature in ((point, bytes([7]) * 64), (KEY.public, point + bytes(32))):
        with pytest.raises(TamperingError, match="small-order"):
            verify_raw(public, b"payload", signature)


def test_a_signature_of_another_length_takes_no_byte_from_the_message() -> None:
    message = b"payload"
    signature = KEY.sign_raw(message)
    verify_raw(KEY.public, message, signature)
    for moved in range(1, 8):
        with pytest.raises(TamperingError):
            verify_raw(KEY.public, signature[-moved:] + message, signature[:-moved])
        with pytest.raises(TamperingError):
            verify_raw(KEY.public, message[moved:], signature + message[:moved])


@given(st.binary(max_size=3000), st.binary(min_size=32, max_size=32))
def test_what_openssl_signs_libsodium_verifies(message: bytes, seed: bytes) -> None:
    key = SigningKey.from_seed(seed)
    verify_raw(key.public, message, key.sign_raw(message))


def test_encoding_is_the_example_of_the_dsse_specification() -> None:
    # github.com/secure-systems-lab/dsse, protocol.md, test vectors
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(payload=st.binary(max_size=200), flip=st.integers(0, 511))
def test_a_flipped_bit_of_the_signature_never_verifies(payload: bytes, flip: int) -> None:
    signature = bytearray(KEY.sign(PayloadType.CONSENT, payload))
    verify(KEY.public, PayloadType.CONSENT, payload, bytes(signature))
    signature[flip // 8] ^= 1 << flip % 8
    with pytest.raises(TamperingError):
        verify(KEY.public, PayloadType.CONSENT, payload, bytes(signature))


@given(st.sampled_from(PayloadType), st.sampled_from(PayloadType))
def test_a_signature_is_worth_nothing_under_another_type(signed: PayloadType, claimed: PayloadType) -> None:
    signature = KEY.sign(signed, b"payload")
    if signed is claimed:
        verify(KEY.public, claimed, b"payload", signature)
    else:
        with pytest.raises(TamperingError):
            verify(KEY.public, claimed, b"payload", signature)


@given(public=st.binary(max_size=40), signature=st.binary(max_size=70))
def test_arbitrary_keys_and_signatures_are_refused_not_crashed_on(public: bytes, signature: bytes) -> None:
    with pytest.raises(TamperingError):
        verify(public, PayloadType.PLAN, b"payload", signature)


def test_seed_makes_the_same_key_again_and_stays_out_of_its_repr() -> None:
    key = SigningKey.generate()
    assert SigningKey.from_seed(key.seed).public == key.public != KEY.public
    assert repr(key) == "SigningKey(...)"
    with pytest.raises(MalformedError):
        SigningKey.from_seed(bytes(31))
