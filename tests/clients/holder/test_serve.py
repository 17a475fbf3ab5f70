"""`fedcredit holder serve`: its programs for real, beside a real SuperLink; and what `holder status` says of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.holder import serve as serve_module
from clients.holder.fleet import CA_FILE, NODE_KEY, Fleet
from clients.holder.serve import SERVING, Serving, Stop, holder_in, programs, serve
from clients.holder.serve_status import (
    LOCK,
    STATUS,
    WORDS,
    WORKER,
    LastLetter,
    NodeState,
    ProgramStatus,
    ServeStatus,
    WorkerStatus,
    read_status,
    write_status,
)
from clients.holder.serve_told import REFUSED_WORDS, tell_status
from federated.app_bundle import _digest, files
from federated.flower_home import flower_program
from federated.lock import alone
from federated.logs import LogForm
from federated.messages import Instruction, Letter, Refused
from federated.programs import Program
from privacy.errors import RefusalCode, RefusalError, UsageError
from tests.clients.holder.fleet_bed import FleetBed, until
from tests.ready import ASTER, AT, Ready, joined_by
from tests.small_federation import small_federation

UNKNOWN_RUN = Letter(Instruction("no-such-run", 1, [ASTER]))


def status_of(home: Path, **changes: Any) -> ServeStatus:
    status = ServeStatus(
        version=1, holder=ASTER, coordinator="open-scoring", address="fleet.example:9092", state=NodeState.ONLINE,
        since=AT - 60, online_at=AT, started=AT - 120, pid=1,
        programs={"supernode": ProgramStatus(2, 1, -9), "worker": ProgramStatus(3, 0, None)},
    )  # fmt: skip
    status = msgspec.structs.replace(status, **changes)
    (home / SERVING).mkdir(exist_ok=True)
    write_status(home / SERVING / STATUS, status)
    return status


def test_nothing_served_yet_is_told_with_what_there_is(ready: Ready) -> None:
    facts, lines = tell_status(ready.home(), at=AT + 5)
    assert (facts["serving"], facts["do"]) == ("stopped", [])
    assert facts["lane"]["age_s"] == 5
    assert facts["ledger"]["entries"] >= 0
    assert lines[0] == f"{ASTER}: not served"


def test_what_runs_is_told_by_the_lock_and_not_by_what_was_written(ready: Ready) -> None:
    home = ready.home()
    status_of(home)
    facts, lines = tell_status(home, at=AT)
    assert facts["serving"] == "interrupted"
    assert "node" not in facts
    assert "fedcredit holder serve" in lines[-1]
    with alone(home / SERVING / LOCK, "taken"):
        facts, lines = tell_status(home, at=AT)
    assert (facts["serving"], facts["node"], facts["ready"]) == ("running", "online", False)
    assert facts["programs"]["supernode"] == {"pid": 2, "restarts": 1, "last_exit": -9}
    status_of(home, programs={})
    assert tell_status(home, at=AT)[0]["serving"] == "stopped"


@pytest.mark.parametrize("state", [state for state in NodeState if state is not NodeState.ONLINE])
def test_whatever_keeps_it_from_the_coordinator_is_said_with_what_to_do(ready: Ready, state: NodeState) -> None:
    home = ready.home()
    status_of(home, state=state)
    with alone(home / SERVING / LOCK, "taken"):
        facts, lines = tell_status(home, at=AT)
    assert facts["do"] == [WORDS[state]]
    assert lines[-1] == f"To do: {WORDS[state]}"


def test_a_worker_that_does_not_begin_says_why(ready: Ready) -> None:
    home = ready.home()
    status_of(home)
    write_status(home / SERVING / WORKER, WorkerStatus(False, AT, "the ledger is older than it was", 0, 0, None))
    with alone(home / SERVING / LOCK, "taken"):
        facts, _ = tell_status(home, at=AT)
    assert (facts["ready"], facts["do"]) == (False, ["the ledger is older than it was"])


@pytest.mark.parametrize("code", list(RefusalCode))
def test_the_last_refusal_is_told_in_words(ready: Ready, code: RefusalCode) -> None:
    home = ready.home()
    status_of(home)
    letter = LastLetter("instruction", "run", 2, AT, 1200, code, None)
    write_status(home / SERVING / WORKER, WorkerStatus(True, AT, None, 7, 3, letter))
    with alone(home / SERVING / LOCK, "taken"):
        facts, lines = tell_status(home, at=AT)
    assert facts["last"]["refused"] == code.value
    assert any(REFUSED_WORDS[code] in line for line in lines)
    json.dumps(facts)


@pytest.mark.parametrize("file", [STATUS, WORKER])
def test_a_damaged_status_file_is_as_none(ready: Ready, file: str) -> None:
    home = ready.home()
    status_of(home)
    (home / SERVING / file).write_bytes(b"\xff{")
    with alone(home / SERVING / LOCK, "taken"):
        assert tell_status(home, at=AT)[0]["serving"] == "running"


def test_a_ledger_that_does_not_hold_is_said_once(ready: Ready) -> None:
    home = ready.home()
    with ready.session() as session:
        joined_by(session.holders, ready.opening())
    (home / "ledger.db").write_bytes(b"not what it was" * 1000)
    facts, _ = tell_status(home, at=AT)
    assert facts["do"] == [facts["fault"]]
    status_of(home)
    write_status(home / SERVING / WORKER, WorkerStatus(False, AT, facts["fault"], 0, 0, None))
    with alone(home / SERVING / LOCK, "taken"):
        facts, _ = tell_status(home, at=AT)
    assert facts["do"] == [facts["fault"]]


def test_a_directory_that_cannot_be_written_is_said(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fleet, "load", lambda *_, **__: None)
    (ready.home() / SERVING).write_bytes(b"a file where the directory should be")
    with pytest.raises(RefusalError, match="serving cannot be made"):
        serve(Serving(ready.home(), ASTER, LogForm.HUMAN, False, print), Stop())


def test_where_a_port_is_taken_it_goes_on_with_another_one_and_stays_there(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ready.home()
    fleet = Fleet("fleet.example:9092", home / CA_FILE, home / NODE_KEY, "open-scoring")
    monkeypatch.setattr(Fleet, "load", lambda *_, **__: fleet)
    ports = iter([1, 2, 3])
    monkeypatch.setattr(serve_module, "_free_port", lambda: next(ports))
    tried = list[int]()

    def stand_in(serving: Serving, fleet: Fleet, *, port: int) -> list[Program]:
        tried.append(port)
        supernode, *_ = programs(serving, fleet, port=port)
        taken = "raise SystemExit('bind: address already in use')"
        connected = "import time; time.sleep(0.7); print('SuperNode ID: 1', flush=True); time.sleep(99)"
        command = (sys.executable, "-c", taken if port == 1 else connected)
        return [replace(supernode, command=command)]

    monkeypatch.setattr(serve_module, "programs", stand_in)
    stop = Stop()

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        if (told := read_status(home / SERVING / STATUS, ServeStatus)) and told.state is NodeState.ONLINE:
            stop.ring()
        return stop.rung

    monkeypatch.setattr(stop, "wait", wait)
    serve(Serving(home, ASTER, LogForm.HUMAN, False, print), stop)
    assert tried == [1, 2]


def test_without_a_fleet_or_a_data_holder_it_is_said_what_to_do(ready: Ready, tmp_path: Path) -> None:
    serving = Serving(ready.home(), ASTER, LogForm.HUMAN, False, print)
    with pytest.raises(UsageError, match="fedcredit holder join"):
        serve(serving, Stop())
    with pytest.raises(UsageError, match="no data holder's directory"):
        holder_in(tmp_path)


def test_command_lines_and_environments_hold_paths_and_addresses_only(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_LOG_LEVEL", "DEBUG")
    home = ready.home()
    fleet = Fleet("fleet.example:9092", home / CA_FILE, home / NODE_KEY, "open-scoring")
    made = programs(Serving(home, ASTER, LogForm.JSON, True, print), fleet, port=9094)
    assert [one.name for one in made] == ["supernode", "worker", "sync"]
    assert "FLWR_LOG_LEVEL" not in made[0].environment
    assert made[0].environment["FLWR_HOME"] == str(home / SERVING / "supernode")
    assert "--isolation process" in " ".join(made[0].command)
    assert made[1].command[1:4] == ("-P", "-m", "clients.holder.worker")
    assert [one.name for one in programs(Serving(home, ASTER, LogForm.JSON, False, print), fleet, port=1)] == [
        "supernode", "worker",
    ]  # fmt: skip


def test_the_supervisor_imports_nothing_that_reads_rows() -> None:
    code = (
        "import sys, clients.holder.serve, clients.holder.cli_serve\n"
        "sys.exit(str({'numpy', 'flwr', 'httpx', 'sqlite3'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[FleetBed]:
    made = FleetBed(tmp_path / "bed")
    yield made
    made.close()


def write_app(app: Path) -> None:
    for name, content in files().items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_bytes(content)


def approve(home: Path, app: Path) -> None:
    packed = {path.relative_to(app).as_posix(): path.read_bytes() for path in app.rglob("*") if path.is_file()}
    text = (home / "holder.toml").read_text()
    text, changed = re.subn(r"(?m)^bundles = .*$", f'bundles = ["{_digest(packed)}"]', text)
    assert changed == 1
    (home / "holder.toml").write_text(text)


class Served:
    """`holder serve` as a person starts it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        command = [flower_program("fedcredit"), "holder", "serve", "--no-sync", "--directory", str(home)]
        with (home.parent / "serve.err").open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def status(self) -> dict[str, Any]:
        command = [flower_program("fedcredit"), "holder", "status", "--json", "--directory", str(self.home)]
        facts = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert isinstance(facts, dict)
        return facts

    def pid(self, name: str) -> int | None:
        status = read_status(self.home / SERVING / STATUS, ServeStatus)
        return None if status is None or name not in status.programs else status.programs[name].pid

    def state(self) -> str | None:
        status = read_status(self.home / SERVING / STATUS, ServeStatus)
        return None if status is None else status.state.value

    def told(self) -> str:
        logs = sorted((self.home / "serving").glob("*.log"))
        return (
            "".join(f"\n--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)
            + (self.home.parent / "serve.err").read_text()
        )

    def processes(self) -> list[int]:
        """Whatever runs for this directory, as the kernel knows it."""
        mark = str(self.home).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]


