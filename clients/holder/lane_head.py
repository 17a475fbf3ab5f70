"""The file beside the lane copy that says how far the copy was, so that a restored database is noticed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.holder.row_seal import RowSeal
from federated.files import write_whole
from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError


@dataclass(frozen=True, slots=True)
class Reached:
    """The newest accepted head, and how often the copy had been changed by then."""

    head: Head
    changes: int


class HeadFile:
    """One line of text: size and root of the newest accepted head, the number of changes, and a keyed digest."""

    def __init__(self, path: Path, seal: RowSeal) -> None:
        self._path, self._seal = path, seal

    def write(self, reached: Reached) -> None:
        """Remember durably how far the copy is, after the commit; what another process wrote of later stays."""
        with self._alone():
            try:
                on_file = self.read()
            except TamperingError:  # whoever opened the copy has seen it whole; it is not what the database says now
                on_file = None
            if on_file is None or on_file.changes < reached.changes:
                write_whole(self._path, self._text(reached))

    def read(self) -> Reached | None:
        """What was written last, None if there is no file. TamperingError if the file cannot be read."""
        try:
            text = self._path.read_bytes()
            size, root, changes, _ = text.decode("ascii").split()
            reached = Reached(Head(int(size), bytes.fromhex(root)), int(changes))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, MalformedError):
            raise self._unreadable() from None
        if text != self._text(reached):
            raise self._unreadable()
        return reached

    def require(self, *, never_changed: bool) -> Reached:
        """As `read`. TamperingError if the file is gone and the copy was changed at least once."""
        reached = self.read()
        if reached is None and not never_changed:
            raise TamperingError(
                f"{self._path.name}, which holds the lane head accepted last, is gone. This data holder "
                "should move its lane copy away, link its customers again from its own records and sync anew."
            )
        return reached or Reached(Head(0, EMPTY_ROOT), 0)

    def _text(self, reached: Reached) -> bytes:
        fields = (reached.head.size, reached.head.root, reached.changes)
        mac = self._seal.row("head file", *fields).hex()
        return f"{reached.head.size} {reached.head.root.hex()} {reached.changes} {mac}\n".encode()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Two processes that have just committed must not leave the earlier of their two states.
        try:
            directory = os.open(self._path.parent, os.O_RDONLY)
        except OSError as error:
            raise RefusalError(
                f"{self._path.name} could not be written ({error.strerror}). This data holder should check "
                "permissions, then run the command again.",
                RefusalCode.INTERNAL,
            ) from None
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _unreadable(self) -> TamperingError:
        return TamperingError(
            f"{self._path.name} cannot be read as the head that was accepted last. This data holder should "
            "move its lane copy away, link its customers again from its own records and sync anew."
        )
