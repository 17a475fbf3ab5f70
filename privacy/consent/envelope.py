"""The DSSE envelope: a payload, its type and one Ed25519 signature as JSON, with one encoding per value.

Format: DSSE v1.0.2, envelope.md. Stricter than it asks for: canonical JSON, standard base64 without stray bits,
exactly one signature, no key id, no other field.
"""

from base64 import b64decode, b64encode
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta, Struct

from privacy.consent.canonical import CanonicalJson
from privacy.consent.signing import SigningKey, verify
from privacy.errors import MalformedError

MAX_ENVELOPE_BYTES: Final = 65_536


class _Signature(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    sig: str


class _Envelope(Struct, frozen=True, forbid_unknown_fields=True, gc=False, rename="camel"):
    payload: str
    payload_type: str
    signatures: Annotated[tuple[_Signature, ...], Meta(min_length=1, max_length=1)]


def write_envelope(payload_type: str, payload: bytes, key: SigningKey) -> bytes:
    """`payload` as `payload_type`, signed by `key`. Raises MalformedError beyond 64 KiB."""
    signature = _Signature(b64encode(key.sign(payload_type, payload)).decode())
    envelope = _Envelope(b64encode(payload).decode(), payload_type, (signature,))
    return _codec("a signed message", MAX_ENVELOPE_BYTES).encode(envelope)


def open_envelope(
    data: bytes, payload_type: str, public: bytes, *, what: str, max_bytes: int = MAX_ENVELOPE_BYTES
) -> bytes:
    """The payload that `public` signed as `payload_type`; `what` names it in errors.

    Raises MalformedError for anything but one canonical envelope of that type, TamperingError for its signature.
    """
    envelope = _parse(data, payload_type, what, max_bytes)
    payload = _from_base64(envelope.payload, what)
    verify(public, payload_type, payload, _from_base64(envelope.signatures[0].sig, what))
    return payload


def peek_envelope(data: bytes, payload_type: str, *, what: str, max_bytes: int = MAX_ENVELOPE_BYTES) -> bytes:
    """The payload with its signature NOT verified: only to learn which key to ask for. Raises MalformedError."""
    envelope = _parse(data, payload_type, what, max_bytes)
    _from_base64(envelope.signatures[0].sig, what)
    return _from_base64(envelope.payload, what)


def _parse(data: bytes, payload_type: str, what: str, max_bytes: int) -> _Envelope:
    envelope = _codec(what, max_bytes).parse(data)
    if envelope.payload_type != payload_type:
        raise MalformedError(
            f"{what} is in an envelope of another type; one message never stands for another. "
            "The sender must send the kind that was asked for."
        )
    return envelope


@lru_cache(maxsize=32)
def _codec(what: str, max_bytes: int) -> CanonicalJson[_Envelope]:
    return CanonicalJson(_Envelope, what=what, max_bytes=max_bytes)


def _from_base64(text: str, what: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if b64encode(data).decode() != text:
        raise MalformedError(
            f"{what} is not in canonical base64 (RFC 4648, section 4); one value has one encoding. "
            "The sender must encode it again."
        )
    return data
