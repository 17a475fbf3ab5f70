"""A run in a process of its own is stopped from another one, or killed; what is left tells the truth."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from federated.files import write_whole
from federated.lock import is_held
from federated.plan import sign_plan
from federated.round_log import Event
from privacy.errors import RefusalError
from server.coordinator import Coordinator, Pinned
from server.deploy import unfinished
from server.deploy.round_log import RoundLog
from server.deploy.run_status import read_status
from server.deploy.runs import signed_plan
from server.deploy.settings import SETTINGS_FILE, Home
from server.deploy.status import report
from server.deploy.stopping import stop_run
from tests.ready import ready_in
from tests.server.deploy.home import coordinator_home, runs_of

ROOT = Path(__file__).parent.parent.parent.parent
PATIENCE_S = 60.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    ready = ready_in(tmp_path / "federation")
    ready.registry.close()
    made, now = coordinator_home(ready), int(time.time())
    settings = made.directory / SETTINGS_FILE
    settings.write_text(settings.read_text().replace("nodes_deadline_s = 0.2", "nodes_deadline_s = 600"))
    plan = Coordinator(made.directory, pinned=Pinned(signed_plan(made, None), {})).plan
    due = msgspec.structs.replace(plan, not_before=now - 60, ends=now + 3600)
    write_whole(made.plan, msgspec.json.encode(sign_plan(due, made.key())))
    return Home.open(made.directory)


@contextmanager
def waiting(home: Home) -> Iterator["subprocess.Popen[str]"]:
    """A run that waits for nodes, until the end of the block."""
    command = [sys.executable, "-m", "tests.server.deploy.waiting_run", str(home.directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + PATIENCE_S
            while (status := read_status(home.status)) is None or "nodes" not in status.what:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.05)
            assert status.pid == process.pid
            yield process
        finally:
            process.kill()


def test_stop_ends_it_in_order_and_waits_until_it_has_ended(home: Home) -> None:
    with waiting(home) as process:
        assert stop_run(home) == process.pid
        assert not is_held(home.run_lock)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "coordinator resume" in errors
    assert "Traceback" not in errors
    assert report(home, at=int(time.time()))[0].state == "stopped"
    assert unfinished.kept(home.directory) is not None
    events = [entry.event for entry in RoundLog(home.round_log, home.key()).entries]
    assert events == [Event.RUN_BEGUN, Event.STOPPED]


def test_killed_it_is_told_as_interrupted_and_another_cannot_begin_before_it_is_given_up(home: Home) -> None:
    with waiting(home) as process:
        second = subprocess.run(process.args, cwd=ROOT, capture_output=True, text=True, check=False)
        assert second.returncode == 3
        assert "under way already" in second.stderr
        assert report(home, at=0)[0].state == "waiting"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    told = report(home, at=0)[0]
    assert (told.state, told.run_is_alive) == ("interrupted", False)
    assert told.unfinished_run == (told.last or {})["run"]
    ready = ready_in(home.directory.parent.parent / "other")
    with pytest.raises(RefusalError, match="begun and is not finished"):
        runs_of(ready, home).run()
    ready.registry.close()
