"""`fedcredit doctor` on a coordinator's directory: nothing to mend in a healthy one, and each fault found."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from federated.doctor import Finding, Place, State, examine
from federated.doctor_cli import doctor
from federated.enrolment import EnrolmentRequest, node_key_text
from federated.lock import alone
from federated.round_log import Event
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.merkle import EMPTY_ROOT
from privacy.consent.signing import SigningKey
from privacy.errors import RefusalError
from server.deploy.doctor import checks
from server.deploy.members import Members
from server.deploy.round_log import RoundLog
from server.deploy.settings import Home
from server.deploy.setup import Start, make_home
from tests.federated.doctor_scene import DAY_S, Authority, answering, found, free_port, taken, wrong

NOW = int(time.time())
REGISTRY = SigningKey.from_seed(sha256(b"registry").digest())
SCHEMA = Path(__file__).parents[3] / "experiments" / "data" / "south_german" / "schema.toml"
HOLDERS = ("aster-bank", "birch-telecom")
_PROBLEM, _WARNING = State.PROBLEM, State.WARNING


def _make(directory: Path, registry_port: int) -> Home:
    ports = {free_port() for _ in range(8)}
    start = Start(
        name="open-scoring", address="fleet.example:9443", schema=SCHEMA, registry_ca=None, host="127.0.0.1",
        registry_url=f"http://127.0.0.1:{registry_port}", registry_key=REGISTRY.public.hex(), port=ports.pop(),
        superlink_port=ports.pop(), metrics_port=ports.pop(),
    )  # fmt: skip
    home = make_home(directory, start, at=NOW)
    for number, holder in enumerate(HOLDERS):
        node_key = node_key_text(ec.derive_private_key(7 ** (40 + number), ec.SECP384R1()).public_key())
        identity = SigningKey.from_seed(sha256(holder.encode()).digest()).public.hex()
        request = EnrolmentRequest(holder=holder, identity=identity, node_key=node_key, issued_at=NOW)
        Members(directory).admit(request, at=NOW)
    RoundLog(home.round_log, home.key()).append(Event.PLAN_SIGNED, at=NOW, plan="ab" * 32)
    return home


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[float], Home]]:
    """Makes a coordinator whose registry answers with a clock that is so many seconds ahead, until the test ends."""
    with ExitStack() as stack:

        def make(ahead_s: float) -> Home:
            def checkpoint(path: str) -> tuple[int, bytes]:
                if path == "/healthz":
                    return 200, b""
                assert path == f"/lanes/{HOLDERS[0]}/checkpoint"
                return 200, write_checkpoint(Head(0, EMPTY_ROOT), f"fedcredit/{HOLDERS[0]}", REGISTRY).encode()

            return _make(tmp_path / "coordinator", stack.enter_context(answering(checkpoint, ahead_s=ahead_s)))

        yield make


@pytest.fixture
def home(serve: Callable[[float], Home]) -> Home:
    return serve(0)


def _look(home: Home, *, at: int | None = None, offline: bool = False) -> list[Finding]:
    clock = time.time if at is None else lambda: float(at)
    return examine(checks(Place(home.directory, clock=clock, offline=offline)))


def test_nothing_is_wrong_with_a_coordinator_of_two(home: Home) -> None:
    findings = _look(home)
    assert wrong(findings) == {}
    assert {one.state for one in findings} == {State.OK}
    assert len(findings) == 23
    assert found(findings, "round log").found == "1 entries hold"


def test_what_was_not_asked_is_said(home: Home) -> None:
    findings = _look(home, offline=True)
    assert wrong(findings) == {}
    assert [one.what for one in findings if one.state is State.SKIPPED] == [
        *("fleet's port", "SuperLink's port", "metrics' port", "registry", "registry's certificate", "clock")
    ]


def _change(home: Home, before: str, after: str) -> None:
    path = home.directory / "coordinator.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def _shorten(home: Home) -> None:
    """Change what the log's one entry tells, as somebody would who planned something else."""
    content = home.round_log.read_bytes()
    home.round_log.write_bytes(content.replace(content[40:44], b"ffff", 1))


def _write_state(home: Home) -> None:
    home.superlink.mkdir(mode=0o700)
    (home.superlink / "state.db").write_bytes(b"no database" * 999)


def _expire(home: Home) -> None:
    """Certificates of the same authority that ran out yesterday."""
    authority = Authority(at=NOW)
    (home.tls / "current").resolve().joinpath("ca.pem").write_bytes(authority.pem)
    for name, host in (("fleet", "fleet.example"), ("superlink", "127.0.0.1")):
        authority.issue((home.tls / "current").resolve() / name, hosts=(host,), begins=-31, days=30)


def _status(state: str) -> str:
    return json.dumps({
        "version": 1, "state": state, "run": "ab" * 32, "plan": "ab" * 32, "stage": 1, "stages": 2, "what": "round 1",
        "pid": 1, "started": NOW, "updated": NOW, "holders": {}, "message": "",
    })  # fmt: skip


