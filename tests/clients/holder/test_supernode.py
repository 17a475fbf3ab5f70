"""Flower's real SuperNode under our launcher, beside a coordinator that answers wrongly: it ends, or leaves signs."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.holder import supernode
from clients.holder.supernode import Heard, end_with_thread
from federated.flower_home import flower_environment
from tests.clients.holder.fake_fleet import DEACTIVATE, HEARTBEAT, PULL, FakeFleet, fake_fleet
from tests.clients.holder.fleet_bed import until

HEARD = ("POST", "https://fleet.example:9092/v1/fleet/pull-messages", "HTTP/1.1", 200, "OK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def started(directory: Path, fleet: FakeFleet) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-P", "-m", "clients.holder.supernode", str(directory / "sign"), "--insecure",
        "--superlink", fleet.address, "--isolation", "process", "--host", "127.0.0.1", "--port", str(free_port()),
    ]  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env=flower_environment(directory), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["pull_messages", "send_node_heartbeat"])
def test_a_connection_that_is_not_mended_ends_the_process_in_order(tmp_path: Path, failing: str) -> None:
    with fake_fleet(**{failing: 500}) as fleet, started(tmp_path, fleet) as process:
        until(lambda: process.poll() is not None, told=(tmp_path / "log").read_text)
        assert "Server error '500" in (tmp_path / "log").read_text()
        assert fleet.asked[-2:].count(DEACTIVATE) == 1  # with a good-bye, so that it is let in again at once


@pytest.mark.slow
def test_while_it_is_answered_it_leaves_signs_and_goes_on_after_an_answer_that_is_tried_again(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    with fake_fleet() as fleet, started(tmp_path, fleet) as process:
        until(lambda: fleet.asked.count(PULL) >= 2 and sign.exists(), told=(tmp_path / "log").read_text)
        assert HEARTBEAT in fleet.asked
        assert sign.stat().st_mode & 0o777 == 0o600
        first = sign.stat().st_mtime_ns
        until(lambda: sign.stat().st_mtime_ns > first)
        fleet.statuses = {PULL: 503}
        until(lambda: "Connection attempt failed" in (tmp_path / "log").read_text())
        fleet.statuses = {}
        until(lambda: "Connection successful" in (tmp_path / "log").read_text())
        assert process.poll() is None
        process.terminate()
        assert process.wait(20) == 0  # its own orderly exit
    assert "HTTP Request" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (HEARD, True),
        ((*HEARD[:3], 500, "Internal Server Error"), False),
        ((*HEARD[:3], 302, "Found"), False),
        (("GET", "https://fleet.example:9092/health", *HEARD[2:]), False),
        ((*HEARD[:3], "200", "OK"), False),
        (HEARD[:2], False),
        ((), False),
    ],
)
def test_only_an_answer_of_success_from_the_fleet_is_a_sign(
    tmp_path: Path, arguments: tuple[object, ...], heard: bool
) -> None:
    Heard(tmp_path / "sign").emit(logging.LogRecord("httpx", logging.INFO, "", 0, "text", arguments, None))
    assert (tmp_path / "sign").exists() == heard


def test_a_sign_that_cannot_be_left_ends_nothing(tmp_path: Path) -> None:
    Heard(tmp_path / "no" / "sign").emit(logging.LogRecord("httpx", logging.INFO, "", 0, "text", HEARD, None))


@pytest.mark.parametrize("status", [401, 500, None])
def test_a_thread_that_fails_ends_the_process_unless_flower_does(
    status: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class AnsweredError(Exception):
        response = type("Response", (), {"status_code": status}) if status is not None else None

    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: sent.append(pid))
    end_with_thread(threading.ExceptHookArgs((AnsweredError, AnsweredError("planted"), None, None)))
    assert sent == ([] if status == 401 else [os.getpid()])
    assert "AnsweredError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "code"), [("lambda: None", 1), ("lambda: 1 / 0", 1), ("lambda: sys.exit(3)", 3), ("sys.exit", 0)]
)
def test_the_process_ends_with_its_program_whatever_threads_it_leaves(program: str, code: int) -> None:
    lasting = f"threading.Thread(target=lambda: time.sleep(600), daemon={program.startswith(('lambda: sys', 'sys'))})"
    text = f"import sys, threading, time\nfrom {supernode.__name__} import run\n{lasting}.start()\nrun({program})\n"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code
    assert ("ZeroDivisionError" in done.stderr) == ("1 / 0" in program)
