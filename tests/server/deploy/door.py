"""A proxy on a free port of this machine, and an upstream behind it that keeps what reached it, byte for byte."""

import socket
import socketserver
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import sign_message

from federated.guarded_server import GuardedServer
from server.deploy.bell import Bell
from server.deploy.members import KeyTexts
from server.deploy.node_keys import NodeKeys
from server.deploy.proxy import Closed, Proxy

WAIT_S = 20.0
MUTE = Bell(Path("/dev/null/bell"))
"""Nobody can hear it, so nobody waits for it."""
HELLO = b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 5\r\n\r\nhello"
PUSH = "/v1/fleet/push-messages"
PULL = "/v1/fleet/pull-messages"


def private_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number + 2, ec.SECP384R1())


def node_key(number: int = 0) -> ec.EllipticCurvePublicKey:
    return private_key(number).public_key()


def openssh(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def shown(key: ec.EllipticCurvePublicKey) -> str:
    """As Flower's own nodes write it into the header."""
    return b64encode(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).decode()


def proof(number: int = 0, *, ago_s: float = 0.0) -> dict[str, str]:
    """What a node with this key adds to a request, by Flower's own function."""
    asked = (now() - timedelta(seconds=ago_s)).isoformat()
    return {
        "flwr-timestamp": asked,
        "flwr-signature": b64encode(sign_message(private_key(number), asked.encode())).decode(),
    }


@dataclass
class Counts:
    paths: list[tuple[str, int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def answered(self, path: str, status: int) -> None:
        self.paths.append((path, status))

    def refused(self, reason: Closed) -> None:
        self.reasons.append(reason.value)


class Upstream:
    """A server that keeps every request whole and answers what it was told to."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.broken: list[bytes] = []
        self.answer = HELLO
        self.rest = b""
        self.go_on = threading.Event()
        self.seen: list[bytes] = []
        self.came = threading.Condition()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                while outer._one(self.request):
                    pass

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        def make(port: int) -> socketserver.ThreadingTCPServer:
            return Listener(("127.0.0.1", port), Handler)

        self._make = make
        self._server = make(0)
        self.port = int(self._server.server_address[1])
        self._run()

    def _run(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _one(self, connection: socket.socket) -> bool:
        got, whole = bytearray(), 0
        while not whole or len(got) < whole:
            part = connection.recv(1 << 20)
            if not part:
                if got:
                    self.broken.append(bytes(got))
                    self._tell()
                return False
            got += part
            self.seen.append(part)
            self._tell()
            if not whole and (end := got.find(b"\r\n\r\n")) >= 0:
                whole = end + 4 + _length(bytes(got[:end]))
        self.requests.append(bytes(got))
        self._tell()
        connection.sendall(self.answer)
        if self.rest:
            self.go_on.wait(WAIT_S)
            connection.sendall(self.rest)
        return b"connection: close" not in self.answer[:200]

    def _tell(self) -> None:
        with self.came:
            self.came.notify_all()

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self.came:
            assert self.came.wait_for(what, WAIT_S)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def start_again(self) -> None:
        self._server = self._make(self.port)
        self._run()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class Door:
    """A running proxy, who is enrolled there, and what it counted."""

    def __init__(self, directory: Path, upstream: Upstream) -> None:
        self.upstream, self.counts, self.healthy = upstream, Counts(), True
        self.enrolled = {"aster": openssh(node_key())}
        self._file = directory / "members.json"
        self._changes = 0
        self.admit(self.enrolled)
        url = f"http://127.0.0.1:{upstream.port}"
        self.connect: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(base_url=url, trust_env=False)
        self.met: list[str] = []
        self.bell = Bell(directory / "bell")
        self.keys = NodeKeys(
            self._file, lambda: KeyTexts({key: holder for holder, key in self.enrolled.items()}, frozenset())
        )
        self.port = 0

    def lose_list(self) -> None:
        self._file.unlink()

    def admit(self, enrolled: dict[str, str]) -> None:
        self.enrolled = enrolled
        self._changes += 1
        self._file.write_text("x" * self._changes)

    def reset(self) -> None:
        """As it was at the beginning, for the next test."""
        for kept in (self.upstream.requests, self.upstream.broken, self.upstream.seen):
            kept.clear()
        self.counts.paths.clear()
        self.counts.reasons.clear()
        self.met.clear()
        self.upstream.answer, self.upstream.rest, self.healthy = HELLO, b"", True
        self.upstream.go_on.clear()
        self.admit({"aster": openssh(node_key())})

    @contextmanager
    def open(self) -> Iterator["Door"]:
        app = Proxy(
            lambda: self.connect(), keys=self.keys.shown, well=lambda: self.healthy, watcher=self.counts,
            bell=self.bell, meet=self.met.append,
        )  # fmt: skip
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="on", ws="none", proxy_headers=False,
            http="httptools", timeout_graceful_shutdown=1,
        )  # fmt: skip
        started = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            server = GuardedServer(config, most=64, each=64, started=started.set)
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            assert started.wait(WAIT_S)
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join(WAIT_S)
                assert not thread.is_alive()

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), WAIT_S)

    def ask(self, request: bytes) -> bytes:
        """Everything that is answered until the connection ends."""
        with self.connection() as connection:
            connection.sendall(request)
            got = b""
            try:
                while part := connection.recv(65_536):
                    got += part
            except ConnectionResetError:
                pass
        return got


def request(
    target: str = PUSH, *more: str, method: str = "POST", version: str = "1.1", host: str | None = "fleet.example",
    key: str | None = "", length: str | None = "3", body: bytes = b"abc", signed: int | None = 0,
) -> bytes:  # fmt: skip
    """What a SuperNode sends, but for what is given otherwise; `signed` is the number of the key that signs it."""
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [] if host is None else [f"Host: {host}"]
    lines += [] if key is None else [f"flwr-public-key: {key or shown(node_key())}"]
    lines += [] if signed is None else [f"{name}: {value}" for name, value in proof(signed).items()]
    lines += [] if length is None else [f"Content-Length: {length}"]
    lines += ["Content-Type: application/protobuf", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0
