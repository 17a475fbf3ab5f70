"""An HTTP server that strangers cannot fill: bounded connections, and patience that ends at every step of one."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from federated.rate_limit import Shares

_MOST_HEAD_BYTES: Final = 65_536
_WAITING: Final = 2048
_RETRY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a connection has for each step; it is cut off after that."""

    handshake: float = 10.0  # TLS; nothing was asked yet
    request: float = 10.0  # from the connection, or the last answer, to the end of the next request's head
    answer: float = 60.0  # from there until the answer is handed to the network, however slowly it is read


class GuardedServer(uvicorn.Server):
    """uvicorn behind a door of its own: at most `most` connections, and `each` from one address or IPv6 /64.

    uvicorn counts connections only after TLS and refuses them only at their first request, and it waits for that
    request for ever. Who is over a limit here is hung up on without a word, before TLS.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        most: int,
        each: int,
        started: Callable[[], None],
        patience: Patience = Patience(),
    ) -> None:
        super().__init__(config)
        self._shares = Shares(most, each)
        self._tell_started, self._patience = started, patience
        self._doors: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the given sockets, and tell."""
        await super().startup([])
        if not self.started:
            return
        for listener in sockets or []:
            listener.listen(_WAITING)
            listener.setblocking(False)
            self._keep(asyncio.create_task(self._accept(listener)))
        self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nobody any more, and end as uvicorn does."""
        for door in self._doors:
            door.cancel()
        await asyncio.gather(*self._doors, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError:
                # Gone again, or no more open files: the connections that there are come to their ends.
                await asyncio.sleep(_RETRY_S)
                continue
            if self._shares.take(address[0]):
                self._keep(asyncio.create_task(self._connect(connection, address[0])))
            else:
                connection.close()

    async def _connect(self, connection: socket.socket, address: str) -> None:
        loop, left = asyncio.get_running_loop(), _Once(lambda: self._shares.give_back(address))
        tls: dict[str, Any] = {}
        if self.config.ssl is not None:
            tls = {
                "ssl": self.config.ssl, "ssl_handshake_timeout": self._patience.handshake,
                "ssl_shutdown_timeout": self._patience.handshake,
            }  # fmt: skip
        try:
            with suppress(OSError):  # ssl.SSLError and TimeoutError, too: a stranger's failure
                await loop.connect_accepted_socket(lambda: self._protocol(left), connection, **tls)
                return
        except BaseException:
            left()
            raise
        left()

    def _protocol(self, left: Callable[[], None]) -> asyncio.Protocol:
        return _PatientProtocol(self, left, self._patience)

    def _keep(self, door: asyncio.Task[None]) -> None:
        self._doors.add(door)
        door.add_done_callback(self._doors.discard)


class _Once:
    """Calls `work` at the first call only."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work

    def __call__(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


class _PatientProtocol(HttpToolsProtocol):
    def __init__(self, server: GuardedServer, left: Callable[[], None], patience: Patience) -> None:
        super().__init__(server.config, server.server_state, server.lifespan.state)
        self._left, self._patience = left, patience
        self._timer: asyncio.TimerHandle | None = None
        self._in_head, self._head_bytes = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._within(self._patience.request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        self._left()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._within(self._patience.answer)
        # As it was sent: uvicorn hands on only what it understands as a path.
        self.scope["state"]["target"] = self.url
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Unless another request came in meanwhile, and has its own time.
        if self.cycle.response_complete:
            self._within(self._patience.request)

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Not `close`, which would wait until the peer has read what is left.
        self._timer = self.loop.call_later(seconds, self.transport.abort)
