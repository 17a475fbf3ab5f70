"""The public door of a coordinator: it passes on what a data holder's SuperNode asks of the fleet, and nothing else.

Flower's SuperLink serves the operator's commands and everybody's nodes on one port, and asks nobody who an operator
is. So it listens on this machine only, and this stands before it. What is asked is matched, byte for byte, with a list
of ours; what is sent on is built from that list, and never from what a stranger wrote.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic, time
from typing import Final, Protocol

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from starlette.types import Message, Receive, Scope, Send

from federated.rate_limit import RateLimit
from server.deploy import node_shares
from server.deploy.bell import Bell
from server.deploy.held_pulls import HOLD_S, HeldPulls
from server.deploy.node_proof import is_proven

LOG: Final = logging.getLogger("fedcredit.proxy")
FLEET: Final = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
    "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip
"""What a SuperNode asks. It registers itself only where nodes have no keys, so `register-node` and `unregister-node`,
by which a stranger would join and send others away, are closed."""
HEALTH: Final = "/health"
MOST_MODEL_BYTES: Final = 64 << 20
MOST_BODY_BYTES: Final = MOST_MODEL_BYTES + (1 << 20)
"""Of one request and one answer: Flower sends a model as objects, each in one of them, with some words around it."""
MOST_PULL_BYTES: Final = 4096
"""Of a request for messages: it says who asks, and is kept while it waits."""
REQUESTS_BURST: Final = 4_000
REQUESTS_PER_S: Final = 800
"""From one address. A node asks five times a second at most, and many data holders may share an address."""
UPSTREAM: Final = httpx.Timeout(60, connect=5, pool=10)
MOST_UPSTREAM: Final = 64

_ACTIVATE: Final = b"/v1/fleet/activate-node"
_PULL: Final = "/v1/fleet/pull-messages"
_UNKNOWN: Final = (412, b'{"code":2004,"detail":"This node is not enrolled."}')
"""What SuperLink says to a node that it does not know. Said at the beginning it is what a SuperNode writes down."""
_PATHS: Final = {path.encode(): path for path in (HEALTH, *(f"/v1/fleet/{name}" for name in FLEET))}
_KEY: Final = b"flwr-public-key"
_SIGNATURE: Final = b"flwr-signature"
_TIMESTAMP: Final = b"flwr-timestamp"
_ASKED: Final = frozenset({
    b"accept", b"content-type", _KEY, _SIGNATURE, _TIMESTAMP,
    b"flwr-package-name", b"flwr-package-version", b"flwr-component-name",
})  # fmt: skip
"""The headers that are sent on. The rest is between a node and us, or not of Flower."""
_ANSWERED: Final = frozenset({b"content-type", b"content-length", b"flwr-version-incompatibility-message"})
_ONCE: Final = _ASKED | {b"host", b"content-length", b"connection"}
_NEVER: Final = frozenset({b"transfer-encoding", b"upgrade", b"expect", b"trailer", b"te", b"http2-settings"})
_LENGTH: Final = re.compile(rb"[0-9]{1,9}\Z")

Headers = list[tuple[bytes, bytes]]
Shown = Mapping[bytes, EllipticCurvePublicKey]
"""Node keys by the header values that name them."""


class Closed(StrEnum):
    """Why a request was not passed on."""

    PATH = "path"  # not a method and target of ours
    SHAPE = "shape"  # framed as no SuperNode frames it
    LIST = "list"  # who is enrolled cannot be read now
    KEY = "key"  # not under the key of an enrolled data holder
    SIGNATURE = "signature"  # under the key of one who has not signed it, or not now
    SIZE = "size"
    RATE = "rate"
    BYTES = "bytes"  # more under one key than the disk is meant for
    BUSY = "busy"  # as many under one key as may be at once
    SLOW = "slow"  # its body did not come in
    DOWN = "down"  # SuperLink did not answer
    FAILED = "failed"  # SuperLink answered that it had failed
    FAULT = "fault"  # ours

    @property
    def status(self) -> int:
        """What is answered, with nothing besides. A SuperNode tries again after 503, and ends itself after 401.

        After 403 it would stay, take itself for connected, and never be heard of again, and after 500 as well: so
        whatever may pass is a 503, and nothing is ever a 500 (tried with Flower 1.41).
        """
        return _STATUS.get(self, 503)


_STATUS: Final = {
    Closed.PATH: 404, Closed.SHAPE: 404, Closed.KEY: 401, Closed.SIGNATURE: 401, Closed.SIZE: 413,
}  # fmt: skip


class Watcher(Protocol):
    """Counts what went through the door. It is told no more than this."""

    def answered(self, path: str, status: int) -> None:
        """A request to one of our paths was answered."""

    def refused(self, reason: Closed) -> None:
        """A request was not passed on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may pass: one of our own paths, headers that SuperLink needs, under whose key, its body's size."""

    path: str
    headers: Headers
    key: bytes = b""
    size: int = 0


