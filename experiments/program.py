"""One of our own commands at work in a process of its own: started, waited for, and stopped again."""

import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from privacy.errors import RefusalCode, RefusalError

START_S = 30.0
STOP_S = 20.0
RUN = (sys.executable, "-c", "from federated.cli import main; main()")


class Program:
    """A `fedcredit` command that serves and says `listening on URL` once it does."""

    def __init__(self, arguments: Sequence[str], *, start_s: float = START_S, stop_s: float = STOP_S) -> None:
        """Start it and wait until it listens. RefusalError with its own words if it does not within `start_s`."""
        self._start_s, self._stop_s = start_s, stop_s
        # Into a file: a pipe that nobody reads would stop a program that has much to say.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the program)
        self._process = subprocess.Popen([*RUN, *arguments], stdout=subprocess.PIPE, stderr=self._said, text=True)
        try:
            self.url = self._listening(arguments[0])
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def close(self) -> None:
        """Ask it to end, and wait: it answers what is under way first."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=self._stop_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._said.close()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listening(self, name: str) -> str:
        output = self._process.stdout
        end = time.monotonic() + self._start_s
        while output is not None and time.monotonic() < end:
            if select.select([output], [], [], 0.2)[0]:
                line = output.readline()
                if line.startswith("listening on "):
                    return line.removeprefix("listening on ").strip()
                if not line:
                    break
        self._said.seek(0)
        said = self._said.read().strip()[-500:]
        raise RefusalError(
            f"`fedcredit {name}` did not start: {said or 'it said nothing'}. Mend what it names, then run this command "
            "again.",
            RefusalCode.INTERNAL,
        )
