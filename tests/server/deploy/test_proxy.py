"""The public door: what a SuperNode asks passes unchanged, and nothing else reaches SuperLink, however it is spelt."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.routers.fleet.router import router
from hypothesis import given
from hypothesis import strategies as st

from server.deploy import proxy
from server.deploy.proxy import FLEET, HEALTH, MOST_BODY_BYTES, Asked, Closed, Proxy, admitted, upstream
from server.registry.certificates import self_signed
from tests.server.deploy.door import (
    MUTE,
    PUSH,
    WAIT_S,
    Counts,
    Door,
    Upstream,
    node_key,
    openssh,
    proof,
    request,
    shown,
    status,
)

KEY = shown(node_key())
# The whole list once more, from Flower's programs and not from ours: a SuperNode with a registered key calls these.
OPEN = {f"/v1/fleet/{name}" for name in (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
    "push-object", "pull-object", "confirm-message-received",
)}  # fmt: skip


def test_the_list_is_flowers_own_less_the_two_by_which_nodes_come_and_go() -> None:
    paths = {route.path for route in router.routes}  # type: ignore[attr-defined]
    assert len(paths) == 12
    assert paths - {"/v1/fleet/register-node", "/v1/fleet/unregister-node"} == OPEN
    assert {f"/v1/fleet/{name}" for name in FLEET} == OPEN


@pytest.mark.parametrize("path", sorted(OPEN))
def test_what_a_node_asks_passes_and_its_answer_comes_back(door: Door, behind: Upstream, path: str) -> None:
    signed = (*(f"{name}: {value}" for name, value in proof().items()), "flwr-package-version: 1.41.0")
    answer = door.ask(request(path, *signed, signed=None))
    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\nhello")
    (passed,) = behind.requests
    head, _, body = passed.partition(b"\r\n\r\n")
    assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert body == b"abc"
    for line in (f"flwr-public-key: {KEY}", "content-type: application/protobuf", *signed):
        assert line.encode() in head
    assert door.counts.paths == [(path, 200)]


def test_only_headers_of_the_list_pass_in_either_direction(door: Door, behind: Upstream) -> None:
    behind.answer = (
        b"HTTP/1.1 200 OK\r\nserver: secret-version\r\nset-cookie: a=b\r\nlocation: https://elsewhere.example/\r\n"
        b"content-type: application/protobuf\r\ncontent-length: 0\r\n\r\n"
    )
    more = (
        "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil.example", "Forwarded: for=10.0.0.1", "Cookie: a=b",
        "Authorization: Bearer abc", "flwr-task-token: abc", "flwr-superexec-signature: abc", "Keep-Alive: 5",
        "X-HTTP-Method-Override: DELETE", "Proxy-Authorization: Basic abc", "X-Original-URL: /v1/control/list-runs",
    )  # fmt: skip
    answer = door.ask(request(PUSH, *more))
    (passed,) = behind.requests
    names = {line.partition(b":")[0].lower() for line in passed.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    assert names == {
        b"host", b"flwr-public-key", b"flwr-timestamp", b"flwr-signature", b"content-type", b"content-length",
        b"accept-encoding", b"user-agent", b"accept", b"connection",
    }  # fmt: skip
    assert b"fleet.example" not in passed
    assert f"host: 127.0.0.1:{behind.port}".encode() in passed.lower()
    for dropped in (b"secret-version", b"set-cookie", b"elsewhere"):
        assert dropped not in answer


BAD_TARGETS = [
    "/", "*", "/v1/fleet", "/v1/fleet/", "/docs", "/openapi.json", "/metrics", "/v1/control/list-nodes",
    "/v1/control/register-node", "/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/runtime/pull-object",
    "/v1/fleet/register-node", "/v1/fleet/unregister-node",
    "/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/..%2fcontrol%2fstart-run",
    "/v1/fleet/pull-messages/../../control/start-run", "/v1/fleet/./pull-messages", "/v1//fleet/pull-messages",
    "//v1/fleet/pull-messages", "//control.example/v1/fleet/pull-messages", "/v1/fleet//pull-messages",
    "/v1/fleet/pull-messages/", "/v1/fleet/pull-messages;a=b", "/v1/fleet;a=b/pull-messages",
    "/v1/fleet/pull-messages?", "/v1/fleet/pull-messages?a=b", "/v1/fleet/pull-messages#", "/v1/fleet/pull-messages#a",
    "/v1/fleet/pull-messages%00", "/v1/fleet/pull-messages%20", "/v1/fleet/pull%2Dmessages",
    "/v1%2Ffleet%2Fpull-messages",
    "/v1/fleet%252fpull-messages", "/V1/fleet/pull-messages", "/v1/FLEET/pull-messages", "/v1/fleet/Pull-Messages",
    "/v1/fleet\\pull-messages", "/v1/fleet/..\\control/start-run", "/v1/fleet/pull-messages\xe9",
    "http://fleet.example/v1/fleet/pull-messages", "https://127.0.0.1:9092/v1/fleet/pull-messages",
    "https://127.0.0.1:9092/v1/control/start-run", "fleet.example:443", "v1/fleet/pull-messages",
    "/health", "/health/../v1/control/start-run",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_no_other_target_passes_however_it_is_spelt(door: Door, behind: Upstream, target: str) -> None:
    answer = door.ask(request(target))
    _is_closed(door, behind, answer)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "post", "POSTX"]
)
def test_no_other_method_passes(door: Door, behind: Upstream, method: str) -> None:
    _is_closed(door, behind, door.ask(request(method=method)))


def test_a_tunnel_is_not_opened(door: Door, behind: Upstream) -> None:
    inner = request("/v1/control/list-nodes")
    tunnel = f"CONNECT 127.0.0.1:{behind.port} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    _is_closed(door, behind, door.ask(tunnel + inner))


SHAPES = {
    "HTTP/1.0": request(version="1.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"POST /v1/fleet/pull-messages\r\n\r\n",
    "no host": request(host=None),
    "two hosts": request(PUSH, "Host: other.example"),
    "no length": request(length=None, body=b""),
    "two lengths": request(PUSH, "Content-Length: 3"),
    "two lengths that differ": request(PUSH, "Content-Length: 40"),
    "a list of lengths": request(length="3, 3"),
    "a signed length": request(length="+3"),
    "a negative length": request(length="-3"),
    "a hexadecimal length": request(length="0x3"),
    "a length in other digits": request(length="\xb3"),
    "a huge length": request(length="9" * 40),
    "chunks": request(PUSH, "Transfer-Encoding: chunked", length=None, body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunks and a length": request(PUSH, "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunks in disguise": request(PUSH, "Transfer-Encoding: xchunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunks behind a space": request(PUSH, "Transfer-Encoding : chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunks behind a tab": request(PUSH, "Transfer-Encoding:\tchunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "chunks twice": request(PUSH, "Transfer-Encoding: identity", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a folded header": request(PUSH, "X: a", " Transfer-Encoding: chunked"),
    "upgrade to a socket": request(PUSH, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: abc"),
    "upgrade to HTTP/2": request(PUSH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
    "upgrade without connection": request(PUSH, "Upgrade: h2c"),
    "expect": request(PUSH, "Expect: 100-continue"),
    "trailer": request(PUSH, "Trailer: flwr-signature"),
    "two signatures": request(PUSH, "flwr-signature: a", "flwr-signature: b"),
    "two types": request(PUSH, "Content-Type: text/plain"),
    "a null in a header": request(PUSH, "X: a\x00b"),
    "a bare return in a header": request(PUSH, "X: a\rTransfer-Encoding: chunked"),
    "no HTTP at all": b"\x16\x03\x01\x00\xa5\x01\x00\x00",
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_framed_as_no_supernode_frames_it_does_not_pass(door: Door, behind: Upstream, shape: str) -> None:
    _is_closed(door, behind, door.ask(SHAPES[shape]))


def test_a_second_request_hidden_in_a_body_is_body(door: Door, behind: Upstream) -> None:
    hidden = request("/v1/control/list-nodes")
    assert status(door.ask(request(length=str(len(hidden)), body=hidden))) == 200
    (passed,) = behind.requests
    assert passed.startswith(b"POST /v1/fleet/push-messages ")
    assert passed.endswith(hidden)


def test_each_request_of_a_pipeline_is_judged_by_itself(door: Door, behind: Upstream) -> None:
    first = request().replace(b"Connection: close\r\n", b"")
    answer = door.ask(first + request("/v1/control/list-nodes"))
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 404 " in answer
    assert [passed.partition(b" HTTP")[0] for passed in behind.requests] == [b"POST /v1/fleet/push-messages"]


def _is_closed(door: Door, behind: Upstream, answer: bytes) -> None:
    assert behind.requests == behind.broken == behind.seen == []
    assert status(answer) in {0, 400, 404}
    if status(answer) == 404:
        assert answer.endswith(b"\r\n\r\n")
    assert door.counts.paths == []
    # The same door, the same upstream: what closed the other request was the request.
    assert status(door.ask(request())) == 200
    assert len(behind.requests) == 1


PROOF: list[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in proof().items()]
AT = datetime.fromisoformat(PROOF[0][1].decode()).timestamp()
ONE_KEY = {b"key": node_key()}


def _scope(target: bytes, *, method: str = "POST", headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    usual = [(b"host", b"a"), (b"content-length", b"0"), (b"flwr-public-key", b"key"), *PROOF]
    return {
        "type": "http", "method": method, "http_version": "1.1", "headers": usual if headers is None else headers,
        "client": ("192.0.2.1", 1), "state": {"target": target},
        # What a server might have made of the target; nothing of it counts.
        "path": PUSH, "raw_path": PUSH.encode(), "query_string": b"",
    }  # fmt: skip


@st.composite
def _near_targets(draw: st.DrawFn) -> bytes:
    target = draw(st.sampled_from(sorted(OPEN | {HEALTH, "/v1/control/start-run"}))).encode()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(target)))
        put = draw(st.sampled_from([b"/", b".", b"..", b"%2f", b"%2e", b";", b"?", b"#", b"\\", b" ", b"A"]))
        taken = draw(st.integers(0, 2))
        target = target[:at] + put + target[at + taken :]
    return draw(st.sampled_from([target, target.upper(), target.title()]))


@given(target=_near_targets() | st.binary(max_size=60))
def test_a_target_passes_exactly_if_it_is_in_the_list(target: bytes) -> None:
    passes = isinstance(admitted(_scope(target), lambda: ONE_KEY, at=AT), Asked)
    assert passes == (target in {path.encode() for path in OPEN})


@given(key=st.binary(max_size=20) | st.sampled_from([b"key ", b" key", b"KEY", b"ke", b"keykey"]))
def test_no_key_passes_but_those_of_the_list(key: bytes) -> None:
    headers = [(b"host", b"a"), (b"content-length", b"0"), (b"flwr-public-key", key), *PROOF]
    asked = admitted(_scope(PUSH.encode(), headers=headers), lambda: ONE_KEY, at=AT)
    assert (asked is Closed.KEY) == (key != b"key")


@pytest.mark.parametrize("header", [
    (b"connection", b"Upgrade"), (b"connection", b"keep-alive, UPGRADE"), (b"content-length", b""),
    (b"content-length", b"+1"), (b"content-length", b"1_0"), (b"content-length", b" 1"), (b"content-length", b"1\n"),
    (b"content-length", "\u0661".encode()), (b"content-length", b"9" * 40), (b"transfer-encoding", b""),
])  # fmt: skip
def test_a_frame_that_a_laxer_server_would_let_by_is_still_closed(header: tuple[bytes, bytes]) -> None:
    usual = {b"host": b"a", b"content-length": b"0", b"flwr-public-key": b"key"} | dict(PROOF)
    scope = _scope(PUSH.encode(), headers=[*(usual | dict([header])).items()])
    assert admitted(scope, lambda: ONE_KEY, at=AT) is Closed.SHAPE


def test_a_server_that_does_not_tell_the_target_lets_nothing_pass() -> None:
    scope = _scope(PUSH.encode()) | {"state": {}}
    assert admitted(scope, lambda: ONE_KEY, at=AT) is Closed.PATH


def _der(number: int) -> bytes:
    return node_key(number).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", [
    None, "x", shown(node_key(1)), KEY.rstrip("=") + "AAAA", KEY[:-4], KEY.swapcase(), openssh(node_key()),
    urlsafe_b64encode(_der(0)).decode(), KEY + ", " + KEY,
])  # fmt: skip
def test_who_is_not_enrolled_does_not_reach_superlink(door: Door, behind: Upstream, key: str | None) -> None:
    answer = door.ask(request(key=key))
    assert status(answer) == 401
    assert answer.endswith(b"\r\n\r\n")
    assert behind.seen == []
    assert door.counts.reasons == ["key"]


def test_a_node_that_begins_without_being_enrolled_is_told_what_its_own_program_understands(
    door: Door, behind: Upstream
) -> None:
    answer = door.ask(request("/v1/fleet/activate-node", key=shown(node_key(1))))
    assert status(answer) == 412
    error = FlowerError.from_json(answer.partition(b"\r\n\r\n")[2].decode())
    assert error is not None
    assert error.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
    assert behind.seen == []
    assert door.counts.reasons == ["key"]


def test_two_keys_are_none(door: Door, behind: Upstream) -> None:
    assert status(door.ask(request(PUSH, f"flwr-public-key: {shown(node_key(1))}"))) == 404
    assert behind.seen == []


def test_a_revoked_key_is_refused_with_the_next_request_and_a_new_one_let_in(door: Door, behind: Upstream) -> None:
    assert status(door.ask(request())) == 200
    door.admit({"birch": openssh(node_key(1))})
    assert status(door.ask(request())) == 401
    assert len(behind.requests) == 1
    assert status(door.ask(request(key=shown(node_key(1)), signed=1))) == 200


def test_a_body_is_handed_on_while_it_still_comes_in_and_so_is_the_answer(door: Door, behind: Upstream) -> None:
    behind.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst"
    behind.rest = b"later"
    with door.connection() as node:
        node.sendall(request(length="6"))
        behind.wait_for(lambda: b"".join(behind.seen).endswith(b"\r\n\r\nabc"))
        assert behind.requests == []
        node.sendall(b"def")
        got = b""
        while not got.endswith(b"first"):
            got += node.recv(1000)
        behind.go_on.set()
        while part := node.recv(1000):
            got += part
    assert got.endswith(b"\r\n\r\nfirstlater")
    assert behind.requests[0].endswith(b"abcdef")


def test_a_model_of_the_largest_size_passes_both_ways(door: Door, behind: Upstream) -> None:
    model = bytes(proxy.MOST_MODEL_BYTES)
    behind.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(model) + model
    with httpx.Client(trust_env=False, timeout=60) as node:
        answer = node.post(
            f"http://127.0.0.1:{door.port}{PUSH}", content=model, headers={"flwr-public-key": KEY} | proof()
        )
    assert answer.content == model
    assert behind.requests[0].endswith(model)


def test_a_larger_body_is_not_read(door: Door, behind: Upstream) -> None:
    assert status(door.ask(request(length=str(MOST_BODY_BYTES + 1)))) == 413
    assert behind.seen == []
    assert door.counts.reasons == ["size"]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_larger_answer_is_cut_off(
    door: Door, behind: Upstream, monkeypatch: pytest.MonkeyPatch, *, chunked: bool
) -> None:
    monkeypatch.setattr(proxy, "MOST_BODY_BYTES", 100)
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: 4000"
    body = b"fa0\r\n" + bytes(4000) + b"\r\n0\r\n\r\n" if chunked else bytes(4000)
    behind.answer = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body
    with httpx.Client(trust_env=False) as node, pytest.raises(httpx.RemoteProtocolError):
        node.post(f"http://127.0.0.1:{door.port}{PUSH}", content=b"", headers={"flwr-public-key": KEY} | proof())


def test_who_hangs_up_in_the_middle_leaves_no_request_behind(door: Door, behind: Upstream) -> None:
    with door.connection() as node:
        node.sendall(request(length="6"))
        behind.wait_for(lambda: b"".join(behind.seen).endswith(b"abc"))
    behind.wait_for(lambda: len(behind.broken) == 1)
    assert behind.requests == []
    assert status(door.ask(request())) == 200


def test_while_superlink_is_down_nodes_are_told_to_try_again_and_then_get_through(door: Door, behind: Upstream) -> None:
    assert status(door.ask(request())) == 200
    behind.answer = behind.answer.replace(b"content-length", b"connection: close\r\ncontent-length")
    assert status(door.ask(request())) == 200
    behind.stop()
    answer = door.ask(request())
    assert status(answer) == 503
    assert answer.endswith(b"\r\n\r\n")
    assert door.counts.reasons == ["down"]
    behind.start_again()
    assert status(door.ask(request())) == 200


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
def test_an_upstream_that_makes_no_sense_is_down(door: Door, behind: Upstream, answer: bytes) -> None:
    behind.answer = answer
    assert status(door.ask(request())) == 503


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_no_redirect_is_followed_or_handed_on(door: Door, behind: Upstream, code: int) -> None:
    place = f"http://127.0.0.1:{behind.port}/v1/control/list-nodes"
    behind.answer = f"HTTP/1.1 {code} Moved\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n".encode()
    answer = door.ask(request())
    assert status(answer) == code
    assert b"location" not in answer.lower()
    assert len(behind.requests) == 1


def test_superlinks_own_refusals_come_back_as_they_are(door: Door, behind: Upstream) -> None:
    behind.answer = b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    answer = door.ask(request())
    assert status(answer) == 401
    assert answer.endswith(b"\r\n\r\n{}")
    assert b"application/json" in answer


def test_health_is_what_we_know_and_asks_nobody(door: Door, behind: Upstream) -> None:
    well = request(HEALTH, method="GET", key=None, length=None, body=b"")
    assert status(door.ask(well)) == 200
    door.healthy = False
    assert status(door.ask(well)) == 503
    assert behind.seen == []
    for other in (
        request(HEALTH, method="HEAD", length=None, body=b""), request(HEALTH, method="GET"),
        request(HEALTH + "?", method="GET", length=None, body=b""),
    ):  # fmt: skip
        assert status(door.ask(other)) == 404


def test_one_address_cannot_take_everybodys_share() -> None:
    counts, now, told = Counts(), 0.0, list[int]()

    def upstream_() -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://a", transport=httpx.MockTransport(lambda _: httpx.Response(200)))

    door = Proxy(upstream_, keys=dict, well=lambda: True, watcher=counts, bell=MUTE, clock=lambda: now)

    async def ask(address: str) -> int:
        async def receive() -> dict[str, Any]:
            raise AssertionError("nothing is read")

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])

        await door({**_scope(PUSH.encode()), "client": (address, 1)}, receive, send)
        return told[-1]

    async def all_of_it() -> None:
        nonlocal now
        for _ in range(proxy.REQUESTS_BURST):
            assert await ask("192.0.2.1") == 401
        assert await ask("192.0.2.1") == 503
        assert await ask("192.0.2.2") == 401
        now = 1.0
        assert await ask("192.0.2.1") == 401

    asyncio.run(all_of_it())
    assert counts.reasons.count("rate") == 1


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server of this machine over TLS that answers everything, and its certificate's file."""
    certificate, key = self_signed("127.0.0.1", at=int(time.time()))
    (tmp_path / "up.pem").write_bytes(certificate)
    (tmp_path / "up.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "up.pem", tmp_path / "up.key")
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(WAIT_S)
                try:
                    with context.wrap_socket(connection, server_side=True) as tls:
                        # All of it: a connection ended with something unread is cut off, answer and all.
                        asked = b""
                        while not asked.endswith(b"\r\n\r\nabc") and (part := tls.recv(65_536)):
                            asked += part
                        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                except OSError:
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], tmp_path / "up.pem"
        ended.set()
        thread.join()


