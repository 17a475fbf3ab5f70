"""Data holders and strangers before a running coordinator: their keys, their signed requests, real SuperNodes."""

import os
import signal
import socket
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flwr.proto.control_pb2 import ListNodesRequest, ListNodesResponse
from flwr.proto.node_pb2 import NodeInfo

from federated.enrolment import EnrolmentRequest, node_key_text
from federated.flower_home import flower_environment, flower_program
from privacy.consent.signing import SigningKey
from server.deploy.members import Members
from server.deploy.settings import Home
from tests.server.deploy.door import shown

WAIT_S = 60.0


def until(holds: Callable[[], bool], what: str = "") -> None:
    """Wait for something that happens on its own: as long as a busy machine may need, and no longer."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, f"it did not happen {what}"
        time.sleep(0.1)


class Party:
    """Somebody with the authority's certificate, which is no secret, and a node key of their own."""

    def __init__(self, home: Home, directory: Path, name: str) -> None:
        self.home, self.name, self.directory = home, name, directory / name
        self.directory.mkdir()
        self.key = ec.generate_private_key(ec.SECP384R1())
        trusted = ssl.create_default_context(cafile=home.tls / "ca.pem")
        fleet = home.settings.fleet

        def to(address: str) -> httpx.Client:
            return httpx.Client(base_url=f"https://{address}", verify=trusted, trust_env=False, timeout=30)

        self.public, self.loopback = to(fleet.address), to(f"127.0.0.1:{fleet.superlink_port}")

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def enrol(self) -> None:
        """As the coordinator's operator would, and wait until SuperLink knows it."""
        now = int(time.time())
        text = node_key_text(self.key.public_key())
        identity = SigningKey.generate().public.hex()
        request = EnrolmentRequest(holder=self.name, identity=identity, node_key=text, issued_at=now)
        Members(self.home.directory).admit(request, at=now)
        until(lambda: self.known() is not None, "that SuperLink knows the node")

    def known(self) -> NodeInfo | None:
        """What SuperLink itself knows of this party's node, if it may connect."""
        answer = ListNodesResponse()
        asked = ask(self.loopback, "/v1/control/list-nodes", ListNodesRequest().SerializeToString())
        answer.ParseFromString(asked.content)
        mine = [node for node in answer.nodes_info if node.public_key == self.pem and node.status != "unregistered"]
        return mine[0] if mine else None

    def number(self) -> int:
        node = self.known()
        assert node is not None
        return int(node.node_id)

    def is_(self, status: str) -> bool:
        node = self.known()
        return node is not None and node.status == status

    def signed(self) -> dict[str, str]:
        """The headers by which a SuperNode proves that it has this key."""
        at = datetime.now(UTC).isoformat()
        signature = self.key.sign(at.encode(), ec.ECDSA(SHA256()))
        return {
            "flwr-public-key": shown(self.key.public_key()), "flwr-timestamp": at,
            "flwr-signature": b64encode(signature).decode(),
        }  # fmt: skip

    @contextmanager
    def supernode(self) -> Iterator[subprocess.Popen[bytes]]:
        """Flower's own program with this key, dialling the public address; it says what it says to `log`."""
        key, secret = self.directory / "node.key", self.directory / "secret"
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        secret.write_text("ab" * 32)
        command = (
            flower_program("flower-supernode"), "--superlink", self.home.settings.fleet.address,
            "--root-certificates", str(self.home.tls / "ca.pem"), "--auth-supernode-private-key", str(key),
            "--isolation", "process", "--superexec-auth-secret-file", str(secret),
            "--host", "127.0.0.1", "--port", str(_free_port()),
        )  # fmt: skip
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.directory, env=flower_environment(self.directory), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def log(self) -> Path:
        return self.directory / "supernode.log"

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        self.public.close()
        self.loopback.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def ask(to: httpx.Client, path: str, message: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """One call of Flower's, over whichever address."""
    kind = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    return to.post(path, content=message, headers=kind | (headers or {}))
