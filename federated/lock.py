"""One program at a time: a lock that the operating system gives back when the program ends, however it ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from privacy.errors import RefusalCode, RefusalError

_ATTEMPTS: Final = 5


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
                time.sleep(0.02)
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
