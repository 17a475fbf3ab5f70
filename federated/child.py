"""What stands between a supervisor and a program of its: it sees to it that the program dies with the supervisor.

Run as a file, with nothing but the standard library: `child.py SUPERVISORS_PID PROGRAM [ARGUMENT]...`.
"""

import ctypes
import os
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def become(supervisor: int, command: list[str]) -> NoReturn:
    """Replace this process by `command`, which the kernel kills when the thread that started it ends.

    Only Linux can do that. Elsewhere a program outlives a supervisor that was killed, until the next one starts.
    """
    if sys.platform == "linux":
        # Kill: by then nobody is left who would wait for an orderly end, or who would tell it twice.
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            sys.exit("the kernel does not bind this program to its supervisor's life")
        if os.getppid() != supervisor:  # it has died already, and that signal will never come
            sys.exit("the supervisor has ended")
    try:
        os.execv(command[0], command)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
