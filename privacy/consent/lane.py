"""A lane: one data holder's append-only log of stubs, its head, and the head's signed checkpoint.

Formats: C2SP tlog-checkpoint and signed-note.
"""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from privacy.consent.limits import DIGEST_BYTES, SIGNATURE_BYTES, TAG_BYTES
from privacy.consent.merkle import verify_consistency
from privacy.consent.sealing import Sealed
from privacy.consent.signing import SigningKey, verify_raw
from privacy.errors import MalformedError, TamperingError

# The last byte is the kind of entry. Both kinds have one size, so an entry's length says nothing.
_RECORD_MAGIC: Final = b"fedcredit/stub/v1\x01"
_TOMBSTONE_MAGIC: Final = b"fedcredit/stub/v1\x02"
_TAG_END: Final = len(_RECORD_MAGIC) + TAG_BYTES
_NUMBER_END: Final = _TAG_END + 8
_FIRST_DIGEST_END: Final = _NUMBER_END + DIGEST_BYTES
LEAF_BYTES: Final = _FIRST_DIGEST_END + DIGEST_BYTES
_MAX_SIZE: Final = 2**63 - 1
_MAX_NOTE_BYTES: Final = 16_384
_KEY_HASH_BYTES: Final = 4
_ED25519_NOTE: Final = b"\x01"

# int() would also take 1_000, +1 and other alphabets' digits.
_SIZE: Final = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_NOTE_NAME: Final = re.compile(r"[!-*,-~]{1,128}\Z")
_SIGNATURE_LINE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})\Z")


@dataclass(frozen=True, slots=True)
class Stub:
    """A log entry: random-looking `tag` (16 bytes), key `epoch`, commitment and SHA-256 of the ciphertext."""

    tag: bytes
    epoch: int
    commit: bytes
    ciphertext_sha256: bytes

    def __post_init__(self) -> None:
        sizes = (len(self.tag), len(self.commit), len(self.ciphertext_sha256))
        if sizes != (TAG_BYTES, DIGEST_BYTES, DIGEST_BYTES) or not 1 <= self.epoch <= _MAX_SIZE:
            raise MalformedError(
                f"a log entry's fields have {sizes} bytes; {(TAG_BYTES, DIGEST_BYTES, DIGEST_BYTES)} and an "
                "epoch of at least 1 are required. The sender must make it again."
            )

    @classmethod
    def of(cls, sealed: Sealed, *, tag: bytes, epoch: int) -> "Stub":
        """The entry that logs `sealed`."""
        return cls(tag, epoch, sealed.commit, hashlib.sha256(sealed.ciphertext).digest())

    @property
    def beside_sha256(self) -> bytes:
        """SHA-256 of what lies beside the log: the ciphertext."""
        return self.ciphertext_sha256

    def leaf(self) -> bytes:
        """The log entry's bytes (106): magic, tag, epoch (8, big-endian), commitment, ciphertext hash."""
        return _leaf(_RECORD_MAGIC, self.tag, self.epoch, self.commit, self.ciphertext_sha256)

    @classmethod
    def parse(cls, leaf: bytes) -> "Stub":
        """The stub that `leaf()` wrote. Raises MalformedError, for a tombstone too."""
        return cls(*_fields(leaf, _RECORD_MAGIC))


@dataclass(frozen=True, slots=True)
class TombstoneStub:
    """A log entry saying that an earlier one was erased: its `position` and leaf hash, and a statement's SHA-256.

    The statement lies beside the log. Only a data holder's signature in it makes an entry erased.
    """

    tag: bytes
    position: int
    erased_leaf: bytes
    statement_sha256: bytes

    def __post_init__(self) -> None:
        sizes = (len(self.tag), len(self.erased_leaf), len(self.statement_sha256))
        if sizes != (TAG_BYTES, DIGEST_BYTES, DIGEST_BYTES) or not 0 <= self.position <= _MAX_SIZE:
            raise MalformedError(
                f"a tombstone's fields have {sizes} bytes; {(TAG_BYTES, DIGEST_BYTES, DIGEST_BYTES)} and a "
                "position of at least 0 are required. The data holder must make it again."
            )

    @property
    def beside_sha256(self) -> bytes:
        """SHA-256 of what lies beside the log: the signed statement's envelope."""
        return self.statement_sha256

    def leaf(self) -> bytes:
        """The log entry's bytes (106): magic, tag, position (8, big-endian), erased leaf's hash, statement hash."""
        return _leaf(_TOMBSTONE_MAGIC, self.tag, self.position, self.erased_leaf, self.statement_sha256)


AnyStub = Stub | TombstoneStub


def parse_leaf(leaf: bytes) -> AnyStub:
    """The record's or tombstone's stub that `leaf()` wrote. Raises MalformedError for any other bytes."""
    if leaf.startswith(_TOMBSTONE_MAGIC):
        return TombstoneStub(*_fields(leaf, _TOMBSTONE_MAGIC))
    return Stub.parse(leaf)


def _leaf(magic: bytes, tag: bytes, number: int, first: bytes, second: bytes) -> bytes:
    return b"%b%b%b%b%b" % (magic, tag, number.to_bytes(8, "big"), first, second)


