"""The file in which a data holder opens one run to an auditor: gzip'd JSON lines, each in canonical form.

The first line is a DSSE envelope signed by the data holder's identity. Its header names the run and holds the SHA-256
over all lines that follow: every `link` that there is or was, ascending by handle and by when it began; every
`release`, ascending by stage; every entry of the pinned prefix in order (`opened`, `erased`, `tombstone` or `garbage`:
the position is the line's place); every `used` subject, ascending by handle. No line holds more than handles and keys
that are random for this data holder alone.
"""

from typing import Annotated, Final, Literal, assert_never, cast

from msgspec import Meta, Struct

from privacy.consent.audit import LaneReplay, LateTombstone
from privacy.consent.canonical import CanonicalJson
from privacy.consent.envelope import MAX_ENVELOPE_BYTES, open_envelope, write_envelope
from privacy.consent.lane import LEAF_BYTES
from privacy.consent.limits import (
    DIGEST_BYTES,
    HANDLE_BYTES,
    KEY_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SEALED_BYTES,
    RHO_BYTES,
    SIGNATURE_BYTES,
    Name,
    Position,
)
from privacy.consent.sealing import Opened
from privacy.consent.signing import PayloadType, SigningKey

MAX_LINE_BYTES: Final = 16_384
_MAX_NOTE_CHARS: Final = 16_384
_MAX_PLAN_BYTES: Final = 24_576
_MAX_PROOF: Final = 64
_MAX_STAGES: Final = 1_000_000

Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Handle = Annotated[bytes, Meta(min_length=HANDLE_BYTES, max_length=HANDLE_BYTES)]
PublicKey = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Rho = Annotated[bytes, Meta(min_length=RHO_BYTES, max_length=RHO_BYTES)]
Leaf = Annotated[bytes, Meta(min_length=LEAF_BYTES, max_length=LEAF_BYTES)]
Statement = Annotated[bytes, Meta(min_length=1, max_length=MAX_SEALED_BYTES)]
Proof = Annotated[tuple[Digest, ...], Meta(max_length=_MAX_PROOF)]
Note = Annotated[str, Meta(max_length=_MAX_NOTE_CHARS)]
Stage = Annotated[int, Meta(ge=1, le=_MAX_STAGES)]
RunName = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class _Line(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", gc=False):
    """One line of the body."""


class LinkLine(_Line, frozen=True, tag="link", gc=False):
    """A subject whose records count, with the key that signs them: from that size of the lane on, and up to its end."""

    handle: Handle
    public_key: PublicKey
    linked_at_size: Position
    ended_at_size: Position | None


class ReleaseLine(_Line, frozen=True, tag="release", gc=False):
    """One release: the salt of its commitment, and the SHA-256 of the numbers signed with it, as they left."""

    stage: Stage
    salt: Digest
    words_sha256: Digest


class OpenedLine(_Line, frozen=True, tag="opened", gc=False):
    """An entry, and what was sealed in it."""

    leaf: Leaf
    payload: Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]
    signature: Signature
    rho: Rho


class LateLine(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A tombstone beyond the prefix: its statement's envelope, and its inclusion in the header's later checkpoint."""

    envelope: Statement
    proof: Proof


class ErasedLine(_Line, frozen=True, tag="erased", gc=False):
    """An entry that was erased by the tombstone at that position, which lies in the prefix or is `late`."""

    leaf: Leaf
    tombstone: Position
    late: LateLine | None


class TombstoneLine(_Line, frozen=True, tag="tombstone", gc=False):
    """An entry that is a tombstone, and the envelope of the statement that it logs, if there is one."""

    leaf: Leaf
    envelope: Statement | None


class GarbageLine(_Line, frozen=True, tag="garbage", gc=False):
    """An entry that does not open to a record for this data holder."""

    leaf: Leaf


class UsedLine(_Line, frozen=True, tag="used", gc=False):
    """A subject who was used, and in which releases."""

    handle: Handle
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1)]


EntryLine = OpenedLine | ErasedLine | TombstoneLine | GarbageLine
Line = LinkLine | ReleaseLine | EntryLine | UsedLine


class Later(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A later checkpoint of the lane, and the proof that it extends the pinned one."""

    checkpoint: Note
    consistency: Proof


class Header(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Which run is opened, by whom, under which plan and checkpoint, and what the body hashes to."""

    v: Literal[1] = 1
    typ: Literal["fedcredit.opening"] = "fedcredit.opening"
    holder: Name
    run: RunName
    plan: Annotated[bytes, Meta(max_length=_MAX_PLAN_BYTES)]
    plan_signature: Signature
    checkpoint: Note
    later: Later | None
    clock_skew_s: Annotated[int, Meta(ge=0, le=3600)]
    body_sha256: Digest


_WHAT: Final = "an opening's first line"
_HEADER: Final = CanonicalJson(Header, what=_WHAT, max_bytes=MAX_ENVELOPE_BYTES)
_LINE: Final = CanonicalJson(cast(type[Line], Line), what="a line of an opening", max_bytes=MAX_LINE_BYTES)


def write_header(header: Header, identity: SigningKey) -> bytes:
    """The first line, its newline included. Raises MalformedError for a header that cannot be read back."""
    return write_envelope(PayloadType.OPENING, _HEADER.encode(header), identity) + b"\n"


def read_header(line: bytes, identity: bytes) -> Header:
    """The header of a first line signed by `identity`. Raises MalformedError or TamperingError."""
    return _HEADER.parse(open_envelope(line.removesuffix(b"\n"), PayloadType.OPENING, identity, what=_WHAT))


def write_line(line: Line) -> bytes:
    """One line of the body, its newline included. Raises MalformedError for one that cannot be read back."""
    return _LINE.encode(line) + b"\n"


def read_line(line: bytes) -> Line:
    """The line that `write_line` wrote. Raises MalformedError."""
    return _LINE.parse(line.removesuffix(b"\n"))


def show(line: EntryLine, replay: LaneReplay) -> None:
    """Give the lane's next entry to the replay."""
    match line:
        case OpenedLine():
            replay.opened(line.leaf, Opened(line.payload, line.signature, line.rho))
        case ErasedLine():
            late = None if line.late is None else LateTombstone(line.late.envelope, line.late.proof)
            replay.erased(line.leaf, line.tombstone, late)
        case TombstoneLine():
            replay.tombstone(line.leaf, line.envelope)
        case GarbageLine():
            replay.garbage(line.leaf)
        case _:
            assert_never(line)
