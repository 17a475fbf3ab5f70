from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.limits import MAX_PAYLOAD_BYTES, MESSAGE_BUCKETS_BYTES, RECORD_BUCKET_BYTES
from privacy.consent.sealing import (
    LaneKey,
    LanePublicKey,
    Opened,
    Sealed,
    Suite,
    open_message,
    open_sealed,
    seal,
    seal_message,
)
from privacy.errors import FedcreditError, MalformedError, TamperingError
from tests.privacy.consent import reference_hpke
from tests.privacy.consent.reference_hpke import X25519_KEM, X_WING_KEM, XWingKey
from tests.privacy.consent.samples import LANE_KEYS, digest
from tests.privacy.consent.vectors import vectors

PAYLOAD, SIGNATURE, RHO = b'{"some":"payload"}', digest("a") + digest("b"), digest("rho")
EPOCH = 7
AES_256_GCM = 2

both_suites = pytest.mark.parametrize("suite", list(Suite))


def sealed_with(suite: Suite) -> Sealed:
    return seal(PAYLOAD, SIGNATURE, to=LANE_KEYS[suite].public, lane="lane-a", epoch=EPOCH, rho=RHO)


def info_for(commit: bytes) -> bytes:
    return b"fedcredit/hpke/v1" + b"\x00\x06lane-a" + EPOCH.to_bytes(8, "big") + commit


def forged(suite: Suite, inner: bytes, commit: bytes) -> Sealed:
    """What somebody who knows the public key can seal: any inner bytes under any commitment."""
    return Sealed(commit, LANE_KEYS[suite].public.encrypt(inner, info=info_for(commit)))


def opened_by_reference(suite: Suite, ciphertext: bytes, info: bytes) -> bytes:
    seed = LANE_KEYS[suite].to_bytes()[1:]
    classical = suite is Suite.X25519
    key = seed if classical else XWingKey(seed[:64], seed[64:])
    kem, enc_bytes = (X25519_KEM, 32) if classical else (X_WING_KEM, 1120)
    enc, body = ciphertext[1 : 1 + enc_bytes], ciphertext[1 + enc_bytes :]
    return reference_hpke.open_base(kem, AES_256_GCM, enc, body, key, info=info, aad=b"")


def published() -> Iterator[tuple[dict[str, Any], int, bytes | XWingKey]]:
    for vector in vectors("hpke/rfc9180-x25519-base-subset.json"):
        yield vector, X25519_KEM, bytes.fromhex(vector["skRm"])
    for vector in vectors("hpke/hpke-pq-test-vectors.json"):
        if (vector["kem_id"], vector["kdf_id"]) == (X_WING_KEM, reference_hpke.HKDF_SHA256):
            yield vector, X_WING_KEM, XWingKey.from_seed(bytes.fromhex(vector["skRm"]))


def test_the_reference_opens_the_published_ciphertexts_and_our_keys_are_the_published_ones() -> None:
    cases = list(published())
    assert len(cases) == 4
    for vector, kem, key in cases:
        first = vector["encryptions"][0]
        plaintext = reference_hpke.open_base(
            kem,
            vector["aead_id"],
            bytes.fromhex(vector["enc"]),
            bytes.fromhex(first["ct"]),
            key,
            info=bytes.fromhex(vector["info"]),
            aad=bytes.fromhex(first["aad"]),
        )
        assert plaintext.hex() == first["pt"]
        seed = b"\x02" + key.ml_kem_seed + key.x25519 if isinstance(key, XWingKey) else b"\x01" + key
        assert LaneKey.from_bytes(seed).public.to_bytes()[1:].hex() == vector["pkRm"]


@both_suites
def test_the_reference_opens_what_we_seal(suite: Suite) -> None:
    sealed = sealed_with(suite)
    assert sealed.commit == sha256(b"fedcredit/commit/v1" + RHO + SIGNATURE + PAYLOAD).digest()
    inner = opened_by_reference(suite, sealed.ciphertext, info_for(sealed.commit))
    said = len(PAYLOAD).to_bytes(2, "big") + PAYLOAD + SIGNATURE + RHO
    assert inner == said + bytes(RECORD_BUCKET_BYTES - len(said))
    message = seal_message(b"points", to=LANE_KEYS[suite].public, context=b"request 1")
    inner = opened_by_reference(suite, message, b"fedcredit/hpke-message/v1" + b"request 1")
    assert inner == b"\x00\x00\x00\x06points" + bytes(MESSAGE_BUCKETS_BYTES[0] - 10)


