"""Reading an opening: first whether all of it is what the data holder signed, then line by line as a stream."""

import gzip
import hashlib
import hmac
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clients.audit.opening import MAX_LINE_BYTES, Header, Line, read_header, read_line
from privacy.consent.envelope import MAX_ENVELOPE_BYTES
from privacy.errors import MalformedError, TamperingError, UsageError

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class OpeningFile:
    """An opening whose header is signed by the data holder and whose body is the one signed for."""

    path: Path
    header: Header
    head: bytes  # the header's line, as it was read

    @classmethod
    def check(cls, path: Path, identity: bytes) -> "OpeningFile":
        """Read the whole file once, keeping nothing. MalformedError if it is damaged; TamperingError if altered."""
        with _unpacked(path) as file:
            first = file.readline(MAX_ENVELOPE_BYTES + 2)
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if not first.endswith(b"\n"):
            raise _damaged(path, "its first line does not end, or is too long")
        header = read_header(first, identity)
        if not hmac.compare_digest(digest.digest(), header.body_sha256):
            raise TamperingError(
                f"{path.name} holds other lines than those the data holder signed for; it was altered on the way. "
                "The data holder must send it again."
            )
        return cls(path, header, first)

    def lines(self) -> Iterator[Line]:
        """The lines of the body, one at a time. MalformedError for one that cannot be read.

        The file is read a second time here, and held against the signed header once more: nothing in it counts before
        the last line has come. TamperingError then if somebody changed it meanwhile.
        """
        with _unpacked(self.path) as file:
            first, digest = file.readline(MAX_ENVELOPE_BYTES + 2), hashlib.sha256()
            while data := file.readline(MAX_LINE_BYTES + 2):
                if not data.endswith(b"\n"):
                    raise _damaged(self.path, "a line does not end, or is too long")
                digest.update(data)
                yield read_line(data)
        if first != self.head or not hmac.compare_digest(digest.digest(), self.header.body_sha256):
            raise TamperingError(
                f"{self.path.name} was changed while it was read, so nothing that was found in it counts. The auditor "
                "should copy it to where nobody else writes, and run the command again."
            )


def read_small(path: Path, *, what: str, most: int) -> bytes:
    """The whole of `path`. UsageError if it cannot be opened, MalformedError beyond `most` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"cannot open {path} ({error.strerror}); give the path of {what}.") from None
    if len(data) > most:
        raise MalformedError(f"{path.name} has more than {most} bytes and is not {what}; give the right file.")
    return data


@contextmanager
def _unpacked(path: Path) -> Iterator[gzip.GzipFile]:
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot open {path} ({error.strerror}); give the path of an opening.") from None
    with raw:
        try:
            with gzip.GzipFile(fileobj=raw, mode="rb") as file:
                yield file
        except (OSError, EOFError, zlib.error):
            raise _damaged(path, "it is not whole gzip'd data") from None


def _damaged(path: Path, found: str) -> MalformedError:
    return MalformedError(
        f"{path.name} is not an opening, or is damaged: {found}. The data holder must send the file again."
    )
