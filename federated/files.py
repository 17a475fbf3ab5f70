"""Files that are either there whole or not there: written beside, flushed to the disk, then moved into place."""

import os
import tempfile
from pathlib import Path

from privacy.errors import RefusalCode, RefusalError


def make_directory(path: Path) -> None:
    """Make a directory with all above it; it may be there. RefusalError if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusalError(
            f"{path.name} could not be made ({error.strerror}). Make room or give write permission, then run the "
            "command again.",
            RefusalCode.INTERNAL,
        ) from error


def write_whole(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Replace `path` by `content` atomically and durably; a `secret` file is readable by its owner only.

    RefusalError if the directory cannot be written or the disk is full; the earlier file is then untouched.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o600 if secret else 0o644)
        Path(temporary).replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise  # somebody has told this program to stop
        raise RefusalError(
            f"{path.name} could not be written ({error.strerror}); what was there before is untouched. "
            "Make room or give write permission, then run the command again.",
            RefusalCode.INTERNAL,
        ) from error
