"""Clocks that are wrong, and consents that end while they are needed: nobody's grant is ever stretched."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.privacy.consent.samples import DAY, NOW, entry, grant, record
from tests.withstand.beds import ALICE, BOB, SKEW_S, Bed, bed

HOUR = 3600


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bed]:
    """Alice's grant ends now, Bob's begins now."""
    with bed(tmp_path) as made:
        made.take(
            entry(ALICE, record(ALICE, grant(exp=NOW, reconfirm_by=NOW)), name="ends"),
            entry(BOB, record(BOB, grant(nbf=NOW)), name="begins"),
        )
        yield made


@pytest.mark.parametrize(
    "off", [-DAY, -HOUR, -SKEW_S - 1, -SKEW_S, -1, 0, 1, SKEW_S - 1, SKEW_S, SKEW_S + 1, HOUR, DAY]
)
def test_a_clock_that_is_off_by_121_seconds_an_hour_or_minus_a_day_stretches_no_grant(made: Bed, off: int) -> None:
    at = NOW + off
    assert made.asks(ALICE, start=at, end=at) == ("allow" if off < -SKEW_S else "time")
    assert made.asks(BOB, start=at, end=at) == ("allow" if off >= SKEW_S else "time")


def test_a_lane_copy_whose_clock_jumps_is_never_younger_than_it_is(made: Bed) -> None:
    assert made.lane.age(at=NOW + 50) == 50
    for at in (NOW - 1, NOW - SKEW_S - 1, NOW - HOUR, NOW - DAY):
        assert made.lane.age(at=at) < 0  # a sync from the future: somebody's clock is wrong
    made.lane.age(at=NOW + HOUR)
    for back in (NOW + 1, NOW + SKEW_S, NOW + HOUR - 1):
        assert made.lane.age(at=back) == HOUR
    made.lane.sync(made.source, at=NOW - DAY)
    assert made.lane.age(at=NOW - DAY) == 0
    assert made.lane.age(at=NOW) == DAY


def test_a_grant_that_ends_inside_a_round_covers_none_of_it(made: Bed) -> None:
    start = NOW - HOUR
    last = NOW - SKEW_S - 1
    assert made.asks(ALICE, start=start, end=last) == "allow"
    for end in (last + 1, NOW - 1, NOW, NOW + HOUR):
        assert made.asks(ALICE, start=start, end=end) == "time"


def test_a_grant_that_begins_inside_a_round_covers_none_of_it(made: Bed) -> None:
    end = NOW + HOUR
    assert made.asks(BOB, start=NOW + SKEW_S, end=end) == "allow"
    for start in (NOW + SKEW_S - 1, NOW, NOW - HOUR):
        assert made.asks(BOB, start=start, end=end) == "time"


def test_a_pause_inside_a_round_covers_none_of_it(made: Bed) -> None:
    pauses = NOW + HOUR
    made.take(entry(ALICE, record(ALICE, grant(reconfirm_by=pauses), seq=2), name="pauses"))
    assert made.asks(ALICE, end=pauses - SKEW_S - 1) == "allow"
    for end in (pauses - SKEW_S, pauses, pauses + DAY):
        assert made.asks(ALICE, end=end) == "reconfirm"


def test_an_hour_that_a_local_clock_shows_twice_is_two_instants(made: Bed) -> None:
    """On 31 October 2027 Berlin's clocks show 02:30 twice; a record knows UTC seconds and no local time."""
    summer, winter = (timezone(timedelta(hours=hours)) for hours in (2, 1))
    shown = datetime(2027, 10, 31, 2, 30)  # noqa: DTZ001 (what a clock on the wall shows)
    first, second = (int(shown.replace(tzinfo=zone).timestamp()) for zone in (summer, winter))
    assert second - first == HOUR
    until_first = grant(nbf=first - DAY, exp=first, reconfirm_by=first)
    from_second = grant(nbf=second, exp=second + DAY, reconfirm_by=second + DAY)
    made.take(
        entry(ALICE, record(ALICE, until_first, seq=2), name="until the first 02:30"),
        entry(BOB, record(BOB, from_second, seq=2), name="from the second 02:30"),
    )
    before, after = SKEW_S + 60, SKEW_S + 60
    # The wall shows the same minute; only the instant tells the grants apart.
    for instant, ended, begun in ((first, "allow", "time"), (second, "time", "time")):
        at = instant - before
        assert (made.asks(ALICE, start=at, end=at), made.asks(BOB, start=at, end=at)) == (ended, begun)
    for instant, ended, begun in ((first, "time", "time"), (second, "time", "allow")):
        at = instant + after
        assert (made.asks(ALICE, start=at, end=at), made.asks(BOB, start=at, end=at)) == (ended, begun)
    # A round over the whole doubled hour is covered by neither.
    assert (made.asks(ALICE, start=first, end=second), made.asks(BOB, start=first, end=second)) == ("time", "time")
