"""The person's receipt: their own record, and everything that proves offline that it is in their data holder's log."""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from privacy.consent.canonical import CanonicalJson, from_base64url
from privacy.consent.lane import Head, Stub, read_checkpoint
from privacy.consent.limits import (
    DIGEST_BYTES,
    MAX_PAYLOAD_BYTES,
    RHO_BYTES,
    SIGNATURE_BYTES,
    TAG_BYTES,
    Base64Of16,
    Base64Of32,
    Count,
    Name,
    Position,
)
from privacy.consent.merkle import leaf_hash, verify_inclusion
from privacy.consent.promise import read_promise
from privacy.consent.record import ConsentRecord, key_id, parse_record
from privacy.consent.sealing import commitment_of
from privacy.consent.signing import PayloadType, verify
from privacy.errors import MalformedError, TamperingError

_MAX_BYTES: Final = 32_768
_MAX_TEXT_CHARS: Final = 16_384
_MAX_PROOF: Final = 63


class Receipt(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A record with its place in `lane`: the stub's parts, an inclusion proof, and the checkpoint it leads to.

    `payload` is the signed record and `rho` its blinding value: a receipt is readable, so it stays with the person.
    `checkpoint` is the signed note, `promise` the envelope that the registry answered with, if it was kept.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.receipt"] = "fedcredit.receipt"
    lane: Name
    epoch: Count
    tag: Base64Of16
    payload: Annotated[str, Meta(max_length=(4 * MAX_PAYLOAD_BYTES + 2) // 3)]
    signature: Annotated[str, Meta(min_length=86, max_length=86)]
    rho: Base64Of32
    ciphertext_sha256: Base64Of32
    position: Position
    proof: Annotated[tuple[Base64Of32, ...], Meta(max_length=_MAX_PROOF)]
    checkpoint: Annotated[str, Meta(max_length=_MAX_TEXT_CHARS)]
    promise: Annotated[str, Meta(max_length=_MAX_TEXT_CHARS)] | None

    @property
    def payload_bytes(self) -> bytes:
        """The signed record as it was encoded."""
        return from_base64url(self.payload, size=3 * len(self.payload) // 4)

    @property
    def signature_bytes(self) -> bytes:
        """The person's signature, 64 bytes."""
        return from_base64url(self.signature, size=SIGNATURE_BYTES)

    @property
    def stub(self) -> Stub:
        """The log entry that the receipt is for."""
        rho = from_base64url(self.rho, size=RHO_BYTES)
        return Stub(
            tag=from_base64url(self.tag, size=TAG_BYTES),
            epoch=self.epoch,
            commit=commitment_of(self.payload_bytes, self.signature_bytes, rho),
            ciphertext_sha256=from_base64url(self.ciphertext_sha256, size=DIGEST_BYTES),
        )

    def __repr__(self) -> str:
        return f"Receipt(position={self.position})"


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedReceipt:
    """What a receipt proves: `record` stands at `position` of the log under `head`."""

    record: ConsentRecord
    head: Head
    position: int


_CODEC: Final = CanonicalJson(Receipt, what="a receipt", max_bytes=_MAX_BYTES)


def write_receipt(receipt: Receipt) -> bytes:
    """Canonical JSON of `receipt`. Raises MalformedError for what `read_receipt` would refuse."""
    data = _CODEC.encode(receipt)
    _ = receipt.stub
    return data


def read_receipt(data: bytes) -> Receipt:
    """The receipt in `data`, nothing in it verified yet. Raises MalformedError."""
    receipt = _CODEC.parse(data)
    _ = receipt.stub
    return receipt


def verify_receipt(receipt: Receipt, *, registry_key: bytes, person_key: bytes) -> VerifiedReceipt:
    """What the receipt proves, with nobody asked: both keys are Ed25519 public keys of 32 bytes.

    Raises TamperingError when something contradicts a signature, a hash or another part of the receipt, and
    MalformedError when a part cannot be read.
    """
    payload = receipt.payload_bytes
    verify(person_key, PayloadType.CONSENT, payload, receipt.signature_bytes)
    record = parse_record(payload)
    named = (record.aud, record.aud_kid, record.kid)
    if named != (receipt.lane, receipt.epoch, key_id(person_key)):
        raise _contradicts("its record names another data holder, epoch or key")
    head = read_checkpoint(receipt.checkpoint, f"fedcredit/{receipt.lane}", registry_key)
    leaf = leaf_hash(receipt.stub.leaf())
    proof = [from_base64url(node, size=DIGEST_BYTES) for node in receipt.proof]
    verify_inclusion(leaf, receipt.position, head.size, proof, head.root)
    if receipt.promise is not None:
        promise = read_promise(_ascii(receipt.promise), registry_key=registry_key)
        promised = (promise.lane, from_base64url(promise.leaf, size=DIGEST_BYTES), promise.position)
        if promised != (receipt.lane, leaf, receipt.position):
            raise _contradicts("its promise is for another entry")
    return VerifiedReceipt(record, head, receipt.position)


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise MalformedError(
            "a receipt's promise is not ASCII; the envelope as the registry sent it is required. "
            "The person's wallet must write the receipt again."
        ) from None


def _contradicts(found: str) -> TamperingError:
    return TamperingError(
        f"a receipt contradicts itself: {found}. It proves nothing; the person's wallet must fetch a new one, and "
        "keep this one for the auditor."
    )
