"""The coordinator's round log on its disk: every entry is durable before what it tells of goes on."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from federated.lock import take_turn
from federated.round_log import EMPTY, Event, LogEntry, LogHead, head_of, split, verify_lines, write_line
from privacy.consent.signing import SigningKey
from privacy.errors import RefusalCode, RefusalError, TamperingError

_MODE: Final = 0o600
_PART: Final = 1 << 20


class RoundLog:
    """The round log in one file. Two programs that append at once do it one after the other.

    A last line that a crash has cut short is nobody's entry: what it would have told of never began, so the next one
    takes its place. TamperingError for anything else that does not hold.
    """

    def __init__(self, path: Path, key: SigningKey) -> None:
        """The log in `path`, verified whole; it need not be there."""
        self._path, self._key = path, key
        self._entries: list[LogEntry] = []
        self._head, self._end = EMPTY, 0
        lines, _ = split(read_log(path))
        self._take(lines)

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """Every entry, as far as this program has read."""
        return tuple(self._entries)

    @property
    def head(self) -> LogHead:
        """How long the log is, and the hash of its last line."""
        return self._head

    def append(self, event: Event, *, run: str = "", at: int, **detail: Any) -> LogEntry:
        """Add an entry at the instant `at` (UTC seconds); durable on return.

        RefusalError if it cannot be written, or another program does not end its own write: then nothing is added.
        TamperingError if the file was changed meanwhile.
        """
        with self._alone() as descriptor:
            lines, torn = split(self._news(descriptor))
            self._take(lines)  # of another program
            entry = LogEntry(self._head.size + 1, at, self._head.digest, event, run, detail)
            line = write_line(entry, self._key)
            try:
                if torn:
                    os.ftruncate(descriptor, self._end)
                _write(descriptor, line + b"\n")
                if entry.n == 1:
                    _settle(self._path.parent)
            except OSError as error:
                with suppress(OSError):  # what is left is a torn last line, and is taken for one
                    os.ftruncate(descriptor, self._end)
                raise _unwritable(self._path, error) from None
            self._keep([line], [entry])
        return entry

    def _news(self, descriptor: int) -> bytes:
        """What was written since this program last read."""
        size = os.fstat(descriptor).st_size
        if size < self._end:
            raise TamperingError(
                f"{self._path.name} has become shorter while this program ran. Whoever did that should restore it from "
                "a copy; then run the command again."
            )
        os.lseek(descriptor, self._end, os.SEEK_SET)
        parts: list[bytes] = []
        while part := os.read(descriptor, _PART):
            parts.append(part)
        return b"".join(parts)

    def _take(self, lines: Sequence[bytes]) -> None:
        self._keep(lines, verify_lines(lines, self._key.public, after=self._head))

    def _keep(self, lines: Sequence[bytes], entries: Sequence[LogEntry]) -> None:
        self._entries += entries
        self._end += sum(len(line) + 1 for line in lines)
        self._head = head_of(lines, after=self._head)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        try:
            take_turn(descriptor, self._path.name)  # until the file is closed, also by a crash
            yield descriptor
        finally:
            os.close(descriptor)


def read_log(path: Path) -> bytes:
    """The bytes of the log in `path`; none if it is not there. RefusalError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RefusalError(
            f"{path.name} cannot be read ({error.strerror}). The coordinator should give this program permission to "
            "read its directory.",
            RefusalCode.INTERNAL,
        ) from None


def _write(descriptor: int, content: bytes) -> None:
    """Durably at the end of the file, whole or with an OSError: a disk that is nearly full takes a part at first."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _settle(directory: Path) -> None:
    """Make a new file's name durable, too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> RefusalError:
    return RefusalError(
        f"{path.name} could not be written ({error.strerror}); what it held is untouched, and what was to be told in "
        "it did not begin. Make room or give write permission, then run the command again.",
        RefusalCode.INTERNAL,
    )
