"""A load of single submissions over HTTPS: many connections at once, each waiting for its answer before the next."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

CLOSING_S = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to."""

    seconds: float  # from the first request to the last answer
    latencies: NDArray[np.float64]  # seconds, one for each request
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def submit_singly(url: str, ca: str, lane: str, bodies: Sequence[bytes], *, connections: int) -> Load:
    """Post every body to the lane's records, over `connections` kept-alive TLS connections.

    A client of its own, a few lines over sockets: the usual ones cost more than the registry they would measure.
    """
    return asyncio.run(_all(url, ca, lane, bodies, connections))


async def _all(url: str, ca: str, lane: str, bodies: Sequence[bytes], connections: int) -> Load:
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or 443
    tls = ssl.create_default_context(cadata=ca)
    waiting = list(reversed(bodies))
    latencies: list[float] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        try:
            while waiting:
                body = waiting.pop()
                head = (
                    f"POST /lanes/{lane}/records HTTP/1.1\r\nHost: {host}\r\n"
                    f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                asked = time.perf_counter()
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                lines = answer.lower().split(b"\r\n")
                length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(length)
                latencies.append(time.perf_counter() - asked)
                failed += not lines[0].startswith(b"http/1.1 200")
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), CLOSING_S)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    return Load(time.perf_counter() - started, np.array(latencies), failed)
