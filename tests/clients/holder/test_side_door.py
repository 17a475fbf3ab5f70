"""The side door: a withdrawal applies at once, strangers learn nothing, and nothing about anybody is written down."""

import asyncio
import contextlib
import datetime
import logging
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

from clients.holder.ceremony import make_offers
from clients.holder.lane import LaneCopy
from clients.holder.side_door import MAX_BODY_BYTES, MOST_RECORDS, Address, serve, side_door_app, usual_limits
from federated.rate_limit import RateLimit
from privacy.consent.canonical import base64url
from privacy.consent.record import ConsentRecord
from privacy.consent.submission import Submission, frame
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError
from tests.clients.holder.desk_scene import AT, LANE, Person, Scene, grant

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / LANE)


def said_yes(scene: Scene) -> Person:
    person = Person("KD-4711")
    scene.link(person)
    scene.sync(person.says(grant(), to=scene.lane_key))
    return person


def stranger_like(person: Person, scene: Scene) -> Submission:
    """A well-formed withdrawal in the person's name, signed with another key."""
    stranger = Person("stranger")
    stranger.offer, stranger.seq, stranger.previous = person.offer, person.seq, person.previous
    return stranger.says(to=scene.lane_key)


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "side door")])
    since = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(since)
        .not_valid_after(since + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    files = directory / "tls.pem", directory / "tls.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


class Door:
    """`fedcredit holder side-door` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"listening on (https?://\S+)\n", line)
        assert found, line
        self.url = found[1]

    def stop(self) -> str:
        """Ask it to end; returns all it wrote."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        return out + err


@contextlib.contextmanager
def door(scene: Scene, *arguments: object) -> Iterator[Door]:
    code = "from federated.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "holder", "side-door", "--port", "0", "--directory", str(scene.directory),
         *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        yield Door(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("tls", [True, False])
def test_a_withdrawal_through_the_door_is_seen_by_a_node_that_runs(scene: Scene, tmp_path: Path, tls: bool) -> None:
    person = said_yes(scene)
    forged, withdrawal = stranger_like(person, scene), person.says(to=scene.lane_key)
    arguments: list[object] = []
    trust: ssl.SSLContext | bool = True
    if tls:
        pem, key = certificate(tmp_path)
        arguments, trust = ["--certificate", pem, "--key", key], ssl.create_default_context(cafile=str(pem))
    with scene.desk() as node, door(scene, *arguments) as running:
        assert running.url.startswith("https://127.0.0.1:" if tls else "http://127.0.0.1:")
        with httpx.Client(base_url=running.url, verify=trust, trust_env=False) as web:
            assert web.get("/healthz").json() == {"status": "ok"}
            assert grants(node.lane, person) == 1
            refused = web.post("/records", content=frame([forged]))
            assert refused.status_code == 403
            node.lane.refresh()
            assert grants(node.lane, person) == 1
            for _ in range(2):  # an answer that was lost
                answer = web.post("/records", content=frame([withdrawal]))
                assert (answer.status_code, answer.json()) == (200, {"taken": 1})
            node.lane.refresh()
            assert grants(node.lane, person) == 0
            again = web.post("/records", content=b"no record")
            assert again.status_code == 400
            answers = refused.text + answer.text + again.text
        told = running.stop() + answers
    for secret in (
        "KD-4711", "train", "open-scoring", person.handle.hex(), base64url(person.handle), person.key.public.hex(),
        withdrawal.stub.tag.hex(),
    ):  # fmt: skip
        assert secret not in told
    assert "1 taken" in told


def grants(lane: LaneCopy, person: Person) -> int:
    standing = lane.standing(person.handle)
    assert isinstance(standing, ConsentRecord)
    return len(standing.grants)


def test_whoever_is_linked_after_the_door_opened_may_use_it(scene: Scene) -> None:
    with door(scene) as running:
        person = said_yes(scene)
        answer = httpx.post(f"{running.url}/records", content=frame([person.says(to=scene.lane_key)]), trust_env=False)
        assert answer.json() == {"taken": 1}
        running.stop()


def ask(
    lane: LaneCopy, *bodies: bytes, limits: tuple[RateLimit, RateLimit] | None = None, method: str = "POST",
    path: str = "/records",
) -> list[httpx.Response]:  # fmt: skip
    """The answers of the app, without a socket."""
    wide = RateLimit(burst=1000, per_s=1000), RateLimit(burst=1000, per_s=1000)
    app = side_door_app(lane, clock=lambda: AT, limits=limits or wide)

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="https://door.example") as web:
            return [await web.request(method, path, content=body) for body in bodies]

    return asyncio.run(all_of_them())


def test_every_record_that_is_not_taken_gets_the_same_answer(scene: Scene, tmp_path: Path) -> None:
    person = said_yes(scene)
    elsewhere = Scene(tmp_path / "elsewhere")
    unlinked = Person("unlinked")
    with elsewhere.desk() as desk:
        unlinked.answer(make_offers(desk, ["unlinked"], at=AT)[0])
    bodies = [
        frame([stranger_like(person, scene)]),
        frame([unlinked.says(to=scene.lane_key)]),
        frame([person.says(to=elsewhere.lane_key)]),  # sealed to somebody else
        frame([person.says(to=scene.lane_key, epoch=7)]),
    ]
    with scene.desk() as desk:
        answers = ask(desk.lane, *bodies)
    assert {(answer.status_code, answer.text) for answer in answers} == {(403, answers[0].text)}
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1


def test_what_is_no_handful_of_records_is_malformed(scene: Scene) -> None:
    person = said_yes(scene)
    one = person.says(to=scene.lane_key)
    whole = frame([one])
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    bodies = [b"", b"x", whole[:-1], whole + b"x", flipped, frame([one] * (MOST_RECORDS + 1)),
              bytes(MAX_BODY_BYTES + 1), b"{}" * 10]  # fmt: skip
    with scene.desk() as desk:
        assert {(answer.status_code, answer.text) for answer in ask(desk.lane, *bodies)} == {
            (400, ask(desk.lane, b"")[0].text)
        }
        assert ask(desk.lane, frame([one] * MOST_RECORDS))[0].json() == {"taken": MOST_RECORDS}


def test_a_body_is_not_read_beyond_the_limit(scene: Scene) -> None:
    pulled = 0

    async def endless() -> object:
        nonlocal pulled
        while pulled < 1000:
            pulled += 1
            yield bytes(4096)

    with scene.desk() as desk:
        app = side_door_app(desk.lane, clock=lambda: AT, limits=(RateLimit(9, 9), RateLimit(9, 9)))

        async def send() -> int:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://door.example") as web:
                return (await web.post("/records", content=endless())).status_code  # type: ignore[arg-type]

        assert asyncio.run(send()) == 400
    assert pulled <= MAX_BODY_BYTES // 4096 + 2


def test_there_is_nothing_else_behind_the_door(scene: Scene) -> None:
    with scene.desk() as desk:
        for method, path, code in (
            ("GET", "/records", 405), ("PUT", "/records", 405), ("GET", "/", 404), ("GET", "/docs", 404),
            ("GET", "/openapi.json", 404), ("GET", "/records/1", 404), ("POST", "/healthz", 405),
        ):  # fmt: skip
            assert ask(desk.lane, b"", method=method, path=path)[0].status_code == code


def test_requests_are_limited_for_each_address_and_for_all(scene: Scene) -> None:
    with scene.desk() as desk:
        for limits in ((RateLimit(3, 0.001), RateLimit(99, 9)), (RateLimit(99, 9), RateLimit(3, 0.001))):
            answers = ask(desk.lane, *[b""] * 5, limits=limits)
            assert [answer.status_code for answer in answers] == [400, 400, 400, 429, 429]
            assert answers[-1].headers["Retry-After"] == "5"


def test_one_household_cannot_use_up_what_all_share() -> None:
    each, together = usual_limits()
    assert each.burst < together.burst / 4
    assert each.per_s < together.per_s / 4
    through = 0
    for second in range(200):
        for number in range(20):  # one IPv6 /64, with another of its addresses each time
            at = second + number / 20
            each.take(f"2001:db8::{second:x}:{number:x}", at=at) or together.take("", at=at)
        at = second + 0.99
        through += not (each.take(f"198.51.100.{second}", at=at) or together.take("", at=at))
    assert through == 200


def test_silent_strangers_do_not_shut_the_door(scene: Scene) -> None:
    with door(scene) as running, contextlib.ExitStack() as silent:
        port = int(running.url.rpartition(":")[2])
        for _ in range(80):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)))
        assert httpx.get(f"{running.url}/healthz", trust_env=False).json() == {"status": "ok"}
        silent.close()
        running.stop()


