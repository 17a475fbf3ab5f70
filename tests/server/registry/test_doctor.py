"""`fedcredit doctor` on a registry's directory: nothing to mend in a healthy one, and each fault found."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from federated.doctor import Finding, Place, State, examine
from federated.doctor_cli import doctor
from privacy.errors import RefusalError
from server.registry.doctor import checks
from server.registry.serve import open_registry
from server.registry.settings import Home
from tests.federated.doctor_scene import DAY_S, Authority, found, free_port, taken, wrong
from tests.registry_process import make_registry, serving
from tests.server.registry.samples import HOLDER, LANE, submission

NOW = int(time.time())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_registry(tmp_path / "registry", {LANE: HOLDER.public}, port=free_port())


def _look(home: Home, *, at: int = NOW, offline: bool = False) -> list[Finding]:
    return examine(checks(Place(home.directory, clock=lambda: at, offline=offline)))


def test_nothing_is_wrong_with_a_new_registry(home: Home) -> None:
    findings = _look(home)
    assert wrong(findings) == {}
    assert len(findings) == 13
    assert "free" in found(findings, "port").found


def test_nothing_is_wrong_with_a_registry_that_serves(home: Home) -> None:
    with serving(home):
        findings = _look(home)
    assert wrong(findings) == {}
    assert found(findings, "port").found == "held by our own running program"


def test_what_was_not_asked_is_said(home: Home) -> None:
    assert found(_look(home, offline=True), "port").state is State.SKIPPED


def _misspell(home: Home) -> None:
    path = home.directory / "registry.toml"
    path.write_text(path.read_text().replace("merge_delay_s", "merge_delay"))


def _damage(home: Home) -> None:
    (home.directory / "registry.db").write_bytes(b"no database" * 1000)


def _edit(home: Home) -> None:
    """Take the last entry away, as somebody would who hides a record."""
    with closing(sqlite3.connect(home.directory / "registry.db")) as connection:
        connection.execute("DELETE FROM entries WHERE position = 1")
        connection.commit()


def _reissue(begins: int, days: int) -> Callable[[Home], None]:
    return lambda home: (Authority(at=NOW).issue(home.certificate, begins=begins, days=days), None)[1]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_misspell, {"settings": State.PROBLEM}),
        (lambda home: (home.directory / "registry.key").chmod(0o644), {"secret files": State.PROBLEM}),
        (lambda home: (home.directory / "registry.toml").chmod(0o644), {"secret files": State.PROBLEM}),
        (lambda home: home.private_key.chmod(0o640), {"secret files": State.PROBLEM}),
        (lambda home: (home.directory / "registry.key").unlink(), {"key": State.PROBLEM, "lanes": State.PROBLEM}),
        (_damage, {"database": State.PROBLEM, "lanes": State.PROBLEM}),
        (_edit, {"lanes": State.PROBLEM}),
        (lambda home: (home.directory / "registry.db").unlink(), {"database": State.PROBLEM}),
        (lambda home: home.certificate.write_text("nothing"), {"certificate": State.PROBLEM}),
        (_reissue(-30, 29), {"certificate": State.PROBLEM}),
        (_reissue(3, 29), {"certificate": State.PROBLEM}),
        (_reissue(-30, 40), {"certificate": State.WARNING}),
    ],
)
def test_each_fault_is_found(spoil: Callable[[Home], None], what: dict[str, State], home: Home) -> None:
    with closing(open_registry(home)) as registry:
        registry.append(LANE, [submission("one"), submission("two")])
    assert wrong(_look(home)) == {}
    spoil(home)
    findings = _look(home)
    assert wrong(findings) == what
    assert all(one.mend for one in findings if one.state in (State.PROBLEM, State.WARNING))


def test_somebody_elses_program_on_the_port_is_found(home: Home) -> None:
    with taken() as number:
        path = home.directory / "registry.toml"
        path.write_text(path.read_text().replace(f"port = {home.settings.port}", f"port = {number}"))
        assert wrong(_look(home)) == {"port": State.PROBLEM}


def test_time_alone_wears_a_certificate_out(home: Home) -> None:
    assert wrong(_look(home, at=NOW + 390 * DAY_S)) == {"certificate": State.WARNING}
    assert wrong(_look(home, at=NOW + 400 * DAY_S)) == {"certificate": State.PROBLEM}


def test_the_command_tells_people_and_machines_and_says_no(home: Home) -> None:
    told = CliRunner().invoke(doctor, [str(home.directory), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["role"] == "registry"
    assert json.loads(told.output)["problems"] == 0
    (home.directory / "registry.key").chmod(0o644)
    told = CliRunner().invoke(doctor, [str(home.directory)])
    assert isinstance(told.exception, RefusalError)
    assert told.exception.exit_code == 3
    assert f"-> chmod 600 {home.directory / 'registry.key'}" in told.output
