"""`fedcredit doctor` on a data holder's directory: nothing to mend in a healthy one, each fault found, nobody named."""

import json
import shutil
import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from clients.holder.doctor import checks
from clients.holder.fleet import CA_FILE, NODE_KEY, FleetSettings, new_node_key, save_fleet
from clients.holder.ledger_told import ledger_of
from federated.doctor import Finding, Place, State, examine
from federated.doctor_cli import doctor
from privacy.errors import RefusalError
from tests.clients.holder.desk_scene import LANE, Person, Scene, grant
from tests.federated.doctor_scene import DAY_S, Authority, answering, found, wrong

NOW = int(time.time())
CUSTOMER = "customer-4711"
AUTHORITY = Authority(at=NOW)
_PROBLEM, _WARNING = State.PROBLEM, State.WARNING


@dataclass
class Node:
    """A data holder that has synced and joined, while its registry and its coordinator answer."""

    scene: Scene
    person: Person

    @property
    def directory(self) -> Path:
        return self.scene.directory

    def look(self, *, at: int | None = None, offline: bool = False) -> list[Finding]:
        clock = time.time if at is None else lambda: float(at)
        return examine(checks(Place(self.directory, clock=clock, offline=offline)))

    def change(self, before: str, after: str) -> None:
        path = self.directory / "holder.toml"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def execute(self, database: str, *statements: str) -> None:
        with closing(sqlite3.connect(self.directory / database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()


@dataclass
class Answering:
    """What the registry and the coordinator's door answer, and how far their clocks are off."""

    registry_ahead_s: float = 0
    fleet_ahead_s: float = 0
    registry_status: int = 200
    fleet_status: int = 200


def _make(directory: Path) -> Node:
    node = Node(Scene(directory), Person(CUSTOMER))
    now = int(time.time())  # NOW may be long ago by the time that this test has its turn
    node.scene.link(node.person, at=now)
    node.scene.sync(node.person.says(grant(until=now + DAY_S), to=node.scene.lane_key, at=now), at=now)
    with node.scene.desk() as desk, ledger_of(desk):
        pass
    for name in ("rows.csv", "held_out.csv"):
        (directory / name).write_text("id\n" + CUSTOMER + "\n")
    new_node_key(directory / NODE_KEY)
    AUTHORITY.issue(directory / "coordinators")
    return node


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Answering], Node]]:
    """Makes a node whose registry and coordinator answer as they are told, until the test ends."""
    with ExitStack() as stack:

        def make(how: Answering) -> Node:
            node = _make(tmp_path / "aster")

            def checkpoint(path: str) -> tuple[int, bytes]:
                assert path == f"/lanes/{LANE}/checkpoint"
                return how.registry_status, node.scene.registry.checkpoint(LANE).encode()

            registry = stack.enter_context(answering(checkpoint, ahead_s=how.registry_ahead_s))
            fleet = stack.enter_context(
                answering(
                    lambda path: (how.fleet_status if path == "/health" else 404, b""),
                    ahead_s=how.fleet_ahead_s, tls=node.directory / "coordinators",
                )
            )  # fmt: skip
            node.change("https://registry.example", f"http://127.0.0.1:{registry}")
            address = f"127.0.0.1:{fleet}"
            settings = FleetSettings(version=1, address=address, ca=CA_FILE, coordinator="open-scoring", welcomed=NOW)
            save_fleet(node.directory, settings, AUTHORITY.pem.decode())
            return node

        yield make


@pytest.fixture
def node(serve: Callable[[Answering], Node]) -> Node:
    return serve(Answering())


def test_nothing_is_wrong_with_a_node_that_synced_and_joined(node: Node) -> None:
    findings = node.look()
    assert wrong(findings) == {}
    assert {one.state for one in findings} == {State.OK}
    assert len(findings) == 23


def test_what_was_not_asked_is_said(node: Node) -> None:
    findings = node.look(offline=True)
    assert wrong(findings) == {}
    asked = [one.what for one in findings if one.state is State.SKIPPED]
    assert asked == [
        *("registry", "registry's certificate", "clock"),
        *("coordinator", "coordinator's certificate", "coordinator's clock"),
    ]
    assert found(findings, "registry").found == "not asked: --offline"