def test_only_an_upstream_that_our_authority_vouches_for_is_spoken_to(
    tmp_path: Path, behind: Upstream, certified: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, ca = certified
    # Whoever set this for other programs does not get our traffic.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{behind.port}")
    other = tmp_path / "other.pem"
    other.write_bytes(self_signed("127.0.0.1", at=int(time.time()))[0])
    for trusted, expected in ((other, 503), (ca, 200)):
        door = Door(tmp_path, behind)
        door.connect = lambda trusted=trusted: upstream(port, trusted)  # type: ignore[misc]
        with door.open():
            assert status(door.ask(request())) == expected
    assert behind.seen == []


def test_nothing_of_a_request_is_logged(door: Door, behind: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for asked in (request(PUSH, "Cookie: planted"), request("/planted"), request(key="planted"), b"planted\r\n\r\n"):
        door.ask(asked)
    behind.answer = b"planted\r\n\r\n"
    assert status(door.ask(request(PUSH, "flwr-package-name: planted"))) == 503
    assert status(door.ask(request(PUSH, "flwr-timestamp: planted", "flwr-signature: planted", signed=None))) == 401
    # What a program of ours tells at its least strict: our own lines, and others' warnings.
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING or one.name[:4] == "fedc"]
    assert set(told) <= {"Invalid HTTP request received."}
