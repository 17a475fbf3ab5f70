"""The program that answers a data holder's messages: it fetches each from the SuperNode beside it, one at a time.

    python -m clients.holder.worker DIRECTORY HOST:PORT [human|json]

Only this data holder's own installed code runs here, whatever the coordinator's app bundle holds.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from clients.holder.loopback import CERTIFICATE
from clients.holder.node import Holder
from clients.holder.policy import require_bundle
from clients.holder.serve_status import WORKER, LastLetter, WorkerStatus, shown_run, write_status
from clients.holder.settings import HolderSettings, load_settings
from clients.holder.watchdog import OutOfTimeError, within
from federated.flower_tasks import NodeTask, TaskDesk, answered, secret_in
from federated.logs import LogForm, setup
from federated.messages import Header, Joined, Letter, Opening, Refused
from privacy.errors import FedcreditError, RefusalCode, RefusalError

SERVING, SECRET, BEGUN = "serving", "superexec.secret", "begun"
POLL_S: Final = 0.25
PATIENCE_S: Final = 2.0
"""How long the SuperNode is asked again before anything else is looked at; it may be starting anew."""

Stamp = tuple[tuple[str, int, int, int], ...]

_LOG = logging.getLogger(__name__)


class Worker:
    """One data holder's node, opened anew whenever its settings, keys or tables change on the disk."""

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float],
        *,
        opened: Callable[[Path], Holder] = Holder,
    ) -> None:
        """As `Holder`: nothing is answered if settings, keys, lane or ledger do not hold."""
        self._directory, self._clock, self._opened = directory, clock, opened
        self._since = int(clock())
        self._answered = self._refusals = 0
        self._last: LastLetter | None = None
        self._settings: HolderSettings
        self._stamp: Stamp
        self._holder: Holder
        self._open()

    def take(self, task: NodeTask) -> None:
        """Answer one message, or say that it cannot be: never anything but a letter, a code or a kind of error."""
        at, seconds = int(self._clock()), self._settings.policy.answer_within_s
        taken = _Taken()
        try:
            with within(seconds):
                self._respond(task, taken, at=at)
        except OutOfTimeError:
            _LOG.error("an answer took longer than the %d s of policy.answer_within_s and was broken off", seconds)
            self._stamp = ()  # broken off anywhere, what it held in memory is not trusted
            if not taken.sending:
                taken.answer = self._refused(RefusalCode.INTERNAL)
                with suppress(OutOfTimeError), within(seconds):
                    _send(task, taken)
            if not taken.sent:  # a second answer to one message would keep all later ones one behind
                taken.failure = OutOfTimeError.__name__
        self._note(taken, at=at)

    def within_time(self, fetch: Callable[[], NodeTask | None]) -> NodeTask | None:
        """The next message. If that takes too long the process ends: what it has of a message would be lost in it."""
        try:
            with within(self._settings.policy.answer_within_s):
                return fetch()
        except OutOfTimeError:
            _LOG.error("a message could not be fetched within policy.answer_within_s; this program is started anew")
            raise SystemExit(1) from None

    def renew(self) -> None:
        """Open the node anew if what it was opened from has changed."""
        if _stamp(self._directory, self._settings) != self._stamp:
            _LOG.info("settings, keys or tables have changed; the node is opened anew")
            self._holder.close()
            self._open()

    def close(self) -> None:
        """Give the databases back."""
        self._holder.close()

    def tell(self) -> None:
        """Write down for `holder status` that this node is ready, and what it answered last."""
        status = WorkerStatus(True, self._since, None, self._answered, self._refusals, self._last)
        write_status(self._directory / SERVING / WORKER, status)

    def _stranger(self, task: NodeTask) -> Letter | None:
        """The refusal of a bundle that was not approved. Its digest is all that is ever asked of it."""
        try:
            require_bundle(task.bundle_digest(), self._settings.policy)
        except FedcreditError as error:  # not approved, or no bundle at all
            _LOG.warning("refused (bundle): %s", error)
            return self._refused(RefusalCode.BUNDLE)
        return None

    def _respond(self, task: NodeTask, taken: "_Taken", *, at: int) -> None:
        try:
            if (refusal := self._stranger(task)) is not None:
                taken.answer = refusal
            else:
                letter = task.letter()
                taken.header = letter.header
                taken.answer = self._holder.answer(letter, at=at)
            _send(task, taken)
        except Exception as error:  # whatever a message holds, a kind of error leaves and nothing else
            taken.failure = type(error).__name__
            _LOG.error("a message was not answered: %s", taken.failure)
            taken.send()
            task.fail(error)
            taken.sent = True

    def _refused(self, code: RefusalCode) -> Letter:
        return Letter(Refused(self._settings.holder, code))

    def _open(self) -> None:
        settings = load_settings(self._directory / "holder.toml")
        # Before the rest is read: what changes while it is read counts as a change.
        self._settings, self._stamp = settings, _stamp(self._directory, settings)
        self._holder = self._opened(self._directory)

    def _note(self, taken: "_Taken", *, at: int) -> None:
        asked, told = taken.header, taken.answer.header if taken.answer is not None else None
        refused = told.code if isinstance(told, Refused) else None
        run = told.run if isinstance(asked, Opening) and isinstance(told, Joined) else getattr(asked, "run", None)
        stage = getattr(asked, "round_number", getattr(asked, "stage", None))
        kind = type(asked).__struct_config__.tag if asked is not None else "unread"
        self._answered += 1
        self._refusals += refused is not None
        self._last = LastLetter(
            str(kind), shown_run(run), stage, at, round(1000 * taken.took_s), refused, taken.failure
        )
        _LOG.info("answered %s%s", kind, f" with a refusal ({refused.value})" if refused is not None else "")
        self.tell()


