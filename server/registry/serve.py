"""A registry's process: one socket, TLS, and an orderly end."""

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from federated.guarded_server import GuardedServer
from privacy.errors import RefusalCode, RefusalError
from server.registry.http import create_app
from server.registry.settings import Home
from server.registry.store import Registry

MOST_CONNECTIONS: Final = 512
MOST_CONNECTIONS_EACH: Final = 128
"""From one address, or one IPv6 /64: few strangers could otherwise take all of them."""
GRACE_S: Final = 30
GOODBYE_S: Final = 0.5


def open_registry(home: Home) -> Registry:
    """The registry of a directory, for one process among several."""
    settings = home.settings
    return Registry(home.database, home.key(), settings.identities, merge_delay_s=settings.merge_delay_s)


def serve(home: Home, *, listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then take no more requests, commit and answer what is queued, and return.

    `listening` is given the address as soon as requests are answered. RefusalError when the port, the certificate or
    the database cannot be used.
    """
    _check_certificate(home)
    registry = open_registry(home)
    try:
        with _listener(home) as listener:
            for lane in home.settings.lanes:
                registry.head(lane)  # read now, so that the first wallet need not wait for it
            scheme = "https" if home.settings.encrypted else "http"
            host, port = listener.getsockname()[:2]
            address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            app = create_app(home.settings, registry, lambda: int(time.time()))
            server = _Server(
                _config(home, app), most=MOST_CONNECTIONS, each=MOST_CONNECTIONS_EACH,
                started=lambda: listening(address),
            )  # fmt: skip
            for number in (signal.SIGTERM, signal.SIGINT):
                # Uvicorn hands the signal on when it is done; without this the process would then die of it.
                signal.signal(number, server.stop)
            server.run(sockets=[listener])
    finally:
        registry.close()


class _Server(GuardedServer):
    async def _wait_tasks_to_complete(self) -> None:
        """Wait for every request that is being answered, and a moment for connections that say goodbye.

        Uvicorn waits for all connections alike; over TLS one that its peer left idle takes 30 s to be given up.
        """
        while self.server_state.tasks and not self.force_exit:
            await asyncio.sleep(0.02)
        end = time.monotonic() + GOODBYE_S
        while self.server_state.connections and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.02)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True


def _config(home: Home, app: FastAPI) -> uvicorn.Config:
    encrypted = home.settings.encrypted
    return uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="on", ws="none",
        # What a proxy says about who asked can be made up by anybody who is not the proxy.
        proxy_headers=False,
        # Requests whose wallet hung up count here, too; connections are bounded before they get this far.
        limit_concurrency=MOST_CONNECTIONS + 1, timeout_graceful_shutdown=GRACE_S,
        # httptools and uvloop, always: where they are missing, say so at the start and not by being slow.
        http="httptools", loop="uvloop",
        ssl_certfile=home.certificate if encrypted else None, ssl_keyfile=home.private_key if encrypted else None,
    )  # fmt: skip


def _listener(home: Home) -> socket.socket:
    host, port = home.settings.host, home.settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise RefusalError(
            f"Port {port} of {host} cannot be listened on ({error.strerror}). The registry's operator should stop the "
            "program that has it, or name another port in registry.toml.",
            RefusalCode.INTERNAL,
        ) from None
    return listener


def _check_certificate(home: Home) -> None:
    if not home.settings.encrypted:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(home.certificate, home.private_key)
    except OSError as error:  # ssl.SSLError is one
        raise RefusalError(
            f"{home.settings.certificate} and {home.settings.private_key} cannot be used as a certificate and its "
            f"private key ({error.strerror or type(error).__name__}). The registry's operator should put both there "
            "as PEM, or make a pair with `fedcredit registry init --self-signed`.",
            RefusalCode.INTERNAL,
        ) from None
