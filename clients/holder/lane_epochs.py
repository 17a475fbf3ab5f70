"""Which epochs of its key a lane copy was told of: a program that runs on with old keys must not sync with them."""

from typing import Protocol

from clients.holder.lane_base import LaneBase
from clients.holder.lane_notes import MARK
from privacy.errors import RefusalCode, RefusalError


class Marks(Protocol):
    """Where marks are kept, durably and sealed: a lane copy."""

    def keep_mark(self, name: str) -> None:
        """Keep one mark."""
        ...

    def has_mark(self, name: str) -> bool:
        """Whether it is kept."""
        ...


def announce(lane: Marks, epoch: int) -> None:
    """Say that records may be sealed to this epoch from now on. Comes before its key is published."""
    lane.keep_mark(_epoch(epoch))


def announce_up_to(lane: Marks, epoch: int) -> None:
    """As `announce`, of every epoch up to this one: a copy that was built anew was told of none.

    Until the keys are there, nothing is synced with it; what is synced without them could never be opened later.
    """
    for number in range(2, epoch + 1):  # everybody has the first
        if not lane.has_mark(_epoch(number)):
            announce(lane, number)


def require_newest(base: LaneBase, epoch: int) -> None:
    """RefusalError if an epoch after this one was announced.

    What this process cannot open would be garbage to it for good, and could be a withdrawal.
    """
    if base.rows("runs", "WHERE name = ?", MARK + _epoch(epoch + 1)):
        raise RefusalError(
            "The lane's key was rotated, and this program has the old ones only; nothing was synced. The data holder "
            "should start it again; if that does not help, the newest key file is missing and must be restored.",
            RefusalCode.LANE,
        )


def _epoch(epoch: int) -> str:
    return f"epoch {epoch}"
