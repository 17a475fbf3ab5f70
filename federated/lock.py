"""One program at a time: a lock that the operating system gives back when the program ends, however it ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from privacy.errors import RefusalCode, RefusalError

WAIT_S: Final = 30.0
"""How long a program waits for another to finish one write."""
_ATTEMPTS: Final = 5
_POLL_S: Final = 0.02


@contextmanager
def alone(path: Path, message: str) -> Iterator[None]:
    """Hold the lock at `path` for as long as the body runs; RefusalError with `message` if another program has it.

    The file stays, and whether it is there says nothing. A program that this one starts does not inherit the lock.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RefusalError(
            f"{path.name} cannot be made ({error.strerror}). Make room or give write permission, then run the command "
            "again.",
            RefusalCode.INTERNAL,
        ) from error
    try:
        _take(descriptor, message)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, message: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:  # by another program, or for an instant by one that only looks
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_POLL_S)
    raise RefusalError(message, RefusalCode.INTERNAL)


def is_held(path: Path) -> bool:
    """Whether a program has the lock at `path` now. Nothing is made or changed."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that two who look at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def take_turn(descriptor: int, name: str, *, patience_s: float | None = None) -> None:
    """Hold the lock of an open file until it is closed. RefusalError if another has it for longer than `patience_s`,
    which is `WAIT_S` unless it is given.

    The file becomes its owner's alone: whoever may open it may keep everybody waiting.
    """
    with suppress(OSError):  # it is another's file, who has let us write it
        os.fchmod(descriptor, 0o600)
    patience_s = WAIT_S if patience_s is None else patience_s
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise RefusalError(
                    f"{name} has been held by another program for {patience_s:g} s; nothing was written. Find out "
                    f"which (`fuser {name}`), end it, and run the command again.",
                    RefusalCode.INTERNAL,
                ) from None
            time.sleep(_POLL_S)


def holder_of(path: Path, pid: int) -> bool:
    """Whether that process has the file at `path` open: a number in an old file may be anybody's by now.

    It is one process: a number that `kill` takes for many, or for all, has nothing open.
    """
    if pid <= 1:
        return False
    descriptors = Path(f"/proc/{pid}/fd")
    try:
        wanted = path.stat()
        return any(_is_same(one, wanted) for one in descriptors.iterdir())
    except OSError:
        return False  # it is gone, or another's


def _is_same(descriptor: Path, wanted: os.stat_result) -> bool:
    try:
        found = descriptor.stat()
    except OSError:
        return False  # closed meanwhile
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