def _reissue(node: Node, begins: int, days: int) -> None:
    AUTHORITY.issue(node.directory / "coordinators", begins=begins, days=days)


def _say_running(node: Node) -> None:
    (node.directory / "serving").mkdir(mode=0o700)
    program = {"pid": 1, "restarts": 0, "last_exit": None}
    (node.directory / "serving" / "status.json").write_text(
        json.dumps({
            "version": 1, "holder": LANE, "coordinator": "open-scoring", "address": "127.0.0.1:1", "state": "online",
            "since": NOW, "online_at": NOW, "started": NOW, "pid": 1, "programs": {"worker": program},
        })
    )  # fmt: skip


FAULTS: dict[str, tuple[Callable[[Node], object], dict[str, State]]] = {
    "settings": (lambda node: node.change("clock_skew_s", "clock_skew"), {"settings": _PROBLEM}),
    "identity readable": (lambda node: (node.directory / "keys/identity.key").chmod(0o640), {"secret files": _PROBLEM}),
    "folder of keys": (lambda node: (node.directory / "keys").chmod(0o755), {"secret files": _PROBLEM}),
    "database readable": (lambda node: (node.directory / "ledger.db").chmod(0o644), {"secret files": _PROBLEM}),
    "no identity": (
        lambda node: (node.directory / "keys/identity.key").unlink(), {"keys": _PROBLEM, "lane and ledger": _PROBLEM}
    ),
    "no lane key": (
        lambda node: (node.directory / "keys/lane-1.key").unlink(), {"keys": _PROBLEM, "lane and ledger": _PROBLEM}
    ),
    "schema": (lambda node: (node.directory / "schema.toml").write_text("version = 1"), {"schema": _PROBLEM}),
    "no table": (lambda node: (node.directory / "held_out.csv").unlink(), {"tables": _PROBLEM}),
    "other bundle": (lambda node: _set_bundles(node, f'"{"0" * 64}"'), {"app bundle": _WARNING}),
    "no bundle": (lambda node: _set_bundles(node, ""), {"app bundle": _PROBLEM}),
    "lane damaged": (
        lambda node: (node.directory / "consent.db").write_bytes(b"no database" * 999),
        {"consent.db": _PROBLEM, "lane and ledger": _PROBLEM},
    ),
    "notes damaged": (
        lambda node: (node.directory / "desk.db").write_bytes(b"no database" * 999),
        {"desk.db": _PROBLEM, "lane and ledger": _PROBLEM},
    ),
    "ledger damaged": (
        lambda node: (node.directory / "ledger.db").write_bytes(b"no database" * 999),
        {"ledger.db": _PROBLEM, "lane and ledger": _PROBLEM},
    ),
    "lane edited": (lambda node: node.execute("consent.db", "DELETE FROM links"), {"lane and ledger": _PROBLEM}),
    "lane's head lost": (lambda node: (node.directory / "consent.head").unlink(), {"lane and ledger": _PROBLEM}),
    "killed": (_say_running, {"program": _WARNING}),
    "other registry key": (lambda node: _change_registry_key(node), {"registry": _PROBLEM}),
    "registry away": (
        lambda node: node.change("http://127.0.0.1:", "http://127.0.0.1:1/"), {"registry": _PROBLEM}
    ),
    "node key lost": (lambda node: (node.directory / NODE_KEY).unlink(), {"coordinator": _PROBLEM}),
    "strange authority": (
        lambda node: (node.directory / CA_FILE).write_bytes(Authority(at=NOW).pem), {"coordinator": _PROBLEM}
    ),
    "not joined": (lambda node: (node.directory / "fleet.toml").unlink(), {"coordinator": _WARNING}),
}  # fmt: skip


def _set_bundles(node: Node, written: str) -> None:
    path = node.directory / "holder.toml"
    lines = [f"bundles = [{written}]" if line.startswith("bundles") else line for line in path.read_text().split("\n")]
    path.write_text("\n".join(lines))


