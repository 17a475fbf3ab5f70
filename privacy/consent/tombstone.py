"""Tombstones: a data holder's signed statement that what lay beside one log entry was erased."""

import hashlib
from typing import Final, Literal

from msgspec import Struct

from privacy.consent.canonical import CanonicalJson, from_base64url
from privacy.consent.envelope import open_envelope, write_envelope
from privacy.consent.lane import TombstoneStub
from privacy.consent.limits import DIGEST_BYTES, MAX_SEALED_BYTES, TAG_BYTES, Base64Of32, Name, Position, UtcSeconds
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import TamperingError

_TAG_LABEL: Final = b"fedcredit/tombstone-tag/v1"
_WHAT: Final = "a tombstone's statement"


class TombstoneStatement(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What lay beside the entry at `position` of `lane`, whose leaf hash is `leaf`, was erased; `at` UTC seconds."""

    v: Literal[1] = 1
    typ: Literal["fedcredit.tombstone"] = "fedcredit.tombstone"
    lane: Name
    position: Position
    leaf: Base64Of32
    at: UtcSeconds

    @property
    def leaf_hash(self) -> bytes:
        """The 32 bytes of `leaf`."""
        return from_base64url(self.leaf, size=DIGEST_BYTES)


_CODEC: Final = CanonicalJson(TombstoneStatement, what=_WHAT, max_bytes=1024)


def write_tombstone(statement: TombstoneStatement, key: SigningKey) -> bytes:
    """The envelope of `statement` signed by the data holder's identity. Raises MalformedError."""
    return write_envelope(PayloadType.TOMBSTONE, _CODEC.encode(statement), key)


def read_tombstone(envelope: bytes, *, identity: bytes, lane: str) -> TombstoneStatement:
    """The statement that the data holder `identity` (32 bytes) signed for `lane`.

    Raises MalformedError or TamperingError.
    """
    payload = open_envelope(envelope, PayloadType.TOMBSTONE, identity, what=_WHAT, max_bytes=MAX_SEALED_BYTES)
    statement = _CODEC.parse(payload)
    if statement.lane != lane:
        raise TamperingError(
            "a tombstone's statement is for another lane; it erases nothing here. The data holder must sign one "
            "for this lane."
        )
    return statement


def tombstone_stub(envelope: bytes, statement: TombstoneStatement) -> TombstoneStub:
    """The log entry for `statement`, which `read_tombstone` found in `envelope`."""
    # The tag follows from the erased entry: a second tombstone for it is a replay.
    tag = hashlib.sha256(_TAG_LABEL + statement.leaf_hash).digest()[:TAG_BYTES]
    return TombstoneStub(tag, statement.position, statement.leaf_hash, hashlib.sha256(envelope).digest())
