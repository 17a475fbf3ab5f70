"""Keyed digests of the rows in a data holder's lane copy, so that an edited row is noticed when it is read."""

import hmac
from typing import Final

Value = str | bytes | int | None

_ELEMENT: Final = b"fedcredit/row-tally/v1"
_MODULUS: Final = 2**256


class RowSeal:
    """HMAC-SHA256 (RFC 2104) under a secret key of 32 bytes; each digest has 32 bytes.

    A digest covers the table and every field behind its kind and length. It says that this data holder wrote the row,
    not that the row is the newest; that no row of a table was taken away is what its `Tally` says.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def row(self, table: str, *values: Value) -> bytes:
        """The digest of one row of `table`."""
        parts = [table.encode(), b"\0"]
        for value in values:
            if isinstance(value, bytes):
                parts.append(b"b%d:" % len(value))
                parts.append(value)
            elif isinstance(value, int):
                parts.append(b"i%d;" % value)
            elif value is None:
                parts.append(b"n")
            else:
                encoded = value.encode()
                parts.append(b"s%d:" % len(encoded))
                parts.append(encoded)
        return hmac.digest(self._key, b"".join(parts), "sha256")

    def holds(self, mac: object, table: str, *values: Value) -> bool:
        """Whether `mac`, as it was read from a database, is the digest of the row."""
        return isinstance(mac, bytes) and hmac.compare_digest(self.row(table, *values), mac)

    def element(self, mac: bytes) -> int:
        """What a row with this digest adds to its table's tally: a number that only this data holder can compute."""
        return int.from_bytes(hmac.digest(self._key, _ELEMENT + mac, "sha256"), "big")


class Tally:
    """How many rows a table has and the sum of their elements modulo 2^256, whatever their order.

    The keyed additive hash of a multiset (Clarke et al., ASIACRYPT 2003): without the key nobody finds other rows with
    the same sum, not even among rows seen before.
    """

    __slots__ = ("count", "total")

    def __init__(self, count: int = 0, total: int = 0) -> None:
        self.count, self.total = count, total

    def add(self, seal: RowSeal, mac: bytes) -> None:
        """Count one row in."""
        self.count += 1
        self.total = (self.total + seal.element(mac)) % _MODULUS

    def remove(self, seal: RowSeal, mac: bytes) -> None:
        """Count one row out."""
        self.count -= 1
        self.total = (self.total - seal.element(mac)) % _MODULUS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self.count, self.total) == (other.count, other.total)

    # A tally changes, so it may not be a key; the type checker wants a method here.
    __hash__ = None  # type: ignore[assignment]

    def to_bytes(self) -> bytes:
        """Count (8 bytes) and sum (32 bytes), big-endian."""
        return self.count.to_bytes(8, "big") + self.total.to_bytes(32, "big")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tally":
        """The tally that `to_bytes` wrote."""
        return cls(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:40], "big"))
