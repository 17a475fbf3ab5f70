"""A coordinator's run in a process of its own: over real programs, in this process, or over answers of an earlier one.

Every function is the whole life of a process: its memory is measured, and it may be killed.
"""

import pickle
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from experiments.benchmarks.deployment_times import RunTimes, TimedChannel
from experiments.session import DEADLINE_S, Session
from federated.channel import Act
from federated.files import write_whole
from federated.messages import Letter
from server.coordinator import Coordinator
from server.deploy.flower_run import over_flower
from server.deploy.runs import Runs
from server.deploy.settings import Home
from server.grid_channel import GridChannel
from server.rounds import no_progress

_STATUS = Path("/proc/self/status")
_KEPT = ("coordinator.key", "schema.toml", "plan.json", "checkpoints.json")


class Stopwatch:
    """Channels with a stopwatch each, and another for what opening and closing one takes."""

    def __init__(
        self, open_channel: Callable[..., AbstractContextManager[GridChannel]], record: Path | None = None
    ) -> None:
        """`record` is a directory that gets every exchange's answers."""
        self._open, self._record = open_channel, record
        self.flower_s = 0.0
        self.channel: TimedChannel | None = None

    @contextmanager
    def __call__(self, home: Home, *, tell: Callable[[str], None]) -> Iterator[GridChannel]:
        """A channel to the same nodes."""
        begun = time.monotonic()
        with self._open(home, tell=tell) as inner:
            self.channel = TimedChannel(inner, told=self._keep)
            self.flower_s += time.monotonic() - begun
            yield self.channel
            begun = time.monotonic()
        self.flower_s += time.monotonic() - begun

    def times(self, seconds: float) -> RunTimes:
        """Of the run that is over."""
        channel = self.channel
        if channel is None:
            raise AssertionError("a run that asked nobody was not measured")
        return RunTimes(seconds, self.flower_s, channel.waited_s, channel.asked, _most_bytes())

    def _keep(self, _: Mapping[int, Letter], answers: Mapping[int, Letter]) -> None:
        if self._record is not None:
            number = len(list(self._record.iterdir()))
            (self._record / f"{number}.pickle").write_bytes(pickle.dumps(dict(answers)))


def run_over_flower(home: Path, out: Path, *, resume: bool) -> None:
    """Run the current plan over the programs that are there, or go on with a run; its times go to `out`."""
    watch = Stopwatch(over_flower)
    runs = Runs(Home.open(home), watch, time.time)
    begun = time.monotonic()
    if resume:
        runs.resume()
    else:
        runs.run()
    write_whole(out, msgspec.json.encode(watch.times(time.monotonic() - begun)))


def run_in_process(directory: Path, record: Path) -> RunTimes:
    """Run the current plan of the federation in `directory` with every node in this process; nobody else serves it."""
    with Session(directory, time.time) as session:

        @contextmanager
        def here(_: Home, *, tell: Callable[[str], None]) -> Iterator[GridChannel]:  # noqa: ARG001 (of the protocol)
            yield session.channel

        watch = Stopwatch(here, record)
        runs = Runs(Home.open(directory / "coordinator"), watch, time.time)
        begun = time.monotonic()
        runs.run()
        return watch.times(time.monotonic() - begun)


@dataclass(frozen=True, slots=True)
class Alone:
    """The coordinator of a run without its data holders: the most bytes that it had allocated beyond its start."""

    most_bytes: int
    largest_answer_bytes: int  # the numbers in the largest answer of one data holder


def memory_alone(home: Path, record: Path) -> Alone:
    """Run the coordinator over the answers in `record`, read from the disk as they would come from the network."""
    _replay(home, record)  # what is loaded once is not of a run
    tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    largest = _replay(home, record)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Alone(most - before, largest)


class Recorded:
    """Answers from the disk, exchange by exchange."""

    def __init__(self, record: Path) -> None:
        self._record, self._next = record, 0
        self.largest = 0

    def nodes(self) -> list[int]:
        """Who answered at first."""
        return sorted(self._answers(0))

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:  # noqa: ARG002
        """What was answered then."""
        answers = self._answers(self._next)
        self._next += 1
        sizes = (sum(array.nbytes for array in letter.arrays.values()) for letter in answers.values())
        self.largest = max(self.largest, *sizes)
        return answers

    def _answers(self, number: int) -> dict[int, Letter]:
        found: dict[int, Letter] = pickle.loads((self._record / f"{number}.pickle").read_bytes())  # noqa: S301 (our own)
        return found


def _replay(home: Path, record: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        for name in _KEPT:
            shutil.copy(home / name, folder)
        channel = Recorded(record)
        Coordinator(Path(folder)).run(channel, no_progress, deadline_s=DEADLINE_S)
        return channel.largest


def _most_bytes() -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return 1024 * int(value.split()[0])
    return None
