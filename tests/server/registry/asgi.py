"""Requests to an app without a socket: one loop, one client, the app's lifespan around them."""

import asyncio
import ssl
from types import TracebackType

import httpx
from fastapi import FastAPI

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class AppClient:
    """What a program on this machine would be answered; `address` is what the app sees as the caller's."""

    def __init__(self, app: FastAPI, *, address: str = "127.0.0.1") -> None:
        self._app = app
        self._address = address
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> "AppClient":
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._lifespan.__aenter__())
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
        self._loop.close()

    def request(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        return self.together((method, path, content))[0]

    def together(self, *requests: tuple[str, str, bytes | None]) -> list[httpx.Response]:
        """Several requests at once."""

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self._app, client=(self._address, 1))
            # Nothing leaves this process, so no certificates need to be read for it.
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", verify=_NO_TLS) as client:
                asked = (client.request(method, path, content=content) for method, path, content in requests)
                return list(await asyncio.gather(*asked))

        return self._loop.run_until_complete(ask())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, *, content: bytes) -> httpx.Response:
        return self.request("POST", path, content)

    def put(self, path: str, *, content: bytes) -> httpx.Response:
        return self.request("PUT", path, content)

    def delete(self, path: str) -> httpx.Response:
        return self.request("DELETE", path)
