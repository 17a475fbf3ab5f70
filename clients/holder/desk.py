"""A data holder's desk: its settings, keys, lane copy and notes, opened together for one command."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from clients.holder.desk_book import DeskBook
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.lane_epochs import announce_up_to
from clients.holder.row_seal import RowSeal
from clients.holder.settings import HolderSettings, load_settings
from federated.schema_toml import load_schema
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

if TYPE_CHECKING:
    from clients.registry_client import RegistryClient

NOTES = "desk.db"
_LARGEST_TEXT = 1 << 16  # bytes


@dataclass(slots=True)
class Desk:
    """What a command at the desk works on. A node may run beside it: both look at one database."""

    directory: Path
    settings: HolderSettings
    keys: HolderKeys
    lane: LaneCopy
    book: DeskBook

    @classmethod
    def open(cls, directory: Path) -> "Desk":
        """UsageError unless `directory` is one; MalformedError or TamperingError if what lies in it does not hold."""
        if not directory.is_dir():
            raise UsageError(
                f"{directory} is no directory. Name the data holder's own with --directory, or make one: "
                "fedcredit holder init DIRECTORY ..."
            )
        settings = load_settings(directory / "holder.toml")
        keys = HolderKeys.load(directory / "keys")
        book = DeskBook(directory / NOTES, RowSeal(keys.storage_key("desk")))
        try:
            lane = LaneCopy(directory / "consent.db", settings, keys)
        except BaseException:
            book.close()
            raise
        desk = cls(directory, settings, keys, lane, book)
        try:
            announce_up_to(lane, max(book.epochs(), default=1))
        except BaseException:
            desk.close()
            raise
        return desk

    def close(self) -> None:
        """Give the databases back."""
        self.lane.close()
        self.book.close()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def categories(self) -> frozenset[str]:
        """The categories of this data holder's schema."""
        return load_schema(self.directory / self.settings.schema).categories

    def text(self, name: str) -> str:
        """The text file of that name beside the settings. UsageError or MalformedError if it cannot be read as one."""
        try:
            return read_file(self.directory / name, what="a text", most=_LARGEST_TEXT).decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedError(f"{name} is not UTF-8 text; the data holder should save it as UTF-8.") from None


def read_file(path: Path, *, what: str, most: int) -> bytes:
    """The whole of `path`, at most `most` bytes. UsageError if it cannot be opened, MalformedError if it is larger."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened ({error.strerror}); give the path of {what}.") from None
    if len(data) > most:
        raise MalformedError(f"{path.name} has more than {most} bytes and is not {what}; give the right file.")
    return data


def registry_of(desk: Desk) -> "RegistryClient":
    """The consent registry that the settings name; nothing is connected before it is asked."""
    from clients.registry_client import RegistryClient  # half the commands need no network

    settings = desk.settings.registry
    return RegistryClient(settings.url, ca=settings.trust(desk.directory))


def new_files(out: Path, name: str, count: int) -> Sequence[Path]:
    """Where `count` files go: `out` itself if it is one file, else NAME-1.json and so on in the directory `out`.

    The directory is made. UsageError if a file is there already.
    """
    if count > 1 or out.is_dir():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{out} is no directory ({error.strerror}); give one with --out.") from None
        files = [out / f"{name}-{number}.json" for number in range(1, count + 1)]
    else:
        files = [out]
        if not out.absolute().parent.is_dir():
            raise UsageError(f"{out.parent} is no directory; make it, or name another file with --out.")
    for file in files:
        if file.exists():
            raise UsageError(f"{file} exists and is left as it is; name another place with --out.")
    return files


def write_new(path: Path, content: bytes, *, secret: bool) -> None:
    """Write `path`, which must not exist yet, durably. UsageError if it does; RefusalError if it cannot be written."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError(f"{path} exists and is left as it is; give another name.") from None
    except OSError as error:
        raise RefusalError(
            f"{path} could not be written ({error.strerror}). Make room or give write permission, then run the "
            "command again.",
            RefusalCode.INTERNAL,
        ) from None
