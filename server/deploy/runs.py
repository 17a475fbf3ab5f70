"""Runs of a plan as programs: begun once, stopped in order, killed at any point, and gone on with to the same end."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from federated.files import write_whole
from federated.lock import alone
from federated.plan import SignedPlan, TrainingPlan
from federated.round_log import Event
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from server.coordinator import MEASURED, RECORD, Coordinator, Pinned
from server.deploy import unfinished
from server.deploy.checkpoints import Heads, newest, registry_of
from server.deploy.round_log import RoundLog
from server.deploy.run_status import JOINED, State, StatusBook
from server.deploy.settings import Home
from server.deploy.stopping import Stopped
from server.deploy.watch import Tell, Watch
from server.grid_channel import GridChannel, wait_for_nodes
from server.rounds import no_progress

LONGEST_DEADLINE_S: Final = 86_400
CHECKPOINTS: Final = "checkpoints.json"
RESULTS: Final = {"model": "model.json", "scorecard": "scorecard.json", "measured": MEASURED, "record": RECORD}
"""What a finished run leaves, by what it is; the round log has the digest of each."""

_BUSY = (
    "A run or a dry run of this coordinator is under way already: `fedcredit coordinator status` says which. Wait "
    "until it has ended, or end a run with `fedcredit coordinator stop` and a dry run with Ctrl-C where it was started."
)


class Channels(Protocol):
    """How a run reaches data holders' nodes: over Flower's SuperLink, or in this process."""

    def __call__(self, home: Home, *, tell: Callable[[str], None]) -> AbstractContextManager[GridChannel]:
        """A channel for as long as one run lasts; `tell` is given a few words at each step."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A run whose model, scorecard and record lie in `directory`. `was_there` says that nothing had to be done."""

    run: str
    plan: str
    directory: Path
    holders: Sequence[str]
    refused: dict[str, str]
    was_there: bool


