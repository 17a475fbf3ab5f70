"""Nobody takes what is meant for the others: places with SuperLink, bytes for its disk, connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deploy import node_shares
from server.deploy.node_shares import AT_ONCE, WAITING, KeptConnections
from server.deploy.proxy import Proxy, _body, _SlowError
from server.deploy.serve import KEPT_CONNECTIONS, MOST_CONNECTIONS, MOST_CONNECTIONS_EACH
from tests.server.deploy.door import MUTE, PUSH, Counts, node_key, proof, shown

KEYS = {shown(node_key(number)).encode(): node_key(number) for number in range(2)}
NAMES = list(KEYS)


class Scene:
    """A door before a SuperLink that answers when told to, and nodes with keys 0 and 1."""

    def __init__(self) -> None:
        self.now, self.counts = 0.0, Counts()
        self.there = 0  # requests that are with SuperLink
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.asked: list[asyncio.Task[int]] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Scene"]:
        async with self._http() as http:
            self.door = Proxy(
                self._http, keys=lambda: KEYS, well=lambda: True, watcher=self.counts, bell=MUTE, clock=lambda: self.now
            )
            self.door._upstream = http
            yield self
            self.go_on.set()
            await asyncio.gather(*self.asked)

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://a", transport=httpx.MockTransport(self._answer))

    async def _answer(self, _: httpx.Request) -> httpx.Response:
        self.there += 1
        await self.go_on.wait()
        self.there -= 1
        return httpx.Response(200, content=b"")

    def begin(self, number: int = 0, *, size: int = 0, body: bool = True) -> asyncio.Task[int]:
        """A request of which the whole body is there, or nothing ever comes."""
        told = proof(number) | {"flwr-public-key": NAMES[number].decode()}
        told |= {"host": "a", "content-length": str(size)}
        scope = {
            "type": "http", "method": "POST", "http_version": "1.1", "client": ("192.0.2.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
            "state": {"target": PUSH.encode()},
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            if not body:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": bytes(size), "more_body": False}

        async def ask() -> int:
            answers: list[int] = []

            async def send(message: Any) -> None:
                answers.extend([message["status"]] if message["type"] == "http.response.start" else [])

            await self.door(scope, receive, send)
            return answers[0]

        self.asked.append(asyncio.create_task(ask()))
        return self.asked[-1]


async def settle(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


def play(scene: Callable[[Scene], Any]) -> Scene:
    async def all_of_it() -> Scene:
        async with Scene().open() as made:
            await scene(made)
        return made

    return asyncio.run(all_of_it())


def test_one_key_has_four_requests_with_superlink_and_more_wait_for_their_turn() -> None:
    async def play_(scene: Scene) -> None:
        scene.go_on.clear()
        ours = [scene.begin() for _ in range(AT_ONCE + WAITING)]
        await settle(lambda: scene.there == AT_ONCE)
        for _ in range(100):
            await asyncio.sleep(0)
        assert scene.there == AT_ONCE
        assert await scene.begin() == 503  # too many wait already
        other = scene.begin(1)
        await settle(lambda: scene.there == AT_ONCE + 1)
        scene.go_on.set()
        assert [await one for one in (*ours, other)] == [200] * (len(ours) + 1)

    scene = play(play_)
    assert scene.counts.reasons == ["busy"]
    assert len(scene.door._places) == 0


def test_who_waits_too_long_for_a_place_is_told_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_shares, "WAIT_S", 0.01)

    async def play_(scene: Scene) -> None:
        scene.go_on.clear()
        for _ in range(AT_ONCE):
            scene.begin()
        await settle(lambda: scene.there == AT_ONCE)
        assert await scene.begin() == 503
        scene.go_on.set()
        assert await scene.begin() == 200

    assert play(play_).counts.reasons == ["busy"]


def test_who_announces_a_body_and_sends_none_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_shares, "BODY_S", 0.01)

    async def play_(scene: Scene) -> None:
        assert await scene.begin(size=60_000_000, body=False) == 503
        assert await scene.begin(size=10) == 200

    scene = play(play_)
    assert scene.counts.reasons == ["slow"]
    assert len(scene.door._places) == 0


def test_a_body_is_given_time_by_how_much_of_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given_s, real = 0.0, list[float](), asyncio.timeout

    def within(left: float) -> asyncio.Timeout:
        given_s.append(left)
        return real(None if left > 0 else left)

    monkeypatch.setattr(asyncio, "timeout", within)

    async def receive() -> dict[str, Any]:
        nonlocal now
        await asyncio.sleep(0)
        now += 4
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": True}

    async def read() -> None:
        async for _ in _body(receive, lambda: now):
            pass

    with pytest.raises(_SlowError):
        asyncio.run(read())
    assert given_s == [10, 7, 4, 1, -2]  # four seconds gone each time, and one earned


def test_one_key_cannot_fill_the_disk_and_the_others_are_not_hindered() -> None:
    size = 64 << 20

    async def play_(scene: Scene) -> None:
        passed = 0
        while await scene.begin(size=size) == 200:
            passed += 1
        assert passed * size == node_shares.BYTES_BURST
        assert await scene.begin() == 200  # nothing in it: asking goes on
        assert await scene.begin(1, size=size) == 200
        scene.now = 60.0
        per_minute = 60 * node_shares.BYTES_PER_S
        assert await scene.begin(size=per_minute) == 200
        assert await scene.begin(size=1) == 503

    assert play(play_).counts.reasons == ["bytes", "bytes"]


STRANGERS = st.lists(st.integers(0, 5), max_size=60)


@given(strangers=STRANGERS)
def test_strangers_never_get_the_connections_that_are_kept(strangers: list[int]) -> None:
    connections = KeptConnections(20, 8, kept=5)
    connections.meet("2001:db8::1")
    for number in strangers:
        connections.take(f"192.0.2.{number}")
    assert len(connections) <= 15
    got = [connections.take("2001:db8::77") for _ in range(5)]  # the same network
    assert all(got)
    connections.give_back("2001:db8::1")
    assert len(connections) <= 20


def test_who_was_met_is_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_shares, "KEPT_FOR", 2)
    connections = KeptConnections(1, 1, kept=1)
    for number in range(3):
        connections.meet(f"192.0.2.{number}")
    assert not connections.take("192.0.2.0")
    assert connections.take("192.0.2.1")


def test_two_addresses_cannot_take_all_connections_of_a_coordinator() -> None:
    connections = KeptConnections(MOST_CONNECTIONS, MOST_CONNECTIONS_EACH, kept=KEPT_CONNECTIONS)
    connections.meet("192.0.2.9")
    for stranger in ("192.0.2.1", "192.0.2.2"):
        for _ in range(MOST_CONNECTIONS_EACH):
            connections.take(stranger)
    assert connections.take("192.0.2.9")