FAULTS: dict[str, tuple[Callable[[Home], object], dict[str, State]]] = {
    "settings": (lambda home: _change(home, "valid_hours", "valid_hour"), {"settings": _PROBLEM}),
    "key readable": (lambda home: (home.directory / "coordinator.key").chmod(0o644), {"secret files": _PROBLEM}),
    "secret readable": (lambda home: home.secret_file.chmod(0o640), {"secret files": _PROBLEM}),
    "authority's key readable": (lambda home: (home.tls / "ca.key").chmod(0o640), {"secret files": _PROBLEM}),
    "folder of keys": (lambda home: home.tls.chmod(0o755), {"secret files": _PROBLEM}),
    "no key": (
        lambda home: (home.directory / "coordinator.key").unlink(), {"keys": _PROBLEM, "round log": _PROBLEM}
    ),
    "short secret": (lambda home: home.secret_file.write_text("ab"), {"keys": _PROBLEM}),
    "schema": (lambda home: home.schema.unlink(), {"schema": _PROBLEM}),
    "members": (lambda home: home.members.write_text("{"), {"members": _PROBLEM, "registry": _PROBLEM}),
    "few members": (lambda home: Members(home.directory).revoke(HOLDERS[1], at=NOW), {"members": _WARNING}),
    "nobody": (lambda home: home.members.unlink(), {"members": _WARNING}),
    "SuperLink's database": (_write_state, {"SuperLink's database": _PROBLEM}),
    "round log": (_shorten, {"round log": _PROBLEM}),
    "run killed": (lambda home: home.status.write_text(_status("running")), {"run": _WARNING}),
    "run over": (lambda home: home.status.write_text(_status("finished")), {}),
    "program killed": (lambda home: home.serving.write_text('{"state": "running"}'), {"program": _WARNING}),
    "program stopped": (lambda home: home.serving.write_text('{"state": "stopped"}'), {}),
    "other name": (lambda home: _change(home, "fleet.example:", "door.example:"), {"fleet's certificate": _PROBLEM}),
    "expired": (_expire, {"fleet's certificate": _PROBLEM, "SuperLink's certificate": _PROBLEM}),
    "mixed keys": (
        lambda home: shutil.copy(home.tls / "fleet.key", (home.tls / "superlink.key").resolve()),
        {"SuperLink's certificate": _PROBLEM},
    ),
    "other registry key": (lambda home: _change(home, REGISTRY.public.hex(), "ab" * 32), {"registry": _PROBLEM}),
    "registry away": (
        lambda home: _change(home, "http://127.0.0.1:", "http://127.0.0.1:1/"), {"registry": _PROBLEM}
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_no_key_is_told(fault: str, home: Home) -> None:
    spoil, expected = FAULTS[fault]
    secrets = [home.key().seed.hex(), home.secret(), REGISTRY.public.hex()]
    spoil(home)
    findings = _look(home)
    assert wrong(findings) == expected
    told = json.dumps([(one.found, one.mend) for one in findings])
    assert [secret for secret in secrets if secret in told] == []
    assert all(one.mend for one in findings if one.what in expected)


def test_a_run_that_is_alive_is_not_called_interrupted(home: Home) -> None:
    home.status.write_text(_status("running"))
    with alone(home.run_lock, "held"):
        assert found(_look(home), "run").found == "running"


@pytest.mark.parametrize(
    ("setting", "what"),
    [("port", "fleet's port"), ("superlink_port", "SuperLink's port"), ("metrics_port", "metrics' port")],
)
def test_a_port_that_another_program_has_is_found(
    setting: str, what: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federated.doctor_net.PATIENCE_S", 0.3)
    with taken() as number:
        _change(home, f"\n{setting} = {getattr(home.settings.fleet, setting)}", f"\n{setting} = {number}")
        assert wrong(_look(home)) == {what: _PROBLEM}


def test_a_port_that_our_own_program_has_is_not_held_against_it(home: Home) -> None:
    with answering(lambda _: (200, b""), tls=home.tls / "fleet") as number:
        _change(home, f"\nport = {home.settings.fleet.port}", f"\nport = {number}")
        findings = _look(home)
        assert wrong(findings) == {}
        assert found(findings, "fleet's port").found == "held by our own running program"


def test_time_alone_wears_certificates_out(home: Home) -> None:
    both = ("fleet's certificate", "SuperLink's certificate")
    assert wrong(_look(home, at=NOW + 80 * DAY_S, offline=True)) == dict.fromkeys(both, _WARNING)
    assert wrong(_look(home, at=NOW + 91 * DAY_S, offline=True)) == dict.fromkeys(both, _PROBLEM)


@pytest.mark.parametrize(("ahead_s", "expected"), [(3600, {"clock": _PROBLEM}), (-3600, {"clock": _PROBLEM}), (60, {})])
def test_a_clock_an_hour_off_is_found(
    ahead_s: float, expected: dict[str, State], serve: Callable[[float], Home]
) -> None:
    assert wrong(_look(serve(ahead_s))) == expected


def test_the_command_says_no_with_exit_code_3(home: Home) -> None:
    assert CliRunner().invoke(doctor, [str(home.directory)]).exit_code == 0
    (home.directory / "coordinator.key").chmod(0o644)
    told = CliRunner().invoke(doctor, [str(home.directory), "--json", "--offline"])
    assert isinstance(told.exception, RefusalError)
    assert told.exception.exit_code == 3
    report = json.loads(told.stdout)
    assert (report["role"], report["problems"]) == ("coordinator", 1)
