"""The program that answers: to whose bundle, what leaves when things go wrong, what it is opened anew for."""

import ctypes
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from clients.holder.keys import HolderKeys
from clients.holder.ledger import PrivacyLedger
from clients.holder.node import Holder
from clients.holder.serve_status import WORKER, LastLetter, WorkerStatus, read_status
from clients.holder.worker import SERVING, Worker, serve
from federated.flower_tasks import NodeTask, TaskDesk
from federated.messages import Instruction, Joined, Letter, Refused, Update, digest_of
from privacy.consent.sealing import LaneKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from tests.ready import ASTER, AT, Ready, first_instruction, joined_by

AGREED = "0" * 64
UNKNOWN_RUN = Letter(Instruction("no-such-run", 1, [ASTER]))
PLANTED = "Doe, 4711"


class Asked:
    """A message as the SuperNode hands it out, and what became of it."""

    def __init__(self, letter: Letter | Exception = UNKNOWN_RUN, *, bundle: str | Exception = AGREED) -> None:
        self._letter, self._bundle = letter, bundle
        self.answers: list[Letter] = []
        self.failures: list[Exception] = []
        self.undeliverable = False
        self.unreachable: RefusalError | None = None
        self.closed = self.read = False

    def bundle_digest(self) -> str:
        if isinstance(self._bundle, Exception):
            raise self._bundle
        return self._bundle

    def letter(self) -> Letter:
        self.read = True
        if isinstance(self._letter, Exception):
            raise self._letter
        return self._letter

    def answer(self, letter: Letter) -> None:
        if self.undeliverable:
            raise RefusalError("the task is over", RefusalCode.INTERNAL)
        self.answers.append(letter)

    def fail(self, error: Exception) -> None:
        if self.unreachable is not None:
            raise self.unreachable
        self.failures.append(error)

    def close(self) -> None:
        self.closed = True


def set_policy(ready: Ready, key: str, value: str) -> None:
    path = ready.home() / "holder.toml"
    text, changed = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", path.read_text())
    assert changed == 1
    path.write_text(text)


@pytest.fixture
def opened(ready: Ready) -> list[Path]:
    (ready.home() / SERVING).mkdir()
    set_policy(ready, "bundles", f'["{AGREED}"]')
    return []


@pytest.fixture
def worker(ready: Ready, opened: list[Path]) -> Iterator[Worker]:
    def open_holder(directory: Path) -> Holder:
        opened.append(directory)
        return Holder(directory, ready.registry)

    made = Worker(ready.home(), lambda: AT, opened=open_holder)
    yield made
    made.close()


def take(worker: Worker, asked: Asked) -> Asked:
    worker.take(cast(NodeTask, asked))
    return asked


def told(ready: Ready) -> WorkerStatus:
    status = read_status(ready.home() / SERVING / WORKER, WorkerStatus)
    assert status is not None
    return status


def test_an_approved_coordinator_is_answered_as_the_node_answers(worker: Worker, ready: Ready) -> None:
    asked = take(worker, Asked(Letter(ready.opening())))
    (answer,) = asked.answers
    assert isinstance(answer.header, Joined)
    status = told(ready)
    assert (status.ready, status.answered, status.refusals) == (True, 1, 0)
    assert status.last is not None
    assert (status.last.kind, status.last.run, status.last.refused) == ("opening", answer.header.run, None)


def test_a_refusal_of_the_node_is_told_as_one(worker: Worker, ready: Ready) -> None:
    assert take(worker, Asked()).answers == [Letter(Refused(ASTER, RefusalCode.PLAN))]
    status = told(ready)
    assert status.refusals == 1
    assert status.last == LastLetter(
        "instruction", "no-such-run", 1, AT, status.last.took_ms if status.last else 0, RefusalCode.PLAN, None
    )


@pytest.mark.parametrize("bundle", ["1" * 64, "", MalformedError("it cannot be unpacked")])
def test_a_bundle_that_was_not_approved_is_refused_unread(
    worker: Worker, ready: Ready, bundle: str | Exception
) -> None:
    asked = take(worker, Asked(bundle=bundle))
    assert asked.answers == [Letter(Refused(ASTER, RefusalCode.BUNDLE))]
    assert not asked.read
    status = told(ready)
    assert status.last is not None
    assert (status.last.kind, status.last.refused) == ("unread", RefusalCode.BUNDLE)


