"""The file beside the lane copy with the head that was accepted last, so that a restored database is noticed."""

from pathlib import Path

from federated.files import write_whole
from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT
from privacy.errors import MalformedError, TamperingError


class HeadFile:
    """One line of text: size and root of the newest accepted head."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, head: Head) -> None:
        """Remember `head` durably; nothing is written when it is there already."""
        text = f"{head.size} {head.root.hex()}\n".encode()
        if not self._path.exists() or self._path.read_bytes() != text:
            write_whole(self._path, text)

    def read(self, *, lane_is_empty: bool) -> Head:
        """The head accepted last. TamperingError if the file cannot be read, or is gone and the lane is not empty."""
        try:
            size, root = self._path.read_text(encoding="ascii").split()
            return Head(int(size), bytes.fromhex(root))
        except FileNotFoundError:
            if not lane_is_empty:
                raise TamperingError(
                    f"{self._path.name}, which holds the lane head accepted last, is gone. This data holder "
                    "should move its lane copy away, link its customers again from its own records and sync anew."
                ) from None
            return Head(0, EMPTY_ROOT)
        except (OSError, ValueError, MalformedError):
            raise TamperingError(
                f"{self._path.name} cannot be read as the head that was accepted last. This data holder should "
                "move its lane copy away, link its customers again from its own records and sync anew."
            ) from None