@contextmanager
def served(home: Path) -> Iterator[Served]:
    made = Served(home)
    try:
        yield made
    finally:
        made.process.terminate()
        try:
            made.process.wait(20)
        finally:
            made.process.kill()
            made.process.communicate()


def _write_app(app: Path) -> None:
    for name, content in files().items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_bytes(content)


@pytest.mark.slow
def test_one_command_serves_a_data_holder(tmp_path: Path, bed: FleetBed) -> None:
    federation, registry = small_federation(tmp_path / "federation", at=int(time.time()))
    registry.close()
    home = federation.holder_directory(ASTER)
    agreed, strange, traces = tmp_path / "agreed", tmp_path / "strange", tmp_path / "it-ran"
    for app in (agreed, strange):
        _write_app(app)
    # Whoever imports anything of this bundle leaves a file.
    for path in strange.rglob("*.py"):
        path.write_text(f"open({str(traces)!r}, 'a').write(__name__)\n" + path.read_text())
    approve(home, agreed)
    bed.join(home, enrolled=False)
    with served(home) as serving:
        until(lambda: serving.state() == NodeState.KEY_REFUSED.value, told=serving.told)
        bed.enrol(home)
        assert serving.line() == f"serving as {ASTER} for open-scoring at {bed.address}\n", serving.told()
        _is_answered_by_its_own_code(serving, bed, agreed, strange, traces)
        _tells_nothing_to_others(serving)
        _comes_back(serving, bed, agreed)
        second = Served(home)
        assert second.process.wait(30) == 3
        second.process.communicate()
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(20) == 0, serving.told()
        assert serving.processes() == []
        facts = serving.status()
        assert (facts["serving"], facts["last"]["refused"]) == ("stopped", "plan")


