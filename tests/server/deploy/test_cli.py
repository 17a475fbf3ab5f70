"""`fedcredit coordinator` as it is typed: results on stdout, the rest on stderr, and an exit code for each family."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from federated.round_log import Event
from privacy.errors import UsageError
from server.deploy.cli import coordinator
from server.deploy.round_log import RoundLog
from server.deploy.runs import Finished, Runs
from server.deploy.settings import Home
from server.deploy.stopping import Stopped
from tests.ready import HOLDERS, ready_in
from tests.server.deploy.home import coordinator_home, enrol_everybody
from tests.small_federation import DATA

INIT = [
    "--name", "open-scoring", "--address", "127.0.0.1:9443", "--schema", str(DATA / "schema.toml"),
    "--registry-url", "https://registry.example:8443", "--registry-key", "ab" * 32,
]  # fmt: skip


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(coordinator, list(arguments), catch_exceptions=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    ready = ready_in(tmp_path / "federation")
    made = coordinator_home(ready)
    enrol_everybody(ready, made)
    ready.registry.close()
    return made


@pytest.mark.parametrize("name", ["init", "plan", "publish", "resume", "run", "status", "stop"])
def test_every_command_has_an_example(name: str) -> None:
    command = coordinator.commands[name]
    assert (command.epilog or "").startswith(f"Example: fedcredit coordinator {name} ")
    assert command.help


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nimport server.deploy.cli\n"
        "heavy = {'numpy', 'flwr', 'rich', 'httpx', 'msgspec', 'cryptography'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_init_tells_the_key_and_its_fingerprint_and_what_is_next(tmp_path: Path) -> None:
    done = typed("init", str(tmp_path / "c"), *INIT)
    home = Home.open(tmp_path / "c")
    assert home.key().public.hex() in done.stdout
    assert re.search(r"fingerprint.*: (\d{3} ){7}\d{3}\n", done.stdout)
    assert "next:" in done.stderr
    assert home.key().seed.hex() not in done.output
    with pytest.raises(UsageError, match="nothing is overwritten"):
        typed("init", str(tmp_path / "c"), *INIT)


def test_init_in_json_is_nothing_but_json(tmp_path: Path) -> None:
    done = typed("init", str(tmp_path / "c"), *INIT, "--json", "--epsilon", "0.5", "--people", "700")
    told = json.loads(done.stdout)
    home = Home.open(tmp_path / "c")
    assert told["key"] == home.key().public.hex()
    assert (home.settings.plan.epsilon, home.settings.plan.people) == (0.5, 700)


def test_plan_tells_what_will_be_signed_for(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    told = json.loads(typed("plan", "--directory", str(home.directory), "--out", str(out), "--json").stdout)
    assert told["holders"] == list(HOLDERS)
    assert out.read_bytes() == home.plan.read_bytes()
    shown = typed("plan", "--directory", str(home.directory), "--show", told["digest"])
    for text in (
        "epsilon 1",
        "delta 1e-05",
        "one person",
        "add or remove one person",
        "exact Gaussian DP",
        told["reason"],
    ):
        assert text in shown.stdout
    assert all(text in shown.stdout for text in told["privacy"]["excludes"])
    assert len(RoundLog(home.round_log, home.key()).entries) == 1
    some = typed("plan", "--directory", str(home.directory), "--holders", f"{HOLDERS[0]}, {HOLDERS[1]}", "--json")
    assert json.loads(some.stdout)["holders"] == list(HOLDERS[:2])


def test_run_and_resume_tell_where_the_model_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    finished = Finished("r" * 32, "p" * 64, home.runs / "r", HOLDERS[:2], {HOLDERS[2]: "lane"}, was_there=False)

    def done(_: Runs, **options: object) -> Finished:
        asked.append(options)
        return finished

    monkeypatch.setattr(Runs, "run", done)
    monkeypatch.setattr(Runs, "resume", done)
    told = typed("run", "--directory", str(home.directory), "--deadline", "5", "--abandon")
    assert str(home.runs / "r") in told.stdout
    assert f"not in it: {HOLDERS[2]} (lane)" in told.stdout
    told = typed("resume", "--directory", str(home.directory), "--json")
    assert json.loads(told.stdout)["refused"] == {HOLDERS[2]: "lane"}
    assert asked == [{"plan": None, "deadline_s": 5.0, "abandon": True}, {"deadline_s": None}]


def test_a_run_that_is_told_to_stop_ends_with_130_and_says_how_to_go_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: Runs, **options: object) -> NoReturn:
        raise Stopped

    monkeypatch.setattr(Runs, "run", stopped)
    done = typed("run", "--directory", str(home.directory))
    assert done.exit_code == 130
    assert "coordinator resume" in done.stderr
    assert done.stdout == ""


def test_stop_without_a_run_and_publish_without_one_are_mistakes_of_use(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        typed("stop", "--directory", str(home.directory))
    with pytest.raises(UsageError):
        typed("publish", "--directory", str(home.directory), "--out", str(tmp_path / "bundle"))
    with pytest.raises(UsageError, match="no coordinator's directory"):
        typed("status", "--directory", str(tmp_path))


def test_status_exits_with_the_family_of_what_is_wrong(home: Home) -> None:
    from server.deploy.tls import make_tls

    make_tls(home.directory, "127.0.0.1", 1_793_491_200)
    assert typed("status", "--directory", str(home.directory)).exit_code == 0
    RoundLog(home.round_log, home.key()).append(Event.PLAN_SIGNED, at=1, plan="x")
    home.round_log.write_bytes(home.round_log.read_bytes().replace(b'"x"', b'"y"'))
    done = typed("status", "--directory", str(home.directory), "--json")
    assert done.exit_code == 5
    assert json.loads(done.stdout)["log_holds"] is False
