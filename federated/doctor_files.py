"""What `fedcredit doctor` looks at in a directory: who may read and write it, room, whole databases, stale status."""

import os
import shutil
import sqlite3
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from federated.doctor import Verdict, gravest, ok, problem, warning

ROOM_BYTES: Final = 1 << 30
"""Free space under which a program that only appends should be given more."""
_LITTLE_BYTES: Final = 64 << 20
_PATIENCE_S: Final = 5.0


def secrets(directory: Path, files: Iterable[str], folders: Iterable[str] = ()) -> Verdict:
    """Whether nobody else may read `files` and enter `folders`, or replace anything; those that are not there pass.

    Names are patterns, relative to `directory`.
    """
    found: list[Verdict] = []
    kept = sorted({path for pattern in files for path in directory.glob(pattern) if path.is_file()})
    entered = sorted({path for pattern in folders for path in directory.glob(pattern) if path.is_dir()})
    owner = directory.stat().st_uid
    for path, most in [(directory, 0o755), *((path, 0o700) for path in entered), *((path, 0o600) for path in kept)]:
        name, status = os.path.relpath(path, directory), path.stat()
        mode = status.st_mode & 0o777
        if mode & ~most:
            found.append(problem(f"{_named(name)} has mode {mode:04o}", f"chmod {most:o} {path}"))
        if status.st_uid != owner:
            found.append(problem(f"{_named(name)} belongs to another account than the directory", f"chown it: {path}"))
    if owner != os.geteuid():
        found.append(
            warning(
                "the directory belongs to another account than the one that looks",
                "Look as the account that runs the program (sudo -u ACCOUNT fedcredit doctor ...), or chown the "
                "directory to it.",
            )
        )
    return gravest(found, well=f"{len(kept)} secret files are their owner's alone")


def writable(directory: Path) -> Verdict:
    """Whether a file can be made in the directory."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return ok("a file can be made")
    except OSError as error:
        return problem(
            f"no file can be made in it ({error.strerror})",
            f"Make {directory} writable for the account that runs the program; mount its disk for writing.",
        )


def room(directory: Path, databases: Sequence[Path]) -> Verdict:
    """Whether the databases may grow to twice their size, and by 1 GiB."""
    free = shutil.disk_usage(directory).free
    size = sum(path.stat().st_size for path in databases if path.exists())
    found = f"{free / ROOM_BYTES:.1f} GiB free; the databases have {size / ROOM_BYTES:.2f} GiB"
    mend = "Make room on that disk, or move the directory to a larger one: a full disk stops everything, safely."
    if free < max(size, _LITTLE_BYTES):
        return problem(found, mend)
    return warning(found, mend) if free < max(size, ROOM_BYTES) else ok(found)


def database(path: Path, *, mend: str) -> Verdict:
    """Whether SQLite finds the database whole (PRAGMA quick_check). It is only read; `mend` is what its loss takes."""
    if not path.exists():
        return ok("not made yet")
    try:
        place = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=_PATIENCE_S)) as connection:
            (word,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return problem("it cannot be opened, or is busy", f"Check permissions of {path} and what else uses it.")
    except sqlite3.DatabaseError:
        word = "damaged"
    return ok("whole") if word == "ok" else problem(f"{path.name} is damaged", mend)


def tables(directory: Path, names: Sequence[str]) -> Verdict:
    """Whether the files of rows are there and can be read. What is in them is not looked at."""
    found = []
    for name in dict.fromkeys(names):
        try:
            with (directory / name).open("rb") as file:
                begins = file.read(1)
            if name.endswith(".toml"):
                tomllib.loads((directory / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no TOML"
            found.append(problem(f"{name} cannot be read ({reason})", f"Put the table at {directory / name}."))
        else:
            if not begins:
                found.append(problem(f"{name} is empty", f"Put the table at {directory / name}."))
    return gravest(found, well=f"{', '.join(dict.fromkeys(names))} can be read")


def program(lock: Path, says_running: Callable[[], bool], *, start: str) -> Verdict:
    """Whether a program is running, and whether what it last wrote about itself (`says_running`) is true.

    The lock is given back by the system however the program ends; a status file is not taken back.
    """
    from federated.lock import is_held

    said = says_running()  # before the lock: a program that ends in between wrote its last word first
    if is_held(lock):
        return ok("running")
    if said:
        return warning("interrupted: it says that it runs, and nothing does", f"Start it again: {start}")
    return ok("not running")


def _named(name: str) -> str:
    return "the directory" if name == "." else name
