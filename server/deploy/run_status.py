"""What a run last wrote about itself (`status.json`): whole at every step, so that it can be read at any."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from federated.files import write_whole
from privacy.errors import MalformedError

JOINED: Final = "joined"


class State(StrEnum):
    """How far a run is, or how it ended."""

    WAITING = "waiting"
    OPENING = "opening"
    RUNNING = "running"
    REFUSED = "refused"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether the program that wrote it has ended."""
        return self in {State.REFUSED, State.STOPPED, State.FINISHED, State.FAILED}


class RunStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run's own words. `holders` says of each "joined" or why not; `stages` is 0 until the plan is read."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    state: State
    run: str
    plan: str
    stage: int
    stages: int
    what: str
    pid: int
    started: int
    updated: int
    holders: dict[str, str]
    message: str


class StatusBook:
    """Writes a run's status at every step."""

    def __init__(self, path: Path, *, run: str, plan: str, pid: int, clock: Callable[[], float]) -> None:
        now = int(clock())
        self._path, self._clock = path, clock
        self.now = RunStatus(
            state=State.WAITING, run=run, plan=plan, stage=0, stages=0, what="beginning", pid=pid, started=now,
            updated=now, holders={}, message="",
        )  # fmt: skip

    def change(self, **changes: Any) -> None:
        """Write the status with these fields changed. RefusalError if it cannot be written."""
        self.now = msgspec.structs.replace(self.now, updated=int(self._clock()), **changes)
        write_whole(self._path, msgspec.json.encode(self.now) + b"\n")


def read_status(path: Path) -> RunStatus | None:
    """What the last run wrote, or None if there was none. MalformedError if it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunStatus, strict=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        raise MalformedError(
            f"{path.name} cannot be read as what a run writes about itself. Nothing depends on it: the coordinator may "
            "delete it, and the next run writes it anew."
        ) from None
