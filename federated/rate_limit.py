"""How much one address may ask for: a token bucket each, for a bounded number of addresses."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

MOST_ADDRESSES: Final = 100_000
_IPV6_NETWORK_BITS: Final = 64


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateLimit:
    """At most `burst` at once from one address, and `per_s` a second from then on.

    Addresses are forgotten, longest silent first, beyond `most_addresses`: what a flood of addresses can take is
    memory of this size and not more. `at` is any clock in seconds that never goes back.
    """

    def __init__(self, burst: float, per_s: float, *, most_addresses: int = MOST_ADDRESSES) -> None:
        self.burst, self.per_s = burst, per_s
        self._most_addresses = most_addresses
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str, amount: float = 1.0, *, at: float) -> float:
        """0.0 when `amount` may come in now; else the seconds after which it may, and nothing is taken."""
        key = network_of(address)
        bucket = self._buckets.setdefault(key, _Bucket(self.burst, at))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most_addresses:
            self._buckets.popitem(last=False)
        bucket.left = min(self.burst, bucket.left + (at - bucket.at) * self.per_s)
        bucket.at = at
        if amount <= bucket.left:
            bucket.left -= amount
            return 0.0
        return (amount - bucket.left) / self.per_s

    def __len__(self) -> int:
        return len(self._buckets)


class Shares:
    """Places that are taken and given back: at most `most` together, and `each` by one address."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._taken: dict[str, int] = {}
        self._together = 0

    def take(self, address: str) -> bool:
        """Whether a place was free; whoever got one gives it back."""
        key = network_of(address)
        taken = self._taken.get(key, 0)
        if self._together >= self._most or taken >= self._each:
            return False
        self._taken[key] = taken + 1
        self._together += 1
        return True

    def give_back(self, address: str) -> None:
        """One place of this address is free again."""
        key = network_of(address)
        self._together -= 1
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]

    def __len__(self) -> int:
        return self._together


def network_of(address: str) -> str:
    """The address, or for IPv6 its /64: one household has that many addresses and could use each once."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{int(parsed) >> _IPV6_NETWORK_BITS:x}/64"
    return str(parsed)
