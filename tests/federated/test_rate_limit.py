"""Token buckets, against a literal count of what was let in."""

from hypothesis import given
from hypothesis import strategies as st

from federated.rate_limit import RateLimit, Shares, network_of

ASKED = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 300)), max_size=60)


@given(ASKED, st.integers(1, 600), st.integers(256, 1000))
def test_never_more_than_the_burst_and_the_rate_allow(asked: list[tuple[float, int]], rate: int, burst: int) -> None:
    limit = RateLimit(per_s=rate / 60, burst=burst)
    now, let_in = 0.0, 0
    for wait, records in asked:
        now += wait
        if limit.take("10.0.0.1", records, at=now) == 0.0:
            let_in += records
        assert let_in <= burst + now * rate / 60 + 1e-6


@given(st.integers(1, 600), st.integers(1, 256))
def test_after_the_time_that_was_told_it_goes_through(rate: int, records: int) -> None:
    limit = RateLimit(per_s=rate / 60, burst=256)
    assert limit.take("a", 256, at=5.0) == 0.0
    wait = limit.take("a", records, at=5.0)
    assert wait > 0
    assert limit.take("a", records, at=5.0 + wait * 0.99) > 0
    assert limit.take("a", records, at=5.0 + wait * 1.000001 + 1e-6) == 0.0


def test_addresses_do_not_share_and_networks_do() -> None:
    limit = RateLimit(per_s=1 / 60, burst=256)
    assert limit.take("10.0.0.1", 256, at=0) == 0.0
    assert limit.take("10.0.0.2", 256, at=0) == 0.0
    assert limit.take("10.0.0.1", 1, at=0) > 0
    assert limit.take("2001:db8::1", 256, at=0) == 0.0
    assert limit.take("2001:db8::ffff", 1, at=0) > 0
    assert limit.take("2001:db8:0:1::1", 256, at=0) == 0.0


def test_a_flood_of_addresses_takes_bounded_memory() -> None:
    limit = RateLimit(per_s=1 / 60, burst=256, most_addresses=100)
    for number in range(1000):
        limit.take(f"10.0.{number // 250}.{number % 250}", 1, at=number)
        limit.take("10.9.9.9", 1, at=number)
    assert len(limit) == 100
    # Whoever keeps asking is not forgotten.
    assert limit.take("10.9.9.9", 256, at=1000) > 0


def test_an_ipv4_address_is_one_however_it_is_written() -> None:
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("2001:db8::1") == network_of("2001:db8:0:0:ffff::9") != network_of("2001:db8:0:1::1")
    assert len({network_of(text) for text in ("::1", "0.0.0.0", "", "door")}) == 4  # noqa: S104


ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8:1::1"])


@given(st.lists(st.tuples(ADDRESSES, st.booleans())), st.integers(1, 6), st.integers(1, 6))
def test_places_are_never_more_than_there_are(asked: list[tuple[str, bool]], most: int, each: int) -> None:
    shares = Shares(most, each)
    held: list[str] = []
    for address, comes in asked:
        network = network_of(address)
        if comes:
            free = len(held) < most and held.count(network) < each
            assert shares.take(address) == free
            held += [network] if free else []
        elif network in held:
            shares.give_back(address)
            held.remove(network)
        assert len(shares) == len(held)
