"""The round log: what a coordinator did, one signed line an entry, each bound to the line before it.

An auditor verifies it from the lines and the coordinator's public key alone. Taking lines off the end leaves a shorter
log that holds: whoever wants to notice keeps a head.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from privacy.consent.limits import SIGNATURE_BYTES
from privacy.consent.signing import PayloadType, SigningKey, verify
from privacy.errors import TamperingError

BEGINNING: Final = "0" * 64
"""What the first entry has in place of the hash of the one before it."""

_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Signature = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{2 * SIGNATURE_BYTES}}}\Z")]


class Event(StrEnum):
    """What an entry is about: a closed set."""

    PLAN_SIGNED = "plan-signed"
    ASKED = "asked"  # in a dry run, about the run that a plan over those lane heads would be
    RUN_BEGUN = "run-begun"
    RESUMED = "resumed"
    OPENED = "opened"
    STAGE_ASKED = "stage-asked"
    STAGE_SUMMED = "stage-summed"
    REFUSED = "refused"
    STOPPED = "stopped"
    ABANDONED = "abandoned"
    FINISHED = "finished"
    PUBLISHED = "published"


class LogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry: number `n` from 1, UTC seconds, the hash of the line before, the run ("" for none), and details."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    at: Annotated[int, msgspec.Meta(ge=0)]
    previous: _Hex32
    event: Event
    run: Annotated[str, msgspec.Meta(max_length=64)]
    detail: dict[str, Any]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entry: LogEntry
    signature: _Signature


@dataclass(frozen=True, slots=True)
class LogHead:
    """How many entries a log has, and the hash of its last line: who keeps it notices a log cut short."""

    size: int
    digest: str


def write_line(entry: LogEntry, key: SigningKey) -> bytes:
    """The entry as a line in canonical JSON, signed, without its newline."""
    signature = key.sign(PayloadType.ROUND_LOG, _encoded(entry)).hex()
    return _encoded(_Line(entry, signature))


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a log file, without their newlines, and what a write that was cut short has left behind them."""
    *lines, torn = data.split(b"\n")
    return lines, torn


EMPTY: Final = LogHead(0, BEGINNING)


def verify_lines(lines: Iterable[bytes], public: bytes, *, after: LogHead = EMPTY) -> tuple[LogEntry, ...]:
    """The entries of `lines`, each signed by `public` and bound to the one before; `after` is the head before them.

    TamperingError, with the number of the line, for the first that is not.
    """
    size, digest = after.size, after.digest
    entries: list[LogEntry] = []
    for line in lines:
        entries.append(_verified(line, public, size + 1, digest))
        size, digest = size + 1, digest_of_line(line)
    return tuple(entries)


def head_of(lines: Sequence[bytes], *, after: LogHead = EMPTY) -> LogHead:
    """The head of a log of these lines, which come after those of `after`."""
    return LogHead(after.size + len(lines), digest_of_line(lines[-1])) if lines else after


def digest_of_line(line: bytes) -> str:
    """SHA-256 of a line without its newline, in hex."""
    return hashlib.sha256(line).hexdigest()


def _verified(line: bytes, public: bytes, number: int, digest: str) -> LogEntry:
    try:
        parsed = msgspec.json.decode(line, type=_Line, strict=True)
        if _encoded(parsed) != line:
            raise ValueError  # one entry has one spelling
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise _broken(number, "it is no entry as a coordinator writes it") from None
    entry = parsed.entry
    if entry.n != number or entry.previous != digest:
        raise _broken(number, "it does not follow from the line before it")
    try:
        verify(public, PayloadType.ROUND_LOG, _encoded(entry), bytes.fromhex(parsed.signature))
    except TamperingError:
        raise _broken(number, "its signature is not the coordinator's") from None
    return entry


def _encoded(value: LogEntry | _Line) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _broken(number: int, why: str) -> TamperingError:
    return TamperingError(
        f"Entry {number} of the round log does not hold: {why}. The log was changed after it was written. Whoever "
        "keeps it should compare it with an older copy, restore that, and tell the auditors."
    )
