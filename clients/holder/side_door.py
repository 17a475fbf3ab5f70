"""The side door: a small HTTPS service that takes records directly, for when a registry does not append them.

What comes in by it can only restrict, so whoever replays it gains nothing. No log line and no answer says whom a
record is about, or why one was not taken.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clients.holder.direct import take_all
from clients.holder.lane import LaneCopy
from federated.guarded_server import GuardedServer
from federated.rate_limit import RateLimit
from privacy.consent.lane import LEAF_BYTES
from privacy.consent.limits import MAX_SEALED_BYTES
from privacy.consent.submission import parse_frames
from privacy.errors import FedcreditError, MalformedError, UsageError

MOST_RECORDS: Final = 8
MAX_BODY_BYTES: Final = MOST_RECORDS * (LEAF_BYTES + 2 + MAX_SEALED_BYTES)
LONGEST_BODY_S: Final = 10.0
_MOST_CONNECTIONS: Final = 64
_MOST_CONNECTIONS_EACH: Final = 12

# One text whatever the cause: an answer that tells them apart would tell strangers who is linked.
NOT_TAKEN: Final = (
    "Nothing was taken: none of this is a record, sealed to this data holder, of somebody who is linked here. "
    "The wallet should write it again."
)
_MALFORMED: Final = "The body is not one to eight framed records. The wallet must write it again."
_TOO_FAST: Final = "Too many requests; try again in a few seconds."
_UNABLE: Final = "The data holder cannot take records now; try again, and tell it by telephone if this lasts."

_LOG = logging.getLogger(__name__)


def usual_limits() -> tuple[RateLimit, RateLimit]:
    """For each address or IPv6 /64, which has one wallet or a few, and for all together: four of them do not use up
    what all share."""
    return RateLimit(burst=10, per_s=1), RateLimit(burst=100, per_s=20)


def side_door_app(lane: LaneCopy, *, clock: Callable[[], int], limits: tuple[RateLimit, RateLimit]) -> Starlette:
    """The service over one lane copy. `limits` hold for each address, and for all together."""
    each, together = limits

    async def records(request: Request) -> Response:
        address = request.client.host if request.client else ""
        now = asyncio.get_running_loop().time()
        # What is refused to one address is not taken from what all share.
        if each.take(address, at=now) or together.take("", at=now):
            return _answer(429, _TOO_FAST, {"Retry-After": "5"})
        try:
            async with asyncio.timeout(LONGEST_BODY_S):
                body = await _body(request)
            submissions = parse_frames(body)
        except (MalformedError, TimeoutError):
            return _answer(400, _MALFORMED)
        except ClientDisconnect:
            return Response(status_code=400)
        if len(submissions) > MOST_RECORDS:
            return _answer(400, _MALFORMED)
        try:
            taken = take_all(lane, submissions, at=clock())
        except FedcreditError as error:
            _LOG.error("side door: %s: %s", type(error).__name__, error)
            return _answer(503, _UNABLE)
        except Exception as error:  # the rim: a text that is not ours may quote a record
            _LOG.error("side door: %s in its own code", type(error).__name__)
            return _answer(503, _UNABLE)
        if taken.refused == len(submissions):
            return _answer(403, NOT_TAKEN)
        _LOG.info("side door: %d taken", taken.new)
        # A wallet that lost the answer sends again, and is answered alike.
        return JSONResponse({"taken": taken.new + taken.known})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/records", records, methods=["POST"]), Route("/healthz", health, methods=["GET"])])


@dataclass(frozen=True, slots=True)
class Address:
    """Where the side door listens, and the certificate it shows; without one, only to this machine."""

    host: str
    port: int
    certificate: Path | None
    key: Path | None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--certificate and --key go together: give both, or neither for this machine alone.")
        if self.certificate is None and not _is_loopback(self.host):
            raise UsageError(
                "Without a certificate the side door listens to this machine alone (127.0.0.1). Give --certificate "
                "and --key, or put a proxy with TLS in front of it."
            )
        for path in (self.certificate, self.key):
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as error:
                raise UsageError(f"{path} cannot be opened ({error.strerror}); give a file in PEM.") from None

    def listen(self) -> socket.socket:
        """A bound socket. UsageError if the address cannot be had."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except (OSError, UnicodeError) as error:
            listener.close()
            reason = error.strerror if isinstance(error, OSError) else "no such host"
            raise UsageError(
                f"The side door cannot listen there ({reason}). Give another --host or --port; port 0 takes a free one."
            ) from None
        return listener

    def url(self, listener: socket.socket) -> str:
        """The address as a wallet on this machine would write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{host}:{listener.getsockname()[1]}"


def serve(app: Starlette, address: Address, *, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; what was begun is finished. `started` is told the address once it listens.

    MalformedError if certificate or key cannot be used.
    """
    listener = address.listen()
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", server_header=False, ws="none", date_header=False,
        limit_concurrency=_MOST_CONNECTIONS + 1, timeout_keep_alive=5, timeout_graceful_shutdown=10,
        proxy_headers=False, ssl_certfile=address.certificate, ssl_keyfile=address.key,
    )  # fmt: skip
    try:
        config.load()
    except OSError:  # ssl.SSLError is one
        listener.close()
        raise MalformedError(
            "The side door's certificate and key cannot be used together: both in PEM, the key without a passphrase, "
            "are needed. The data holder should make them again."
        ) from None
    server = GuardedServer(
        config, most=_MOST_CONNECTIONS, each=_MOST_CONNECTIONS_EACH, started=lambda: started(address.url(listener))
    )
    # uvicorn raises the signal again once it has shut down, for whoever waited before it: nobody did.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listener.close()


async def _body(request: Request) -> bytes:
    """The body, read no further than the limit. MalformedError beyond it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise MalformedError("too large")
    return bytes(body)


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
