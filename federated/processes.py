"""Processes of a supervisor's former life: found by the mark that each of them carries, and ended."""

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from federated.files import write_whole
from privacy.errors import RefusalError

MARK: Final = "FEDCREDIT_SUPERVISED_BY"
"""Environment variable of every supervised program: whose it is, and nothing secret."""

_ID: Final = re.compile(r"[0-9a-f]{32}")

_PROC: Final = Path("/proc")


def mark_of(pid_file: Path) -> str:
    """What the programs of one supervisor carry: its pid file, and a number drawn once and kept beside it.

    The path alone may be that of another supervisor's file, in a container that shares this one's process numbers.
    """
    kept = pid_file.with_name(f"{pid_file.name}.id")
    try:
        number = kept.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        number = ""
    if not _ID.fullmatch(number):
        number = secrets.token_hex(16)
        with suppress(RefusalError):  # on a full disk only a later life's search finds nothing
            write_whole(kept, number.encode(), secret=True)
    return f"{pid_file.absolute()}#{number}"


def born(pid: int) -> str | None:
    """When a process began, as its system tells it; None if there is none. Two with one number differ in it."""
    if _PROC.is_dir():
        try:
            # The name in the second field may hold spaces and parentheses; the start is the 22nd field.
            return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return None
    told = subprocess.run(["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def remember(pid_file: Path, pids: Mapping[str, int]) -> None:
    """Write down who runs now, so that a later life of the supervisor finds them. A full disk costs only that."""
    entries = {name: [pid, start] for name, pid in pids.items() if (start := born(pid)) is not None}
    with suppress(RefusalError):
        write_whole(pid_file, msgspec.json.encode(entries), secret=True)


def end_stale(pid_file: Path, mark: str, *, grace_s: float) -> int:
    """End what a former life of this supervisor left running, and how many that were. Nobody else may be running it.

    First politely; whoever is there after `grace_s` is killed.
    """
    stale = _marked(mark) if _PROC.is_dir() else _remembered(pid_file)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, start in stale.items():
            if born(pid) == start:
                send(pid, number)
        until = time.monotonic() + grace_s
        while any(map(_lives, stale.items())) and time.monotonic() < until:
            time.sleep(0.05)
    return len(stale)


def kill_marked(mark: str) -> None:
    """Kill every process that carries this supervisor's mark, whatever group or session it went to. Linux only."""
    for pid in _marked(mark):
        send(pid, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    """Signal the process, and its group if it leads one. One that has ended is no failure."""
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _lives(known: tuple[int, str]) -> bool:
    pid, start = known
    return born(pid) == start and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _marked(mark: str) -> dict[int, str]:
    carried = f"{MARK}={mark}".encode()
    found = {}
    for pid in _pids():
        try:
            carries = carried in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # somebody else's, or gone
            continue
        if carries and pid != os.getpid() and (start := born(pid)) is not None:
            found[pid] = start
    return found


def _pids() -> Iterator[int]:
    with suppress(OSError):
        yield from [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _remembered(pid_file: Path) -> dict[int, str]:
    try:
        entries = msgspec.json.decode(pid_file.read_bytes(), type=dict[str, tuple[int, str]])
    except (OSError, msgspec.DecodeError):
        return {}
    return {pid: start for pid, start in entries.values() if born(pid) == start}
