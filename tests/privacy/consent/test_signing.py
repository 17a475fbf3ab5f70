import pytest
from hypothesis import given
from hypothesis import strategies as st

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
