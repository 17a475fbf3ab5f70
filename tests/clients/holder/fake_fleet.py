"""A coordinator that answers a SuperNode with what a test wants: the fleet's paths over plain HTTP on loopback."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse

PULL, HEARTBEAT, ACTIVATE, DEACTIVATE = "pull-messages", "send-node-heartbeat", "activate-node", "deactivate-node"


class FakeFleet:
    """What was asked, and how each path is answered: 200 unless `statuses` says otherwise."""

    def __init__(self, statuses: Mapping[str, int]) -> None:
        self.statuses, self.asked, self.address = statuses, list[str](), ""

    def answer(self, path: str) -> bytes:
        """The body of a good answer."""
        self.asked.append(path)
        if path == ACTIVATE:
            return bytes(ActivateNodeResponse(node_id=7).SerializeToString())
        if path == HEARTBEAT:
            return bytes(SendNodeHeartbeatResponse(success=True).SerializeToString())
        return bytes(PullMessagesResponse().SerializeToString())  # empty, as many others are


@contextmanager
def fake_fleet(**statuses: int) -> Iterator[FakeFleet]:
    """One that listens. A status is named after its path: `pull_messages=500`."""
    fleet = FakeFleet({name.replace("_", "-"): status for name, status in statuses.items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.rpartition("/")[2]
            body = fleet.answer(path)
            self.send_response(fleet.statuses.get(path, 200))
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    fleet.address = f"127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield fleet
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
