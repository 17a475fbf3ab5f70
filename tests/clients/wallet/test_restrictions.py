"""Which changes say less than before, so that nobody may keep them back: field by field."""

import pytest
from msgspec.structs import replace

from clients.wallet.wishes import Wishes
from privacy.consent.record import Grant, Purpose, TrainingBudget, Uses

AT = 1_793_491_200
BUDGET = TrainingBudget(share_milli=500, eps_milli=1000, delta_log10=-5, window_s=100)
TRAIN = Grant(
    purpose=Purpose.TRAIN, to="one", data=("behaviour", "capacity"), nbf=AT, exp=AT + 100, reconfirm_by=AT + 50,
    retain_s=10, dp=BUDGET,
)  # fmt: skip
SCORE = replace(TRAIN, purpose=Purpose.SCORE, dp=None, uses=Uses(n=3, per_s=100))
BOTH = Wishes((SCORE, TRAIN))

NARROWER = {
    "fewer categories": replace(TRAIN, data=("capacity",)),
    "begins later": replace(TRAIN, nbf=AT + 1),
    "ends earlier": replace(TRAIN, exp=AT + 99),
    "pauses earlier": replace(TRAIN, reconfirm_by=AT + 49),
    "kept for less time": replace(TRAIN, retain_s=9),
    "smaller share": replace(TRAIN, dp=replace(BUDGET, share_milli=499)),
    "smaller cap": replace(TRAIN, dp=replace(BUDGET, eps_milli=999)),
    "smaller delta": replace(TRAIN, dp=replace(BUDGET, delta_log10=-6)),
    "longer window": replace(TRAIN, dp=replace(BUDGET, window_s=101)),
    "fewer uses": replace(SCORE, uses=Uses(n=2, per_s=100)),
    "uses in a longer time": replace(SCORE, uses=Uses(n=3, per_s=101)),
}
WIDER = {
    "another category": replace(TRAIN, data=("behaviour", "capacity", "income")),
    "begins earlier": replace(TRAIN, nbf=AT - 1),
    "ends later": replace(TRAIN, exp=AT + 101),
    "pauses later": replace(TRAIN, reconfirm_by=AT + 51),
    "kept for more time": replace(TRAIN, retain_s=11),
    "larger share": replace(TRAIN, dp=replace(BUDGET, share_milli=501)),
    "larger cap": replace(TRAIN, dp=replace(BUDGET, eps_milli=1001)),
    "larger delta": replace(TRAIN, dp=replace(BUDGET, delta_log10=-4)),
    "shorter window": replace(TRAIN, dp=replace(BUDGET, window_s=99)),
    "more uses": replace(SCORE, uses=Uses(n=4, per_s=100)),
    "uses in a shorter time": replace(SCORE, uses=Uses(n=3, per_s=99)),
    "another recipient": replace(TRAIN, to="two"),
    "another purpose": replace(TRAIN, purpose=Purpose.VALIDATE),
}


@pytest.mark.parametrize("grant", NARROWER.values(), ids=NARROWER)
def test_a_narrower_grant_says_less(grant: Grant) -> None:
    assert BOTH.granting(grant).no_wider_than(BOTH)
    assert Wishes((grant,)).no_wider_than(BOTH)


@pytest.mark.parametrize("grant", WIDER.values(), ids=WIDER)
def test_a_wider_grant_says_more_whatever_else_is_given_up(grant: Grant) -> None:
    assert not BOTH.granting(grant).no_wider_than(BOTH)
    assert not Wishes((grant,)).no_wider_than(BOTH)


def test_withdrawing_and_freezing_say_less_and_thawing_says_more() -> None:
    assert BOTH.no_wider_than(BOTH)
    assert BOTH.without(purpose=Purpose.TRAIN, to=None).no_wider_than(BOTH)
    assert Wishes().no_wider_than(BOTH)
    frozen = BOTH.with_freeze(True)
    assert frozen.no_wider_than(BOTH)
    assert frozen.no_wider_than(Wishes())
    assert not BOTH.no_wider_than(frozen)
    assert Wishes().no_wider_than(frozen)
    assert not BOTH.no_wider_than(Wishes())