@both_suites
@given(payload=st.binary(max_size=MAX_PAYLOAD_BYTES))
def test_what_was_sealed_opens_and_its_size_says_nothing(suite: Suite, payload: bytes) -> None:
    key = LANE_KEYS[suite]
    sealed = seal(payload, SIGNATURE, to=key.public, lane="lane-a", epoch=1, rho=RHO)
    assert open_sealed(sealed, key, lane="lane-a", epoch=1) == Opened(payload, SIGNATURE, RHO)
    assert len(sealed.ciphertext) == len(sealed_with(suite).ciphertext)


def test_a_payload_that_does_not_fit_the_bucket_is_refused() -> None:
    key = LANE_KEYS[Suite.X25519].public
    seal(bytes(MAX_PAYLOAD_BYTES), SIGNATURE, to=key, lane="l", epoch=1, rho=RHO)
    for payload, signature, rho in (
        (bytes(MAX_PAYLOAD_BYTES + 1), SIGNATURE, RHO),
        (b"", SIGNATURE[1:], RHO),
        (b"", SIGNATURE, RHO + b"\0"),
    ):
        with pytest.raises(MalformedError):
            seal(payload, signature, to=key, lane="l", epoch=1, rho=rho)


@both_suites
def test_a_ciphertext_cut_at_any_length_does_not_open(suite: Suite) -> None:
    sealed = sealed_with(suite)
    for length in range(len(sealed.ciphertext)):
        with pytest.raises(MalformedError):
            open_sealed(
                Sealed(sealed.commit, sealed.ciphertext[:length]),
                LANE_KEYS[suite],
                lane="lane-a",
                epoch=EPOCH,
            )
    with pytest.raises(MalformedError):
        open_sealed(Sealed(sealed.commit, sealed.ciphertext + b"\0"), LANE_KEYS[suite], lane="lane-a", epoch=EPOCH)


@both_suites
def test_a_ciphertext_flipped_at_any_sampled_byte_does_not_open(suite: Suite) -> None:
    sealed = sealed_with(suite)
    size = len(sealed.ciphertext)
    for place in {*range(0, size, 23), *range(40), *range(size - 20, size)}:
        changed = bytearray(sealed.ciphertext)
        changed[place] ^= 0x40
        with pytest.raises((TamperingError, MalformedError)):
            open_sealed(Sealed(sealed.commit, bytes(changed)), LANE_KEYS[suite], lane="lane-a", epoch=EPOCH)


@both_suites
def test_another_lane_epoch_key_or_commitment_does_not_open(suite: Suite) -> None:
    sealed, key = sealed_with(suite), LANE_KEYS[suite]
    open_sealed(sealed, key, lane="lane-a", epoch=EPOCH)
    stranger = LaneKey.generate(suite)
    for changed, opener, lane, epoch in (
        (sealed, key, "lane-b", EPOCH),
        (sealed, key, "lane-a", EPOCH + 1),
        (sealed, stranger, "lane-a", EPOCH),
        (Sealed(digest("another commitment"), sealed.ciphertext), key, "lane-a", EPOCH),
    ):
        with pytest.raises(TamperingError):
            open_sealed(changed, opener, lane=lane, epoch=epoch)


def test_another_or_an_unknown_suite_is_refused() -> None:
    for suite, other in ((Suite.X25519, Suite.MLKEM768_X25519), (Suite.MLKEM768_X25519, Suite.X25519)):
        sealed = sealed_with(suite)
        with pytest.raises(MalformedError):
            open_sealed(sealed, LANE_KEYS[other], lane="lane-a", epoch=EPOCH)
        for code in (b"\x00", b"\x03", LANE_KEYS[other].to_bytes()[:1]):
            with pytest.raises(MalformedError, match="suite"):
                open_sealed(
                    Sealed(sealed.commit, code + sealed.ciphertext[1:]),
                    LANE_KEYS[suite],
                    lane="lane-a",
                    epoch=EPOCH,
                )


def test_a_commitment_to_something_else_is_tampering_even_if_sealed_by_one_who_knows_the_key() -> None:
    said = len(PAYLOAD).to_bytes(2, "big") + PAYLOAD + SIGNATURE + RHO
    sealed = forged(Suite.X25519, said.ljust(RECORD_BUCKET_BYTES, b"\0"), digest("another commitment"))
    with pytest.raises(TamperingError, match="commitment"):
        open_sealed(sealed, LANE_KEYS[Suite.X25519], lane="lane-a", epoch=EPOCH)


