"""Strangers at a server's door: silent, slow, greedy or many, and whoever else comes is served all the same."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from federated.guarded_server import GuardedServer, Patience
from tests.clients.holder.test_side_door import certificate

LONG = Patience(handshake=60, request=60, answer=60)
SHORT = 0.2
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MUCH = 64 << 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = bytes(MUCH) if scope["path"] == "/much" else b"yes"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for first in range(0, len(body), 1 << 16):
        await send({"type": "http.response.body", "body": body[first : first + (1 << 16)], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Place:
    """Where a server listens, and how it is called."""

    def __init__(self, server: GuardedServer, port: int, tls: ssl.SSLContext | None) -> None:
        self.server, self.port, self.tls = server, port, tls
        self.writers: list[asyncio.StreamWriter] = []

    async def call(
        self, address: str = "127.0.0.1", *, plain: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=None if plain else self.tls, local_addr=(address, 0)
        )
        self.writers.append(writer)
        return reader, writer

    async def hang_up(self) -> None:
        """End every connection that was made."""
        for writer in self.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def is_served(self, address: str) -> bool:
        try:
            reader, writer = await self.call(address)
            writer.write(ASK)
            answer = await reader.readuntil(b"yes")
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            return False
        return answer.startswith(b"HTTP/1.1 200")


@asynccontextmanager
async def listening(tls: Path | None, patience: Patience, most: int, each: int) -> AsyncIterator[Place]:
    pem, key = certificate(tls) if tls else (None, None)
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", ws="none", timeout_keep_alive=60, ssl_certfile=pem, ssl_keyfile=key
    )
    started = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = GuardedServer(config, most=most, each=each, started=started.set, patience=patience)
        serving = asyncio.create_task(server._serve([listener]))
        try:
            await started.wait()
            trust = ssl.create_default_context(cafile=str(pem)) if pem else None
            yield Place(server, listener.getsockname()[1], trust)
        finally:
            server.should_exit = server.force_exit = True
            await serving


def run(
    work: Callable[[Place], Awaitable[None]], tls: Path | None = None, patience: Patience = LONG, *, most: int = 100,
    each: int = 100,
) -> None:  # fmt: skip
    async def all_of_it() -> None:
        async with asyncio.timeout(30), listening(tls, patience, most, each) as place:
            try:
                await work(place)
            finally:
                await place.hang_up()
            for _ in range(500):
                if not len(place.server._shares):
                    break
                await asyncio.sleep(0.01)
            assert not len(place.server._shares)  # every place was given back

    asyncio.run(all_of_it())


async def ends(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server hangs up."""
    parts = []
    try:
        while part := await reader.read(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("said", [b"", b"G", ASK[:-1], ASK[:-2] + b"X: "])
@pytest.mark.parametrize("tls", [False, True])
def test_who_does_not_finish_a_request_is_hung_up_on(tmp_path: Path, tls: bool, said: bytes) -> None:
    async def work(place: Place) -> None:
        reader, writer = await place.call()
        writer.write(said)
        assert await ends(reader) == b""

    run(work, tmp_path if tls else None, replace(LONG, request=SHORT))


def test_who_is_served_and_then_sends_half_a_request_is_hung_up_on() -> None:
    async def work(place: Place) -> None:
        reader, writer = await place.call()
        writer.write(ASK)
        await reader.readuntil(b"yes")
        writer.write(b"GET / HT")  # ends the wait that uvicorn itself has between two requests
        assert await ends(reader) == b""

    run(work, patience=replace(LONG, request=SHORT))


def test_who_never_speaks_tls_is_hung_up_on(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        reader, _ = await place.call(plain=True)
        assert await ends(reader) == b""

    run(work, tmp_path, replace(LONG, handshake=SHORT))


def test_who_does_not_read_the_answer_is_hung_up_on() -> None:
    async def work(place: Place) -> None:
        with socket.create_connection(("127.0.0.1", place.port)) as deaf:
            deaf.sendall(ASK.replace(b"/ ", b"/much "))
            while not len(place.server._shares):
                await asyncio.sleep(0.01)
            while len(place.server._shares):
                await asyncio.sleep(0.01)

    run(work, patience=replace(LONG, answer=SHORT))


def test_an_endless_head_is_not_read_to_its_end() -> None:
    async def work(place: Place) -> None:
        reader, writer = await place.call()
        writer.write(ASK[:-2])

        async def endless() -> None:
            while True:
                writer.write(b"X-Word: " + b"x" * 8000 + b"\r\n")
                await writer.drain()

        with pytest.raises(ConnectionError):
            await endless()
        assert await ends(reader) == b""

    run(work)


@pytest.mark.parametrize("tls", [False, True])
def test_one_address_cannot_take_all_connections(tmp_path: Path, tls: bool) -> None:
    async def work(place: Place) -> None:
        silent = [await place.call("127.0.0.2", plain=True) for _ in range(20)]
        assert not await place.is_served("127.0.0.2")
        assert await place.is_served("127.0.0.3")
        assert await place.is_served("127.0.0.3")  # the first one's place was given back
        assert len(silent) == 20

    run(work, tmp_path if tls else None, most=10, each=4)


def test_all_together_have_a_bound(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        silent = [await place.call(f"127.0.1.{number}", plain=True) for number in range(1, 4)]
        assert not await place.is_served("127.0.0.1")
        silent.pop()[1].transport.abort()
        while not await place.is_served("127.0.0.1"):
            await asyncio.sleep(0.01)

    run(work, most=3, each=2)


def test_an_orderly_client_may_take_its_time_between_requests() -> None:
    async def work(place: Place) -> None:
        reader, writer = await place.call()
        for _ in range(8):
            writer.write(ASK + ASK)  # the second one waits for the first
            for _ in range(2):
                assert (await reader.readuntil(b"yes")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(SHORT / 4)

    run(work, patience=replace(LONG, request=SHORT, answer=SHORT))
