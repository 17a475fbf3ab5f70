"""Whether the registry was caught contradicting itself, kept until a sync holds again, also over a restart."""

import logging

from clients.holder.lane import LaneCopy
from clients.holder.lane_sync import LaneSource
from privacy.errors import FedcreditError, MalformedError, TamperingError

_LOG = logging.getLogger(__name__)


class Doubt:
    """Syncs a lane copy and remembers there, sealed, whether what the registry served did not hold.

    Marks are never deleted: doubts are numbered, and each is settled by a second mark. All processes of a data holder
    share them.
    """

    def __init__(self, lane: LaneCopy) -> None:
        self._lane = lane
        self._number = 1  # of the newest doubt, or of the one to come
        self._heard = False  # this process heard the lie itself, so its own sync must hold

    def stands(self) -> bool:
        """Whether this registry did not keep its word, and no sync has held since."""
        return self._heard or self._is_marked()

    def sync(self, source: LaneSource, *, at: int) -> int:
        """`LaneCopy.sync`; from then on a doubt stands if it raised TamperingError or MalformedError.

        If it succeeds, the doubt that stood when it began is settled. Silence, a RefusalError, changes nothing.
        """
        marked = self._is_marked()
        try:
            new = self._lane.sync(source, at=at)
        except (TamperingError, MalformedError):
            self._raise()
            raise
        if marked:
            self._lane.keep_mark(_settled(self._number))
        self._heard = False
        return new

    def _is_marked(self) -> bool:
        while self._lane.has_mark(_settled(self._number)):
            self._number += 1
        return self._lane.has_mark(_doubt(self._number))

    def _raise(self) -> None:
        # What cannot be kept must not hide why the sync failed; this process remembers in any case.
        self._heard = True
        try:
            self._is_marked()  # moves on to the newest number
            self._lane.keep_mark(_doubt(self._number))
        except FedcreditError:
            _LOG.error("That the registry contradicted itself could not be kept; sync before this is started again.")


def _doubt(number: int) -> str:
    return f"doubt {number}"


def _settled(number: int) -> str:
    return f"doubt {number} settled"
