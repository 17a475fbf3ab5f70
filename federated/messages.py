"""What the coordinator and the data holders say to each other: a small closed set of headers, with arrays beside.

A header is strict JSON (unknown and missing fields are refused); arrays travel by name. Nothing here has room for
a row, a handle, an exact count of people or an exception's text.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from privacy.errors import MalformedError, RefusalCode


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """A message without its arrays."""


class LedgerMark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one data holder's privacy ledger had come: kept by the coordinator, so that a rollback is noticed."""

    size: int
    digest: bytes


class Opening(_Header, frozen=True, tag="opening"):
    """Coordinator: here is the signed training plan, the lane heads that this run is pinned to, and your ledgers."""

    plan: bytes
    plan_signature: bytes
    checkpoints: dict[str, str]  # data holder id -> signed note of its lane
    ledgers: dict[str, LedgerMark]  # data holder id -> the last mark it sent


class Enquiry(_Header, frozen=True, tag="enquiry"):
    """Coordinator: the same as in an opening, and only the question whether you would take part, with how many."""

    plan: bytes
    plan_signature: bytes
    checkpoints: dict[str, str]
    ledgers: dict[str, LedgerMark]


class Coverage(_Header, frozen=True, tag="coverage"):
    """Data holder: I would take part, and about so many people here may be trained on.

    `count` has noise of that standard `deviation`, and everybody counted has paid for it (`federated.coverage`).
    """

    holder: str
    run: str
    count: int
    deviation: float
    ledger: LedgerMark
    signature: bytes


class SumKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data holder's public keys for the secure sums of one run, signed by its identity key."""

    channel: bytes  # X25519, for the shares that are sealed to it
    stages: list[bytes]  # X25519, one a release, for the pairwise masks
    seeds: list[bytes]  # SHA-256 commitments to its own mask's seed, one a release
    signature: bytes


class Joined(_Header, frozen=True, tag="joined"):
    """Data holder: I have checked the plan against my policy and take part. `keys` is None where nothing is masked."""

    holder: str
    run: str
    keys: SumKeys | None
    ledger: LedgerMark
    signature: bytes


class Introduction(_Header, frozen=True, tag="introduction"):
    """Coordinator: everybody who joined, with their keys; deal them shares of your secrets."""

    run: str
    joined: dict[str, SumKeys]


class Dealt(_Header, frozen=True, tag="dealt"):
    """Data holder: shares of my secrets of all releases, sealed to each of the others."""

    holder: str
    run: str
    sealed: dict[str, bytes]
    signature: bytes


class Delivery(_Header, frozen=True, tag="delivery"):
    """Coordinator, relaying what it cannot read: the shares that were sealed to this data holder.

    Who dealt is who the run's sums are made with: the members.
    """

    run: str
    members: list[str]  # sorted
    sealed: dict[str, bytes]  # by dealer, of all members but the addressee


class Received(_Header, frozen=True, tag="received"):
    """Data holder: I hold the shares of every member; or, of those who are `faulty`, they do not open, and I wait
    for a delivery of which all do.
    """

    holder: str
    run: str
    faulty: list[str]  # sorted


class Instruction(_Header, frozen=True, tag="instruction"):
    """Coordinator: compute this round over your permitted rows. Arrays: the recipe's instruction."""

    run: str
    round_number: int
    cohort: list[str]  # sorted; whose masks are in this release


class Measurement(_Header, frozen=True, tag="measurement"):
    """Coordinator: score your held-out permitted rows with this scorecard and release the histogram."""

    run: str
    cohort: list[str]
    scorecard: bytes


class Update(_Header, frozen=True, tag="update"):
    """Data holder: my integers for one release (array `words`, masked unless the plan lets them be seen), and a
    commitment to whom they came from.

    The commitment is a Merkle root over keyed hashes of the subjects used, and never a count: counts of two rounds
    would give a withdrawal away.
    """

    holder: str
    release: str
    commitment: bytes
    signature: bytes
    ledger: LedgerMark


class Unmasking(_Header, frozen=True, tag="unmasking"):
    """Coordinator: these data holders are in the sum of this release; help to take its masks off."""

    run: str
    stage: int
    survivors: list[str]  # sorted


class Revealed(_Header, frozen=True, tag="revealed"):
    """Data holder: for each member of the release's cohort one share, of its seed if it is in the sum, else of its
    key. Never both.
    """

    holder: str
    release: str
    seeds: dict[str, bytes]
    keys: dict[str, bytes]
    signature: bytes


class ScoreRequests(_Header, frozen=True, tag="score-requests"):
    """Coordinator, relaying what it cannot read: requests sealed to this data holder by wallets."""

    scorecard: bytes
    sealed: list[bytes]


class ScoreAnswers(_Header, frozen=True, tag="score-answers"):
    """Data holder, to be relayed unread: for each request, points sealed to the recipient, or a sealed refusal."""

    holder: str
    sealed: list[bytes]


class Refused(_Header, frozen=True, tag="refused"):
    """Data holder: no, with a code from a closed set and nothing else."""

    holder: str
    code: RefusalCode


Header = (
    Opening
    | Enquiry
    | Coverage
    | Joined
    | Introduction
    | Dealt
    | Delivery
    | Received
    | Instruction
    | Measurement
    | Update
    | Unmasking
    | Revealed
    | ScoreRequests
    | ScoreAnswers
    | Refused
)


@dataclass(frozen=True, slots=True)
class Letter:
    """A header and its arrays."""

    header: Header
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


_DECODER: msgspec.json.Decoder[Header] = msgspec.json.Decoder(Header, strict=True)


def encode_header(header: Header) -> bytes:
    """Canonical JSON of the header: keys sorted, no white space."""
    return msgspec.json.encode(header, order="sorted")


def decode_header(payload: bytes) -> Header:
    """The header that `payload` encodes. MalformedError if it is not exactly one of the closed set."""
    try:
        header = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(
            "A message between parties is not one of the known kinds; the sender runs another version or is not "
            "fedcredit. Its operator should compare versions with yours."
        ) from error
    if encode_header(header) != payload:
        raise MalformedError("A message between parties is not in canonical form; its sender should send it again.")
    return header


def array_of(letter: Letter, name: str, *, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """The array `name`, with exactly this shape and type, and finite. MalformedError otherwise."""
    array = letter.arrays.get(name)
    if array is None or array.shape != shape or array.dtype != np.dtype(dtype):
        raise MalformedError(f"A message must carry the array {name!r} of shape {shape} and type {np.dtype(dtype)}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MalformedError(f"The array {name!r} of a message holds numbers that are not finite.")
    return array


def digest_of(letter: Letter) -> bytes:
    """SHA-256 over the header and the arrays by name: the same letter again has the same digest."""
    digest = hashlib.sha256(encode_header(letter.header))
    for name, array in sorted(letter.arrays.items()):
        head = f"{len(name)}|{name}|{array.dtype.str}|{array.shape}|"  # the length keeps two names from reading alike
        digest.update(head.encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()
