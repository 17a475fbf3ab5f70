"""A run's observer: what happens goes into the round log, once, and into the run's status."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from federated.round_log import Event
from server.answers import Absence
from server.cohort import Cohort
from server.deploy.round_log import RoundLog
from server.deploy.run_status import JOINED, State, StatusBook
from server.stage import Stage
from server.sums import Summed

Tell = Callable[[str, int, int], None]  # what, done, of how many


class Watch:
    """Watches one run. A run that is gone on with repeats no entry that it has made before."""

    def __init__(self, log: RoundLog, book: StatusBook, tell: Tell, clock: Callable[[], float]) -> None:
        self._log, self._book, self._tell, self._clock = log, book, tell, clock
        self._run, self._stages = "", 0

    def begins(self, run: str, stages: Sequence[Stage]) -> None:
        """Nobody has been asked anything yet."""
        self._run, self._stages = run, len(stages)
        what = "asking data holders to join"
        self._book.change(state=State.OPENING, stages=len(stages), what=what)
        self._tell(what, 0, self._stages)

    def opened(self, cohort: Cohort) -> None:
        """Who is in the run, and who is not."""
        absent = {holder: absence.reason for holder, absence in cohort.absent.items()}
        self._enter(Event.OPENED, holders=list(cohort.members), absent=absent)
        self._book.change(state=State.RUNNING, what="everybody is here", holders=_told(cohort.members, cohort.absent))

    def asks(self, stage: Stage, instruction: bytes) -> None:
        """What everybody is asked now."""
        self._enter(Event.STAGE_ASKED, stage=stage.number, instruction=instruction.hex())
        self._book.change(stage=stage.number, what=stage.what)
        self._tell(stage.what, stage.number - 1, self._stages)

    def summed(self, stage: Stage, summed: Summed) -> None:
        """What came of it."""
        release = summed.release
        self._enter(
            Event.STAGE_SUMMED,
            stage=stage.number,
            contributors=sorted(release.updates),
            left_out=dict(release.left_out),
            unhelpful=dict(release.unhelpful),
            total=summed.digest,
        )
        holders = self._book.now.holders | dict.fromkeys(release.updates, JOINED) | dict(release.left_out)
        self._book.change(what=f"{stage.what} is summed", holders=holders)
        self._tell(stage.what, stage.number, self._stages)

    def _enter(self, event: Event, **detail: Any) -> None:
        known = (entry for entry in self._log.entries if entry.run == self._run and entry.event is event)
        if not any(entry.detail == detail for entry in known):
            self._log.append(event, run=self._run, at=int(self._clock()), **detail)


def _told(members: Iterable[str], absent: Mapping[str, Absence]) -> dict[str, str]:
    return dict.fromkeys(members, JOINED) | {holder: absence.reason for holder, absence in absent.items()}
