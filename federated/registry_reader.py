"""The consent registry over HTTP, read: whoever asks it believes nothing of what it answers.

Signatures, hashes and proofs are verified by whoever asked; this module only bounds what is read and tells failures
in words.
"""

import re
import ssl
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx
import msgspec

from federated.deadline import NOT_REACHED, TOTAL, TimelyTransport
from privacy.consent.lane import parse_leaf
from privacy.consent.limits import MAX_SEALED_BYTES, NAME_PATTERN
from privacy.consent.tiles import TILE_WIDTH, TileTree, bundle_path, read_bundle, tile_path
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError

TIMEOUT_S: Final = 10.0
MAX_CHECKPOINT_BYTES: Final = 16_384
MAX_KEY_SET_BYTES: Final = 65_536
MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (2 + MAX_SEALED_BYTES)
MAX_TILE_BYTES: Final = TILE_WIDTH * 32
MAX_ERROR_BYTES: Final = 4_096
_NAME: Final = re.compile(NAME_PATTERN)
_MAX_WORDS: Final = 500
OK: Final = 200

_Value = TypeVar("_Value")


class _Error(msgspec.Struct, frozen=True):
    error: str
    code: str


class RegistryReader:
    """One registry at `url`, reached over TLS that `ca` (PEM) vouches for; None is what the system trusts.

    Use as a context manager, or close it. No redirects, no proxy from the environment: nobody else is asked. A silence
    of `timeout_s` is given up, and so is an answer that is not there whole after three times that.
    """

    def __init__(self, url: str, *, ca: str | None, timeout_s: float = TIMEOUT_S) -> None:
        try:
            if ca is not None and not (ca.strip() and ca.isascii()):
                raise ValueError  # an empty file would otherwise mean the system's trust
            context = ssl.create_default_context(cadata=ca)
            self._transport = TimelyTransport(context, total_s=TOTAL * timeout_s)
            self._http = httpx.Client(
                base_url=url, transport=self._transport, timeout=timeout_s, trust_env=False,
                # What is compressed could unfold to any size.
                headers={"Accept-Encoding": "identity"},
            )  # fmt: skip
        except NOT_REACHED:
            raise MalformedError(
                "The registry's address or its certificate cannot be read. Whoever gave them should give them again: "
                "a URL and a certificate in PEM."
            ) from None

    def checkpoint(self, lane: str) -> str:
        """The lane's newest signed head, not verified."""
        return _text(self._get(lane, "checkpoint", most=MAX_CHECKPOINT_BYTES))

    def entries(self, lane: str, start: int, stop: int) -> list[Entry]:
        """The entries from position `start` up to `stop`, which the lane must have reached.

        Nothing lies beside an erased one. Ask in multiples of 256: a bundle is fetched whole.
        """
        entries: list[Entry] = []
        for index in range(start // TILE_WIDTH, -(-stop // TILE_WIDTH)):
            width = min(TILE_WIDTH, stop - index * TILE_WIDTH)
            path = bundle_path(index, width)
            leaves = read_bundle(self._get(lane, path, most=MAX_BUNDLE_BYTES), width)
            beside_path = path.replace("tile/entries/", "sealed/", 1)
            beside = read_bundle(self._get(lane, beside_path, most=MAX_BUNDLE_BYTES), width)
            first = max(start - index * TILE_WIDTH, 0)
            entries += map(_entry, leaves[first:], beside[first:])
        return entries

    def tree(self, lane: str, size: int) -> TileTree:
        """The hashes of the lane's first `size` entries, fetched as a proof needs them."""

        def fetch(level: int, index: int, width: int) -> bytes:
            return self._get(lane, tile_path(level, index, width), most=MAX_TILE_BYTES)

        return TileTree(size, fetch)

    def key_set(self, lane: str) -> bytes:
        """The data holder's key set, not verified."""
        return self._get(lane, "key-set", most=MAX_KEY_SET_BYTES)

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def _get(self, lane: str, path: str, *, most: int) -> bytes:
        return self._send("GET", lane, path, None, most=most)

    def _send(self, method: str, lane: str, path: str, content: bytes | None, *, most: int) -> bytes:
        status, body = self._ask(method, lane, path, content, most=most)
        if status == OK:
            return body
        raise failure(status, body)

    def _ask(self, method: str, lane: str, path: str, content: bytes | None, *, most: int) -> tuple[int, bytes]:
        if not _NAME.match(lane):
            raise MalformedError("This is no name of a lane. Whoever wrote it should correct it.")
        self._transport.begin()
        try:
            try:
                return self._exchange(method, f"lanes/{lane}/{path}", content, most)
            except httpx.RemoteProtocolError:
                # The registry may close a connection that was idle just when it is used again. Every request here can
                # be repeated without harm.
                return self._exchange(method, f"lanes/{lane}/{path}", content, most)
        except NOT_REACHED as error:
            raise RefusalError(
                f"The registry cannot be reached, or breaks off ({type(error).__name__}). Check the network, and that "
                "the address and the certificate are the registry's; then run the same command again.",
                RefusalCode.LANE,
            ) from None

    def _exchange(self, method: str, path: str, content: bytes | None, most: int) -> tuple[int, bytes]:
        with self._http.stream(method, path, content=content) as response:
            parts: list[bytes] = []
            size = 0
            for part in response.iter_raw():
                size += len(part)
                if size > (most if response.status_code == OK else MAX_ERROR_BYTES):
                    raise MalformedError(
                        f"The registry's answer has more than {size - len(part)} bytes, which is more than was asked "
                        "for. Do not rely on it, and tell its operator."
                    )
                parts.append(part)
            return response.status_code, b"".join(parts)


def _entry(leaf: bytes | None, beside: bytes | None) -> Entry:
    return Entry(parse_leaf(leaf or b""), beside)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise unreadable() from None


def decoded(body: bytes, kind: type[_Value]) -> _Value:
    """What the registry's answer `body` says. MalformedError if that is no `kind`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise unreadable() from None


def unreadable() -> MalformedError:
    """For an answer that is none."""
    return MalformedError(
        "The registry's answer cannot be read as what was asked for. Check that the address is a consent registry's, "
        "and that it and this program are of one version."
    )


def failure(status: int, body: bytes) -> FedcreditError:
    """The registry's own error, in the family that it names."""
    try:
        told = msgspec.json.decode(body, type=_Error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        told = _Error("no reason that can be read", RefusalCode.LANE.value)
    # Somebody else's words: no more than plain characters may reach a terminal.
    words = "".join(char for char in told.error[:_MAX_WORDS] if " " <= char <= "~")
    text = f"The registry refused (status {status}): {words}"
    if told.code == "malformed":
        return MalformedError(text)
    if told.code == "tampering":
        return TamperingError(text)
    code = told.code if told.code in set(RefusalCode) else RefusalCode.LANE
    return RefusalError(text, RefusalCode(code))
