"""`fedcredit coordinator serve`: SuperLink kept in step with who is enrolled; begun, hindered and ended in order."""

import json
import logging
import signal
import socket
from base64 import b64encode
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.control_pb2 import (
    ListNodesResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from hypothesis import given
from hypothesis import strategies as st

from federated.lock import alone, is_held
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.deploy.members import KeyTexts, Members
from server.deploy.node_keys import NodeKeys
from server.deploy.node_watch import LOOK_S, MATCH_S, NodeWatch
from server.deploy.serve import serve
from server.deploy.settings import Home
from server.deploy.superlink import Known, SuperLink, has_begun, superlink
from tests.server.deploy.coordinator_process import make_coordinator, processes_of, run, serving
from tests.server.deploy.door import node_key, openssh, shown
from tests.server.deploy.fleet_scene import until

KEYS = [f"key {number}".encode() for number in range(6)]


class Control:
    """SuperLink's list of nodes, with its own rules: a key that was there once is never registered again."""

    def __init__(self, nodes: Mapping[bytes, str]) -> None:
        self.nodes = [NodeInfo(node_id=number, public_key=key, status=status)
                      for number, (key, status) in enumerate(nodes.items(), 1)]  # fmt: skip
        self.calls: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        method = request.url.path.removeprefix("/v1/control/")
        self.calls.append(method)
        match method:
            case "list-nodes":
                return httpx.Response(200, content=ListNodesResponse(nodes_info=self.nodes).SerializeToString())
            case "register-node":
                asked = RegisterNodeRequest.FromString(request.content)
                if any(node.public_key == asked.public_key for node in self.nodes):
                    return httpx.Response(409)
                number = len(self.nodes) + 1
                self.nodes.append(
                    NodeInfo(node_id=number, public_key=asked.public_key, status="registered", name=asked.name)
                )
                return httpx.Response(200, content=RegisterNodeResponse(node_id=number).SerializeToString())
            case "unregister-node":
                number = UnregisterNodeRequest.FromString(request.content).node_id
                (node,) = (node for node in self.nodes if node.node_id == number and node.status != "unregistered")
                node.status = "unregistered"
                return httpx.Response(200, content=UnregisterNodeResponse().SerializeToString())
        return httpx.Response(404)

    def superlink(self) -> SuperLink:
        made = SuperLink.__new__(SuperLink)
        made._http = httpx.Client(base_url="https://a", transport=httpx.MockTransport(self.answer))
        return made


_STATES = st.sampled_from(["registered", "online", "offline", "unregistered"])


@given(
    nodes=st.dictionaries(st.sampled_from(KEYS), _STATES),
    holders=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["aster", "birch"])),
    gone=st.frozensets(st.sampled_from(KEYS)),
)
def test_superlink_knows_whoever_is_enrolled_and_lets_go_of_nobody_but_the_revoked(
    nodes: dict[bytes, str], holders: dict[bytes, str], gone: frozenset[bytes]
) -> None:
    control = Control(nodes)
    asked = control.superlink()
    known = asked.match(holders, gone)
    may_connect = {node.public_key for node in control.nodes if node.status != "unregistered"}
    spent = {key for key, status in nodes.items() if status == "unregistered"}
    not_named = set(nodes) - spent - set(holders) - gone
    assert may_connect == (set(holders) - spent) | not_named
    assert known.unlisted == len(not_named)
    assert sorted(known.spent) == sorted(holders[key] for key in holders if key in spent)
    assert known.online == sum(status == "online" for key, status in nodes.items() if key in holders)
    control.calls.clear()
    asked.match(holders, gone)
    assert control.calls == ["list-nodes"]


@pytest.mark.parametrize("answer", [httpx.Response(500), httpx.Response(200, content=b"\xff\xff"), None])
def test_a_superlink_that_does_not_answer_is_a_refusal(answer: httpx.Response | None) -> None:
    def give(request: httpx.Request) -> httpx.Response:
        if answer is None:
            raise httpx.ConnectError("no", request=request)
        return answer

    asked = SuperLink.__new__(SuperLink)
    asked._http = httpx.Client(base_url="https://a", transport=httpx.MockTransport(give))
    with pytest.raises(RefusalError, match=r"superlink\.log"):
        asked.match({}, frozenset())
    assert asked.well() is (answer is not None and answer.status_code == 200)


