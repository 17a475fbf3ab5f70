"""SIGTERM and Ctrl-C as one thing that a run can end on, in order."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from federated.lock import holder_of, is_held
from privacy.errors import RefusalCode, RefusalError, UsageError
from server.deploy.run_status import RunStatus, read_status
from server.deploy.settings import Home

EXIT_CODE: Final = 130
"""Of a run that was told to stop, by either signal: it is no refusal, and goes on with `resume`."""

PATIENCE_S: Final = 60.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Somebody has told this program to stop. No handler of failures takes it for one."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the body the first SIGTERM or SIGINT raises Stopped; a second one ends the program where it is.

    That is safe too: whatever is kept is kept whole. Other threads than the main one get no signals, and no change.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001 (the signature that signals have)
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        raise Stopped

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_run(home: Home, *, patience_s: float = PATIENCE_S) -> int:
    """Tell the run that is under way to stop, and return when it has; the process that it was.

    UsageError if none is; RefusalError if what is under way is no run, if it cannot be told to stop, or if it has not
    ended after `patience_s`.
    """
    if not is_held(home.run_lock):
        raise UsageError(
            "no run is under way, so there is none to stop. `fedcredit coordinator status` says how it is."
        )
    status = read_status(home.status)
    if status is None or not is_running(home, status):
        raise RefusalError(
            "What is under way is no run that status.json knows: a dry run, or a run that has only just begun. It was "
            "not touched. Wait until it has ended, or stop it where it was started, with Ctrl-C.",
            RefusalCode.INTERNAL,
        )
    try:
        os.kill(status.pid, signal.SIGTERM)
    except OSError as error:
        raise RefusalError(
            f"The run could not be told to stop ({error.strerror}). Whoever started it should stop it.",
            RefusalCode.INTERNAL,
        ) from None
    end = time.monotonic() + patience_s
    while is_held(home.run_lock):
        if time.monotonic() > end:
            raise RefusalError(
                f"The run was told to stop and has not ended after {patience_s:g} s. Look at `fedcredit coordinator "
                "status`; to kill it loses nothing that it has kept.",
                RefusalCode.INTERNAL,
            )
        time.sleep(0.1)
    return status.pid


def is_running(home: Home, status: RunStatus | None) -> bool:
    """Whether the run that wrote `status` is under way now; a dry run holds the same lock, and writes no status."""
    return status is not None and is_held(home.run_lock) and holder_of(home.run_lock, status.pid)
