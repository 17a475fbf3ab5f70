"""Canonical JSON (RFC 8785) of typed values, and unpadded base64url: one value has one encoding."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Generic, TypeVar

import msgspec

from privacy.errors import MalformedError

Value = TypeVar("Value")

_PATH = re.compile(r"`(\$[A-Za-z0-9_.\[\]]*)`\Z")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")


class CanonicalJson(Generic[Value]):
    """Strict two-way codec of one message type; `parse` takes exactly the bytes `encode` gives.

    Types must be free of floats (their canonical form differs between libraries), must keep integers within
    2^53 - 1 and must forbid unknown fields. Duplicate keys, spaces, `1.0`, `true` for 1 and escapes that need
    not be are all refused, because the parsed value is encoded again and compared (RFC 8785, section 3.2).
    Object keys must be ASCII.
    """

    def __init__(self, kind: type[Value], *, what: str, max_bytes: int) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._encoder = msgspec.json.Encoder(order="sorted")
        self._decoder = msgspec.json.Decoder(kind)

    def encode(self, value: Value) -> bytes:
        """Canonical bytes of `value`. Raises MalformedError when `parse` would refuse them."""
        data = self._unchecked(value)
        self.parse(data)
        return data

    def parse(self, data: bytes) -> Value:
        """The value that `data` is the canonical form of. Raises MalformedError."""
        if len(data) > self._max_bytes:
            raise MalformedError(
                f"{self._what} has {len(data)} bytes; at most {self._max_bytes} are read. The sender must shorten it."
            )
        try:
            value = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # The library's own text may quote a value, so only the place of the fault goes on, and no cause.
            raise MalformedError(
                f"{self._what} cannot be read{_place(error)}; its format's fields, types and ranges are "
                "required. The sender must write it again with a current version of this program."
            ) from None
        if self._unchecked(value) != data:
            raise MalformedError(
                f"{self._what} is readable but not in canonical form (RFC 8785); one value has one encoding. "
                "The sender must encode it again."
            )
        return value

    def _unchecked(self, value: Value) -> bytes:
        try:
            return self._encoder.encode(value)
        except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError, RecursionError):
            raise MalformedError(
                f"{self._what} holds a value that has no canonical form; whole numbers and "
                "well-formed text are required. The sender must correct it."
            ) from None


def base64url(data: bytes) -> str:
    """Unpadded base64url of `data` (RFC 4648, section 5)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str, *, size: int) -> bytes:
    """The `size` bytes of `text`. Raises MalformedError for padding, stray bits or another alphabet."""
    if len(text) == (4 * size + 2) // 3 and _BASE64URL.match(text):
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if base64url(data) == text:
            return data
    raise MalformedError(
        f"a text of {len(text)} characters is not {size} bytes in unpadded base64url; "
        "whoever wrote it must encode it again."
    )


def _place(error: Exception) -> str:
    found = _PATH.search(str(error)) if isinstance(error, msgspec.ValidationError) else None
    return f" at {found.group(1)}" if found else ""