@pytest.mark.parametrize("error", [MalformedError("no letter"), ValueError(PLANTED), KeyError(PLANTED)])
def test_what_is_no_letter_is_answered_by_a_kind_of_error(
    worker: Worker, ready: Ready, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        asked = take(worker, Asked(error))
    assert asked.answers == []
    assert asked.failures == [error]  # of which `write_failure` sends the class
    assert PLANTED not in caplog.text
    assert PLANTED not in (ready.home() / SERVING / WORKER).read_text()
    status = told(ready)
    assert status.last is not None
    assert status.last.failed == type(error).__name__
    assert take(worker, Asked()).answers  # and the next message is answered


def test_an_answer_that_nobody_takes_any_more_ends_nothing(worker: Worker, ready: Ready) -> None:
    asked = Asked()
    asked.undeliverable = True
    take(worker, asked)
    assert asked.failures == []
    status = told(ready)
    assert status.last is not None
    assert status.last.failed == "RefusalError"
    assert take(worker, Asked()).answers


@pytest.mark.parametrize("run", ["a\nb", "\x1b[31mred", "x" * 200, "Doe Jane", ""])
def test_a_run_with_an_odd_name_is_not_shown(worker: Worker, ready: Ready, run: str) -> None:
    take(worker, Asked(Letter(Instruction(run, 1, [ASTER]))))
    status = told(ready)
    assert status.last is not None
    assert status.last.run is None


def test_settings_are_taken_up_without_a_restart(worker: Worker, ready: Ready, opened: list[Path]) -> None:
    assert len(opened) == 1
    for _ in range(3):
        worker.renew()
    assert len(opened) == 1
    set_policy(ready, "bundles", f'["{AGREED}", "{"1" * 64}"]')
    worker.renew()
    assert len(opened) == 2
    assert take(worker, Asked(bundle="1" * 64)).answers == [Letter(Refused(ASTER, RefusalCode.PLAN))]


def test_keys_are_taken_up_without_a_restart(worker: Worker, ready: Ready, opened: list[Path]) -> None:
    keys = HolderKeys.load(ready.home() / "keys")
    HolderKeys(keys.identity, {**keys.lane_keys, keys.current + 1: LaneKey.generate()}).save(ready.home() / "keys")
    worker.renew()
    assert len(opened) == 2
    assert take(worker, Asked()).answers


def test_settings_that_do_not_hold_any_more_end_it(worker: Worker, ready: Ready) -> None:
    set_policy(ready, "answer_within_s", '"soon"')
    with pytest.raises(MalformedError, match="answer_within_s"):
        worker.renew()


class Hanging:
    """A node that gets stuck once."""

    def __init__(self) -> None:
        self.hangs, self.opened = True, 0

    def __call__(self, _: Path) -> Holder:
        self.opened += 1
        return cast(Holder, self)

    def answer(self, _: Letter, *, at: int) -> Letter:
        if self.hangs:
            self.hangs = False
            time.sleep(600 + at)
        return Letter(Refused(ASTER, RefusalCode.PLAN))

    def close(self) -> None:
        pass


def test_an_answer_that_takes_too_long_is_refused_and_the_next_is_given(ready: Ready, opened: list[Path]) -> None:
    set_policy(ready, "answer_within_s", "1")
    node = Hanging()
    worker = Worker(ready.home(), lambda: AT, opened=node)
    assert take(worker, Asked()).answers == [Letter(Refused(ASTER, RefusalCode.INTERNAL))]
    worker.renew()
    assert node.opened == 2  # what was broken off anywhere is not gone on with
    assert take(worker, Asked()).answers == [Letter(Refused(ASTER, RefusalCode.PLAN))]


class SlowAsked(Asked):
    """A message that takes for ever at one place."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def bundle_digest(self) -> str:
        self._linger("bundle")
        return super().bundle_digest()

    def letter(self) -> Letter:
        self._linger("letter")
        return super().letter()

    def answer(self, letter: Letter) -> None:
        super().answer(letter)
        self._linger("answer")

    def _linger(self, place: str) -> None:
        if self._place == place:
            self._place = ""
            time.sleep(600)


@pytest.mark.parametrize("place", ["bundle", "letter"])
def test_a_message_that_takes_too_long_to_read_is_refused(
    worker: Worker, ready: Ready, opened: list[Path], place: str
) -> None:
    set_policy(ready, "answer_within_s", "1")
    worker.renew()
    assert take(worker, SlowAsked(place)).answers == [Letter(Refused(ASTER, RefusalCode.INTERNAL))]
    worker.renew()
    assert len(opened) == 3  # as it is after any answer that was broken off
    assert take(worker, Asked()).answers == [Letter(Refused(ASTER, RefusalCode.PLAN))]


def test_an_answer_that_nobody_takes_in_time_is_not_sent_twice(
    worker: Worker, ready: Ready, opened: list[Path]
) -> None:
    set_policy(ready, "answer_within_s", "1")
    worker.renew()
    assert take(worker, SlowAsked("answer")).answers == [Letter(Refused(ASTER, RefusalCode.PLAN))]
    status = told(ready)
    assert status.last is not None
    assert status.last.failed == "OutOfTimeError"
    assert take(worker, Asked()).answers


def test_a_message_that_cannot_be_fetched_in_time_ends_the_process(
    worker: Worker, ready: Ready, opened: list[Path]
) -> None:
    set_policy(ready, "answer_within_s", "1")
    worker.renew()
    with pytest.raises(SystemExit) as ended:
        worker.within_time(lambda: time.sleep(600))
    assert ended.value.code == 1
    assert worker.within_time(lambda: None) is None


@pytest.mark.parametrize("before", [True, False])
def test_nobody_is_charged_twice_for_an_answer_that_was_broken_off(
    worker: Worker, ready: Ready, opened: list[Path], monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Stuck just before the charge, or just after it: repeated, it costs what it costs a node that was never stuck."""
    with ready.session() as session:
        joined = joined_by(session.holders, ready.opening())
    letter = first_instruction(ready, joined)
    charge, hangs = PrivacyLedger.charge, [True]

    def slow(self: PrivacyLedger, *arguments: Any, **more: Any) -> None:
        if not before:
            charge(self, *arguments, **more)
        if hangs and hangs.pop():
            signal.raise_signal(signal.SIGALRM)  # its time is over now, however fast this machine is
        if before:
            charge(self, *arguments, **more)

    monkeypatch.setattr(PrivacyLedger, "charge", slow)
    assert take(worker, Asked(letter)).answers == [Letter(Refused(ASTER, RefusalCode.INTERNAL))]
    worker.renew()
    (answer,) = take(worker, Asked(letter)).answers
    assert isinstance(answer.header, Update)
    with ready.holder() as holder:
        assert len(holder.ledger.releases()) == 1
    (again,) = take(worker, Asked(letter)).answers
    assert digest_of(again) == digest_of(answer)


class Desk:
    """A SuperNode's messages: one after the other, errors among them; then the process is asked to end."""

    def __init__(self, queue: Sequence[Asked | Exception | None]) -> None:
        self._queue = list(queue)

    def message(self) -> NodeTask | None:
        if not self._queue:
            raise SystemExit(0)
        first = self._queue.pop(0)
        if isinstance(first, Exception):
            raise first
        return cast("NodeTask | None", first)


def test_it_goes_on_whatever_one_message_or_one_moment_brings(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    away = RefusalError("nobody answers", RefusalCode.INTERNAL)
    odd = Asked(ValueError(PLANTED))
    odd.unreachable = away
    queue: list[Asked | Exception | None] = [
        away,
        away,
        Asked(),
        None,
        ValueError(PLANTED),
        odd,
        Asked(),
        away,
        Asked(),
    ]
    pauses: list[float] = []
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit):
        serve(worker, cast(TaskDesk, Desk(queue)), pause=pauses.append)
    asked = [one for one in queue if isinstance(one, Asked)]
    assert [bool(one.answers) for one in asked] == [True, False, True, True]
    assert all(one.closed for one in asked)
    assert len(pauses) == 5
    assert caplog.text.count("nobody answers") == 3  # each absence once, and the failure that could not be told
    assert PLANTED not in caplog.text


def _started(ready: Ready) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "clients.holder.worker", str(ready.home()), "127.0.0.1:9", "json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_ledger_that_was_tampered_with_is_told_and_nothing_answered(ready: Ready, opened: list[Path]) -> None:
    with ready.session() as session:
        joined_by(session.holders, ready.opening())
    (ready.home() / "ledger.db").write_bytes(b"not what it was" * 1000)
    (ready.home() / SERVING / "superexec.secret").write_text("secret")
    done = _started(ready)
    assert done.returncode in (MalformedError.exit_code, TamperingError.exit_code), done.stderr
    status = told(ready)
    assert not status.ready
    assert status.reason is not None
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert status.reason in line["text"]
    assert "Traceback" not in done.stderr


_STUCK = """
import sys
from pathlib import Path
from clients.holder import watchdog, worker
from tests.clients.holder.test_worker import AGREED, Asked, Desk, Stuck
watchdog.within.__wrapped__.__kwdefaults__["hard_after_s"] = 0.5  # who waits in a test waits for less
made = worker.Worker(Path(sys.argv[1]), lambda: 0, opened=Stuck())
print("begun", flush=True)
worker.serve(made, Desk([Asked(), Asked()]))
"""


class Stuck(Hanging):
    """A node that holds the interpreter, so that no exception comes through."""

    def answer(self, _: Letter, *, at: int) -> Letter:
        lock, library = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
        library.pthread_mutex_lock(lock)
        library.pthread_mutex_lock(lock)
        raise AssertionError(f"it woke up at {at}")


def test_a_node_that_no_exception_reaches_ends_with_its_process(ready: Ready, opened: list[Path]) -> None:
    set_policy(ready, "answer_within_s", "1")
    done = subprocess.run(
        [sys.executable, "-c", _STUCK, ready.home()], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "begun\n"), done.stderr
    assert "Timeout" in done.stderr
