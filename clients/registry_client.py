"""The consent registry over HTTP, as wallets and data holders ask it: what is read, and what they hand in.

Signatures, hashes and proofs are verified by whoever asked.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from federated.registry_reader import MAX_ERROR_BYTES, OK, RegistryReader, decoded, failure, unreadable
from privacy.consent.limits import MAX_SUBMISSIONS
from privacy.consent.submission import Submission, frame
from privacy.errors import RefusalCode, RefusalError

MAX_PROMISE_BYTES: Final = 4_096
_NOT_FOUND: Final = 404


class _Promises(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    promises: list[str]


class _Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    position: int


class RegistryClient(RegistryReader):
    """One registry that is read and written to. Every request can be repeated without harm."""

    def submit(self, lane: str, submissions: Sequence[Submission]) -> list[bytes]:
        """Append records, all or none; returns the registry's promises in the same order, not verified.

        May be repeated with the same records whenever the answer was lost. RefusalError with code `replay` when a
        tag is taken by another record.
        """
        body = self._send("POST", lane, "records", frame(submissions), most=MAX_SUBMISSIONS * MAX_PROMISE_BYTES)
        return _promises(body, len(submissions))

    def position(self, lane: str, tag: bytes) -> int | None:
        """Where the registry says that the record with a tag is; None when it says that it is not there."""
        status, body = self._ask("GET", lane, f"positions/{tag.hex()}", None, most=MAX_ERROR_BYTES)
        if status == OK:
            return decoded(body, _Position).position
        found = failure(status, body)
        if status == _NOT_FOUND and isinstance(found, RefusalError) and found.code is RefusalCode.LANE:
            return None
        raise found

    def publish_key_set(self, lane: str, data: bytes) -> None:
        """Hand in a newer key set."""
        self._send("PUT", lane, "key-set", data, most=MAX_ERROR_BYTES)

    def erase(self, lane: str, envelope: bytes) -> bytes:
        """Hand in a tombstone: its record's ciphertext is deleted. Returns the registry's promise, not verified."""
        (promise,) = _promises(self._send("POST", lane, "tombstones", envelope, most=2 * MAX_PROMISE_BYTES), 1)
        return promise


def _promises(body: bytes, count: int) -> list[bytes]:
    promises = decoded(body, _Promises).promises
    if len(promises) != count:
        raise unreadable()
    return [promise.encode() for promise in promises]
