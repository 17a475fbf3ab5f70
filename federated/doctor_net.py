"""What `fedcredit doctor` asks others: who has a port, whether a registry is itself, whether the clocks agree."""

import errno
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, TypeVar
from urllib.parse import urlsplit

from federated.doctor import Verdict, ok, problem, skipped
from federated.doctor_tls import dates, in_der, refused_by_tls
from privacy.consent.lane import Head, read_checkpoint
from privacy.errors import RefusalCode, RefusalError

PATIENCE_S: Final = 5.0
"""For one exchange, from resolving the name to the last byte."""
MOST_BYTES: Final = 16_384
OFFLINE: Final = skipped("not asked: --offline")
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (a name for it, not a choice)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, how far the answerer's clock is ahead of ours (seconds), and its certificate's dates (UTC s)."""

    status: int
    body: bytes
    ahead_s: float | None
    certified: tuple[int, int] | None


def ask(url: str, *, ca: str | None, clock: Callable[[], float], seconds: float | None = None) -> Answer:
    """What GET `url` answers. `ca` holds the certificates (PEM) to trust; None is what the system trusts.

    RefusalError in words if there is no answer within `seconds` (5), from whatever cause.
    """
    seconds = PATIENCE_S if seconds is None else seconds
    try:
        return _within(seconds, lambda: _exchange(url, ca, clock, seconds))
    except ssl.SSLCertVerificationError as error:
        raise _no_answer(refused_by_tls(error)) from None
    except TimeoutError:
        raise _no_answer(f"nothing came back within {seconds:g} s") from None
    except OSError as error:
        raise _no_answer(error.strerror or type(error).__name__) from None
    except (http.client.HTTPException, ValueError) as error:
        raise _no_answer(f"what came back is no HTTP: {type(error).__name__}") from None


def clock_of(answer: Answer, whose: str, *, behind_s: int, ahead_s: int) -> Verdict:
    """Whether our clock is at most so many seconds behind, or ahead of, the clock that answered."""
    if answer.ahead_s is None:
        return skipped(f"{whose} does not say what time it is")
    if -ahead_s <= answer.ahead_s <= behind_s:
        return ok(f"agrees with {whose}'s")
    how, most = ("behind", behind_s) if answer.ahead_s > 0 else ("ahead of", ahead_s)
    return problem(
        f"this machine's clock is {abs(answer.ahead_s):.0f} s {how} {whose}'s; at most {most} s are allowed",
        "Keep the time by NTP (timedatectl set-ntp true), on whichever machine is wrong.",
    )


def certificate_of(answer: Answer, *, at: int, mend: str) -> Verdict:
    """How long the certificate is still good that was shown, and believed."""
    if answer.certified is None:
        return ok("plain HTTP, within this machine")
    return dates(*answer.certified, at=at, mend=mend)


def head_of(answer: Answer, lane: str, public: bytes) -> Head:
    """The lane's head, by the registry's signature. RefusalError if there is none, TamperingError if it is not."""
    if answer.status != http.client.OK:
        raise RefusalError(
            f"the registry has no checkpoint of lane {lane} (status {answer.status}). Its operator should add the "
            "lane: fedcredit registry lane.",
            RefusalCode.LANE,
        )
    return read_checkpoint(answer.body.decode("utf-8", "replace"), f"fedcredit/{lane}", public)


def port(host: str, number: int, *, certificate: Path | None, url: str = "") -> Verdict:
    """Whether a port is free, or held by our own running program: it shows `certificate`, or answers at `url`."""
    if number == 0:
        return ok("any free one is taken")
    where = f"port {number} of {host}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, number))
        return ok("free: nothing is serving")
    except OSError as error:
        if error.errno == errno.EACCES:
            return problem(f"{where} is not for this account", "Choose one from 1024 on, or allow it to the program.")
        if error.errno != errno.EADDRINUSE:
            return problem(
                f"{where} cannot be listened on ({error.strerror})", "Name an address of this machine in the settings."
            )
    if _is_ours(_ANYWHERE.get(host, host), number, certificate, url):
        return ok("held by our own running program")
    return problem(
        f"{where} is held by another program",
        f"Find it (ss -ltnp 'sport = :{number}') and stop it, or choose another port in the settings.",
    )


def _exchange(url: str, ca: str | None, clock: Callable[[], float], seconds: float) -> Answer:
    asked = urlsplit(url)
    connection: http.client.HTTPConnection
    if asked.scheme == "https":
        context = ssl.create_default_context(cadata=ca)
        connection = http.client.HTTPSConnection(asked.netloc, timeout=seconds, context=context)
    else:
        connection = http.client.HTTPConnection(asked.netloc, timeout=seconds)
    try:
        connection.connect()
        certified = None
        if isinstance(connection.sock, ssl.SSLSocket):
            shown = connection.sock.getpeercert() or {}
            ends = (str(shown[name]) for name in ("notBefore", "notAfter"))
            certified = tuple(int(ssl.cert_time_to_seconds(end)) for end in ends)
        before = clock()
        connection.request("GET", asked.path or "/", headers={"Accept-Encoding": "identity", "Connection": "close"})
        response = connection.getresponse()
        after = clock()
        body = response.read(MOST_BYTES)
        ahead_s = _ahead(response.getheader("Date"), before, after)
        return Answer(response.status, body, ahead_s, None if certified is None else (certified[0], certified[1]))
    finally:
        connection.close()


def _ahead(date: str | None, before: float, after: float) -> float | None:
    """How far a Date header lies outside of what our clock said meanwhile; it tells whole seconds, rounded down."""
    try:
        told = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    if told > after:
        return told - after
    return min(0.0, told + 1 - before)


def _is_ours(host: str, number: int, certificate: Path | None, url: str) -> bool:
    try:
        if certificate is None:
            return ask(url, ca=None, clock=time.time).status == http.client.OK
        shown = _within(PATIENCE_S, lambda: ssl.get_server_certificate((host, number), timeout=PATIENCE_S))
        return ssl.PEM_cert_to_DER_cert(shown) == in_der(certificate)
    except (OSError, ValueError, RefusalError):
        return False


def _within(seconds: float, work: Callable[[], Value]) -> Value:
    """What `work` returns or raises; TimeoutError after `seconds`, whatever it waits for.

    Its own timeouts hold for one silence each, and none holds for resolving a name. The thread that is left behind
    dies with this short-lived program.
    """
    done: SimpleQueue[tuple[Value | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except Exception as error:
            done.put((None, error))

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    value, error = done.get()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # it is None only where `work` returned that


def _no_answer(why: str) -> RefusalError:
    return RefusalError(f"no answer: {why}", RefusalCode.INTERNAL)
