"""Flower's SuperNode as a program that ends when its work has ended, and leaves a sign whenever it is heard.

    python -m clients.holder.supernode SIGN [OPTION OF flower-supernode]...

Flower's own program goes on for ever once its connection has failed in a way that it does not try again (an answer 500,
a bundle that it cannot read): its loop is over, and the thread of its runtime API keeps the process. If its heartbeats
fail so, it asks for messages for ever, and the coordinator counts it as gone. Here either is the end of the process,
which the supervisor starts again. What is wrapped besides is in `in_step.py`.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, NoReturn

from clients.holder.in_step import keep_in_step

_PROGRAM: Final = "flower-supernode"
_LOOP: Final = "flwr.supernode.start_client_internal"
_FLEET: Final = "/v1/fleet/"
_AT_MOST_EVERY_S: Final = 1.0
_UNAUTHORIZED: Final = 401


class Heard(logging.Handler):
    """Touches a file whenever the coordinator has answered: the HTTP library logs each answer with its status."""

    def __init__(self, sign: Path) -> None:
        super().__init__(logging.INFO)
        self._sign, self._touched = sign, -_AT_MOST_EVERY_S

    def emit(self, record: logging.LogRecord) -> None:
        """Touch it for an answer of success from the fleet's paths, whatever else is logged."""
        arguments = record.args
        if not isinstance(arguments, tuple) or len(arguments) != 5:
            return
        _, url, _, status, _ = arguments
        if _FLEET not in str(url) or not isinstance(status, int) or not 200 <= status < 300:
            return
        now = time.monotonic()
        if now - self._touched >= _AT_MOST_EVERY_S:
            self._touched = now
            touch(self._sign)


def touch(sign: Path) -> None:
    """Set the file's time to now. A disk that takes no new file costs only the sign."""
    with suppress(OSError):
        os.close(os.open(sign, os.O_WRONLY | os.O_CREAT, 0o600))
        os.utime(sign)


def end_with_thread(failed: threading.ExceptHookArgs) -> None:
    """A thread that failed ends the process, in order: the coordinator is told good-bye and lets it in again at once.

    Flower ends by itself, in order too, once its key is not accepted any more.
    """
    threading.__excepthook__(failed)
    status = getattr(getattr(failed.exc_value, "response", None), "status_code", None)
    if status != _UNAUTHORIZED:
        os.kill(os.getpid(), signal.SIGTERM)


def run(program: Callable[[], object]) -> NoReturn:
    """Run it, and end the process when it returns or fails, whatever threads it leaves. Its own exits are its own."""
    threading.excepthook = end_with_thread
    try:
        program()
    except Exception:  # whatever ends it, the process ends with it; only Flower's code runs here, and no row or key
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(1)


def main(sign: Path, options: list[str]) -> NoReturn:
    """Run Flower's SuperNode with its own options."""
    logger = logging.getLogger("httpx")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(Heard(sign))
    keep_in_step(import_module(_LOOP))
    (found,) = entry_points(group="console_scripts", name=_PROGRAM)
    sys.argv = [_PROGRAM, *options]
    run(found.load())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