@dataclass(frozen=True)
class Runs:
    """The runs of the coordinator in `home`. `registry` gives lane heads, `channels` the way to data holders."""

    home: Home
    channels: Channels
    clock: Callable[[], float]
    registry: Callable[[Home], AbstractContextManager[Heads]] = registry_of
    tell: Tell = field(default=no_progress)

    def run(self, *, plan: str | None = None, deadline_s: float | None = None, abandon: bool = False) -> Finished:
        """Pin the plan to the newest lane heads and run it; `plan` is a digest, None is the current plan.

        RefusalError while another run is under way, or if one was begun and not finished, unless `abandon` gives that
        up. The same plan over the same lane heads is the same run: if that is finished, nobody is asked.
        """
        directory = self.home.directory
        self._deadline(deadline_s)
        with self._alone() as log:
            left = unfinished.kept(directory)
            if left is not None and not abandon:
                raise RefusalError(
                    f"Run {left.run} was begun and is not finished. Go on with it: `fedcredit coordinator resume`. Or "
                    "give it up with --abandon: then what it has charged stays charged, and is of no use.",
                    RefusalCode.REPLAY,
                )
            pinned = self._pinned(signed_plan(self.home, plan), log)
            if left is not None and left.run != pinned.run:
                log.append(Event.ABANDONED, run=left.run, at=self._now)
                unfinished.forget(directory)
            elif left is not None:  # the same plan over the same heads: what was answered is kept, and is used
                log.append(Event.RESUMED, run=left.run, at=self._now)
                self.tell("this is the run that was to be given up, so it is gone on with", 0, 0)
            document = msgspec.json.encode(pinned.checkpoints, order="sorted")
            write_whole(directory / CHECKPOINTS, document)
            if (self.home.runs / pinned.run / RECORD).exists():
                return self._finish(pinned, log, self._book(pinned, log), was_there=True)
            if left is None or left.run != pinned.run:
                log.append(
                    Event.RUN_BEGUN, run=pinned.run, at=self._now, plan=pinned.signed.digest,
                    checkpoints=hashlib.sha256(document).hexdigest(),
                )  # fmt: skip
            unfinished.keep(directory, pinned)
            return self._drive(pinned, log, deadline_s)

    def resume(self, *, deadline_s: float | None = None) -> Finished:
        """Go on with the run that was begun and not finished, with its own plan and lane heads.

        What was answered is not asked again, and nobody is charged twice. UsageError if there is none.
        """
        self._deadline(deadline_s)
        with self._alone() as log:
            left = unfinished.kept(self.home.directory)
            if left is None:
                raise UsageError("no run is left to go on with. Begin one with `fedcredit coordinator run`.")
            log.append(Event.RESUMED, run=left.run, at=self._now)
            if (self.home.runs / left.run / RECORD).exists():
                return self._finish(left, log, self._book(left, log))
            return self._drive(left, log, deadline_s)

    def _pinned(self, signed: SignedPlan, log: RoundLog) -> Pinned:
        """The plan with the newest lane heads. Nobody is asked anything but the registry."""
        book = self._book(Pinned(signed, {}), log, run="")
        with _told(book):
            coordinator = Coordinator(self.home.directory, pinned=Pinned(signed, {}), schema=self.home.schema)
            self._require_due(coordinator.plan)
            self._wait(book, "asking the registry for the lanes' newest heads")
            with self.registry(self.home) as heads:
                holders = [entry.holder for entry in coordinator.plan.roster]
                return Pinned(signed, newest(heads, holders, public=self.home.settings.registry.public))

    def _drive(self, pinned: Pinned, log: RoundLog, deadline_s: float | None) -> Finished:
        book = self._book(pinned, log)
        try:
            coordinator = Coordinator(self.home.directory, pinned=pinned, schema=self.home.schema)
            carry_out = partial(
                coordinator.run,
                progress=no_progress,
                deadline_s=self._deadline(deadline_s),
                observer=Watch(log, book, self.tell, self.clock),
            )
            if coordinator.is_answered:  # it can be ended whatever the hour, and whoever is online
                carry_out(None)
            else:
                self._require_due(coordinator.plan)
                with self.channels(self.home, tell=lambda what: self._wait(book, what)) as channel:
                    self._gather(channel, coordinator.plan, book)
                    carry_out(channel)
            return self._finish(pinned, log, book)
        except Stopped:
            with _best_effort():
                log.append(Event.STOPPED, run=pinned.run, at=self._now)
            with _best_effort():
                book.change(state=State.STOPPED, message="stopped by its operator")
            raise
        except FedcreditError as error:
            self._refused(pinned, log, book, error)
            raise
        except Exception as error:  # the status tells the truth about our own mistakes, too; their text may tell more
            with _best_effort():
                book.change(state=State.FAILED, message=f"an unforeseen {type(error).__name__}; see what was printed")
            raise

    def _gather(self, channel: GridChannel, plan: TrainingPlan, book: StatusBook) -> None:
        settings = self.home.settings.run
        self._wait(book, f"waiting for {len(plan.roster)} nodes")
        wait_for_nodes(channel, len(plan.roster), deadline_s=settings.nodes_deadline_s)
        online = len(channel.nodes())
        if online < plan.minimum_holders:
            raise RefusalError(
                f"{online} nodes are online after {settings.nodes_deadline_s:g} s, and the plan needs "
                f"{plan.minimum_holders} of its {len(plan.roster)} data holders. Whose they are is known only when "
                "they join, and nobody was asked to. Ask the data holders whether `fedcredit holder serve` runs, then "
                "run this command again.",
                RefusalCode.COHORT,
            )

    def _refused(self, pinned: Pinned, log: RoundLog, book: StatusBook, error: FedcreditError) -> None:
        if any(one.event is Event.FINISHED and one.run == pinned.run for one in log.entries):
            return  # what failed came after its end, so no end is told after that one
        begun = unfinished.is_begun(self.home.directory, pinned.run)
        family = type(error).__name__.removesuffix("Error").lower()
        code = error.code.value if isinstance(error, RefusalError) else family
        with _best_effort():
            log.append(Event.REFUSED, run=pinned.run, at=self._now, code=code)
        with _best_effort():
            if not begun:  # nothing was released or charged: the next try is a new run
                unfinished.forget(self.home.directory)
        with _best_effort():
            book.change(state=State.REFUSED, message=str(error))

    def _finish(self, pinned: Pinned, log: RoundLog, book: StatusBook, *, was_there: bool = False) -> Finished:
        directory = self.home.runs / pinned.run
        entry = {"plan": pinned.signed.digest, **_digests(directory)}
        known = [one.detail for one in log.entries if one.event is Event.FINISHED and one.run == pinned.run]
        with _told(book):
            for detail in known:
                _require_same(entry, detail)
            record = _record(directory / RECORD)
            if not known:
                log.append(Event.FINISHED, run=pinned.run, at=self._now, **entry)
            stages = len(record.releases)
            book.change(
                state=State.FINISHED, stage=stages, stages=stages, what="finished",
                holders=dict.fromkeys(record.holders, JOINED) | record.left_out | record.refused,
            )  # fmt: skip
            unfinished.forget(self.home.directory)  # last: whoever is killed before has everything above to do again
        return Finished(pinned.run, pinned.signed.digest, directory, record.holders, record.refused, was_there)

    @contextmanager
    def _alone(self) -> Iterator[RoundLog]:
        with alone(self.home.run_lock, _BUSY):
            yield RoundLog(self.home.round_log, self.home.key())

    def _book(self, pinned: Pinned, log: RoundLog, *, run: str | None = None) -> StatusBook:
        name, plan = pinned.run if run is None else run, pinned.signed.digest
        book = StatusBook(self.home.status, run=name, plan=plan, pid=os.getpid(), clock=self.clock)
        begun = (one.at for one in log.entries if one.event is Event.RUN_BEGUN and one.run == name)
        book.now = msgspec.structs.replace(book.now, started=next(begun, book.now.started))
        return book

    def _wait(self, book: StatusBook, what: str) -> None:
        book.change(state=State.WAITING, what=what)
        self.tell(what, 0, 0)

    def _require_due(self, plan: TrainingPlan) -> None:
        if self._now >= plan.ends:
            raise RefusalError(
                "The plan has run out: no data holder would answer to it. Write another with `fedcredit coordinator "
                "plan` and run that; a run that was begun with this one has to be given up with --abandon.",
                RefusalCode.PLAN,
            )

    def _deadline(self, asked: float | None) -> float:
        deadline_s = self.home.settings.run.answer_deadline_s if asked is None else asked
        if not 0 < deadline_s <= LONGEST_DEADLINE_S:  # not a number is none either: it would be waited for for ever
            raise UsageError(f"--deadline must be above 0 and at most {LONGEST_DEADLINE_S} seconds. Correct it.")
        return deadline_s

    @property
    def _now(self) -> int:
        return int(self.clock())


