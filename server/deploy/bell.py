"""A run's word to the door, across two programs, that something was pushed: a named pipe among SuperLink's files."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MOST_RINGS: Final = 4096


class Bell:
    """Rung by runs and heard by the door. Whoever hears it does so in one event loop.

    It only saves waiting: where there can be no pipe nobody waits for it, and a ring that is lost costs what polling
    costs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next: asyncio.Event | None = None  # None while nobody listens
        self.rings = 0

    def ring(self) -> None:
        """Wake whoever waits, if there is somebody. Nothing is waited for."""
        with suppress(OSError):
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                os.write(pipe, b".")
            finally:
                os.close(pipe)

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Hear it for as long as the block lasts, in the loop that runs."""
        pipe = self._made()
        if pipe is None:
            yield
            return
        loop = asyncio.get_running_loop()
        self._next = asyncio.Event()
        loop.add_reader(pipe, self._hear, pipe)
        try:
            yield
        finally:
            self.hush()
            loop.remove_reader(pipe)
            os.close(pipe)
            with suppress(OSError):
                self._path.unlink()

    @property
    def is_heard(self) -> bool:
        """Whether it makes sense to wait for it."""
        return self._next is not None

    async def rung(self, since: int) -> None:
        """Return once it has rung more often than `since` times, or as soon as it is not heard any more."""
        while self.rings == since and self._next is not None:
            await self._next.wait()

    def hush(self) -> None:
        """Let go everybody who waits, and let nobody wait any more."""
        heard, self._next = self._next, None
        if heard is not None:
            heard.set()

    def _made(self) -> int | None:
        try:
            self._path.unlink(missing_ok=True)
            os.mkfifo(self._path, 0o600)
            # To write as well: whoever only reads finds the pipe at its end whenever nobody writes.
            return os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            return None

    def _hear(self, pipe: int) -> None:
        with suppress(BlockingIOError):
            os.read(pipe, _MOST_RINGS)
        self.rings += 1
        if self._next is not None:
            heard, self._next = self._next, asyncio.Event()
            heard.set()
