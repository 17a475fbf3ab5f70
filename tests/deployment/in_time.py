"""What a test waits for: a run that is in a round, and a program that answers again."""

import subprocess
import time

from clients.holder.serve import SERVING
from clients.holder.serve_status import STATUS, WORKER, NodeState, ServeStatus, WorkerStatus
from clients.holder.serve_status import read_status as read_serve_status
from server.deploy.run_status import State, read_status
from server.deploy.settings import Home
from tests.deployment.live import Live, listens

BEGUN_WITHIN_S = 60.0


def wait_for_round(live: Live, run: "subprocess.Popen[str]") -> None:
    """Return once the run that is under way asks for its first release, in a round that nobody has answered yet."""
    path, end = Home.open(live.coordinator).status, time.monotonic() + BEGUN_WITHIN_S
    while True:
        status = read_status(path)
        if status is not None and (status.pid, status.state, status.stage) == (run.pid, State.RUNNING, 1):
            return
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < end, f"{status}{live.logs()}"
        time.sleep(0.02)


def restart(live: Live, name: str, port: int) -> None:
    """Have a party's program that was killed started again, and return once somebody listens on its port."""
    assert live.supervisor is not None
    fates = live.supervisor.fates()
    starts = fates[name].starts
    supervisor = live.supervisor
    live.until(lambda: supervisor.fates()[name].starts > starts and listens(port), f"{name} is there again")


def is_ready(live: Live, name: str) -> bool:
    """Whether the programs that run now at a data holder are connected and answer."""
    place = live.holder(name) / SERVING
    serving, worker = read_serve_status(place / STATUS, ServeStatus), read_serve_status(place / WORKER, WorkerStatus)
    return worker is not None and worker.ready and serving is not None and serving.state is NodeState.ONLINE
