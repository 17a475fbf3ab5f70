import json
from base64 import b64encode
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.envelope import MAX_ENVELOPE_BYTES, open_envelope, peek_envelope, write_envelope
from privacy.consent.signing import PayloadType, SigningKey, pre_authentication_encoding, verify_raw
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent.samples import digest

KEY = SigningKey.from_seed(digest("signer"))
KIND = PayloadType.PROMISE
PAYLOAD = b'{"v":1}'
ENVELOPE = write_envelope(KIND, PAYLOAD, KEY)


def opened(data: bytes, *, key: SigningKey = KEY, kind: str = KIND, max_bytes: int = MAX_ENVELOPE_BYTES) -> bytes:
    return open_envelope(data, kind, key.public, what="a test message", max_bytes=max_bytes)


def rewritten(**changes: Any) -> bytes:
    return rfc8785.dumps(json.loads(ENVELOPE) | changes)


def test_an_envelope_is_dsse_json_in_canonical_form() -> None:
    signature = KEY.sign_raw(pre_authentication_encoding(KIND, PAYLOAD))
    expected: Any = {
        "payload": b64encode(PAYLOAD).decode(),
        "payloadType": "application/vnd.fedcredit.promise.v1+json",
        "signatures": [{"sig": b64encode(signature).decode()}],
    }
    assert rfc8785.dumps(expected) == ENVELOPE
    # DSSE v1, protocol.md: the signature is over this text and nothing else.
    text = b'DSSEv1 41 application/vnd.fedcredit.promise.v1+json 7 {"v":1}'
    verify_raw(KEY.public, text, signature)


@given(st.binary(max_size=300), st.sampled_from(PayloadType))
def test_what_is_written_is_opened_and_peeked(payload: bytes, kind: PayloadType) -> None:
    data = write_envelope(kind, payload, KEY)
    assert opened(data, kind=kind) == payload
    assert peek_envelope(data, kind, what="a test message") == payload


SIGNATURE = json.loads(ENVELOPE)["signatures"][0]["sig"]
ODD_BITS = SIGNATURE[:-3] + chr(ord(SIGNATURE[-3]) + 1) + "=="


@pytest.mark.parametrize(
    "data",
    [
        rewritten(extra=1),
        rewritten(signatures=[]),
        rewritten(signatures=[{"sig": SIGNATURE}] * 2),
        rewritten(signatures=[{"sig": SIGNATURE, "keyid": ""}]),
        rewritten(signatures=[{"sig": SIGNATURE.rstrip("=")}]),
        rewritten(signatures=[{"sig": ODD_BITS}]),
        rewritten(signatures=[{"sig": SIGNATURE + "\n"}]),
        rewritten(signatures=[{}]),
        rewritten(payload="eyJ2IjoxfQ"),
        rewritten(payload="_-==" + "AAAA"),
        rewritten(payload="é"),
        rewritten(payloadType=PayloadType.TOMBSTONE.value),
        ENVELOPE + b"\n",
        b" " + ENVELOPE,
        json.dumps(json.loads(ENVELOPE)).encode(),
        b"{}",
        b"",
        b"[" * 100_000,
    ],
)
def test_another_spelling_is_refused_by_both_readers(data: bytes) -> None:
    for reader in (opened, lambda text: peek_envelope(text, KIND, what="a test message")):
        with pytest.raises(MalformedError):
            reader(data)


def test_only_the_named_keys_signature_over_the_named_type_opens() -> None:
    with pytest.raises(TamperingError):
        opened(ENVELOPE, key=SigningKey.from_seed(digest("another")))
    with pytest.raises(MalformedError, match="another type"):
        opened(ENVELOPE, kind=PayloadType.TOMBSTONE)
    # The type is signed as well: renaming it does not help.
    renamed = rewritten(payloadType=PayloadType.TOMBSTONE.value)
    with pytest.raises(TamperingError):
        opened(renamed, kind=PayloadType.TOMBSTONE)
    for changes in ({"payload": ""}, {"signatures": [{"sig": ""}]}):
        with pytest.raises(TamperingError):
            opened(rewritten(**changes))


def test_a_size_limit_is_kept_by_readers_and_the_writer() -> None:
    assert opened(ENVELOPE, max_bytes=len(ENVELOPE)) == PAYLOAD
    with pytest.raises(MalformedError, match="at most"):
        opened(ENVELOPE, max_bytes=len(ENVELOPE) - 1)
    with pytest.raises(MalformedError, match="at most"):
        write_envelope(KIND, bytes(MAX_ENVELOPE_BYTES), KEY)


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(0, 255))
def test_an_envelope_changed_anywhere_is_refused(place: int, byte: int) -> None:
    changed = ENVELOPE[:place] + bytes([byte]) + ENVELOPE[place + 1 :]
    if changed != ENVELOPE:
        with pytest.raises((MalformedError, TamperingError)):
            opened(changed)
    with pytest.raises(MalformedError):
        opened(ENVELOPE[:place])


near_misses = st.builds(
    lambda payload, kind, signatures: json.dumps(
        {"payload": payload, "payloadType": kind, "signatures": [{"sig": one} for one in signatures]},
        separators=(",", ":"),
    ).encode(),
    st.text("AQgw/+=-_", max_size=8),
    st.sampled_from([KIND.value, "", "text/plain"]),
    st.lists(st.text("AQgw/+=", max_size=8), max_size=2),
)


@given(st.binary(max_size=200) | near_misses)
def test_arbitrary_bytes_never_crash_and_what_is_accepted_has_one_encoding(data: bytes) -> None:
    with pytest.raises((MalformedError, TamperingError)):
        opened(data)
    try:
        payload = peek_envelope(data, KIND, what="a test message")
    except MalformedError:
        return
    parsed = json.loads(data)
    assert rfc8785.dumps(parsed) == data
    assert b64encode(payload).decode() == parsed["payload"]


def test_errors_quote_nothing() -> None:
    for data in (rewritten(payload="c2VjcmV0", extra=1), rewritten(payload="c2VjcmV0")):
        with pytest.raises((MalformedError, TamperingError)) as caught:
            opened(data)
        assert not any(word in str(caught.value) for word in ("secret", "c2VjcmV0", KEY.public.hex()))