def admitted(scope: Scope, keys: Callable[[], Shown | None], *, at: float) -> Asked | Closed:
    """What a request asks for, if it may at `at` (UTC s); `keys` gives the keys that are enrolled now, if it can."""
    method, version, headers = scope["method"], scope["http_version"], scope["headers"]
    path = _PATHS.get(scope["state"].get("target", b""))
    if path is None or method != ("GET" if path == HEALTH else "POST"):
        return Closed.PATH
    names = [name for name, _ in headers]
    if version != "1.1" or not _NEVER.isdisjoint(names) or any(names.count(name) > 1 for name in _ONCE):
        return Closed.SHAPE
    told = dict(headers)
    if b"host" not in told or b"upgrade" in told.get(b"connection", b"").lower():
        return Closed.SHAPE
    length = told.get(b"content-length")
    if path == HEALTH:
        return Asked(path, []) if length in {None, b"0"} else Closed.SHAPE
    if length is None or not _LENGTH.match(length):
        return Closed.SHAPE
    sent_on = [(name, value) for name, value in headers if name in _ASKED]
    asked = Asked(
        path, [*sent_on, (b"accept-encoding", b"identity"), (b"content-length", length)], told.get(_KEY, b""),
        int(length),
    )  # fmt: skip
    return _refusal(asked, told, keys(), at) or asked


def _refusal(asked: Asked, told: Mapping[bytes, bytes], keys: Shown | None, at: float) -> Closed | None:
    if keys is None or (key := keys.get(asked.key)) is None:
        return _unknown(asked.key, keys)
    if asked.size > (MOST_PULL_BYTES if asked.path == _PULL else MOST_BODY_BYTES):
        return Closed.SIZE
    # Last, for it is what costs most. SuperLink looks once more, and whether the node that is named has the key.
    timestamp, signature = told.get(_TIMESTAMP, b""), told.get(_SIGNATURE, b"")
    return None if is_proven(key, timestamp=timestamp, signature=signature, at=at) else Closed.SIGNATURE


def _unknown(key: bytes, keys: Shown | None) -> Closed | None:
    if keys is None:
        return Closed.LIST
    return None if key in keys else Closed.KEY


def upstream(port: int, ca: Path) -> httpx.AsyncClient:
    """SuperLink on this machine, believed if `ca` vouches for it. No redirect is followed, no proxy asked."""
    return httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{port}", verify=ssl.create_default_context(cafile=ca), trust_env=False,
        follow_redirects=False, timeout=UPSTREAM,
        limits=httpx.Limits(max_connections=MOST_UPSTREAM, max_keepalive_connections=MOST_UPSTREAM),
    )  # fmt: skip


