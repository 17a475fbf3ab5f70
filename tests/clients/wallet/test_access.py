"""The default way to a side door: over real HTTP, believing nothing but the status."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from clients.wallet.access import World
from privacy.errors import RefusalError

FRAMES = bytes(range(256)) * 10


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server that answers everything with `status`, and what it was sent."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Content-Type"], body))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
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


def test_nobody_there_is_said() -> None:
    with answering(200) as (url, _):
        pass
    with pytest.raises(RefusalError, match="does not answer"):
        World().side_door(url, None, FRAMES)