def _change_registry_key(node: Node) -> None:
    path = node.directory / "holder.toml"
    key = next(line for line in path.read_text().split("\n") if line.startswith("key = "))
    node.change(key, f'key = "{"ab" * 32}"')


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_nobody_is_named(fault: str, node: Node) -> None:
    spoil, expected = FAULTS[fault]
    secrets = [CUSTOMER, *_written(node.person.handle), *_written(node.person.key.public)]
    secrets += [word for file in (node.directory / "keys").iterdir() for word in _written(file.read_bytes())]
    spoil(node)
    findings = node.look()
    assert wrong(findings) == expected
    told = json.dumps([(one.found, one.mend) for one in findings])
    assert [secret for secret in secrets if secret in told] == []
    assert all(one.mend for one in findings if one.what in expected)


def _written(secret: bytes) -> list[str]:
    return [secret.hex(), b64encode(secret).decode().rstrip("=")]


def test_an_old_sync_or_one_in_the_future_is_found(node: Node) -> None:
    assert wrong(node.look(at=NOW + 3600, offline=True)) == {"lane and ledger": _WARNING}
    assert wrong(node.look(at=NOW - 3600, offline=True)) == {"lane and ledger": _PROBLEM}


def test_a_node_that_never_synced_is_told_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "aster")
    shutil.copy(scene.directory / "schema.toml", scene.directory / "rows.csv")
    shutil.copy(scene.directory / "schema.toml", scene.directory / "held_out.csv")
    before = sorted(scene.directory.rglob("*"))
    findings = examine(checks(Place(scene.directory, offline=True)))
    assert wrong(findings) == {"lane and ledger": _WARNING, "coordinator": _WARNING}
    assert sorted(scene.directory.rglob("*")) == before  # to look makes nothing


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Answering(registry_ahead_s=3600), {"clock": _PROBLEM}),
        (Answering(registry_ahead_s=-3600), {"clock": _PROBLEM}),
        (Answering(registry_ahead_s=60), {}),
        (Answering(fleet_ahead_s=3600), {"coordinator's clock": _PROBLEM}),
        (Answering(fleet_ahead_s=60), {}),
        (Answering(fleet_ahead_s=-60), {"coordinator's clock": _PROBLEM}),  # Flower bears 5 s that way
        (Answering(registry_status=404), {"registry": _PROBLEM}),
        (Answering(fleet_status=503), {"coordinator": _PROBLEM}),
    ],
)
def test_what_the_others_answer_is_judged(
    how: Answering, expected: dict[str, State], serve: Callable[[Answering], Node]
) -> None:
    assert wrong(serve(how).look()) == expected


@pytest.mark.parametrize(
    ("begins", "days", "expected"),
    [
        (-30, 29, {"coordinator": _PROBLEM}), (2, 90, {"coordinator": _PROBLEM}),
        (-30, 40, {"coordinator's certificate": _WARNING}),
    ],
)  # fmt: skip
def test_the_coordinators_certificate_is_looked_at(
    begins: int, days: int, expected: dict[str, State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[Answering], Node],
) -> None:  # fmt: skip
    monkeypatch.setattr(AUTHORITY, "issue", _issue_with(AUTHORITY.issue, begins, days))
    assert wrong(serve(Answering()).look()) == expected


def _issue_with(issue: Callable[..., object], begins: int, days: int) -> Callable[[Path], object]:
    return lambda path: issue(path, begins=begins, days=days)


def test_the_command_says_no_with_exit_code_3(node: Node) -> None:
    assert CliRunner().invoke(doctor, [str(node.directory)]).exit_code == 0
    (node.directory / "keys" / "identity.key").chmod(0o644)
    told = CliRunner().invoke(doctor, [str(node.directory), "--json", "--offline"])
    assert isinstance(told.exception, RefusalError)
    assert told.exception.exit_code == 3
    report = json.loads(told.stdout)
    assert (report["role"], report["problems"]) == ("data holder", 1)
