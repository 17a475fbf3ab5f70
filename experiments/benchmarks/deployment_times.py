"""What a run over real programs takes, split into what Flower takes and what we do besides."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from clients.holder.serve_status import WorkerStatus
from federated.channel import Act
from federated.flower import size_of
from federated.messages import Letter
from server.grid_channel import GridChannel

BEGINNING: Final = 3
EACH_RELEASE: Final = 2
"""Exchanges of a plan with masks, if everybody answers."""

Told = Callable[[Mapping[int, Letter], Mapping[int, Letter]], None]


class Asked(msgspec.Struct, frozen=True):
    """One exchange: how many were asked, how long the coordinator waited for all of them, and what travelled."""

    holders: int
    answers: int
    seconds: float
    sent_bytes: int
    got_bytes: int


class RunTimes(msgspec.Struct, frozen=True):
    """One run as its coordinator's program saw it. `flower_s` is spent on submitting the run and ending it.

    `waited_s` is spent in the channel besides the exchanges: on asking who is online. `peak_bytes` is the most memory
    that the program ever had; None where the system does not tell.
    """

    seconds: float
    flower_s: float
    waited_s: float
    asked: list[Asked]
    peak_bytes: int | None

    @property
    def exchanging_s(self) -> float:
        """Waited for answers."""
        return sum(one.seconds for one in self.asked)

    @property
    def own_s(self) -> float:
        """The coordinator's own work: everything that is no waiting for somebody else."""
        return self.seconds - self.flower_s - self.waited_s - self.exchanging_s

    @property
    def exchange_s(self) -> float:
        """The mean exchange."""
        return self.exchanging_s / len(self.asked)

    @property
    def begun(self) -> list[Asked]:
        """Joining, the dealing of masks, their delivery."""
        return self.asked[:BEGINNING]

    @property
    def released(self) -> list[Asked]:
        """The exchanges of releases: each is asked for, then its masks are taken off."""
        return self.asked[BEGINNING:]

    @property
    def release_s(self) -> float:
        """The mean release, with the taking off of its masks."""
        return EACH_RELEASE * sum(one.seconds for one in self.released) / len(self.released)


def bytes_each(asked: Sequence[Asked]) -> float:
    """What travels to and from one data holder in these exchanges, on average."""
    return sum(one.sent_bytes / one.holders + one.got_bytes / max(1, one.answers) for one in asked)


class Split(msgspec.Struct, frozen=True):
    """Where a run's seconds went. `door_s` is what our proxy adds to Flower's requests."""

    total_s: float
    coordinator_s: float
    holders_s: float
    door_s: float

    @property
    def ours_s(self) -> float:
        """All that Flower alone would not take."""
        return self.coordinator_s + self.holders_s + self.door_s

    @property
    def flower_s(self) -> float:
        """The rest: transport, polling, SuperLink and SuperNodes."""
        return self.total_s - self.ours_s

    @property
    def ours_percent(self) -> float:
        """Ours beyond Flower's, in per cent of Flower's."""
        return 100 * self.ours_s / self.flower_s


class TimedChannel(GridChannel):
    """Another channel with a stopwatch: what it takes besides its own work is not its caller's."""

    def __init__(
        self, inner: GridChannel, *, clock: Callable[[], float] = time.monotonic, told: Told | None = None
    ) -> None:
        """`told` is given each exchange's letters and answers."""
        self._inner, self._now, self._told = inner, clock, told
        self.waited_s = 0.0
        self.asked: list[Asked] = []

    def nodes(self) -> list[int]:
        """As the other channel."""
        begun = self._now()
        try:
            return self._inner.nodes()
        finally:
            self.waited_s += self._now() - begun

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        """As the other channel."""
        begun = self._now()
        answers = self._inner.ask(letters, act=act, deadline_s=deadline_s)
        took = self._now() - begun
        sent, got = (sum(map(size_of, told.values())) for told in (letters, answers))
        self.asked.append(Asked(len(letters), len(answers), took, sent, got))
        if self._told is not None:
            self._told(letters, answers)
        # Counting what travels is the benchmark's work, and in no real run.
        self.waited_s += self._now() - begun - took
        return answers


class Diary:
    """What each data holder's worker says of its answers, gathered while they are given; a look may see one late."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._took: dict[str, list[float]] = {}
        self.missed = 0

    def look(self, holder: str, status: WorkerStatus | None) -> None:
        """Note the last answer, if it is another one than at the last look."""
        if status is None:
            return
        before = self._counts.get(holder)
        self._counts[holder] = status.answered
        if before is None or status.answered == before:
            return
        self.missed += max(0, status.answered - before - 1)  # below: it was started anew, and counts from zero
        if status.last is not None:
            self._took.setdefault(holder, []).append(status.last.took_ms / 1000)

    @property
    def took(self) -> list[list[float]]:
        """Each data holder's seconds, answer by answer."""
        return [list(answers) for _, answers in sorted(self._took.items())]


def slowest_s(took: Sequence[Sequence[float]], *, exchanges: int, missed: int = 0) -> float | None:
    """The seconds of the slowest data holder in every exchange, added up. None if an answer is not known.

    `took` has each data holder's answers in their order; nobody was left out of an exchange.
    """
    if missed or not took or any(len(answers) != exchanges for answers in took):
        return None
    return sum((max(of_one) for of_one in zip(*took, strict=True)), 0.0)


def resume_overhead_s(*, until_killed_s: float, resumed_s: float, uninterrupted_s: float) -> float:
    """What a run that was killed and gone on with took longer than one that was left alone."""
    return until_killed_s + resumed_s - uninterrupted_s


def asked_again(*, summed: int, resumed: int, uninterrupted: int) -> int:
    """Exchanges that a run asks once more when it is gone on with: all of both its lives but those of one life.

    It was killed with so many releases `summed`, when no further one had been answered.
    """
    return BEGINNING + EACH_RELEASE * summed + resumed - uninterrupted


def requests_in(metrics: str) -> int:
    """How many of the fleet's requests the door has passed on, by its metrics in Prometheus' text format."""
    return round(sum(_values(metrics, "fedcredit_fleet_answered_total{")))


def per_further_holder(fewer: int, fewer_bytes: float, more: int, more_bytes: float) -> float:
    """Bytes for each data holder more, by two measurements."""
    return (more_bytes - fewer_bytes) / (more - fewer)


def _values(metrics: str, beginning: str) -> Iterable[float]:
    return (float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(beginning))
