"""The run that was begun and has not ended: its own plan and lane heads, whatever was planned since."""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from federated.files import write_whole
from federated.plan import SignedPlan
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.coordinator import Pinned
from server.memory import BEGUN

FILE: Final = "unfinished.json"


class _Unfinished(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    plan: SignedPlan
    checkpoints: dict[str, str]


def keep(directory: Path, pinned: Pinned) -> None:
    """Remember that this run is being made; durable on return."""
    write_whole(directory / FILE, msgspec.json.encode(_Unfinished(1, pinned.signed, pinned.checkpoints)) + b"\n")


def kept(directory: Path) -> Pinned | None:
    """The run that has not ended, or None. MalformedError if it cannot be read."""
    try:
        left = msgspec.json.decode((directory / FILE).read_bytes(), type=_Unfinished)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        raise MalformedError(
            f"{FILE} cannot be read as the run that was begun and not finished. The coordinator should restore it from "
            "a copy, or delete it: then that run cannot be gone on with, and what it has released is not used."
        ) from None
    return Pinned(left.plan, left.checkpoints)


def forget(directory: Path) -> None:
    """The run has ended. RefusalError if its file cannot be taken away."""
    try:
        (directory / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise RefusalError(
            f"{FILE} could not be removed ({error.strerror}). Give write permission, then run `fedcredit coordinator "
            "resume`, which does so.",
            RefusalCode.INTERNAL,
        ) from None


def is_begun(directory: Path, run: str) -> bool:
    """Whether a data holder may have done anything for that run yet."""
    return (directory / BEGUN / run).exists()
