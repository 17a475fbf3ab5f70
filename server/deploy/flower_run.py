"""A run over Flower's SuperLink, with the coordinator's loop in this process: submitted, taken up, and ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import httpx

from federated.files import write_whole
from federated.flower_tasks import RunTask, TaskDesk, packed_bundle
from privacy.errors import RefusalCode, RefusalError
from server.deploy.bell import Bell
from server.deploy.settings import Home
from server.deploy.superlink import SuperLink
from server.grid_channel import GridChannel

TAKEN_S: Final = 30.0
READY_S: Final = 30.0
"""How long a SuperLink that is being started anew is waited for."""
_POLL_S: Final = 0.1
_LEFTOVER: Final = "superlink/run-number"


@contextmanager
def over_flower(home: Home, *, tell: Callable[[str], None]) -> Iterator[GridChannel]:
    """A channel to every node that is connected to the coordinator's SuperLink, while one run of Flower's lasts.

    `tell` is given a few words at each step. RefusalError (internal) if SuperLink is away or ends the run meanwhile;
    whatever was answered until then is kept by whoever runs over the channel.
    """
    tell("submitting the run to SuperLink")
    superlink = SuperLink(home)
    address = f"127.0.0.1:{home.settings.fleet.superlink_port}"
    desk = TaskDesk(address, home.secret().encode(), ca=(home.tls / "ca.pem").read_bytes())
    try:
        task = _taken(desk, _submitted(superlink, home), pushed=Bell(home.bell).ring)
        completed = False
        try:
            yield GridChannel(task.grid)
            completed = True
        except httpx.HTTPError as error:
            raise RefusalError(
                f"Flower's SuperLink does not answer any more, or has ended this run ({type(error).__name__}). What "
                "was answered is kept: see that `fedcredit coordinator serve` runs, then `fedcredit coordinator "
                "resume`.",
                RefusalCode.INTERNAL,
            ) from None
        finally:
            task.end(completed=completed)
            with suppress(OSError):  # it has ended, and to end it again does nothing
                (home.directory / _LEFTOVER).unlink(missing_ok=True)
    finally:
        desk.close()
        superlink.close()


def _submitted(superlink: SuperLink, home: Home) -> int:
    """A new run's number. One that a coordinator left behind when it was killed is ended first.

    Its messages would go on to data holders for a while.
    """
    end = time.monotonic() + READY_S
    while not superlink.well() and time.monotonic() < end:
        time.sleep(_POLL_S)
    leftover = home.directory / _LEFTOVER
    with suppress(OSError, ValueError, RefusalError):  # there is none, or it has ended by itself
        superlink.stop_run(int(leftover.read_text(encoding="ascii")))
    number = superlink.start_run(packed_bundle())
    write_whole(leftover, f"{number}\n".encode())
    return number


def _taken(desk: TaskDesk, number: int, *, pushed: Callable[[], None]) -> RunTask:
    """The run of that number. One that is left over nevertheless is ended on the way."""
    end = time.monotonic() + TAKEN_S
    while time.monotonic() < end:
        task = desk.run(pushed=pushed)
        if task is None:
            time.sleep(_POLL_S)
        elif task.number == number:
            return task
        else:
            task.end(completed=False)
    raise RefusalError(
        "Flower's SuperLink took the run and does not hand it out. Another `fedcredit coordinator run` may have taken "
        "it; or start `fedcredit coordinator serve` again. Then run this command again.",
        RefusalCode.INTERNAL,
    )
