"""What a wallet hands in to the registry: stubs with their sealed records, framed one after another."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from privacy.consent.lane import LEAF_BYTES, Stub
from privacy.consent.limits import MAX_SEALED_BYTES, MAX_SUBMISSIONS
from privacy.errors import MalformedError

_SIZE_BYTES: Final = 2
MAX_FRAMES_BYTES: Final = MAX_SUBMISSIONS * (LEAF_BYTES + _SIZE_BYTES + MAX_SEALED_BYTES)
"""Size of the largest body that `parse_frames` accepts."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A stub for the log and the sealed record that the stub commits to."""

    stub: Stub
    ciphertext: bytes


def frame(submissions: Sequence[Submission]) -> bytes:
    """Each one's leaf (106 bytes), its ciphertext's length (2, big-endian) and ciphertext; 1 to 256 of them.

    Raises MalformedError for what `parse_frames` would refuse.
    """
    _require_count(len(submissions))
    parts: list[bytes] = []
    for submission in submissions:
        _check(submission)
        size = len(submission.ciphertext).to_bytes(_SIZE_BYTES, "big")
        parts += (submission.stub.leaf(), size, submission.ciphertext)
    return b"".join(parts)


def parse_frames(data: bytes) -> list[Submission]:
    """The submissions in `data`, each ciphertext 1 to 4,096 bytes and as its stub says. Raises MalformedError."""
    submissions: list[Submission] = []
    start = 0
    while start < len(data):
        leaf_end = start + LEAF_BYTES
        size_end = leaf_end + _SIZE_BYTES
        end = size_end + int.from_bytes(data[leaf_end:size_end], "big")
        if end > len(data):
            raise MalformedError(
                f"a submission of {len(data)} bytes ends within a record; whole records are required. "
                "The wallet must submit it again."
            )
        submission = Submission(Stub.parse(data[start:leaf_end]), data[size_end:end])
        _check(submission)
        submissions.append(submission)
        start = end
    _require_count(len(submissions))
    return submissions


def _check(submission: Submission) -> None:
    size = len(submission.ciphertext)
    if not 1 <= size <= MAX_SEALED_BYTES:
        raise MalformedError(
            f"a sealed record has {size} bytes; 1 to {MAX_SEALED_BYTES} are required. The wallet must seal it again."
        )
    if hashlib.sha256(submission.ciphertext).digest() != submission.stub.ciphertext_sha256:
        raise MalformedError("a stub does not match its sealed record; the wallet must submit both again.")


def _require_count(count: int) -> None:
    if not 1 <= count <= MAX_SUBMISSIONS:
        raise MalformedError(
            f"a submission holds {count} records or more; 1 to {MAX_SUBMISSIONS} are required. "
            "The wallet must split it."
        )