def _fields(leaf: bytes, magic: bytes) -> tuple[bytes, int, bytes, bytes]:
    if len(leaf) != LEAF_BYTES or not leaf.startswith(magic):
        raise MalformedError(
            f"a log entry of {len(leaf)} bytes is not a version 1 stub of {LEAF_BYTES} and the kind asked for; "
            "the registry must serve the entry as it was logged."
        )
    number = int.from_bytes(leaf[_TAG_END:_NUMBER_END], "big")
    return leaf[len(magic) : _TAG_END], number, leaf[_NUMBER_END:_FIRST_DIGEST_END], leaf[_FIRST_DIGEST_END:]


def tag_of(wallet_secret: bytes, *, aud: str, seq: int) -> bytes:
    """The 16-byte tag of a wallet's record `seq` at data holder `aud`: random-looking, the same on retry."""
    return hmac.digest(wallet_secret, f"{aud}|{seq}".encode(), "sha256")[:TAG_BYTES]


@dataclass(frozen=True, slots=True)
class Head:
    """Number of entries and Merkle root of a log."""

    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.size <= _MAX_SIZE or len(self.root) != DIGEST_BYTES:
            raise MalformedError(
                f"a log head needs a size from 0 to 2^63 - 1 and a root of {DIGEST_BYTES} bytes; "
                "the registry must publish it again."
            )


def check_growth(last: Head, new: Head, proof: Sequence[bytes]) -> None:
    """Raise TamperingError unless `new` extends `last`; `proof` is RFC 6962's, unread after an empty log."""
    if new.size < last.size:
        raise TamperingError(
            f"a log went back from {last.size} to {new.size} entries; keep both checkpoints and tell the "
            "registry and the auditor."
        )
    if last.size > 0:
        verify_consistency(last.size, new.size, last.root, new.root, proof)


def write_checkpoint(head: Head, origin: str, key: SigningKey) -> str:
    """`head` as a note signed by the log `origin`. Raises MalformedError for an unusable origin."""
    body = f"{_require_name(origin)}\n{head.size}\n{b64encode(head.root).decode()}\n"
    signature = _key_hash(origin, key.public) + key.sign_raw(body.encode())
    return f"{body}\n— {origin} {b64encode(signature).decode()}\n"


def read_checkpoint(text: str, origin: str, public: bytes) -> Head:
    """The head that log `origin` signed with `public`. Raises MalformedError or TamperingError."""
    body = open_note(text, name=origin, public=public)
    signed_origin, head = parse_checkpoint_body(body)
    if signed_origin != origin:
        raise TamperingError(
            "a checkpoint is signed for another log than the one it was asked of; ask this log for its own."
        )
    return head


def parse_checkpoint_body(body: str) -> tuple[str, Head]:
    """Origin and head of a checkpoint's text without signatures; extension lines are refused."""
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] or not _NOTE_NAME.match(lines[0]) or not _SIZE.match(lines[1]):
        raise _unreadable("origin, decimal size and root on three lines")
    size = int(lines[1])
    if size > _MAX_SIZE:
        raise _unreadable("a size below 2^63")
    return lines[0], Head(size, _from_base64(lines[2], size=DIGEST_BYTES))


def open_note(text: str, *, name: str, public: bytes) -> str:
    """The text of a signed note, its last newline included, once `name`'s Ed25519 signature is verified.

    Lines by other keys (witnesses) are read past. Raises MalformedError, or TamperingError when `name`'s
    signature is absent or wrong (C2SP signed-note).
    """
    body, separator, signatures = text.rpartition("\n\n")
    too_long = len(text) > _MAX_NOTE_BYTES
    controls = any(char < " " and char != "\n" for char in text)
    if too_long or controls or not separator or not signatures.endswith("\n"):
        raise _unreadable("a text, an empty line and signature lines")
    body += "\n"
    expected = _key_hash(_require_name(name), public)
    ours: list[bytes] = []
    for line in signatures[:-1].split("\n"):
        found = _SIGNATURE_LINE.match(line)
        if not found:
            raise _unreadable("signature lines of a dash, a name and base64")
        blob = _from_base64(found.group(2), size=None)
        if found.group(1) == name and blob[:_KEY_HASH_BYTES] == expected:
            ours.append(blob[_KEY_HASH_BYTES:])
    if len(ours) != 1 or len(ours[0]) != SIGNATURE_BYTES:
        raise TamperingError(
            f"a checkpoint carries {len(ours)} signatures by its log's known key; exactly one of 64 bytes is "
            "required. Ask the registry again, and check its key."
        )
    try:
        message = body.encode()
    except UnicodeEncodeError:
        raise _unreadable("well-formed text") from None
    verify_raw(public, message, ours[0])
    return body


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519_NOTE + public).digest()[:_KEY_HASH_BYTES]


def _require_name(name: str) -> str:
    if not _NOTE_NAME.match(name):
        raise MalformedError(
            "a log's origin must be 1 to 128 ASCII characters without space or plus; correct the settings."
        )
    return name


def _from_base64(text: str, *, size: int | None) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        raise _unreadable("standard base64") from None
    if b64encode(data).decode() != text or (size is not None and len(data) != size):
        raise _unreadable(f"{size or 'some'} bytes in canonical base64")
    return data


def _unreadable(needed: str) -> MalformedError:
    return MalformedError(f"a checkpoint cannot be read; {needed} are required. The registry must publish it again.")
