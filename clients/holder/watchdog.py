"""An end to an answer that takes too long, so that one message cannot keep a data holder from all later ones.

First an exception where the answer is computed. If that does not come through (code that no exception reaches, a lock,
a library that holds on), the process ends: whoever supervises it starts it again, and the ledger knows what was
charged.
"""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Final

HARD_AFTER_S: Final = 10.0
"""How long after the soft end the process ends."""


class OutOfTimeError(BaseException):
    """The answer took too long. No `Exception`, for what computes an answer may catch those and go on."""


@contextmanager
def within(seconds: float, *, hard_after_s: float = HARD_AFTER_S, told: IO[str] | None = None) -> Iterator[None]:
    """Run the body for at most `seconds`; then OutOfTimeError is raised in it, and later the process ends (exit 1).

    In the main thread only, one at a time. The lines of code it was stuck at, without any value, are written to `told`
    (stderr), which must be a real file. OutOfTimeError may come a moment after the body is done: catch it outside.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("only the main thread can be watched")

    def ring(_: int, __: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # A thread of its own, in C: it comes through also where no Python code can run any more.
        faulthandler.dump_traceback_later(seconds + hard_after_s, exit=True, file=told or sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
