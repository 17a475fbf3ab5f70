"""Whoever asks for messages where there are none is answered when there may be some, and never in another's place."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import cast

import pytest
from starlette.types import Message

from server.deploy import proxy
from server.deploy.bell import Bell
from server.deploy.held_pulls import HeldPulls
from tests.server.deploy.door import PULL, WAIT_S, Door, Upstream, node_key, openssh, request, shown, status

NOTHING = b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 0\r\n\r\n"
SOMETHING = b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 5\r\n\r\nhello"


class Node:
    """A request under way in a thread of its own."""

    def __init__(self, door: Door, number: int = 0) -> None:
        self.connection = door.connection()
        self.connection.sendall(request(PULL, key=shown(node_key(number)), signed=number))
        self.answer = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self.connection:
            while part := self.connection.recv(65_536):
                self.answer += part

    def is_answered(self, within_s: float = WAIT_S) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_S)


@pytest.fixture(autouse=True)
def nothing(behind: Upstream, door: Door) -> Iterator[None]:
    """SuperLink has no message, until a test says otherwise."""
    behind.answer = NOTHING
    yield
    door.bell.ring()


def asked(behind: Upstream, times: int) -> None:
    behind.wait_for(lambda: len(behind.requests) >= times)


def test_a_node_is_answered_as_soon_as_there_is_something(door: Door, behind: Upstream) -> None:
    node = Node(door)
    asked(behind, 1)
    assert not node.is_answered(0.3)
    behind.answer = SOMETHING
    door.bell.ring()
    assert node.is_answered()
    assert node.answer.endswith(b"\r\n\r\nhello")
    first, second = behind.requests
    assert first == second
    assert first.endswith(b"\r\n\r\nabc")
    assert door.counts.paths == [(PULL, 200)]


def test_what_was_pushed_for_another_leaves_it_waiting(door: Door, behind: Upstream) -> None:
    node = Node(door)
    for times in (1, 2, 3):
        asked(behind, times)
        assert not node.is_answered(0.1)
        door.bell.ring()
    behind.answer = SOMETHING
    asked(behind, 4)
    door.bell.ring()
    assert node.is_answered()
    assert node.answer.endswith(b"hello")


def test_in_the_end_it_is_told_that_there_is_nothing(
    door: Door, behind: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "HOLD_S", 0.2)
    node = Node(door)
    assert node.is_answered()
    assert status(node.answer) == 200
    assert b"content-length: 0\r\n" in node.answer
    assert b"content-type: application/protobuf\r\n" in node.answer
    assert len(behind.requests) == 1


def test_for_a_node_that_has_hung_up_nothing_is_fetched(door: Door, behind: Upstream) -> None:
    node = Node(door)
    asked(behind, 1)
    node.hang_up()
    other = Node(door)  # what it asks again gets what is there
    asked(behind, 2)
    behind.answer = SOMETHING
    door.bell.ring()
    assert other.is_answered()
    assert other.answer.endswith(b"hello")
    assert len(behind.requests) == 3


def test_whoever_asks_anew_takes_the_place_of_what_it_asked_before(door: Door, behind: Upstream) -> None:
    first = Node(door)
    asked(behind, 1)
    second = Node(door)
    assert first.is_answered()
    assert b"content-length: 0\r\n" in first.answer
    behind.answer = SOMETHING
    door.bell.ring()
    assert second.is_answered()
    assert second.answer.endswith(b"hello")
    assert len(behind.requests) == 3


@pytest.mark.parametrize(("how", "expected"), [("revoked", 401), ("the list is lost", 503)])
def test_whoever_is_let_in_no_more_gets_nothing_that_came_meanwhile(
    door: Door, behind: Upstream, how: str, expected: int
) -> None:
    node = Node(door)
    asked(behind, 1)
    behind.answer = SOMETHING
    if how == "revoked":
        door.admit({})
    else:
        door.lose_list()
    door.bell.ring()
    assert node.is_answered()
    assert status(node.answer) == expected
    assert len(behind.requests) == 1


@pytest.mark.parametrize("how", ["hung up", "asked anew", "neither"])
def test_a_ring_at_the_same_moment_fetches_nothing_for_whoever_is_not_there(how: str) -> None:
    bell, gone = _Bell(), asyncio.Event()
    held = HeldPulls(cast(Bell, bell))

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def wait() -> bool:
        first = asyncio.create_task(held.until_rung(b"key", 0, WAIT_S, receive))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # its own tasks have begun
        bell.event.set()
        if how == "hung up":
            gone.set()
        if how == "asked anew":
            held._newest[b"key"].set_result(None)
        return await first

    assert asyncio.run(wait()) == (how == "neither")
    assert len(held) == 0


class _Bell:
    is_heard = True

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def rung(self, _: int) -> None:
        await self.event.wait()


def test_one_node_waits_beside_another(door: Door, behind: Upstream) -> None:
    door.admit({"aster": openssh(node_key()), "birch": openssh(node_key(1))})
    nodes = Node(door), Node(door, 1)
    asked(behind, 2)
    assert not any(node.is_answered(0.2) for node in nodes)
    behind.answer = SOMETHING
    door.bell.ring()
    assert all(node.is_answered() and node.answer.endswith(b"hello") for node in nodes)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 503), (NOTHING.replace(b"200", b"401"), 401)],
)
def test_only_that_there_is_nothing_is_waited_over(door: Door, behind: Upstream, answer: bytes, expected: int) -> None:
    behind.answer = answer
    assert status(door.ask(request(PULL))) == expected
    assert len(behind.requests) == 1


def test_other_requests_with_empty_answers_are_not_held(door: Door, behind: Upstream) -> None:
    assert status(door.ask(request("/v1/fleet/send-node-heartbeat"))) == 200
    assert len(behind.requests) == 1


def test_a_request_for_messages_is_small(door: Door, behind: Upstream) -> None:
    most = proxy.MOST_PULL_BYTES
    behind.answer = SOMETHING
    assert status(door.ask(request(PULL, length=str(most), body=b"a" * most))) == 200
    assert status(door.ask(request(PULL, length=str(most + 1), body=b"a" * (most + 1)))) == 413
    assert len(behind.requests) == 1
