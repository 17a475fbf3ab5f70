"""Programs that run for as long as another one does: started, started again when they end, and stopped with it.

They die with their supervisor also when that one is killed (on Linux; elsewhere its next start ends them), and write
to files that cannot fill a disk.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from federated.processes import MARK, end_stale, kill_marked, mark_of, remember
from privacy.errors import RefusalCode, RefusalError, UsageError

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
SETTLED_S: Final = 60.0
"""A program that lived as long as this has its next failure counted as its first."""

LARGEST_LOG_BYTES: Final = 8 << 20
"""A longer log is cut: its newer half is kept beside it, as NAME.1, and it begins anew."""

_CHILD: Final = str(Path(__file__).with_name("child.py"))
_STEP_S: Final = 0.05
_NOT_STARTED: Final = 126  # as a shell tells it


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where, and the file that gets all it prints. `command[0]` is a path."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    longest_pause_s: float = LONGEST_PAUSE_S  # before it is started again


@dataclass(frozen=True, slots=True)
class Fate:
    """How one program is doing. `last_exit` is None until it has ended once; it is negative for a signal."""

    pid: int | None
    starts: int
    last_exit: int | None
    failures: int  # in a row, without having lived for long between them

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.starts - 1)


@dataclass(slots=True)
class _Charge:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    failures: int = 0
    last_exit: int | None = None
    since: float = 0.0  # when it was started, or when it ended
    due: float = field(default=0.0)
    kill_at: float | None = None  # it was asked to end


class Supervisor:
    """Runs programs, each in a session of its own. `pid_file` names this supervisor; only one may run with it.

    One thread does everything, and has to live as long as the programs: the kernel kills them when it ends.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        pid_file: Path,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[str, int], None] = lambda _name, _code: None,
    ) -> None:
        """`ended` is told the name and exit code of every program that ends by itself."""
        self._charges = {program.name: _Charge(program) for program in programs}
        self._pid_file, self._clock, self._ended = pid_file, clock, ended
        self._thread: int | None = None
        self._mark = ""

    def start(self) -> None:
        """End what a former life left, then start every program.

        UsageError if one is not installed, RefusalError if its log cannot be written; nothing runs then.
        """
        for charge in self._charges.values():
            _require_startable(charge.program)
        self._mark = mark_of(self._pid_file)
        end_stale(self._pid_file, self._mark, grace_s=5.0)
        self._thread = threading.get_ident()
        try:
            for charge in self._charges.values():
                self._launch(charge)
        except BaseException:
            self.stop(grace_s=1.0)
            raise
        self._remember()

    def tend(self) -> None:
        """See who ended, start again who is due, cut the logs. Never waits; call it a few times a second."""
        changed = False
        for charge in self._charges.values():
            now = self._clock()
            if charge.process is not None and charge.kill_at is not None and now >= charge.kill_at:
                _signal_group(charge.process.pid, signal.SIGKILL)
            if charge.process is not None and (code := charge.process.poll()) is not None:
                # What it has started is of no use without it, and may hold its port.
                _signal_group(charge.process.pid, signal.SIGKILL)
                self._note_end(charge, code, now)
            if charge.process is None and charge.starts and now >= charge.due:
                try:
                    self._launch(charge)
                    changed = True
                except OSError:  # no process or no memory left: as if it had ended at once
                    self._note_end(charge, _NOT_STARTED, now)
            cut_log(charge.program.log, most=LARGEST_LOG_BYTES)
        if changed:
            self._remember()

    def renew(self, name: str, *, grace_s: float = 5.0) -> None:
        """Ask a program that does nothing any more to end; `tend` kills it if it does not, and starts it again."""
        charge = self._charges[name]
        if charge.process is not None and charge.kill_at is None:
            _signal_group(charge.process.pid, signal.SIGTERM)
            charge.kill_at = self._clock() + grace_s

    def fates(self) -> dict[str, Fate]:
        """How each program is doing, as of the last `tend`."""
        return {
            name: Fate(charge.process.pid if charge.process else None, charge.starts, charge.last_exit, charge.failures)
            for name, charge in self._charges.items()
        }

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Ask every program to end, wait, and kill whoever is left, with all that they have started."""
        running = [charge.process for charge in self._charges.values() if charge.process is not None]
        for process in running:
            _signal_group(process.pid, signal.SIGTERM)
        until = time.monotonic() + grace_s
        while any(process.poll() is None for process in running) and time.monotonic() < until:
            time.sleep(_STEP_S)
        for process in running:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        for charge in self._charges.values():
            charge.process, charge.starts, charge.kill_at = None, 0, None
        if self._mark:
            kill_marked(self._mark)
        self._pid_file.unlink(missing_ok=True)

    def __enter__(self) -> "Supervisor":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _note_end(self, charge: _Charge, code: int, now: float) -> None:
        charge.failures = 1 if now - charge.since >= SETTLED_S else charge.failures + 1
        charge.due = now + min(pause_s(charge.failures), charge.program.longest_pause_s)
        charge.process, charge.last_exit, charge.since, charge.kill_at = None, code, now, None
        self._ended(charge.program.name, code)

    def _launch(self, charge: _Charge) -> None:
        if self._thread != threading.get_ident():
            raise RuntimeError("programs are started by one thread, for they die with it")
        program = charge.program
        charge.starts += 1
        charge.since = self._clock()
        with _log_of(program) as log:
            charge.process = subprocess.Popen(
                # Isolated: nothing in the program's directory or environment changes what this first step does.
                [sys.executable, "-I", "-S", _CHILD, str(os.getpid()), *program.command],
                cwd=program.directory,
                env={**program.environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _remember(self) -> None:
        remember(self._pid_file, {name: fate.pid for name, fate in self.fates().items() if fate.pid is not None})


def pause_s(failures: int) -> float:
    """Seconds before the next start after so many failures in a row: one, doubling up to a minute."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))


def cut_log(path: Path, *, most: int) -> None:
    """Move the newer half of a log longer than `most` bytes to NAME.1 and empty it; its writer goes on writing.

    The file itself stays, for its writer has it open. A disk that is full takes no copy, and the log is emptied.
    """
    try:
        if path.stat().st_size <= most:
            return
        with path.open("rb") as file:
            file.seek(-(most // 2), os.SEEK_END)
            newer = file.read(most // 2)
        with (
            suppress(OSError),
            _private(path.with_name(path.name + ".1"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as kept,
        ):
            kept.write(newer)
        os.truncate(path, 0)
    except OSError:  # gone, or not ours to cut: no reason for any program to end
        return


def _require_startable(program: Program) -> None:
    if not os.access(program.command[0], os.X_OK):
        raise UsageError(
            f"{Path(program.command[0]).name} is not installed beside this Python, or may not be run. Install "
            "fedcredit with all it needs in an environment of its own, then run the command again."
        )
    try:
        program.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _private(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND).close()
        program.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise RefusalError(
            f"{program.log.name}, the log of {program.name}, cannot be written ({error.strerror}). Make room or give "
            "write permission to its directory, then run the command again.",
            RefusalCode.INTERNAL,
        ) from error


def _log_of(program: Program) -> IO[bytes]:
    try:
        return _private(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except OSError:  # it could be written at the start; a program that serves goes on without
        return Path(os.devnull).open("wb")


def _private(path: Path, flags: int) -> IO[bytes]:
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
