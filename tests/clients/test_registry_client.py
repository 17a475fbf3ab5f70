"""The registry's client against registries that answer rightly, wrongly, too much or not at all."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from clients.registry_client import RegistryClient
from federated.registry_reader import MAX_BUNDLE_BYTES
from privacy.consent.canonical import base64url
from privacy.consent.lane import TombstoneStub
from privacy.consent.merkle import leaf_hash
from privacy.consent.tombstone import TombstoneStatement, write_tombstone
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from tests.clients.dripping import dripping
from tests.privacy.consent.reference_merkle import mth
from tests.registry_process import RegistryProcess, make_registry, serving
from tests.server.registry.samples import AT, HOLDER, LANE, LANES, OTHER_HOLDER, key_set, submission


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    with serving(make_registry(tmp_path_factory.mktemp("registry") / "r", LANES)) as running:
        yield running


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str] | None = None) -> Iterator[RegistryClient]:
    """A client of a server that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815 (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with RegistryClient(f"http://127.0.0.1:{server.server_port}", ca=None, timeout_s=5) as client:
            yield client
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_entries_come_in_any_cut(registry: RegistryProcess) -> None:
    some = [submission(f"record {k}") for k in range(600)]
    with registry.client() as client:
        for first in range(0, 600, 200):
            client.submit(LANE, some[first : first + 200])
        for start, stop in ((0, 600), (0, 256), (256, 512), (5, 7), (255, 257), (512, 600), (599, 600), (10, 10)):
            wanted = [Entry(one.stub, one.ciphertext) for one in some[start:stop]]
            assert client.entries(LANE, start, stop) == wanted, (start, stop)
        assert client.tree(LANE, 600).subtree_root(512, 600) == mth([one.stub.leaf() for one in some[512:]])
        assert client.position(LANE, some[599].stub.tag) == 599
        assert client.position(LANE, bytes(16)) is None
        with pytest.raises(RefusalError):
            client.position("nobody", bytes(16))
        with pytest.raises(RefusalError):
            client.entries(LANE, 512, 601)


def test_erasing_and_key_sets(registry: RegistryProcess) -> None:
    lane, record = "birch-telecom", submission("to go")
    with registry.client() as client:
        client.submit(lane, [record])
        statement = TombstoneStatement(lane=lane, position=0, leaf=base64url(leaf_hash(record.stub.leaf())), at=AT)
        envelope = write_tombstone(statement, OTHER_HOLDER)
        assert client.erase(lane, envelope) == client.erase(lane, envelope)
        erased, tombstone = client.entries(lane, 0, 2)
        assert erased == Entry(record.stub, None)
        assert isinstance(tombstone.stub, TombstoneStub)
        assert tombstone.beside == envelope
        with pytest.raises(TamperingError):
            client.erase(lane, write_tombstone(statement, HOLDER))
        with pytest.raises(TamperingError):
            client.publish_key_set(lane, key_set(1, 1, lane=lane))
        with pytest.raises(RefusalError):
            client.key_set(lane)


def test_a_refusal_keeps_its_code(registry: RegistryProcess) -> None:
    with registry.client() as client:
        client.submit(LANE, [submission("code")])
        with pytest.raises(RefusalError) as caught:
            client.submit(LANE, [submission("other", tag="code")])
        assert caught.value.code is RefusalCode.REPLAY


@pytest.mark.parametrize("lane", ["../healthz", "a/b", "", "ASTER", "aster-bank?x=1", "aster-bank\n"])
def test_a_lane_name_cannot_lead_elsewhere(registry: RegistryProcess, lane: str) -> None:
    with registry.client() as client, pytest.raises(MalformedError):
        client.checkpoint(lane)


def test_nobody_there_is_a_refusal(registry: RegistryProcess) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for url in (f"https://127.0.0.1:{port}", registry.url.replace("https", "http")):
        with RegistryClient(url, ca=registry.ca, timeout_s=5) as client, pytest.raises(RefusalError) as caught:
            client.checkpoint(LANE)
        assert caught.value.code is RefusalCode.LANE
    with RegistryClient(registry.url, ca=None) as stranger, pytest.raises(RefusalError):
        stranger.checkpoint(LANE)


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    for ca in (
        "",
        "  \n",
        "no certificate",
        "\u00e9",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        with pytest.raises(MalformedError):
            RegistryClient("https://127.0.0.1:1", ca=ca)


@pytest.mark.parametrize(
    "url",
    ["https://a..b", "https://xn--a", "https://999.1.1.1", "https://" + "a" * 64, "https://\ud800", "https://a:99999"],
)
def test_a_hostile_address_is_told_in_words(url: str) -> None:
    with pytest.raises((RefusalError, MalformedError)), RegistryClient(url, ca=None) as client:
        client.checkpoint(LANE)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\n\r\n"


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", HEAD])
def test_an_answer_that_drips_is_given_up(head: bytes) -> None:
    with dripping(head) as url, RegistryClient(url, ca=None, timeout_s=0.2) as client:
        for _ in range(2):  # the next exchange has its own time
            with pytest.raises(RefusalError, match="ReadTimeout") as caught:
                client.checkpoint(LANE)
            assert caught.value.code is RefusalCode.LANE


def test_a_redirect_is_not_followed(registry: RegistryProcess) -> None:
    elsewhere = {"Location": f"{registry.url}/lanes/{LANE}/checkpoint"}
    for place in (elsewhere, {"Location": "https://xn--a/"}, {"Location": "https://a:b/"}):
        with answering(302, b"", place) as client, pytest.raises(RefusalError):
            client.checkpoint(LANE)


def test_answers_that_are_too_long_are_not_read() -> None:
    with answering(200, b"x" * (MAX_BUNDLE_BYTES + 10_000)) as client:
        for ask in (
            lambda: client.checkpoint(LANE),
            lambda: client.entries(LANE, 0, 256),
            lambda: client.key_set(LANE),
            lambda: client.tree(LANE, 256).subtree_root(0, 256),
            lambda: client.position(LANE, bytes(16)),
            lambda: client.submit(LANE, [submission("a")]),
        ):
            with pytest.raises(MalformedError):
                ask()
    with answering(500, b"x" * 1_000_000) as client, pytest.raises(MalformedError):
        client.checkpoint(LANE)


BODIES = (
    b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"promises":[]}', b'{"promises":[1]}', b'{"promises":["a","b"]}',
    b'{"position":"1"}', b'{"position":true}', b'{"position":1,"x":2}', b"[" * 100_000, b'{"promises":["\\ud800"]}',
)  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_an_answer_that_is_something_else_is_malformed(body: bytes) -> None:
    with answering(200, body) as client:
        for ask in (
            lambda: client.entries(LANE, 0, 2),
            lambda: client.tree(LANE, 2).subtree_root(0, 2),
            lambda: client.position(LANE, bytes(16)),
            lambda: client.submit(LANE, [submission("a")]),
            lambda: client.erase(LANE, b"x"),
        ):
            with pytest.raises(MalformedError):
                ask()


@pytest.mark.parametrize(
    ("status", "content", "family"),
    [
        (400, {"error": "x", "code": "malformed"}, MalformedError),
        (400, {"error": "x", "code": "tampering"}, TamperingError),
        (500, {"error": "x", "code": "tampering"}, TamperingError),
        (409, {"error": "x", "code": "replay"}, RefusalError),
        (503, {"error": "x", "code": "lane"}, RefusalError),
        (418, {"error": "x", "code": "never heard of"}, RefusalError),
        (502, "a proxy's page", RefusalError),
    ],
)
def test_an_error_keeps_its_family(status: int, content: object, family: type[FedcreditError]) -> None:
    with answering(status, json.dumps(content).encode()) as client, pytest.raises(family, match=str(status)):
        client.submit(LANE, [submission("a")])


def test_a_registrys_words_cannot_play_with_a_terminal() -> None:
    content = {"error": "\x1b[2Jall is well\r\n\u202e" + "x" * 3000, "code": "lane"}
    with answering(503, json.dumps(content).encode()) as client, pytest.raises(RefusalError) as caught:
        client.checkpoint(LANE)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 1000