class Proxy:
    """The door (ASGI): `keys` says who is enrolled now, `well` whether SuperLink answers.

    `connect` is called once the server's loop runs. Nothing of a request is logged; `watcher` counts, and `meet` is
    given the address of each node that has proven itself. While `bell` may ring, a request for messages is answered
    once there is one. `utc` is the time of day, `clock` never goes back.
    """

    def __init__(
        self,
        connect: Callable[[], httpx.AsyncClient],
        *,
        keys: Callable[[], Shown | None],
        well: Callable[[], bool],
        watcher: Watcher,
        bell: Bell,
        meet: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = monotonic,
        utc: Callable[[], float] = time,
    ) -> None:
        self._connect, self._keys, self._well, self._watcher, self._meet = connect, keys, well, watcher, meet
        self._limit, self._clock, self._utc = RateLimit(REQUESTS_BURST, REQUESTS_PER_S), clock, utc
        self._bytes = RateLimit(node_shares.BYTES_BURST, node_shares.BYTES_PER_S)
        self._places, self._bell, self._held = node_shares.Places(), bell, HeldPulls(bell)
        self._upstream: httpx.AsyncClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's whole life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer_or_close(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._connect() as self._upstream:
            with self._bell.listen():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer_or_close(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._answer(scope, receive, sent)
        except Exception as error:
            # The web server would answer 500, after which a node is never heard of again.
            LOG.error("a request could not be passed on (%s); the node tries again", type(error).__name__)
            if not begun:
                await self._close(Closed.FAULT, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["client"][0] if scope["client"] else ""
        if self._limit.take(address, at=self._clock()):
            await self._close(Closed.RATE, send)
            return
        asked = admitted(scope, self._keys, at=self._utc())
        if asked is Closed.KEY and scope["state"]["target"] == _ACTIVATE:
            await self._close(asked, send, *_UNKNOWN)
        elif isinstance(asked, Closed):
            await self._close(asked, send)
        elif asked.path == HEALTH:
            # From what we know: who is not enrolled does not reach SuperLink, not even to ask how it is.
            status = 200 if self._well() else 503
            self._watcher.answered(HEALTH, status)
            await _end(send, status, [])
        else:
            self._meet(address)
            await self._pass_on_in_turn(asked, receive, send)

    async def _pass_on_in_turn(self, asked: Asked, receive: Receive, send: Send) -> None:
        try:
            async with self._places.one(asked.key):
                if self._bytes.take(asked.key.decode("ascii"), asked.size, at=self._clock()):
                    await self._close(Closed.BYTES, send)
                else:
                    await self._pass_on(asked, receive, send)
        except node_shares.FullError:
            await self._close(Closed.BUSY, send)

    async def _pass_on(self, asked: Asked, receive: Receive, send: Send) -> None:
        try:
            if asked.path == _PULL:
                await self._pull(asked, receive, send)
                return
            async with self._answer_to(asked, _body(receive, self._clock)) as answer:
                await self._hand_back(asked, answer, send)
        except _GoneError:
            return
        except _SlowError:
            await self._close(Closed.SLOW, send)
        except _DownError:
            await self._close(Closed.DOWN, send)

    async def _pull(self, asked: Asked, receive: Receive, send: Send) -> None:
        body = b"".join([part async for part in _body(receive, self._clock)])
        end = self._clock() + HOLD_S
        while True:
            rings = self._bell.rings
            async with self._answer_to(asked, body) as answer:
                if not (_is_empty(answer) and self._bell.is_heard):
                    await self._hand_back(asked, answer, send)
                    return
            if not await self._held.until_rung(asked.key, rings, end - self._clock(), receive):
                self._watcher.answered(asked.path, answer.status_code)
                await _end(send, answer.status_code, _shown(answer))
                return
            if (refusal := _unknown(asked.key, self._keys())) is not None:  # it may have been revoked meanwhile
                await self._close(refusal, send)
                return

    @asynccontextmanager
    async def _answer_to(self, asked: Asked, body: AsyncIterator[bytes] | bytes) -> AsyncIterator[httpx.Response]:
        """SuperLink's answer, to be read within the block."""
        assert self._upstream is not None  # noqa: S101 (the server starts before it answers)
        request = self._upstream.build_request("POST", asked.path, headers=asked.headers, content=body)
        try:
            answer = await self._upstream.send(request, stream=True)
        except httpx.HTTPError:
            raise _DownError from None
        async with aclosing(answer):
            yield answer

    async def _hand_back(self, asked: Asked, answer: httpx.Response, send: Send) -> None:
        if answer.status_code >= 500:
            await self._close(Closed.FAILED, send)
        else:
            self._watcher.answered(asked.path, answer.status_code)
            await _stream(answer, send)

    async def _close(self, reason: Closed, send: Send, status: int | None = None, body: bytes = b"") -> None:
        self._watcher.refused(reason)
        # What is left of the body is not read, and who tries again pays for the handshake again.
        kind = [(b"content-type", b"application/json")] if body else []
        await _end(send, reason.status if status is None else status, [(b"connection", b"close"), *kind], body)


class _GoneError(Exception):
    """The node hung up before it had sent everything."""


class _DownError(Exception):
    """SuperLink did not answer."""


class _SlowError(Exception):
    """The node keeps its place and sends next to nothing."""


async def _body(receive: Receive, clock: Callable[[], float]) -> AsyncIterator[bytes]:
    # Only waiting for the node counts, and not how long SuperLink takes what has come.
    left = node_shares.BODY_S
    while True:
        before = clock()
        try:
            async with asyncio.timeout(left):
                message = await receive()
        except TimeoutError:
            raise _SlowError from None
        if message["type"] != "http.request":
            raise _GoneError
        left += len(message["body"]) / node_shares.BODY_BYTES_PER_S - (clock() - before)
        yield message["body"]
        if not message["more_body"]:
            return


def _is_empty(answer: httpx.Response) -> bool:
    """Whether SuperLink says that there is no message: a message of Flower's with nothing in it is no byte long."""
    return answer.status_code == 200 and answer.headers.get("content-length") == "0"


def _shown(answer: httpx.Response) -> Headers:
    return [(name.lower(), value) for name, value in answer.headers.raw if name.lower() in _ANSWERED]


async def _stream(answer: httpx.Response, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status_code, "headers": _shown(answer)})
    size = 0
    try:
        async for part in answer.aiter_raw():
            size += len(part)
            if size > MOST_BODY_BYTES:
                return  # without its end: the node sees that it was cut off, and asks again
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except httpx.HTTPError:
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _end(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    kept = [(name, value) for name, value in headers if name != b"content-length"]
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*kept, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