@dataclass(slots=True)
class _Taken:
    """How far one message has come."""

    header: Header | None = None
    answer: Letter | None = None
    failure: str | None = None
    sending: bool = False
    sent: bool = False
    begun: float = field(default_factory=time.monotonic)
    ready: float | None = None

    def send(self) -> None:
        """From here on an answer may have left."""
        self.sending, self.ready = True, self.ready or time.monotonic()

    @property
    def took_s(self) -> float:
        """From the message to its answer, less handing that over to Flower."""
        return (self.ready or time.monotonic()) - self.begun


def _send(task: NodeTask, taken: _Taken) -> None:
    if taken.answer is None:
        raise RuntimeError("there is nothing to send")
    taken.send()
    try:
        task.answer(taken.answer)
    except RefusalError as error:
        taken.failure = type(error).__name__
        _LOG.warning("an answer was not taken: %s", error)
    taken.sent = True


def _stamp(directory: Path, settings: HolderSettings) -> Stamp:
    """What the files are that a node reads when it is opened: by place, size and time of the last change."""
    names = ("holder.toml", settings.schema, settings.registry.ca, settings.rows, settings.held_out)
    keys = directory / "keys"
    try:
        paths = [directory / name for name in names if name] + sorted(keys.iterdir())
    except OSError:
        paths = []
    found = []
    for path in paths:
        try:
            seen = path.stat()
        except OSError:
            continue
        found.append((path.name, seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


def serve(worker: Worker, desk: TaskDesk, *, pause: Callable[[float], None] = time.sleep) -> NoReturn:
    """Fetch and answer, one message after the other, until this process is asked to end.

    FedcreditError if the node was to be opened anew and what lies in its directory does not hold any more.
    """
    away = False
    while True:
        worker.renew()
        try:
            task = worker.within_time(desk.message)
        except RefusalError as error:  # the SuperNode is being started anew, which is told once
            if not away:
                _LOG.warning("%s", error)
            away = True
            pause(POLL_S)
            continue
        except Exception as error:  # what came is no message; the SuperNode gives it up within about a minute
            _LOG.error("a message could not be fetched: %s", type(error).__name__)
            pause(POLL_S)
            continue
        away = False
        if task is None:
            pause(POLL_S)
            continue
        with answered(task):
            try:
                worker.take(task)
            except RefusalError as error:  # not even the failure could be told
                _LOG.warning("%s", error)


def main(directory: Path, address: str, form: LogForm) -> int:
    """Serve until SIGTERM. A failure at the start is told in words and in `holder status`; the code is its kind."""
    setup(form)

    def end(_: int, __: FrameType | None) -> None:
        # At once, also in the middle of an answer: a charge is durable before anything is released for it.
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    place = directory / SERVING / WORKER
    try:
        worker = Worker(directory, time.time)
        serving = directory / SERVING
        secret, certificate = secret_in(serving / SECRET), secret_in(serving / CERTIFICATE)
        desk = TaskDesk(address, secret, ca=certificate, patience_s=PATIENCE_S, begun=serving / BEGUN)
        desk.give_up()
        worker.tell()
        _LOG.info("ready")
        serve(worker, desk)
    except FedcreditError as error:
        _LOG.error("%s: %s", type(error).__name__.removesuffix("Error"), error)
        write_status(place, WorkerStatus(False, int(time.time()), str(error), 0, 0, None))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], LogForm(sys.argv[3]) if len(sys.argv) > 3 else LogForm.HUMAN))
