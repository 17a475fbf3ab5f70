"""How much one address may hand in: a token bucket each, for a bounded number of addresses."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

MOST_ADDRESSES: Final = 100_000
_IPV6_NETWORK_BITS: Final = 64


@dataclass(slots=True)
class _Bucket:
    records: float
    at: float


class RateLimit:
    """At most `burst` records at once from one address, and `records_per_minute` from then on.

    Addresses are forgotten, longest silent first, beyond `most_addresses`: what a flood of addresses can take is
    memory of this size and not more. `at` is any clock in seconds that never goes back.
    """

    def __init__(self, *, records_per_minute: int, burst: int, most_addresses: int = MOST_ADDRESSES) -> None:
        self._per_second = records_per_minute / 60
        self._burst = burst
        self._most_addresses = most_addresses
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str, records: int, *, at: float) -> float:
        """0.0 when `records` may come in now; else the seconds after which they may, and nothing is taken."""
        key = _network(address)
        bucket = self._buckets.setdefault(key, _Bucket(self._burst, at))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most_addresses:
            self._buckets.popitem(last=False)
        bucket.records = min(self._burst, bucket.records + (at - bucket.at) * self._per_second)
        bucket.at = at
        if records <= bucket.records:
            bucket.records -= records
            return 0.0
        return (records - bucket.records) / self._per_second

    def __len__(self) -> int:
        return len(self._buckets)


def _network(address: str) -> str:
    """The address, or for IPv6 its /64: one household has that many addresses and could use each once."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(int(parsed) >> _IPV6_NETWORK_BITS)
    return str(parsed)
