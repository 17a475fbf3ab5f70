"""Three attacks that Flower alone does not stop, from the public address of a real coordinator, and their controls.

Each control sends the very same request to SuperLink's own port, as could be done if it stood there open: it succeeds.
"""

import json
import os
import signal
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from flwr.proto.control_pb2 import RegisterNodeRequest, RegisterNodeResponse, UnregisterNodeRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.node_pb2 import Node

from federated.flower_home import flower_environment, flower_program
from server.deploy.members import Members
from server.deploy.proxy import FLEET
from tests.server.deploy.coordinator_process import CoordinatorProcess, make_coordinator, processes_of, serving
from tests.server.deploy.fleet_scene import Party, ask, until
from tests.server.deploy.test_metrics import figures

pytestmark = pytest.mark.slow

MakeParty = Callable[[str], Party]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorProcess]:
    with serving(make_coordinator(tmp_path_factory.mktemp("place") / "coordinator")) as running:
        yield running
        assert running.stop() == 0
    assert processes_of(running.home) == []


@pytest.fixture
def party(coordinator: CoordinatorProcess, tmp_path: Path) -> Iterator[MakeParty]:
    made: list[Party] = []

    def make(name: str) -> Party:
        made.append(Party(coordinator.home, tmp_path, name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_stranger_cannot_register_a_node_of_its_own(party: MakeParty) -> None:
    stranger = party("stranger")
    register = RegisterNodeRequest(public_key=stranger.pem, name="stranger").SerializeToString()
    by_itself = RegisterNodeFleetRequest(public_key=stranger.pem).SerializeToString()
    activate = ActivateNodeRequest(public_key=stranger.pem, heartbeat_interval=30).SerializeToString()
    assert ask(stranger.public, "/v1/control/register-node", register).status_code == 404
    assert ask(stranger.public, "/v1/fleet/register-node", by_itself, stranger.signed()).status_code == 404
    assert ask(stranger.public, "/v1/fleet/activate-node", activate, stranger.signed()).status_code == 412
    pull = PullMessagesRequest(node=Node(node_id=1)).SerializeToString()
    assert ask(stranger.public, "/v1/fleet/pull-messages", pull, stranger.signed()).status_code == 401
    assert stranger.known() is None

    # The control: the same two requests, straight to SuperLink, and the stranger is in.
    made = RegisterNodeResponse.FromString(ask(stranger.loopback, "/v1/control/register-node", register).content)
    joined = ask(stranger.loopback, "/v1/fleet/activate-node", activate, stranger.signed())
    assert ActivateNodeResponse.FromString(joined.content).node_id == made.node_id != 0
    assert stranger.known() is not None
    # Not through the door, even so.
    assert ask(stranger.public, "/v1/fleet/activate-node", activate, stranger.signed()).status_code == 412


def test_a_strangers_real_supernode_is_turned_away_and_a_data_holders_gets_in(
    coordinator: CoordinatorProcess, party: MakeParty
) -> None:
    stranger, aster = party("stranger"), party("aster")
    aster.enrol()
    with stranger.supernode() as turned_away, aster.supernode() as connected:
        until(lambda: turned_away.poll() is not None, stranger.said())
        assert turned_away.returncode != 0
        assert "[code: 2004]" in stranger.said()
        assert "SuperNode ID" not in stranger.said()
        until(lambda: aster.is_("online"), aster.said())
        # What it asks goes through the door, and no path is asked that the door does not know.
        until(lambda: _answered(coordinator).get("/v1/fleet/pull-messages", 0) > 0)
        connected.send_signal(signal.SIGINT)
        connected.wait(60)
    until(lambda: aster.is_("offline"))
    assert {path.removeprefix("/v1/fleet/") for path in _answered(coordinator)} <= set(FLEET)
    assert {"/v1/fleet/activate-node", "/v1/fleet/deactivate-node"} <= _answered(coordinator).keys()


def test_a_stranger_cannot_have_code_of_its_own_run(coordinator: CoordinatorProcess, party: MakeParty) -> None:
    stranger = party("stranger")
    app = stranger.directory / "app"
    app.mkdir()
    (app / "rogue.py").write_text("from flwr.serverapp import ServerApp\nfrom flwr.clientapp import ClientApp\n"
                                  "app = ServerApp()\nnode = ClientApp()\n")  # fmt: skip
    (app / "pyproject.toml").write_text(
        '[project]\nname = "rogue"\nversion = "1.0.0"\nlicense = "Apache-2.0"\n[tool.flwr.app]\npublisher = "rogue"\n'
        '[tool.flwr.app.components]\nserverapp = "rogue:app"\nclientapp = "rogue:node"\n'
    )
    fleet = coordinator.home.settings.fleet

    def submitted(address: str) -> dict[str, object]:
        (stranger.directory / "config.toml").write_text(
            f'[superlink]\ndefault = "there"\n\n[superlink.there]\naddress = "{address}"\n'
            f'root-certificates = "{coordinator.home.tls / "ca.pem"}"\n'
        )
        done = subprocess.run(
            [flower_program("flwr"), "run", str(app), "there", "--format", "json"], cwd=stranger.directory,
            env=flower_environment(stranger.directory), stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told

    assert submitted(fleet.address)["success"] is False
    # The control: the same command, for SuperLink's own port.
    told = submitted(f"127.0.0.1:{fleet.superlink_port}")
    assert told["success"] is True
    assert told["run-id"]


def test_neither_a_stranger_nor_another_data_holder_can_send_a_node_away(party: MakeParty) -> None:
    stranger, birch, cedar = party("stranger"), party("birch"), party("cedar")
    birch.enrol()
    cedar.enrol()
    activate = ActivateNodeRequest(public_key=birch.pem, heartbeat_interval=30).SerializeToString()
    assert ask(birch.public, "/v1/fleet/activate-node", activate, birch.signed()).status_code == 200
    number = birch.number()
    unregister = UnregisterNodeRequest(node_id=number).SerializeToString()
    by_itself = UnregisterNodeFleetRequest(node_id=number).SerializeToString()
    deactivate = DeactivateNodeRequest(node_id=number).SerializeToString()
    for who in (stranger, cedar):
        assert ask(who.public, "/v1/control/unregister-node", unregister, who.signed()).status_code == 404
        assert ask(who.public, "/v1/fleet/unregister-node", by_itself, who.signed()).status_code == 404
        assert ask(who.public, "/v1/fleet/deactivate-node", deactivate, who.signed()).status_code == 401
        # Under another's key, without being able to sign by it.
        borrowed = who.signed() | {"flwr-public-key": birch.signed()["flwr-public-key"]}
        assert ask(who.public, "/v1/fleet/deactivate-node", deactivate, borrowed).status_code == 401
    assert birch.is_("online")

    # The control: the same request, straight to SuperLink, from the stranger without any key.
    assert ask(stranger.loopback, "/v1/control/unregister-node", unregister).status_code == 200
    assert birch.known() is None


def test_who_is_revoked_is_out_at_once_and_its_own_program_says_so(
    coordinator: CoordinatorProcess, party: MakeParty
) -> None:
    dahlia = party("dahlia")
    dahlia.enrol()
    with dahlia.supernode() as node:
        until(lambda: dahlia.is_("online"), dahlia.said())
        Members(coordinator.home.directory).revoke("dahlia", at=2_000_000_000)
        pull = PullMessagesRequest(node=Node(node_id=1)).SerializeToString()
        assert ask(dahlia.public, "/v1/fleet/pull-messages", pull, dahlia.signed()).status_code == 401
        until(lambda: dahlia.known() is None)
        until(lambda: node.poll() is not None, dahlia.said())


def test_a_list_that_was_missing_for_a_while_has_sent_nobody_away(
    coordinator: CoordinatorProcess, party: MakeParty
) -> None:
    gum = party("gum")
    gum.enrol()
    activate = ActivateNodeRequest(public_key=gum.pem, heartbeat_interval=30).SerializeToString()
    assert ask(gum.public, "/v1/fleet/activate-node", activate, gum.signed()).status_code == 200

    def enrolled() -> object:
        return json.loads(coordinator.home.serving.read_bytes())["enrolled"]

    before, kept = enrolled(), coordinator.home.members.with_suffix(".kept")
    coordinator.home.members.rename(kept)
    until(lambda: enrolled() is None, "that the list is missed")
    assert ask(gum.public, "/v1/fleet/activate-node", activate, gum.signed()).status_code == 503
    kept.rename(coordinator.home.members)
    until(lambda: enrolled() == before, "that the list is read again")
    assert gum.is_("online")
    assert ask(gum.public, "/v1/fleet/activate-node", activate, gum.signed()).status_code in {200, 412}
    pull = PullMessagesRequest(node=Node(node_id=gum.number())).SerializeToString()
    assert ask(gum.public, "/v1/fleet/pull-messages", pull, gum.signed()).status_code == 200


def test_a_wrong_proof_is_answered_as_superlink_answers_it(party: MakeParty) -> None:
    hazel, oak = party("hazel"), party("oak")
    hazel.enrol()
    activate = ActivateNodeRequest(public_key=hazel.pem, heartbeat_interval=30).SerializeToString()
    late = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    signature = b64encode(hazel.key.sign(late.encode(), ec.ECDSA(SHA256()))).decode()
    old = hazel.signed() | {"flwr-timestamp": late, "flwr-signature": signature}
    anothers = hazel.signed() | {"flwr-signature": oak.signed()["flwr-signature"]}
    for wrong in (old, anothers):
        for where in (hazel.public, hazel.loopback):
            assert ask(where, "/v1/fleet/activate-node", activate, wrong).status_code == 401
    for where in (hazel.loopback, hazel.public):
        assert (
            ask(where, "/v1/fleet/send-node-heartbeat", b"", hazel.signed()).status_code == 401
        )  # and no node is named
    assert ask(hazel.public, "/v1/fleet/activate-node", activate, hazel.signed()).status_code == 200


def test_after_superlink_was_killed_it_comes_back_and_nodes_connect_again_by_themselves(
    coordinator: CoordinatorProcess, party: MakeParty
) -> None:
    elm = party("elm")
    elm.enrol()
    before = figures(coordinator.home.settings.fleet.metrics_port)["fedcredit_superlink_ends_total", ()]
    (superlink,) = processes_of(coordinator.home)
    with elm.supernode() as node:
        until(lambda: elm.is_("online"), elm.said())
        os.kill(superlink, signal.SIGKILL)

        def is_back() -> bool:
            try:
                return processes_of(coordinator.home) != [superlink] and elm.known() is not None
            except httpx.HTTPError:
                return False

        until(is_back)
        # By its asking, and not by what it says: one that was not asking just then has missed nothing.
        asked = _answered(coordinator, status="200")["/v1/fleet/pull-messages"]
        until(lambda: _answered(coordinator, status="200")["/v1/fleet/pull-messages"] > asked, elm.said())
        assert node.poll() is None
    now = figures(coordinator.home.settings.fleet.metrics_port)
    assert now["fedcredit_superlink_ends_total", ()] == before + 1
    assert any("SuperLink ended by itself (exit code -9)" in line for line in coordinator.said)


def test_nothing_of_what_was_asked_stands_in_the_programs_own_log(
    coordinator: CoordinatorProcess, party: MakeParty
) -> None:
    fir = party("fir")
    fir.enrol()
    ask(fir.public, "/v1/fleet/pull-messages", b"planted", fir.signed())
    ask(fir.public, "/planted", b"planted", {"planted": "planted"})
    said = "".join(coordinator.said)
    assert "enrolled" in said  # it does log
    for word in ("planted", fir.signed()["flwr-public-key"], "/v1/fleet", "127.0.0.1", "fir"):
        assert word not in said


def _answered(coordinator: CoordinatorProcess, *, status: str = "") -> dict[str, float]:
    """Requests by path, of all that were answered or of those with this status."""
    told = figures(coordinator.home.settings.fleet.metrics_port)
    name_ = "fedcredit_fleet_answered_total"
    labelled = [(dict(labels), value) for (name, labels), value in told.items() if name == name_]
    paths = {labels["path"]: 0.0 for labels, _ in labelled}
    for labels, value in labelled:
        if not status or labels["status"] == status:
            paths[labels["path"]] += value
    return paths