class Scene:
    """A watch over a SuperLink that does as it is told, by a clock that is moved by hand."""

    def __init__(self, directory: Path) -> None:
        self.now, self.is_well, self.fails, self.is_broken = 100.0, True, False, False
        self.matches: list[dict[bytes, str]] = []
        self.gone: frozenset[str] = frozenset()
        self.let_go: list[bytes] = []
        self.gauges: list[tuple[int | None, int | None, bool]] = []
        self.listed: dict[str, str] = {}
        self.known = Known(1, ())
        self.file, self.told = directory / "members.json", directory / "serving.json"
        self.enrol({})
        keys = NodeKeys(self.file, self._read)
        self.watch = NodeWatch(
            self, keys, gauges=SimpleNamespace(nodes=self._note), clock=lambda: self.now, told=self.told,
            address="https://a:1", pid=7, at=5,
        )  # fmt: skip

    def enrol(self, listed: dict[str, str]) -> None:
        self.listed = listed
        self.file.write_text("x" * (len(self.matches) + len(listed) + 1))

    def _read(self) -> KeyTexts:
        if self.is_broken:
            raise MalformedError("it cannot be read")
        return KeyTexts(dict(self.listed), self.gone)

    def well(self) -> bool:
        return self.is_well

    def match(self, holders: Mapping[bytes, str], gone: Collection[bytes]) -> Known:
        if self.fails:
            raise RefusalError("it does not answer", RefusalCode.INTERNAL)
        self.matches.append(dict(holders))
        self.let_go += gone
        return self.known

    def _note(self, *, enrolled: int | None, online: int | None, well: bool) -> None:
        self.gauges.append((enrolled, online, well))

    def look(self, starts: int = 1) -> dict[str, object]:
        self.watch.look(starts=starts)
        told = json.loads(self.told.read_text())
        assert isinstance(told, dict)
        return told


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_list_is_handed_over_when_it_changes_and_now_and_then(scene: Scene) -> None:
    told = scene.look()
    assert told == {
        "state": "running", "superlink": "running", "enrolled": 0, "unlisted": 0, "address": "https://a:1", "pid": 7,
        "started": 5,
    }  # fmt: skip
    scene.look()
    assert scene.matches == [{}]
    scene.enrol({openssh(node_key()): "aster"})
    assert scene.look()["enrolled"] == 1
    assert [list(match.values()) for match in scene.matches] == [[], ["aster"]]
    scene.now += MATCH_S
    scene.look()
    scene.look()
    assert len(scene.matches) == 3
    assert scene.gauges[-1] == (1, 1, True)


def test_a_superlink_that_was_started_again_is_told_everything_again(scene: Scene) -> None:
    scene.look()
    scene.is_well = False
    scene.now += LOOK_S
    assert scene.look(starts=1)["superlink"] == "starting"
    assert scene.look(starts=2)["superlink"] == "restarting"
    assert scene.gauges[-1] == (0, None, False)
    assert not scene.watch.well
    scene.is_well = True
    assert scene.look(starts=2)["superlink"] == "running"
    assert len(scene.matches) == 2


def test_a_list_that_could_not_be_handed_over_is_tried_again_and_told_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene.fails = True
    for _ in range(3):
        scene.look()
    assert caplog.text.count("tried again") == 1
    scene.fails = False
    scene.look()
    assert scene.matches == [{}]


