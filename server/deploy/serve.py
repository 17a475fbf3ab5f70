"""The coordinator's standing program: SuperLink as its child on this machine, and the public door before it."""

import asyncio
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Final

import uvicorn

from federated.guarded_server import GuardedServer, Patience
from federated.lock import alone
from federated.programs import Supervisor
from privacy.errors import RefusalCode, RefusalError
from server.deploy.bell import Bell
from server.deploy.members import Members
from server.deploy.metrics import Metrics
from server.deploy.node_keys import NodeKeys
from server.deploy.node_shares import KeptConnections
from server.deploy.node_watch import NodeWatch
from server.deploy.proxy import Proxy, upstream
from server.deploy.settings import Home
from server.deploy.superlink import NAME, SuperLink, has_begun, superlink

LOG: Final = logging.getLogger("fedcredit.serve")
MOST_CONNECTIONS: Final = 512
MOST_CONNECTIONS_EACH: Final = 256
"""From one address, which data holders may share; a node keeps two or three."""
KEPT_CONNECTIONS: Final = 128
"""Of all, only for addresses of nodes that are enrolled; strangers cannot fill these."""
PATIENCE: Final = Patience(handshake=10, request=20, answer=300)
"""Nodes leave a connection idle for 5 s before they give it up, and a model may come over a slow line."""
START_S: Final = 90.0
POLL_S: Final = 0.5
GRACE_S: Final = 10
GOODBYE_S: Final = 0.5