@given(place=st.integers(2 + len(PAYLOAD) + 96, RECORD_BUCKET_BYTES - 1), value=st.integers(1, 255))
def test_padding_that_is_not_zero_is_refused(place: int, value: int) -> None:
    inner = bytearray(len(PAYLOAD).to_bytes(2, "big") + PAYLOAD + SIGNATURE + RHO)
    inner.extend(bytes(RECORD_BUCKET_BYTES - len(inner)))
    inner[place] = value
    commit = sha256(b"fedcredit/commit/v1" + RHO + SIGNATURE + PAYLOAD).digest()
    with pytest.raises(MalformedError, match="padding"):
        open_sealed(forged(Suite.X25519, bytes(inner), commit), LANE_KEYS[Suite.X25519], lane="lane-a", epoch=EPOCH)


@given(length=st.integers(MAX_PAYLOAD_BYTES + 1, 65535))
def test_a_length_beyond_the_bucket_is_refused(length: int) -> None:
    sealed = forged(
        Suite.X25519, length.to_bytes(2, "big").ljust(RECORD_BUCKET_BYTES, b"\x01"), digest("any commitment")
    )
    with pytest.raises(MalformedError):
        open_sealed(sealed, LANE_KEYS[Suite.X25519], lane="lane-a", epoch=EPOCH)


@given(size=st.one_of(st.integers(0, 3000), st.sampled_from([1020, 1021, 4092, 4093, 2**20 - 4])))
def test_a_message_opens_and_its_size_is_the_smallest_bucket(size: int) -> None:
    key = LANE_KEYS[Suite.X25519]
    sealed = seal_message(bytes(size), to=key.public, context=b"c")
    assert open_message(sealed, key=key, context=b"c") == bytes(size)
    assert len(sealed) - 49 == min(bucket for bucket in MESSAGE_BUCKETS_BYTES if bucket >= size + 4)


def test_a_message_cut_flipped_or_in_another_context_does_not_open() -> None:
    key = LANE_KEYS[Suite.MLKEM768_X25519]
    sealed = seal_message(b"points", to=key.public, context=b"request 1")
    changed = [sealed[:length] for length in range(len(sealed))]
    changed += [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(0, len(sealed), 29)]
    for wrong in changed:
        with pytest.raises(FedcreditError):
            open_message(wrong, key=key, context=b"request 1")
    for other_key, context in ((key, b"request 2"), (LaneKey.generate(), b"request 1")):
        with pytest.raises(TamperingError):
            open_message(sealed, key=other_key, context=context)
    with pytest.raises(MalformedError):
        seal_message(bytes(2**20 - 3), to=key.public, context=b"c")


@pytest.mark.parametrize(
    "inner",
    [
        b"\x00\x00\x00\x01ab".ljust(1024, b"\0"),
        b"\x00\x00\x04\x00".ljust(1024, b"\0"),
        b"\x00\x00\x00\x01a".ljust(4096, b"\0"),
    ],
    ids=["padding is not zero", "longer than its bucket", "bucket is not the smallest"],
)
def test_a_message_has_one_padding(inner: bytes) -> None:
    key = LANE_KEYS[Suite.X25519]
    sealed = key.public.encrypt(inner, info=b"fedcredit/hpke-message/v1c")
    with pytest.raises(MalformedError, match="padding"):
        open_message(sealed, key=key, context=b"c")


@both_suites
def test_keys_survive_their_bytes_and_show_no_secret(suite: Suite) -> None:
    key = LaneKey.generate(suite)
    again = LaneKey.from_bytes(key.to_bytes())
    assert again.public == key.public == LanePublicKey.from_bytes(key.public.to_bytes())
    assert open_message(seal_message(b"x", to=key.public, context=b""), key=again, context=b"") == b"x"
    assert repr(key) == f"LaneKey({suite.value}, ...)"
    assert hash(key.public) == hash(again.public)
    assert key.public != LaneKey.generate(suite).public


@given(st.one_of(st.binary(max_size=100), st.binary(max_size=96).map(b"\x01".__add__)))
def test_arbitrary_bytes_never_crash_the_key_readers(data: bytes) -> None:
    for reader in (LaneKey.from_bytes, LanePublicKey.from_bytes):
        try:
            assert reader(data).to_bytes() == data
        except MalformedError:
            continue


def test_a_public_key_that_is_no_key_is_refused() -> None:
    ml_kem_out_of_range = b"\x02" + b"\xff" * 1184 + bytes(32)
    with pytest.raises(MalformedError):
        LanePublicKey.from_bytes(ml_kem_out_of_range)
    for small_order in (
        b"\x01" + bytes(32),
        LANE_KEYS[Suite.MLKEM768_X25519].public.to_bytes()[:-32] + bytes(32),
    ):
        with pytest.raises(MalformedError, match="small order"):
            seal_message(b"x", to=LanePublicKey.from_bytes(small_order), context=b"")
