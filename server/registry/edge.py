"""The edge of the HTTP service: bodies read within bounds, errors told in one form, every request measured."""

import asyncio
import logging
import math
import traceback
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from server.registry.metrics import Metrics
from server.registry.store import NotThereError
from server.registry.tables import BrokenStoreError, DatabaseUnavailableError

LOG: Final = logging.getLogger("fedcredit.registry")
BODY_SECONDS: Final = 20.0
RETRY_S: Final = 5
_INTERNAL: Final = "The registry failed; its operator should look at its log. The same request may be sent again."


class TooLargeError(MalformedError):
    """A body is longer than any request needs."""


class TooSlowError(MalformedError):
    """A body did not arrive in time, or not whole."""


class TooManyError(RefusalError):
    """One address handed in more than its share."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(
            "More records came from this address than the registry takes at once. Send the same request again after "
            "the time in Retry-After.",
            RefusalCode.POLICY,
        )
        self.wait_s = math.ceil(wait_s)


async def read_body(request: Request, most: int, *, seconds: float) -> bytes:
    """The whole body, of at most `most` bytes. It is counted as it comes in: a stated length may be a lie."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise TooLargeError(
                        f"The request has more than {most} bytes, the most that are read. Send less at once."
                    )
                parts.append(part)
    except (TimeoutError, ClientDisconnect):
        raise TooSlowError(f"The request did not arrive whole within {seconds:.0f} s. Send it again.") from None
    return b"".join(parts)


def answer(content: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def family_of(error: FedcreditError) -> str:
    """The code that an error travels under."""
    if isinstance(error, RefusalError):
        return error.code.value
    return "tampering" if isinstance(error, TamperingError) else "malformed"


def answer_to(error: FedcreditError) -> Response:
    """The status, code and text for an error that a person can act on."""
    headers: dict[str, str] = {}
    code = family_of(error)
    match error:
        case TooLargeError():
            # What is left of the body is not read: the connection ends here.
            status, headers = 413, {"Connection": "close"}
        case TooSlowError():
            status, headers = 408, {"Connection": "close"}
        case TooManyError():
            status, headers = 429, {"Retry-After": str(error.wait_s)}
        case NotThereError():
            status = 404
        case DatabaseUnavailableError():
            status, headers = 503, {"Retry-After": str(RETRY_S)}
        case BrokenStoreError():
            status = 500
        case RefusalError(code=RefusalCode.REPLAY):
            status = 409
        case _:
            status = 400
    return answer({"error": str(error), "code": code}, status=status, headers=headers)


class Edge:
    """Outermost layer: measures each request, and turns a fault of ours into an answer without a word of its cause."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            # Where it happened, and never its text: that may quote a record.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            LOG.error("%s in %s, line %s", type(error).__name__, Path(frame.filename).name, frame.lineno)
            self._metrics.refused(RefusalCode.INTERNAL.value)
            if status == 0:
                await answer({"error": _INTERNAL, "code": "internal"}, status=500)(scope, receive, watched)
        route = scope.get("route")
        self._metrics.answered(getattr(route, "path", "none"), status, perf_counter() - started)


def answer_to_http(error: HTTPException) -> Response:
    """The framework's own refusals (no such path, no such method) in the same form."""
    text = {404: "There is nothing at this path.", 405: "This path has no such method."}.get(error.status_code)
    content = {"error": f"{text or 'The request cannot be served.'} /openapi.json lists what is.", "code": "malformed"}
    return answer(content, status=error.status_code, headers=dict(error.headers or {}))
