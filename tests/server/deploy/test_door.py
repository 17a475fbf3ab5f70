"""Who proves nothing does not reach SuperLink; what may pass again is told to try again, and nothing is ever a 500."""

import asyncio
from typing import Any

import httpx
import pytest
import uvicorn

from server.deploy.node_shares import KeptConnections
from server.deploy.proxy import FLEET, Closed, Proxy
from server.deploy.serve import _Door
from tests.server.deploy.door import MUTE, PUSH, Counts, Door, node_key, openssh, proof, request, shown, status

ACTIVATE = "/v1/fleet/activate-node"


def headers(told: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in told.items()]


WRONG = {
    "none": [],
    "made up": ["flwr-signature: AAAA", f"flwr-timestamp: {proof()['flwr-timestamp']}"],
    "another's": headers(proof(1)),
    "an hour old": headers(proof(ago_s=3600)),
    "an hour ahead": headers(proof(ago_s=-3600)),
    "of another time": headers(proof() | {"flwr-timestamp": proof(ago_s=1)["flwr-timestamp"]}),
    "no time": headers({"flwr-signature": proof()["flwr-signature"]}),
}


@pytest.mark.parametrize("path", [PUSH, ACTIVATE, "/v1/fleet/push-object"])
@pytest.mark.parametrize("how", WRONG)
def test_a_key_that_is_only_named_reaches_nobody(door: Door, how: str, path: str) -> None:
    # As SuperLink says it: to `activate-node` as well, where 412 would mean that the key is not enrolled.
    assert status(door.ask(request(path, *WRONG[how], signed=None))) == 401
    assert door.upstream.seen == []
    assert door.counts.reasons == ["signature"]
    assert door.met == []
    assert status(door.ask(request(path))) == 200
    assert door.met == ["127.0.0.1"]


def test_a_large_body_under_a_key_that_is_only_named_takes_no_place(door: Door) -> None:
    asked = request(
        "/v1/fleet/push-object", "flwr-signature: AAAA", "flwr-timestamp: x", signed=None, length="60000000"
    )
    for _ in range(80):
        with door.connection() as node:
            node.sendall(asked)
            assert status(node.recv(1000)) == 401
    assert door.upstream.seen == []


@pytest.mark.parametrize("path", [f"/v1/fleet/{name}" for name in FLEET])
def test_while_the_list_is_missing_nodes_are_told_to_try_again(door: Door, path: str) -> None:
    assert status(door.ask(request(path))) == 200
    door.lose_list()
    assert status(door.ask(request(path))) == 503
    assert status(door.ask(request(path, key=shown(node_key(1)), signed=1))) == 503
    assert len(door.upstream.requests) == 1
    assert door.counts.reasons == ["list", "list"]
    door.admit({"aster": openssh(node_key())})
    assert status(door.ask(request(path))) == 200


@pytest.mark.parametrize("code", [500, 501, 502, 504, 507, 599])
def test_what_superlink_fails_at_is_tried_again(door: Door, code: int) -> None:
    door.upstream.answer = b"HTTP/1.1 %d No\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nInner" % code
    answer = door.ask(request())
    assert status(answer) == 503
    assert answer.endswith(b"\r\n\r\n")
    assert (door.counts.paths, door.counts.reasons) == ([], ["failed"])
    door.upstream.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert status(door.ask(request())) == 200


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 412, 422, 429])
def test_what_superlink_refuses_is_handed_back(door: Door, code: int) -> None:
    door.upstream.answer = b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\n{}" % code
    assert status(door.ask(request())) == code
    assert door.counts.paths == [(PUSH, code)]


FAILURES = [httpx.ConnectError, httpx.ReadTimeout, httpx.PoolTimeout, httpx.WriteTimeout, httpx.RemoteProtocolError]


@pytest.mark.parametrize("failure", [*FAILURES, OSError, KeyError])
def test_however_it_fails_nobody_is_told_500(failure: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure("planted")

    is_ours = failure not in FAILURES
    counts, told = Counts(), list[Any]()
    named = {shown(node_key()).encode(): node_key()}
    asked = [(b"host", b"a"), (b"content-length", b"0"), (b"flwr-public-key", next(iter(named)))]
    asked += [(name.encode(), value.encode()) for name, value in proof().items()]
    scope = {
        "type": "http", "method": "POST", "http_version": "1.1", "client": None, "headers": asked,
        "state": {"target": PUSH.encode()},
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    async def ask() -> None:
        door_ = Proxy(httpx.AsyncClient, keys=lambda: named, well=lambda: True, watcher=counts, bell=MUTE)
        async with httpx.AsyncClient(base_url="http://a", transport=httpx.MockTransport(fail)) as door_._upstream:
            await door_(scope, receive, send)

    asyncio.run(ask())
    assert [message.get("status") for message in told] == [503, None]
    assert counts.reasons == ["fault" if is_ours else "down"]
    assert (failure.__name__ in caplog.text) == is_ours
    assert "planted" not in caplog.text


def test_every_reason_but_a_final_one_is_told_as_try_again() -> None:
    final = {Closed.PATH, Closed.SHAPE, Closed.KEY, Closed.SIGNATURE, Closed.SIZE}
    assert {reason for reason in Closed if reason.status != 503} == final


def test_the_door_counts_connections_by_the_share_that_is_kept() -> None:
    connections = KeptConnections(4, 4, kept=1)
    made = _Door(uvicorn.Config(lambda: None), connections, started=lambda: None, tend=lambda: None, hush=lambda: None)
    assert made._shares is connections
