"""Keyed digests of the rows in a data holder's lane copy, so that an edited row is noticed when it is read."""

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from clients.holder.ledger_chain import LedgerHead
from privacy.consent.sealing import LaneKey


class RowSeal:
    """HMAC-SHA256 (RFC 2104) under a key derived (RFC 5869) from the lane key; each digest has 32 bytes.

    A digest covers the kind of row and every field behind its length. It says that this data holder wrote the row, not
    that the row is the newest, nor that no other row was taken away.
    """

    def __init__(self, key: LaneKey) -> None:
        """Derive the key of the rows from the lane key."""
        self._key = HKDF(SHA256(), 32, salt=None, info=b"fedcredit/lane-copy/v1").derive(key.to_bytes())

    def entry(self, stub: bytes, payload: bytes | None) -> bytes:
        """Of a lane entry and what it opened to; None when it did not open."""
        return self._of(b"entry", stub, b"\0" if payload is None else b"\1" + payload)

    def link(self, customer: str, handle: bytes, public_key: bytes, linked_at_size: int) -> bytes:
        """Of a customer's tie to a wallet."""
        return self._of(b"link", customer.encode(), handle, public_key, _integer(linked_at_size))

    def use(self, handle: bytes, recipient: str, nonce: str, at: int) -> bytes:
        """Of one answer about a person."""
        return self._of(b"use", handle, recipient.encode(), nonce.encode(), _integer(at))

    def ledger_head(self, head: LedgerHead) -> bytes:
        """Of the privacy ledger's head."""
        return self._of(b"ledger head", _integer(head.size), head.digest)

    def _of(self, *fields: bytes) -> bytes:
        message = b"".join([len(field).to_bytes(8, "big") + field for field in fields])
        return hmac.digest(self._key, message, "sha256")


def _integer(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)
