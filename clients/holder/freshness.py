"""When a data holder asks its registry again: before rows are read, and once more before a release leaves."""

import logging
from collections.abc import Callable

from clients.holder.lane import LaneCopy
from clients.holder.lane_sync import LaneSource
from clients.holder.settings import HolderSettings
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

_LOG = logging.getLogger(__name__)


class Freshness:
    """Keeps one lane copy as new as the policy asks, from a source that is opened when it is first needed."""

    def __init__(self, lane: LaneCopy, settings: HolderSettings, source: Callable[[], LaneSource]) -> None:
        self._lane, self._settings, self._source = lane, settings, source
        self._unreached_at: int | None = None
        self._deceived = False  # until a sync succeeds: whoever contradicted itself is not excused for silence

    def renew(self, *, at: int, always: bool = False) -> None:
        """Let count what other processes synced, linked or took; then sync if that is due, or `always`.

        A registry that cannot be reached is passed over while the last sync is young enough, else RefusalError
        (lane). TamperingError or MalformedError if what it serves does not hold, now and until a sync succeeds.
        """
        self._lane.refresh()
        if always or self._deceived or self._is_due(at):
            try:
                self._lane.sync(self._source(), at=at)
            except (TamperingError, MalformedError):
                self._deceived = True
                raise
            except RefusalError as error:
                if self._deceived:
                    raise
                self._unreached_at = at
                _LOG.warning("%s could not sync its lane: %s", self._settings.holder, error)
            else:
                self._unreached_at, self._deceived = None, False
        policy = self._settings.policy
        if not -policy.clock_skew_s <= self._lane.age(at=at) <= policy.longest_lane_age_s:
            raise RefusalError(
                "The lane of consent records was not synced lately enough to use anybody's row by it. The data holder "
                "should sync; its log says why that did not work.",
                RefusalCode.LANE,
            )

    def _is_due(self, at: int) -> bool:
        every_s = self._settings.policy.sync_every_s
        # A registry that is away is not waited for at every letter.
        waited = self._unreached_at is None or not 0 <= at - self._unreached_at < every_s
        return waited and self._lane.age(at=at) >= every_s
