"""The default way to a side door: over real HTTP, believing nothing but the status."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from clients.wallet.access import World, _hand_over
from privacy.errors import RefusalError
from tests.clients.dripping import dripping

FRAMES = bytes(range(256)) * 10


@contextmanager
def answering(status: int, *, location: str = "/elsewhere") -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server that answers everything with `status`, and what it was sent."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Content-Type"], body))
            self.send_response(status)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/records", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_very_bytes_are_handed_over() -> None:
    with answering(200) as (url, seen):
        World().side_door(url, None, FRAMES)
    assert seen == [("/records", "application/octet-stream", FRAMES)]


@pytest.mark.parametrize("status", [204, 302, 400, 403, 429, 503])
def test_anything_but_yes_is_no(status: int) -> None:
    with answering(status) as (url, seen), pytest.raises(RefusalError, match=str(status)):
        World().side_door(url, None, FRAMES)
    assert len(seen) == 1


@pytest.mark.parametrize(
    "url",
    ["https://a..b", "https://xn--a", "https://999.1.1.1", "https://" + "a" * 64, "https://\ud800", "https://a:99999"],
)
def test_a_hostile_address_is_a_side_door_that_does_not_answer(url: str) -> None:
    with pytest.raises(RefusalError, match="does not answer"):
        World().side_door(f"{url}/records", None, FRAMES)


def test_a_redirect_to_no_address_and_a_certificate_that_is_none_are_the_same() -> None:
    with answering(302, location="https://xn--a/") as (url, _), pytest.raises(RefusalError):
        World().side_door(url, None, FRAMES)
    for ca in ("", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\u00e9"):
        with answering(200) as (url, seen), pytest.raises(RefusalError):
            World().side_door(url, ca, FRAMES)
        assert seen == []


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 "])
def test_a_side_door_that_drips_is_given_up(head: bytes) -> None:
    with dripping(head) as url, pytest.raises(RefusalError, match="does not answer"):
        _hand_over(f"{url}/records", None, FRAMES, patience_s=0.2)


def test_nobody_there_is_said() -> None:
    with answering(200) as (url, _):
        pass
    with pytest.raises(RefusalError, match="does not answer"):
        World().side_door(url, None, FRAMES)