class _Release(msgspec.Struct, frozen=True):
    left_out: dict[str, str]


class _Record(msgspec.Struct, frozen=True):
    holders: list[str]
    refused: dict[str, str]
    releases: list[_Release]

    @property
    def left_out(self) -> dict[str, str]:
        """Of everybody in the run who is not in all of its sums: in which not, and why."""
        found: dict[str, list[str]] = {}
        for number, release in enumerate(self.releases, start=1):
            for holder, reason in release.left_out.items():
                found.setdefault(holder, []).append(f"left out of release {number}: {reason}")
        return {holder: "; ".join(texts) for holder, texts in found.items()}


def signed_plan(home: Home, digest: str | None) -> SignedPlan:
    """The signed plan of that digest, or the current one. UsageError if there is none, MalformedError if unreadable."""
    path = home.plan if digest is None else home.plans / f"{digest}.json"
    if digest is not None and (not digest.isalnum() or not path.exists()):
        raise UsageError("no plan of that digest is in plans/. `fedcredit coordinator plan --show DIGEST` shows one.")
    try:
        signed = msgspec.json.decode(path.read_bytes(), type=SignedPlan)
    except FileNotFoundError:
        raise UsageError("there is no plan yet. Write one with `fedcredit coordinator plan`.") from None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        raise MalformedError(
            f"{path.name} cannot be read as a signed plan. The coordinator should write the plan anew with `fedcredit "
            "coordinator plan`."
        ) from None
    if digest is not None and signed.digest != digest:
        raise MalformedError(
            f"{path.name} holds another plan than its name says. The coordinator should write the plan anew."
        )
    return signed


def _record(path: Path) -> _Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        raise MalformedError(
            f"{path.name} of the run cannot be read. The coordinator should restore the run's directory from a copy."
        ) from None


def _digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file that a finished run has left."""
    found = {}
    for what, name in RESULTS.items():
        with suppress(FileNotFoundError):
            found[what] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    return found


def _require_same(found: Mapping[str, str], logged: Mapping[str, Any]) -> None:
    """TamperingError unless what a run has left is what the round log says that it ended with."""
    wrong = sorted(
        RESULTS.get(what, what) for what in found.keys() | logged.keys() if found.get(what) != logged.get(what)
    )
    if wrong:
        raise TamperingError(
            f"{', '.join(wrong)} of the run: changed or gone since the run ended, says the round log. The coordinator "
            "should restore the run's directory from a copy, and must not publish or score with what is there."
        )


@contextmanager
def _told(book: StatusBook) -> Iterator[None]:
    """A failure of the body is in the run's status as well."""
    try:
        yield
    except FedcreditError as error:
        with _best_effort():
            book.change(state=State.REFUSED, message=str(error))
        raise


@contextmanager
def _best_effort() -> Iterator[None]:
    """What ends a run may be what keeps it from being told: a full disk. The reason itself is told all the same."""
    with suppress(FedcreditError):
        yield
