"""The worker beside its SuperNode: a stranger on that port is told nothing."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from clients.holder.loopback import CERTIFICATE, KEY, certify_anew
from federated.flower_tasks import TaskDesk
from privacy.errors import RefusalError

AT = 1_800_000_000


class Stranger(HTTPServer):
    """Notes whatever a request holds."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        told = self.told = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(str(self.headers))
                self.send_error(404)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that is broken off is what is wanted."""


def shown(place: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / CERTIFICATE, place / KEY)
    return context


@pytest.mark.parametrize("who", ["plain", "another certificate", "the SuperNode"])
def test_only_who_shows_the_certificate_is_sent_a_request(tmp_path: Path, who: str) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for place in (own, other):
        place.mkdir()
        certify_anew(place, at=AT)
    stranger = Stranger({"plain": None, "another certificate": shown(other), "the SuperNode": shown(own)}[who])
    thread = threading.Thread(target=stranger.serve_forever)
    thread.start()
    desk = TaskDesk(stranger.address, b"secret", ca=(own / CERTIFICATE).read_bytes(), patience_s=0.2)
    try:
        with pytest.raises((RefusalError, httpx.HTTPError)):
            desk.message()
    finally:
        desk.close()
        stranger.shutdown()
        thread.join()
        stranger.server_close()
    assert bool(stranger.told) == (who == "the SuperNode")


@pytest.mark.parametrize("at", [0, AT, 2 * AT])
def test_it_is_made_anew_and_kept_to_oneself(tmp_path: Path, at: int) -> None:
    certify_anew(tmp_path, at=at)
    first = (tmp_path / CERTIFICATE).read_bytes()
    certify_anew(tmp_path, at=at)
    assert (tmp_path / CERTIFICATE).read_bytes() != first
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
