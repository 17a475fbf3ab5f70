"""The registry over HTTP: C2SP tlog-tiles to read, sealed records to hand in. `/openapi.json` lists the routes."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from federated.rate_limit import RateLimit
from privacy.consent.limits import MAX_SEALED_BYTES, TAG_BYTES
from privacy.consent.submission import MAX_FRAMES_BYTES, parse_frames
from privacy.consent.tiles import parse_tile_path
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from server.registry.appends import Append
from server.registry.committer import Committer
from server.registry.edge import (
    BODY_SECONDS,
    Edge,
    TooManyError,
    answer,
    answer_to,
    answer_to_http,
    family_of,
    read_body,
)
from server.registry.metrics import Metrics
from server.registry.reads import Reads, Value
from server.registry.settings import RegistrySettings
from server.registry.store import NotThereError, Registry

MAX_KEY_SET_BYTES: Final = 65_536
_BYTES: Final = "application/octet-stream"
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_NOW: Final = {"Cache-Control": "no-store"}
_TEXT: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/plain": {}}}}
_BINARY: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {_BYTES: {}}}}
_TAG: Final = re.compile(rf"[0-9a-f]{{{2 * TAG_BYTES}}}\Z")


def _body(kind: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {}}}}


def create_app(
    settings: RegistrySettings, registry: Registry, clock: Callable[[], int], *, body_seconds: float = BODY_SECONDS
) -> FastAPI:
    """The service of one registry; `clock` gives UTC seconds. Whoever opened `registry` closes it afterwards."""
    metrics = Metrics()
    committer, reads = Committer(registry, clock, metrics), Reads()
    limit = RateLimit(settings.limits.burst, settings.limits.records_per_minute / 60)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await committer.close()
        reads.close()

    app = FastAPI(
        title="Consent registry", version="1", lifespan=lifespan,
        # The documentation pages would load scripts from elsewhere.
        docs_url=None, redoc_url=None,
        description="Append-only lanes of sealed consent records, which the registry cannot read.",
    )  # fmt: skip

    body = partial(read_body, seconds=body_seconds)

    def address_of(request: Request) -> str:
        return request.client.host if request.client else ""

    async def read(request: Request, work: Callable[[], Value]) -> Value:
        return await reads.call(address_of(request), work)

    def take(request: Request, records: int) -> None:
        if wait_s := limit.take(address_of(request), records, at=asyncio.get_running_loop().time()):
            raise TooManyError(wait_s)

    async def promises(append: Append) -> Response:
        envelopes = await committer.append(append)
        metrics.accepted(len(envelopes))
        return answer({"promises": [envelope.decode() for envelope in envelopes]})

    @app.get("/lanes/{lane}/checkpoint", summary="The signed head (C2SP tlog-checkpoint)", responses=_TEXT)
    async def checkpoint(lane: str, request: Request) -> Response:
        note = await read(request, partial(registry.checkpoint, lane))
        return Response(note, headers=_NOW, media_type="text/plain")

    @app.get("/lanes/{lane}/tile/{path:path}", summary="Hashes and log entries (C2SP tlog-tiles)", responses=_BINARY)
    async def tile(lane: str, path: str, request: Request) -> Response:
        asked = parse_tile_path(f"tile/{path}")
        work = (
            partial(registry.entry_bundle, lane, asked.index, asked.width) if asked.level is None
            else partial(registry.tile, lane, asked.level, asked.index, asked.width)
        )  # fmt: skip
        return Response(await read(request, work), headers=_FOR_EVER, media_type=_BYTES)

    @app.get("/lanes/{lane}/sealed/{path:path}", summary="What lies beside the log entries", responses=_BINARY)
    async def sealed(lane: str, path: str, request: Request) -> Response:
        asked = parse_tile_path(f"tile/entries/{path}")
        content = await read(request, partial(registry.sealed_bundle, lane, asked.index, asked.width))
        # What is erased must not live on in somebody's cache.
        return Response(content, headers=_NOW, media_type=_BYTES)

    @app.get("/lanes/{lane}/positions/{tag}", summary="Where the record with a tag is")
    async def position(lane: str, tag: str, request: Request) -> Response:
        if not _TAG.match(tag):
            raise MalformedError(
                f"A tag is {2 * TAG_BYTES} lower-case hexadecimal digits. The wallet should correct it."
            )
        found = await read(request, partial(registry.position, lane, bytes.fromhex(tag)))
        if found is None:
            raise NotThereError(
                "No record with this tag is in the lane. Its wallet should submit it.", RefusalCode.LANE
            )
        return answer({"position": found}, headers=_NOW)

    @app.post("/lanes/{lane}/records", summary="Append sealed records", openapi_extra=_body(_BYTES))
    async def submit(lane: str, request: Request) -> Response:
        take(request, 1)
        submissions = parse_frames(await body(request, MAX_FRAMES_BYTES))
        if len(submissions) > 1:
            take(request, len(submissions) - 1)
        return await promises(Append(lane, tuple(Entry(one.stub, one.ciphertext) for one in submissions)))

    @app.post("/lanes/{lane}/tombstones", summary="Erase a record", openapi_extra=_body("application/json"))
    async def erase(lane: str, request: Request) -> Response:
        take(request, 1)
        return await promises(registry.tombstone(lane, await body(request, MAX_SEALED_BYTES)))

    @app.get("/lanes/{lane}/key-set", summary="The keys that records are sealed to")
    async def key_set(lane: str, request: Request) -> Response:
        envelope = await read(request, partial(registry.key_set, lane))
        return Response(envelope, headers=_NOW, media_type="application/json")

    @app.put("/lanes/{lane}/key-set", summary="Publish a newer key set", openapi_extra=_body("application/json"))
    async def publish_key_set(lane: str, request: Request) -> Response:
        take(request, 1)
        envelope = await body(request, MAX_KEY_SET_BYTES)
        await committer.call(partial(registry.publish_key_set, lane, envelope, at=clock()))
        return answer({"status": "ok"})

    @app.get("/healthz", summary="Whether the database can be read")
    async def healthz(request: Request) -> Response:
        await read(request, registry.check_database)
        return answer({"status": "ok"}, headers=_NOW)

    @app.get("/metrics", summary="Figures for Prometheus", responses=_TEXT)
    async def figures(request: Request) -> Response:
        for lane in settings.lanes:
            try:
                metrics.sized(lane, (await read(request, partial(registry.head, lane))).size)
            except TamperingError:
                metrics.sized(lane, -1)
        return Response(metrics.text(), headers=_NOW, media_type="text/plain; version=0.0.4")

    async def refuse(_: Request, error: Exception) -> Response:
        # Only these two kinds are registered below.
        if isinstance(error, HTTPException):
            metrics.refused("http")
            return answer_to_http(error)
        if not isinstance(error, FedcreditError):
            raise error
        metrics.refused(error.code.value if isinstance(error, RefusalError) else family_of(error))
        return answer_to(error)

    app.add_exception_handler(FedcreditError, refuse)
    app.add_exception_handler(HTTPException, refuse)
    app.add_middleware(Edge, metrics=metrics)
    return app