class Failing:
    """A lane copy that fails in a given way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def refresh(self) -> None:
        pass

    def take(self, *_: object, **__: object) -> bool:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [RefusalError("The disk is full.", RefusalCode.LANE), ValueError("handle of KD-4711"), MemoryError("KD-4711")],
)
def test_a_failure_inside_tells_nothing_outside(
    scene: Scene, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    body = frame([said_yes(scene).says(to=scene.lane_key)])
    with caplog.at_level(logging.DEBUG):
        (answer,) = ask(Failing(error), body)  # type: ignore[arg-type]
    assert answer.status_code == 503
    assert "KD-4711" not in answer.text + caplog.text
    assert type(error).__name__ in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104
def test_without_a_certificate_it_listens_to_this_machine_alone(host: str) -> None:
    with pytest.raises(UsageError, match="--certificate"):
        Address(host, 0, None, None)


def test_a_certificate_that_cannot_be_used_is_told(scene: Scene, tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = certificate(tmp_path / "other")
    key.write_bytes(key.read_bytes()[:50])
    for bad in (other, key):
        with pytest.raises(MalformedError, match="certificate"):
            serve(Starlette(), Address("127.0.0.1", 0, pem, bad), started=lambda _: None)
    with pytest.raises(UsageError, match="together"):
        Address("127.0.0.1", 0, pem, None)
    with pytest.raises(UsageError, match="missing"):
        Address("127.0.0.1", 0, pem, tmp_path / "missing")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="port"):
            Address("127.0.0.1", taken.getsockname()[1], None, None).listen()
