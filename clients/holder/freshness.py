"""When a data holder asks its registry again: before rows are read, and once more before a release leaves."""

import logging
from collections.abc import Callable

from clients.holder.doubt import Doubt
from clients.holder.lane import LaneCopy
from clients.holder.lane_sync import LaneSource
from clients.holder.settings import HolderSettings
from privacy.errors import RefusalCode, RefusalError

_LOG = logging.getLogger(__name__)


class Freshness:
    """Keeps one lane copy as new as the policy asks, from a source that is opened when it is first needed."""

    def __init__(self, lane: LaneCopy, settings: HolderSettings, source: Callable[[], LaneSource]) -> None:
        self._lane, self._settings, self._source = lane, settings, source
        self._doubt = Doubt(lane)  # whoever contradicted itself is not excused for silence
        self._unreached_at: int | None = None

    def renew(self, *, at: int, must: bool = False) -> None:
        """Let count what other processes synced, linked or took; then sync if that is due.

        A registry that cannot be reached is passed over while the last sync is young enough, else RefusalError
        (lane). `must`: sync in any case, RefusalError (lane) if that does not succeed. TamperingError or
        MalformedError if what the registry serves does not hold; then, after a restart too, silence is not passed
        over until a sync holds.
        """
        self._lane.refresh()
        must = must or self._doubt.stands()
        if must or self._is_due(at):
            self._sync(at, must=must)
        policy = self._settings.policy
        if not -policy.clock_skew_s <= self._lane.age(at=at) <= policy.longest_lane_age_s:
            raise RefusalError(
                "The lane of consent records was not synced lately enough to use anybody's row by it. The data holder "
                "should sync; its log says why that did not work. If it did work, its clock was set back since.",
                RefusalCode.LANE,
            )

    def _sync(self, at: int, *, must: bool) -> None:
        try:
            self._doubt.sync(self._source(), at=at)
        except RefusalError as error:
            self._unreached_at = at
            _LOG.warning("%s could not sync its lane: %s", self._settings.holder, error)
            if must:
                raise RefusalError(
                    "The lane of consent records could not be synced, and nothing new is done on the word of an older "
                    "sync: somebody may have withdrawn. Nothing was charged or sent. The data holder's log says why; "
                    "once that is mended, the coordinator may repeat its letter.",
                    RefusalCode.LANE,
                ) from error
        else:
            self._unreached_at = None

    def _is_due(self, at: int) -> bool:
        every_s = self._settings.policy.sync_every_s
        # A registry that is away is not waited for at every letter.
        waited = self._unreached_at is None or not 0 <= at - self._unreached_at < every_s
        return waited and self._lane.age(at=at) >= every_s
