"""Terms of the policy that are asked about on their own."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.holder.policy import in_hours, own_bundle, require_bundle, require_hours, require_purpose
from privacy.consent.record import Purpose
from privacy.errors import RefusalCode, RefusalError
from tests.clients.holder.lane_scene import SETTINGS

POLICY = SETTINGS.policy
DAY_MINUTES = 24 * 60
A, B = "ab" * 32, "cd" * 32


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(
    begin=st.integers(0, DAY_MINUTES - 1), end=st.integers(0, DAY_MINUTES), day=st.integers(0, 30_000),
    second=st.integers(0, 86_399),
)  # fmt: skip
def test_hours_are_the_minutes_that_one_walks_through_from_begin_to_end(
    begin: int, end: int, day: int, second: int
) -> None:
    if begin == end:
        return  # settings refuse it
    walked, minute = set(), begin
    while minute % DAY_MINUTES != end % DAY_MINUTES:
        walked.add(minute % DAY_MINUTES)
        minute += 1
    if (begin, end) == (0, DAY_MINUTES):
        walked = set(range(DAY_MINUTES))
    assert in_hours(f"{clock(begin)}-{clock(end)}", at=86_400 * day + second) is (second // 60 in walked)


def test_the_end_of_the_hours_is_exclusive() -> None:
    assert [in_hours("08:00-17:00", at=8 * 3600 + second) for second in (-1, 0, 9 * 3600 - 1, 9 * 3600)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert in_hours("00:00-24:00", at=86_399)
    assert not in_hours("22:00-00:00", at=86_400)


def test_outside_the_hours_is_told_with_the_hours_and_the_clock() -> None:
    night = msgspec.structs.replace(POLICY, hours="22:00-06:00")
    for inside in (22 * 3600, 86_399, 0, 6 * 3600 - 1):
        require_hours(night, at=inside)
    with pytest.raises(RefusalError, match=r"22:00-06:00 UTC.*clock") as caught:
        require_hours(night, at=6 * 3600)
    assert caught.value.code is RefusalCode.POLICY


def test_only_an_approved_bundle_is_answered() -> None:
    require_bundle(A, msgspec.structs.replace(POLICY, bundles=[B, A]))
    for bundles in ([], [B], [A[:-1]], [A.upper()]):
        with pytest.raises(RefusalError) as caught:
            require_bundle(A, msgspec.structs.replace(POLICY, bundles=bundles))
        assert caught.value.code is RefusalCode.BUNDLE
        assert A not in str(caught.value)


def test_a_purpose_is_allowed_by_name_alone() -> None:
    for purpose in Purpose:
        require_purpose(msgspec.structs.replace(POLICY, purposes=[purpose]), purpose)
        with pytest.raises(RefusalError, match=purpose.value) as caught:
            require_purpose(
                msgspec.structs.replace(POLICY, purposes=[one for one in Purpose if one != purpose]), purpose
            )
        assert caught.value.code is RefusalCode.POLICY


def test_this_installation_has_one_bundle() -> None:
    assert own_bundle() == own_bundle()
    assert len(bytes.fromhex(own_bundle())) == 32
