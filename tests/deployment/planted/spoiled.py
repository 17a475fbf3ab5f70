"""A worker that is killed at a point of its work, or cannot write: which is named as in `odd_answers`, by a switch.

A kill turns its switch off, so that the worker's next life is a good one. Under the switch "impatient" whoever has this
fault waits a fifth of a second, and not up to a minute, before a program that ended is started again.
"""

import errno
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SWITCH = Path(os.environ["PLANTED_FAULT"]).with_suffix(".on")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PAUSE_S = 0.2

_spoiled: list[str] = []  # how, while a letter is answered


def how() -> str:
    """How to be spoiled now."""
    return SWITCH.read_text(encoding="utf-8") if SWITCH.exists() else ""


def die_if(point: str) -> None:
    """The end of this process, here, if the switch says so."""
    if how() == point:
        SWITCH.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def no_room() -> Iterator[None]:
    """No file can be written beyond its first 600 bytes: the system refuses it in the middle of SQLite's work."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def no_writing(event: str, arguments: tuple[Any, ...]) -> None:
    """As on a file system that was mounted anew, read-only."""
    if _spoiled and _spoiled[-1] == "read-only":
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if (opens and str(arguments[0]) != os.devnull) or event in {"os.rename", "os.remove", "os.mkdir"}:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def in_the_node(node: Any) -> None:
    """The state that writes are refused in lasts as long as an instruction or a measurement is answered."""
    answer = node.Holder.answer
    sys.addaudithook(no_writing)

    def spoiled(self: Any, letter: Any, *, at: int) -> Any:
        asked = type(letter.header).__name__
        if asked not in {"Instruction", "Measurement"} or how() != "read-only":
            return answer(self, letter, at=at)
        connections = (self.ledger._chain._connection, self.lane._base.connection)
        _spoiled.append("read-only")
        try:
            for connection in connections:  # SQLite opens its journal without Python
                connection.execute("PRAGMA query_only = ON")
            return answer(self, letter, at=at)
        finally:
            _spoiled.pop()
            for connection in connections:
                connection.execute("PRAGMA query_only = OFF")

    node.Holder.answer = spoiled


def in_the_release(release: Any) -> None:
    """Between reading rows and the numbers that come of them."""
    noisy = release.Releaser._noisy

    def killed(self: Any, run: Any, task: Any, rows: Any) -> Any:
        words = noisy(self, run, task, rows)
        die_if("trains")
        return words

    release.Releaser._noisy = killed


def in_the_ledger(ledger: Any) -> None:
    """Around the charge."""
    charge = ledger.PrivacyLedger.charge

    def spoiled(*arguments: Any, **named: Any) -> None:
        if how() == "no room":
            with no_room():
                charge(*arguments, **named)
        else:
            charge(*arguments, **named)
            die_if("has charged")

    ledger.PrivacyLedger.charge = spoiled


def at_the_rim(tasks: Any) -> None:
    """Right after an update has left."""
    answer = tasks.NodeTask.answer

    def killed(self: Any, letter: Any) -> None:
        answer(self, letter)
        if type(letter.header).__name__ == "Update":
            die_if("has sent")

    tasks.NodeTask.answer = killed


def in_the_supervisor(programs: Any) -> None:
    """No long pauses."""
    pause_s = programs.pause_s
    programs.pause_s = lambda failures: PAUSE_S if how() == "impatient" else pause_s(failures)


FAULTS = {
    "clients.holder.node": in_the_node,
    "clients.holder.release": in_the_release,
    "clients.holder.ledger": in_the_ledger,
    "federated.flower_tasks": at_the_rim,
    "federated.programs": in_the_supervisor,
}
