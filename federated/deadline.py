"""HTTP that ends in time, whatever the other side does: one deadline over everything that one exchange waits for."""

import socket
import ssl
import time
from collections.abc import Iterable
from threading import local
from typing import Any, Final

import httpcore
import httpx

TOTAL: Final = 3
"""How many times the patience for one silence an exchange may last in all."""
_SLICE_BYTES: Final = 16_384

# Whatever a hostile address, certificate or answer makes of the libraries: httpx.InvalidURL and StreamError are no
# HTTPError, the IDNA codec raises UnicodeError (a ValueError), and ssl.SSLError is an OSError.
NOT_REACHED: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)


class TimelyTransport(httpx.HTTPTransport):
    """HTTP over connections whose every wait ends by the deadline that `begin` sets.

    httpx's own timeouts hold for a single read: who sends one byte before each of them ends is waited for for ever.
    Each thread has its own deadline. Resolving a name is left to the system, which gives up by itself.
    """

    def __init__(self, context: ssl.SSLContext, *, total_s: float) -> None:
        super().__init__(verify=context, trust_env=False)
        self._deadline = _Deadline(total_s)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, network_backend=_TimelyBackend(self._deadline), keepalive_expiry=5.0
        )

    def begin(self) -> None:
        """From now on `total_s` are left to this thread's exchange."""
        self._deadline.begin()


class _Deadline(local):
    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self.begin()

    def begin(self) -> None:
        self._end = time.monotonic() + self._total_s

    def within(self, timeout: float | None, error: type[httpcore.TimeoutException]) -> float:
        """The time that may still be waited, at most `timeout`; raises `error` when none is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise error
        return left if timeout is None else min(timeout, left)


class _TimelyBackend(httpcore.NetworkBackend):
    def __init__(self, deadline: _Deadline) -> None:
        self._inner, self._deadline = httpcore.SyncBackend(), deadline

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None
        failure: Exception = httpcore.ConnectError("no address")
        # One by one: given the name, the system would have the whole timeout for each of its addresses.
        for *_, place in places:
            left = self._deadline.within(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._inner.connect_tcp(str(place[0]), port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimelyStream(stream, self._deadline)
        raise failure


class _TimelyStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.within(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for first in range(0, len(buffer), _SLICE_BYTES):
            left = self._deadline.within(timeout, httpcore.WriteTimeout)
            self._inner.write(buffer[first : first + _SLICE_BYTES], left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.within(timeout, httpcore.ConnectTimeout)
        return _TimelyStream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