def serve(home: Home, *, listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT: then take no more requests, answer those that are there, and end SuperLink.

    `listening` is given the address once nodes can connect. RefusalError when another serves this directory, or when
    a port, a certificate or SuperLink cannot be used; nothing is left running then.
    """
    _check_certificate(home)
    message = (
        "another `fedcredit coordinator serve` serves this directory. Stop that one first, or name another directory "
        "with --directory."
    )
    with alone(home.serve_lock, message), _listener(home) as listener, _Serving(home, listener) as serving:
        serving.run(listening)


class _Serving:
    """SuperLink, the watch over it and the door, from the first start to the end of all three."""

    def __init__(self, home: Home, listener: socket.socket) -> None:
        self._home, self._listener = home, listener
        self._metrics = Metrics(home, time.time)
        members = Members(home.directory)
        if not has_begun(home):
            members.begin()
        self._keys = NodeKeys(home.members, members.keys)
        self._connections = KeptConnections(MOST_CONNECTIONS, MOST_CONNECTIONS_EACH, kept=KEPT_CONNECTIONS)
        self._supervisor = Supervisor(
            [superlink(home)], pid_file=home.superlink / "supervised.json", ended=self._note_end
        )
        self._superlink = SuperLink(home)
        host, port = listener.getsockname()[:2]
        self._address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._watch = NodeWatch(
            self._superlink, self._keys, gauges=self._metrics, clock=time.monotonic, told=home.serving,
            address=self._address, pid=os.getpid(), at=int(time.time()),
        )  # fmt: skip
        self._bell = Bell(home.bell)
        self._stopping = threading.Event()

    def __enter__(self) -> "_Serving":
        metrics_port = self._home.settings.fleet.metrics_port
        with ExitStack() as stack:
            if metrics_port:
                stack.enter_context(self._metrics.serve(metrics_port))
            stack.enter_context(self._supervisor)
            # First of all: SuperLink waits for connections that are kept open before it ends.
            stack.callback(self._superlink.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._stack.close()
        self._watch.well = False
        self._watch.tell("stopped", starts=0)

    def run(self, listening: Callable[[str], None]) -> None:
        """Wait for SuperLink, then open the door, until told to stop."""
        door = _Door(
            _config(self._home, self._app()), self._connections, started=partial(listening, self._address),
            tend=self._tend, hush=self._bell.hush,
        )  # fmt: skip
        for number in (signal.SIGTERM, signal.SIGINT):
            # Uvicorn hands the signal on when it is done; without this the process would then die of it.
            signal.signal(number, partial(self._stop, door))
        self._until_well()
        if self._stopping.is_set():
            return
        watching = threading.Thread(target=self._look, name="watch")
        watching.start()
        try:
            door.run(sockets=[self._listener])
        finally:
            self._stopping.set()
            watching.join()

    def _app(self) -> Proxy:
        home = self._home
        return Proxy(
            partial(upstream, home.settings.fleet.superlink_port, home.tls / "ca.pem"), keys=self._keys.shown,
            well=lambda: self._watch.well, watcher=self._metrics, bell=self._bell, meet=self._connections.meet,
        )  # fmt: skip

    def _until_well(self) -> None:
        """Wait until SuperLink answers and knows who is enrolled, or until we are told to stop."""
        end = time.monotonic() + START_S
        while not self._watch.well and not self._stopping.wait(POLL_S / 5):
            self._tend()
            if self._failures() or time.monotonic() > end:
                port = self._home.settings.fleet.superlink_port
                raise RefusalError(
                    f"Flower's SuperLink {'ended' if self._failures() else 'does not answer'} at its start. The "
                    f"end of superlink/superlink.log says why; most often another program has port {port} of "
                    "127.0.0.1: stop it, or name another fleet.superlink_port in coordinator.toml. Or the disk is "
                    "full: make room.",
                    RefusalCode.INTERNAL,
                )
            self._watch.look(starts=self._starts())

    def _look(self) -> None:
        while not self._stopping.wait(POLL_S):
            self._watch.look(starts=self._starts())

    def _tend(self) -> None:
        self._supervisor.tend()

    def _starts(self) -> int:
        return self._supervisor.fates()[NAME].starts

    def _failures(self) -> int:
        return self._supervisor.fates()[NAME].failures

    def _note_end(self, _: str, code: int) -> None:
        self._metrics.superlink_ended()
        LOG.error(
            "SuperLink ended by itself (exit code %d) and is started again; a run in progress has failed, and goes on "
            "with `fedcredit coordinator resume`", code,
        )  # fmt: skip

    def _stop(self, door: "_Door", _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()
        door.should_exit = True


class _Door(GuardedServer):
    """The listening server. Between two of its ticks SuperLink is tended, by the thread that started it."""

    def __init__(
        self, config: uvicorn.Config, connections: KeptConnections, *, started: Callable[[], None],
        tend: Callable[[], None], hush: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(config, most=MOST_CONNECTIONS, each=MOST_CONNECTIONS_EACH, started=started, patience=PATIENCE)
        self._shares = connections
        self._tend, self._hush = tend, hush

    async def on_tick(self, counter: int) -> bool:
        """Look after SuperLink, then whether to end."""
        self._tend()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go the nodes that wait for messages, and end."""
        self._hush()
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        """Wait for requests that are being answered, and a moment for connections that say goodbye."""
        while self.server_state.tasks and not self.force_exit:
            await asyncio.sleep(0.02)
        end = time.monotonic() + GOODBYE_S
        while self.server_state.connections and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.02)


def _config(home: Home, app: Proxy) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="on", ws="none",
        # What a proxy says about who asked can be made up by anybody who is not the proxy.
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS + 1, timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=15,
        http="httptools", loop="uvloop",
        ssl_certfile=home.tls / "fleet.pem", ssl_keyfile=home.tls / "fleet.key",
    )  # fmt: skip


@contextmanager
def _listener(home: Home) -> Iterator[socket.socket]:
    """Bound, so that nobody else takes the port, and not listening: until the door opens, connections are refused."""
    host, port = home.settings.fleet.host, home.settings.fleet.port
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise RefusalError(
                f"Port {port} of {host} cannot be listened on ({error.strerror}). The coordinator should stop the "
                "program that has it, or name another fleet.port in coordinator.toml.",
                RefusalCode.INTERNAL,
            ) from None
        yield listener


def _check_certificate(home: Home) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(home.tls / "fleet.pem", home.tls / "fleet.key")
    except OSError as error:  # ssl.SSLError is one
        raise RefusalError(
            "tls/fleet.pem and tls/fleet.key cannot be used as a certificate and its private key "
            f"({error.strerror or type(error).__name__}). The coordinator should make them anew with `fedcredit "
            "coordinator certificates --renew`, or restore the folder tls from the copy kept safe.",
            RefusalCode.INTERNAL,
        ) from None
