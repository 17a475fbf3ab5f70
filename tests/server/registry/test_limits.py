"""Token buckets, against a literal count of what was let in."""

from hypothesis import given
from hypothesis import strategies as st

from server.registry.limits import RateLimit

ASKED = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 300)), max_size=60)


@given(ASKED, st.integers(1, 600), st.integers(256, 1000))
def test_never_more_than_the_burst_and_the_rate_allow(asked: list[tuple[float, int]], rate: int, burst: int) -> None:
    limit = RateLimit(records_per_minute=rate, burst=burst)
    now, let_in = 0.0, 0
    for wait, records in asked:
        now += wait
        if limit.take("10.0.0.1", records, at=now) == 0.0:
            let_in += records
        assert let_in <= burst + now * rate / 60 + 1e-6


@given(st.integers(1, 600), st.integers(1, 256))
def test_after_the_time_that_was_told_it_goes_through(rate: int, records: int) -> None:
    limit = RateLimit(records_per_minute=rate, burst=256)
    assert limit.take("a", 256, at=5.0) == 0.0
    wait = limit.take("a", records, at=5.0)
    assert wait > 0
    assert limit.take("a", records, at=5.0 + wait * 0.99) > 0
    assert limit.take("a", records, at=5.0 + wait * 1.000001 + 1e-6) == 0.0


def test_addresses_do_not_share_and_networks_do() -> None:
    limit = RateLimit(records_per_minute=1, burst=256)
    assert limit.take("10.0.0.1", 256, at=0) == 0.0
    assert limit.take("10.0.0.2", 256, at=0) == 0.0
    assert limit.take("10.0.0.1", 1, at=0) > 0
    assert limit.take("2001:db8::1", 256, at=0) == 0.0
    assert limit.take("2001:db8::ffff", 1, at=0) > 0
    assert limit.take("2001:db8:0:1::1", 256, at=0) == 0.0


def test_a_flood_of_addresses_takes_bounded_memory() -> None:
    limit = RateLimit(records_per_minute=1, burst=256, most_addresses=100)
    for number in range(1000):
        limit.take(f"10.0.{number // 250}.{number % 250}", 1, at=number)
        limit.take("10.9.9.9", 1, at=number)
    assert len(limit) == 100
    # Whoever keeps asking is not forgotten.
    assert limit.take("10.9.9.9", 256, at=1000) > 0
