"""The made-up population: the same for everybody, and within what its people may promise."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from experiments.people import AT_TWO_HOLDERS, HELD_OUT_SHARE, HOLDER_NAMES, Attitude, populate
from privacy.errors import UsageError

OUTCOME = (np.random.default_rng(1).random(6000) < 0.2).astype(np.float64)


def test_everybody_gets_the_same_people_and_another_split_holds_out_others() -> None:
    one, again = (populate(OUTCOME, 10, everybody_agrees=False) for _ in range(2))
    assert one.memberships == again.memberships
    assert one.attitudes == again.attitudes
    assert np.array_equal(one.held_out, again.held_out)
    assert np.array_equal(one.caps, again.caps)
    other = populate(OUTCOME, 10, everybody_agrees=False, split_seed=1)
    assert not np.array_equal(one.held_out, other.held_out)


@pytest.mark.parametrize("holders", [2, 3, 10, 25])
def test_everybody_is_at_one_or_two_data_holders_with_shares_of_at_most_one(holders: int) -> None:
    population = populate(OUTCOME, holders, everybody_agrees=False)
    assert len(set(population.holders)) == holders
    assert population.holders[: len(HOLDER_NAMES)] == HOLDER_NAMES[:holders]
    places = defaultdict(list)
    for place in population.memberships:
        places[place.person].append(place)
    assert set(places) == set(range(len(OUTCOME)))
    for theirs in places.values():
        assert len(theirs) in {1, 2}
        assert len({place.holder for place in theirs}) == len(theirs)
        assert 0 < sum(place.share_milli for place in theirs) <= 1000
    at_two = sum(len(theirs) == 2 for theirs in places.values()) / len(OUTCOME)
    assert at_two == pytest.approx(AT_TWO_HOLDERS, abs=0.02)
    sizes = [len(population.at(holder)) for holder in population.holders]
    assert sum(sizes) == len(population.memberships)
    assert sizes[0] > 1.2 * sizes[-1]
    assert min(sizes) > 0


def test_the_held_out_quarter_has_the_same_bad_rate() -> None:
    held_out = populate(OUTCOME, 5, everybody_agrees=False).held_out
    for stratum in (OUTCOME < 0.5, OUTCOME > 0.5):
        assert np.count_nonzero(held_out & stratum) == round(HELD_OUT_SHARE * np.count_nonzero(stratum))


def test_every_attitude_occurs_unless_everybody_agrees() -> None:
    population = populate(OUTCOME, 5, everybody_agrees=False)
    assert Counter(population.attitudes).keys() == set(Attitude)
    assert Counter(population.attitudes).most_common(1)[0][0] is Attitude.AGREES
    agreeing = populate(OUTCOME, 5, everybody_agrees=True)
    assert set(agreeing.attitudes) == {Attitude.AGREES}
    assert set(agreeing.caps.tolist()) == {8.0}
    assert {place.share_milli for place in agreeing.memberships} == {1000, 500, 700, 300}


@pytest.mark.parametrize(("people", "holders"), [(6000, 1), (6000, 0), (6000, -3), (6000, 301), (39, 2), (0, 2)])
def test_more_holders_than_people_can_fill_is_a_usage_error(people: int, holders: int) -> None:
    with pytest.raises(UsageError, match="--holders"):
        populate(OUTCOME[:people], holders, everybody_agrees=False)
