"""The coordinator's public record of a run (`run.json`): its plan, its heads, and what data holders committed to."""

import json
from pathlib import Path
from typing import Annotated, Final

import msgspec

from clients.audit.opening import RunName
from clients.audit.reader import read_small
from privacy.errors import MalformedError

MAX_RECORD_BYTES: Final = 1 << 26
_MOST_ENTRIES: Final = 1 << 53

_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


class Commitment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One data holder's commitment to the subjects of one release, and its signature over the release.

    `ledger` is the digest of its privacy ledger with the release in it, `ledger_size` how many entries that had.
    """

    commitment: _Hex32
    signature: _Hex64
    ledger: _Hex32
    ledger_size: Annotated[int, msgspec.Meta(ge=1, le=_MOST_ENTRIES)]


class RecordedRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release of the run, by data holder: who is in it, and who was left out or did not help to take the masks
    off, each with the reason."""

    name: str
    updates: dict[str, Commitment]
    left_out: dict[str, str]
    unhelpful: dict[str, str]


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run. `plan` is the plan's digest in hex, `checkpoints` the pinned notes by data holder."""

    run: RunName
    plan: _Hex32
    checkpoints: dict[str, str]
    holders: list[str]
    refused: dict[str, str]
    releases: list[RecordedRelease]


def read_run_record(path: Path) -> RunRecord:
    """The record in `path`. UsageError if it cannot be opened, MalformedError unless it is one as it was written."""
    data = read_small(path, what="the run's run.json", most=MAX_RECORD_BYTES)
    try:
        record = msgspec.json.decode(data, type=RunRecord)
        plain = json.loads(data)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise _no_record(path) from None
    # One run has one spelling: a name that stands twice would mean one thing here and another elsewhere.
    if json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() + b"\n" != data:
        raise _no_record(path)
    if len({release.name for release in record.releases}) != len(record.releases):
        raise _no_record(path)
    if any(release.updates.keys() & release.left_out.keys() for release in record.releases):
        raise _no_record(path)
    return record


def _no_record(path: Path) -> MalformedError:
    return MalformedError(
        f"{path.name} is not a run's record as the coordinator's program writes it; ask the coordinator for run.json "
        "byte for byte."
    )
