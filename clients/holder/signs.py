"""Signs that a SuperNode is alive: when its coordinator answered it last, and when it logged anything."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

SILENT_S: Final = 75.0
"""Without an answer for so long, nobody is called online. A heartbeat is due every 25 s, also while an answer is
computed, and the coordinator itself counts a node as gone after 60 s."""

STUCK_S: Final = 300.0
"""Without an answer and without a word in the log for so long, a SuperNode is started again."""


class Signs:
    """The signs of one SuperNode's life. They are seen to change, so that no clock set anew makes or takes one."""

    def __init__(self, sign: Path, log: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sign, self._log, self._clock = sign, log, clock
        self.begin()

    def begin(self) -> None:
        """A new life: what was seen of the last one counts no more."""
        self._seen = (_changed(self._sign), _changed(self._log))
        self._heard: float | None = None  # None: never in this life
        self._alive = self._clock()
        self.heard_at: int | None = None  # UTC seconds

    def look(self) -> None:
        """See what has changed."""
        now, seen = self._clock(), (_changed(self._sign), _changed(self._log))
        if seen[0] != self._seen[0] and seen[0] is not None:
            self._heard, self.heard_at = now, seen[0] // 10**9
        if seen != self._seen:
            self._alive, self._seen = now, seen

    @property
    def is_silent(self) -> bool:
        """Whether its coordinator has not answered for long. A SuperNode that leaves no signs at all is taken at its
        log's word."""
        return self._heard is not None and self._clock() - self._heard >= SILENT_S

    @property
    def is_stuck(self) -> bool:
        """Whether it does nothing any more."""
        return self._clock() - self._alive >= STUCK_S


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