def _is_answered_by_its_own_code(serving: Served, bed: FleetBed, agreed: Path, strange: Path, traces: Path) -> None:
    with bed.run(agreed) as run:
        begun = time.monotonic()
        assert run.letter(UNKNOWN_RUN) == Letter(Refused(ASTER, RefusalCode.PLAN))
        print("exchange", time.monotonic() - begun)
    facts = serving.status()
    assert (facts["serving"], facts["node"], facts["ready"]) == ("running", "online", True), facts
    assert facts["last"]["kind"] == "instruction"
    assert (facts["last"]["run"], facts["last"]["stage"], facts["last"]["refused"]) == ("no-such-run", 1, "plan")
    assert facts["ledger"]["entries"] >= 0
    assert facts["do"] == []
    with bed.run(strange) as run:
        traces.unlink(missing_ok=True)  # who submits a bundle looks into it
        assert run.letter(UNKNOWN_RUN) == Letter(Refused(ASTER, RefusalCode.BUNDLE))
    assert not traces.exists()
    assert serving.status()["last"]["refused"] == "bundle"


def _tells_nothing_to_others(serving: Served) -> None:
    home = serving.home
    secrets = [path.read_bytes() for path in (home / "keys").iterdir()] + [
        (home / "serving" / "superexec.secret").read_bytes()
    ]
    planted = [text for secret in secrets for text in (secret, secret.hex().encode(), secret[40:90])]
    customers = [line.split(",")[0] for line in (home / "rows.csv").read_text().splitlines()[1:]]
    planted += [f" {customer} ".encode() for customer in customers]
    places = [path for path in (home / "serving").rglob("*") if path.is_file() and path.name != "superexec.secret"]
    for pid in serving.processes():
        places += [Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")]
    assert len(places) > 8
    for place in places:
        content = place.read_bytes().replace(b"\0", b" ")
        assert [text for text in planted if text and text in content] == [], place
        if place.is_relative_to(home) and place.suffix in (".log", ".json", ".secret"):
            assert place.stat().st_mode & 0o077 == 0, place


def _comes_back(serving: Served, bed: FleetBed, app: Path) -> None:
    for name in ("worker", "supernode"):
        pid = serving.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name, pid=pid: serving.pid(name) not in (None, pid), told=serving.told)  # type: ignore[misc]
    until(lambda: serving.state() == NodeState.ONLINE.value, told=serving.told)
    with bed.run(app) as run:
        assert run.letter(UNKNOWN_RUN) == Letter(Refused(ASTER, RefusalCode.PLAN))
    programs = serving.status()["programs"]
    assert programs["worker"]["restarts"] >= 1
    assert programs["supernode"]["restarts"] >= 1