def test_whoever_shows_a_spent_key_is_told_what_to_do(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.known = Known(0, ("aster",))
    for _ in range(3):
        scene.look()
        scene.now += MATCH_S
    assert caplog.text.count("aster was revoked before") == 1


@pytest.mark.parametrize("how", ["missing", "spoilt"])
def test_a_list_that_cannot_be_read_for_a_while_is_not_handed_over(scene: Scene, how: str) -> None:
    scene.enrol({openssh(node_key()): "aster"})
    assert scene.look()["enrolled"] == 1
    scene.is_broken = True
    if how == "missing":
        scene.file.unlink()
    else:
        scene.file.write_text("{")
    for _ in range(3):
        scene.now += MATCH_S
        assert scene.look()["enrolled"] is None
    assert scene.look(starts=2)["enrolled"] is None  # SuperLink was started again meanwhile
    assert len(scene.matches) == 1
    assert scene.gauges[-1] == (None, None, True)
    scene.is_broken = False
    scene.file.write_text("back")
    assert scene.look(starts=2)["enrolled"] == 1
    assert [list(match.values()) for match in scene.matches] == [["aster"], ["aster"]]


def test_what_was_revoked_or_replaced_is_let_go_of(scene: Scene) -> None:
    scene.gone = frozenset({openssh(node_key(1)), "none", openssh(node_key())})
    scene.enrol({openssh(node_key()): "aster"})
    scene.look()
    # Never the key of one who is enrolled, whatever else the list says of it.
    assert [b64encode(key).decode() for key in scene.let_go] == [shown(node_key(1))]


def test_nodes_that_the_list_does_not_name_are_told_of(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    for unlisted, times in ((2, 1), (2, 1), (0, 1), (1, 2)):
        scene.known = Known(1, (), unlisted)
        assert scene.look()["unlisted"] == unlisted
        scene.now += MATCH_S
        assert caplog.text.count("members.json does not name") == times


def test_a_full_disk_does_not_end_the_watch(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.watch._told = Path("/dev/null/serving.json")
    scene.watch.look(starts=1)
    assert "could not be written" in caplog.text
    assert scene.watch.well


def test_keys_are_read_again_whenever_the_file_changes_and_without_it_nothing_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, listed, broken = tmp_path / "members.json", {openssh(node_key()): "aster"}, False
    reads = 0

    def read() -> KeyTexts:
        nonlocal reads
        reads += 1
        if broken:
            raise MalformedError("it cannot be read")
        return KeyTexts(dict(listed), frozenset())

    def holders() -> set[str] | None:
        now = keys.listed()
        return None if now is None else set(now.holders.values())

    keys = NodeKeys(file, read)
    for _ in range(3):
        assert keys.shown() is None
    assert caplog.text.count("members.json is missing") == 1
    file.write_text("1")
    assert keys.shown() == {shown(node_key()).encode(): node_key()}
    assert holders() == {"aster"}
    assert reads == 1
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    listed |= {openssh(node_key(1)): "birch", other.decode(): "cedar", "none": "dahlia"}
    file.write_text("22")
    assert holders() == {"aster", "birch"}
    assert "2 of 4 enrolled node keys cannot be read" in caplog.text
    broken = True
    file.write_text("333")
    assert keys.shown() is None
    broken = False  # the disk is well again, and nothing of the file has changed
    assert holders() == {"aster", "birch"}
    file.unlink()
    assert keys.shown() is None
    file.write_text("4444")
    assert holders() == {"aster", "birch"}


def test_a_list_that_goes_away_while_it_is_read_is_not_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "members.json"
    file.write_text("{}")

    def read() -> KeyTexts:
        file.unlink()
        return Members(tmp_path).keys()

    assert NodeKeys(file, read).listed() is None


def test_a_file_whose_mode_was_wrong_is_read_again(tmp_path: Path) -> None:
    file, listed = tmp_path / "members.json", {"a": ""}
    file.write_text("{}")
    keys = NodeKeys(file, lambda: KeyTexts({openssh(node_key()): "aster"} if listed else {}, frozenset()))
    assert keys.shown()
    listed.clear()
    file.chmod(0o600)
    assert keys.shown() == {}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_coordinator(tmp_path / "coordinator")


def test_superlink_is_on_this_machine_alone_asks_for_keys_and_runs_nothing_of_its_own(home: Home) -> None:
    program = superlink(home)
    options = dict(zip(program.command[1:], program.command[2:], strict=False))
    assert options["--host"] == "127.0.0.1"
    assert options["--isolation"] == "process"
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(program.command)
    assert "--insecure" not in program.command
    assert home.secret() not in " ".join(program.command)
    assert home.secret() not in str(program.environment)
    assert program.environment["FLWR_HOME"] == str(home.superlink.absolute())


def test_only_before_superlinks_first_start_a_missing_list_is_an_empty_one(home: Home) -> None:
    assert not has_begun(home)
    state = dict(zip(superlink(home).command[1:], superlink(home).command[2:], strict=False))["--database"]
    home.superlink.mkdir(exist_ok=True)
    Path(state).write_bytes(b"")
    assert has_begun(home)


@pytest.mark.slow
def test_one_directory_is_served_once_and_nothing_is_left_however_it_ends(home: Home) -> None:
    with serving(home) as coordinator:
        assert coordinator.url == f"https://{home.settings.fleet.address}"
        assert is_held(home.serve_lock)
        second = run(home)
        assert second.returncode == 3
        assert "another `fedcredit coordinator serve`" in second.stderr
        assert json.loads(home.serving.read_text())["state"] == "running"
        assert len(processes_of(home)) == 1
        assert coordinator.stop(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: processes_of(home) == [])
    assert json.loads(home.serving.read_text())["state"] == "running"
    assert not is_held(home.serve_lock)
    with serving(home) as coordinator:
        assert coordinator.stop(signal.SIGINT) == 0
    assert processes_of(home) == []
    assert json.loads(home.serving.read_text())["state"] == "stopped"


@pytest.mark.parametrize("what", ["lock", "certificate", "port", "metrics", "ca"])
def test_what_keeps_it_from_starting_is_one_text_and_leaves_no_process(home: Home, what: str) -> None:
    fleet, word = home.settings.fleet, what
    with socket.socket() as taken, alone(home.serve_lock if what == "lock" else home.directory / "other", ""):
        match what:
            case "lock":
                word = "another `fedcredit coordinator serve`"
            case "certificate":
                (home.tls / "fleet.pem").unlink()
                word = "fleet.pem"
            case "port" | "metrics":
                taken.bind(("127.0.0.1", fleet.port if what == "port" else fleet.metrics_port))
                taken.listen()
                word = f"Port {taken.getsockname()[1]} of 127.0.0.1"
            case "ca":
                (home.tls / "ca.pem").unlink()
                word = "ca.pem"
        with pytest.raises(RefusalError) as refused:
            serve(home, listening=pytest.fail)
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)
    assert processes_of(home) == []


@pytest.mark.slow
def test_a_superlink_that_cannot_start_is_one_text(home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.settings.fleet.superlink_port)):
        done = run(home)
    assert done.returncode == 3, done.stderr
    assert f"port {home.settings.fleet.superlink_port} of 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(home) == []
