"""Which epochs of its key a lane copy was told of: a program that runs on with old keys must not sync with them."""

from typing import Protocol

from clients.holder.lane_base import LaneBase
from privacy.errors import RefusalCode, RefusalError


class Marks(Protocol):
    """Where marks are kept, durably and sealed: a lane copy, among the runs, which are named by digests."""

    def keep_run(self, name: str, accepted: bytes) -> None:
        """Keep one mark."""
        ...


def announce(lane: Marks, epoch: int) -> None:
    """Say that records may be sealed to this epoch from now on. Comes before its key is published."""
    lane.keep_run(_mark(epoch), b"")


def require_newest(base: LaneBase, epoch: int) -> None:
    """RefusalError if an epoch after this one was announced.

    What this process cannot open would be garbage to it for good, and could be a withdrawal.
    """
    if base.rows("runs", "WHERE name = ?", _mark(epoch + 1)):
        raise RefusalError(
            "The lane's key was rotated, and this program has the old ones only; nothing was synced. The data holder "
            "should start it again; if that does not help, the newest key file is missing and must be restored.",
            RefusalCode.LANE,
        )


def _mark(epoch: int) -> str:
    return f"epoch {epoch}"
