"""Units for systemd: what starts, as whom, kept in which place; and `fedcredit units` around them."""

import configparser
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from federated.cli import COMMANDS
from federated.doctor_cli import ROLES, units
from federated.units import unit_for, write_unit
from privacy.errors import UsageError

ALL = [role for role, _ in ROLES.values()]


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _read(text: str) -> _Unit:
    unit = _Unit(delimiters=("=",), comment_prefixes=("#",), strict=True, interpolation=None)
    unit.read_string(text)
    return unit


def _service(role: str, place: Path, program: str = "/opt/fedcredit/bin/fedcredit") -> configparser.SectionProxy:
    return _read(unit_for(role, place, account="aster", program=Path(program)).text)["Service"]


@pytest.mark.parametrize("role", ALL)
def test_a_unit_keeps_its_program_in_its_place(role: str, tmp_path: Path) -> None:
    made = unit_for(role, tmp_path / "here", account="aster", program=Path("/opt/fedcredit/bin/fedcredit"))
    assert re.match(r"fedcredit-[a-z-]+\.service\Z", made.name)
    unit = _read(made.text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    assert service["Type"] == "exec"
    assert service["User"] == "aster"
    assert service["ExecStart"].startswith("/opt/fedcredit/bin/fedcredit ")
    assert str(tmp_path / "here") in shlex.split(service["ExecStart"])
    assert service["ReadWritePaths"] == str(tmp_path / "here")
    assert service["ProtectSystem"] == "strict"
    assert service["ProtectHome"] == "yes"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert service["SystemCallFilter"] == "@system-service"
    assert service["RestrictAddressFamilies"] == "AF_UNIX AF_INET AF_INET6"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2 4 5"
    assert {service[key] for key in ("NoNewPrivileges", "PrivateTmp", "MemoryDenyWriteExecute")} == {"yes"}
    assert "Environment" not in service
    assert "EnvironmentFile" not in service
    assert unit["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.parametrize("role", ALL)
def test_what_a_unit_starts_is_a_command_that_there_is(role: str, tmp_path: Path) -> None:
    _, group, *rest = shlex.split(_service(role, tmp_path)["ExecStart"])
    command = getattr(import_module(COMMANDS[group][0]), group)
    assert isinstance(command, click.Group)
    with click.Context(command) as context:
        name, found, arguments = command.resolve_command(context, rest)
    assert found is not None
    found.make_context(name, list(arguments))  # raises for an option or argument that it does not know


def test_a_directory_in_somebodys_home_is_not_hidden_from_its_own_program() -> None:
    for place, home in (("/home/aster/node", "read-only"), ("/root/node", "read-only"), ("/srv/node", "yes")):
        assert _service("registry", Path(place))["ProtectHome"] == home
    assert _service("registry", Path("/srv/node"), "/home/aster/.venv/bin/fedcredit")["ProtectHome"] == "read-only"


def test_odd_paths_are_one_word_and_mean_themselves() -> None:
    service = _service("registry", Path('/srv/a b/100%/"$HOME"'), "/opt/bin/fedcredit")
    # systemd.syntax(7): quotes as in a shell, a percent sign and in commands a dollar sign are written twice.
    assert service["ExecStart"] == '/opt/bin/fedcredit registry serve "/srv/a b/100%%/\\"$$HOME\\""'
    assert service["ReadWritePaths"] == '"/srv/a b/100%%/\\"$HOME\\""'


@pytest.mark.parametrize("account", ["", "Root", "a b", "x\nUser=root", "-x", "a" * 33])
def test_an_account_that_is_none_is_refused(account: str) -> None:
    with pytest.raises(UsageError):
        unit_for("registry", Path("/srv/node"), account=account)


def test_no_path_writes_a_line_of_its_own() -> None:
    with pytest.raises(UsageError):
        unit_for("registry", Path("/srv/a\nUser=root"), account="aster")


def test_a_file_is_written_once(tmp_path: Path) -> None:
    unit = unit_for("data holder", Path("/srv/node"), account="aster")
    assert write_unit(unit, tmp_path).read_text() == unit.text
    assert [path.name for path in tmp_path.iterdir()] == ["fedcredit-holder.service"]
    with pytest.raises(UsageError, match="exists"):
        write_unit(unit, tmp_path)


def test_systemd_itself_can_read_them_where_it_is_there(tmp_path: Path) -> None:
    files = [write_unit(unit_for(role, tmp_path, account="root"), tmp_path) for role in ALL]
    assert len(files) == 3
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        done = subprocess.run([verify, "verify", *map(str, files)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
        # Two keys are of version 254; earlier ones pass over them.
        assert [line for line in complaints if "RestartSteps" not in line and "RestartMaxDelaySec" not in line] == []


def test_the_command_prints_or_writes_a_unit(tmp_path: Path) -> None:
    node, out = tmp_path / "node", tmp_path / "units"
    node.mkdir()
    out.mkdir()
    assert isinstance(CliRunner().invoke(units, [str(node)]).exception, UsageError)
    (node / "registry.toml").touch()
    printed = CliRunner().invoke(units, [str(node), "--account", "aster"])
    assert printed.exit_code == 0
    assert _read(printed.stdout)["Service"]["User"] == "aster"
    assert CliRunner().invoke(units, [str(node), "--out", str(out)]).exit_code == 0
    assert [path.name for path in out.iterdir()] == ["fedcredit-registry.service"]
    (node / "holder.toml").touch()
    assert isinstance(CliRunner().invoke(units, [str(node)]).exception, UsageError)
