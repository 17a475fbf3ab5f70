"""Certificates and little servers for looking at what `fedcredit doctor` finds."""

import http.server
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from federated.certificates import certificate_pem, certify, key_pem
from federated.doctor import Finding, State

DAY_S = 86_400


class Authority:
    """A certificate authority of a test, good for ten years from a year ago."""

    def __init__(self, *, at: int) -> None:
        self.at = at
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = certify(
            self.key.public_key(), name="test", hosts=(), signs_others=True, key=self.key, issuer=None,
            at=at - 365 * DAY_S, days=3650,
        )  # fmt: skip

    @property
    def pem(self) -> bytes:
        return certificate_pem(self.certificate)

    def issue(
        self, path: Path, *, hosts: Sequence[str] = ("127.0.0.1",), begins: int = -1, days: int = 90
    ) -> x509.Certificate:
        """Write `path`.pem and `path`.key, good for `days` days; `begins` is when, in days from now."""
        own = ec.generate_private_key(ec.SECP256R1())
        made = certify(
            own.public_key(), name="test", hosts=hosts, signs_others=False, key=self.key, issuer=self.certificate,
            at=self.at + begins * DAY_S, days=days,
        )  # fmt: skip
        path.with_suffix(".pem").write_bytes(certificate_pem(made))
        path.with_suffix(".key").write_bytes(key_pem(own))
        path.with_suffix(".key").chmod(0o600)
        return made


Reply = Callable[[str], tuple[int, bytes]]


@contextmanager
def answering(reply: Reply, *, ahead_s: float = 0, tls: Path | None = None) -> Iterator[int]:
    """A server on a free port of this machine, which is yielded; its Date header is `ahead_s` ahead of our clock.

    `reply` is given the path and says status and body; with `tls` the server shows `tls`.pem.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = reply(self.path)
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + ahead_s, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = _Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.with_suffix(".pem"), tls.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(http.server.HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Who looks at a certificate only hangs up."""


@contextmanager
def taken() -> Iterator[int]:
    """A port of this machine that somebody listens on who never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    """A port that is free and stays so: systems choose theirs from 32,768 up."""
    while True:
        number = 20_000 + secrets.randbelow(10_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", number)):
            return number


def found(findings: Sequence[Finding], what: str) -> Finding:
    (finding,) = [one for one in findings if one.what == what]
    return finding


def wrong(findings: Sequence[Finding]) -> dict[str, State]:
    """What is not well, and how grave it is."""
    return {one.what: one.state for one in findings if one.state in (State.WARNING, State.PROBLEM)}
