"""Shamir's secret sharing (CACM 1979) over the integers modulo a prime just above 2^256.

A secret of 32 bytes is a polynomial's value at 0, a share its value at a holder's point. With `threshold`
coefficients, any `threshold` shares give the secret, and fewer are consistent with every secret alike.
"""

import math
from collections.abc import Sequence
from functools import cache
from operator import mul
from typing import Final

from privacy.secure_sum.derivation import derive, key_stream

PRIME: Final = 2**256 + 297
SHARE_BYTES: Final = 33
_DRAW_BYTES: Final = 48  # 128 bits more than the prime has: what is left of the bias is below 2^-127


def drawn_coefficients(secret: bytes, label: str, *parts: str | int | bytes, count: int) -> list[int]:
    """`count` numbers below the prime that look uniform to whoever lacks `secret`; the same for the same arguments."""
    drawn = key_stream(derive(secret, label, *parts), count * _DRAW_BYTES)
    return [int.from_bytes(drawn[k : k + _DRAW_BYTES], "big") % PRIME for k in range(0, len(drawn), _DRAW_BYTES)]


def share_of(coefficients: Sequence[int], point: int) -> int:
    """The polynomial's value at `point`; `coefficients` from the constant term, which is the secret, upwards."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


class Basis:
    """Points from which a polynomial with as many coefficients is known. All distinct and in 1..2^32."""

    __slots__ = ("_scales", "points")

    def __init__(self, points: Sequence[int]) -> None:
        if not points or len(set(points)) != len(points) or not all(0 < point <= 2**32 for point in points):
            raise ValueError("requires distinct points in 1..2^32, at least one")
        self.points: Final = tuple(points)
        self._scales = _inverses([math.prod(x - y for y in points if y != x) % PRIME for x in points])

    def weights(self, at: int = 0) -> list[int]:
        """What the values at the points are multiplied with to give the value at `at` (Lagrange), in their order."""
        if at in self.points:
            return [int(point == at) for point in self.points]
        product = math.prod(at - x for x in self.points) % PRIME
        return [
            scale * product % PRIME * _inverse(at - x) % PRIME
            for scale, x in zip(self._scales, self.points, strict=True)
        ]


def combined(weights: Sequence[int], values: Sequence[int]) -> int:
    """The weighted sum modulo the prime. Requires as many weights as values."""
    if len(weights) != len(values):
        raise ValueError("requires as many weights as values")
    total: int = sum(map(mul, weights, values))
    return total % PRIME


@cache
def _inverse(value: int) -> int:
    # Differences of points are few and small, and each inversion costs as much as forty products.
    return pow(value, -1, PRIME)


def _inverses(values: Sequence[int]) -> list[int]:
    # Montgomery's trick: one inversion for all of them.
    before = [1]
    for value in values:
        before.append(before[-1] * value % PRIME)
    rest, found = pow(before[-1], -1, PRIME), []
    for value, product in zip(reversed(values), reversed(before[:-1]), strict=True):
        found.append(rest * product % PRIME)
        rest = rest * value % PRIME
    return found[::-1]
