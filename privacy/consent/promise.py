"""A registry's signed promise: this entry is stored, at this position, and a signed head will cover it in time."""

from typing import Final, Literal

from msgspec import Struct

from privacy.consent.canonical import CanonicalJson
from privacy.consent.envelope import open_envelope, write_envelope
from privacy.consent.limits import MAX_MERGE_DELAY_S, Base64Of32, Name, Position, UtcSeconds
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError

_MAX_BYTES: Final = 1024


class Promise(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The entry with leaf hash `leaf` (base64url) is durable at `position` of `lane`.

    A signed head larger than `position` exists from `merge_by` on, at most an hour after `received_at`.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.promise"] = "fedcredit.promise"
    lane: Name
    leaf: Base64Of32
    position: Position
    received_at: UtcSeconds
    merge_by: UtcSeconds


_CODEC: Final = CanonicalJson(Promise, what="a registry's promise", max_bytes=_MAX_BYTES)


def write_promise(promise: Promise, key: SigningKey) -> bytes:
    """The envelope of `promise` signed by the registry. Raises MalformedError for a broken rule."""
    payload = _CODEC.encode(promise)
    _check_rules(promise)
    return write_envelope(PayloadType.PROMISE, payload, key)


def read_promise(data: bytes, *, registry_key: bytes) -> Promise:
    """The promise that the registry signed. Raises MalformedError or TamperingError."""
    what = "a registry's promise"
    payload = open_envelope(data, PayloadType.PROMISE, registry_key, what=what, max_bytes=2 * _MAX_BYTES)
    promise = _CODEC.parse(payload)
    _check_rules(promise)
    return promise


def _check_rules(promise: Promise) -> None:
    delay = promise.merge_by - promise.received_at
    if not 0 <= delay <= MAX_MERGE_DELAY_S:
        raise MalformedError(
            f"a registry's promise is due {delay} s after it was given; 0 to {MAX_MERGE_DELAY_S} are required. "
            "The registry must promise again."
        )
