"""Whoever leaves, and whenever: the sum is exactly that of the survivors' words, or there is none."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.secure_sum.unmask import Unmasker
from tests.privacy.secure_sum.world import RUN, World, names_of, world


def most_tolerated(count: int) -> int:
    return (count - 1) // 3


@pytest.mark.parametrize(("count", "tolerated"), [(k, f) for k in range(2, 8) for f in range(most_tolerated(k) + 1)])
def test_every_set_of_survivors_at_or_above_the_threshold_gives_exactly_its_sum(count: int, tolerated: int) -> None:
    names = names_of(count)
    sets = [
        list(survivors)
        for size in range(count - tolerated, count + 1)
        for survivors in itertools.combinations(names, size)
    ]
    assert len(sets) >= 1
    made = world(count, tolerated, stages=len(sets))
    for stage, survivors in enumerate(sets, 1):
        unmasked, exact = made.summed(stage, survivors)
        assert (unmasked.total == exact).all()
        assert unmasked.liars == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.data())
def test_the_sum_of_any_words_is_exact_whoever_leaves_at_whichever_step(count: int, data: st.DataObject) -> None:
    tolerated = data.draw(st.integers(0, most_tolerated(count)), "tolerated")
    spare = tolerated
    dealt = count - data.draw(st.integers(0, spare), "do not deal")
    made = world(count, tolerated, stages=1, dealt=dealt)
    spare -= count - dealt
    left = data.draw(st.lists(st.sampled_from(made.names), max_size=spare, unique=True), "not counted on any more")
    cohort = [name for name in made.names if name not in left]
    spare -= len(left)
    silent = data.draw(st.lists(st.sampled_from(cohort), max_size=spare, unique=True), "silent after masking")
    survivors = [name for name in cohort if name not in silent]
    spare -= len(silent)
    unhelpful = data.draw(st.lists(st.sampled_from(survivors), max_size=spare, unique=True), "silent when unmasking")

    numbers = st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3)
    plain = {name: np.array(data.draw(numbers), dtype=np.uint64) for name in cohort}
    masked = {name: plain[name] + made.members[name].mask(1, cohort, 3) for name in cohort}
    reveals = made.reveals(1, cohort, survivors, [name for name in survivors if name not in unhelpful])
    total = made.unmasker.unmask(1, cohort, {name: masked[name] for name in survivors}, reveals).total
    assert total.tolist() == [sum(int(plain[name][k]) for name in survivors) % 2**64 for k in range(3)]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 1000])
def test_any_length_adds_up(length: int) -> None:
    made = world(4, 1)
    unmasked, exact = made.summed(1, made.names[1:], length=length)
    assert (unmasked.total == exact).all()


def test_who_left_in_one_release_is_welcome_in_the_next() -> None:
    made = world(4, 1, stages=3)
    for stage, survivors in enumerate((made.names[1:], made.names, made.names[:-1]), 1):
        unmasked, exact = made.summed(stage, survivors)
        assert (unmasked.total == exact).all()


def test_a_restarted_holder_masks_and_reveals_the_same_bytes() -> None:
    made = world(4, 1)
    name, survivors = made.names[0], made.names[:3]
    before, after = made.member(name), made.member(name)
    assert (before.mask(1, made.names, 5) == after.mask(1, made.names, 5)).all()
    assert before.reveal(1, made.names, survivors) == after.reveal(1, made.names, survivors)
    assert world(4, 1).sealed == made.sealed


@pytest.fixture(scope="module")
def seven() -> World:
    return world(7, 2, stages=1)


def test_below_the_threshold_there_is_no_sum(seven: World) -> None:
    names, few = seven.names, seven.names[:4]
    with pytest.raises(RefusalError, match=r"over 4 data holders.*at least 5") as refused:
        seven.member(names[0]).mask(1, few, 3)
    assert refused.value.code is RefusalCode.COHORT
    with pytest.raises(RefusalError, match="over 4 data holders"):
        seven.member(names[0]).reveal(1, names, few)
    masked = seven.masked(1, names, seven.words())
    with pytest.raises(RefusalError, match="over 4 data holders"):
        seven.unmasker.unmask(1, names, {name: masked[name] for name in few}, {})
    world(7, 2, stages=1, dealt=5)
    with pytest.raises(RefusalError, match="over 4 data holders"):
        world(7, 2, stages=1, dealt=4)


def test_below_the_threshold_of_helpers_the_masks_stay_on(seven: World) -> None:
    masked = seven.masked(1, seven.names, seven.words())
    reveals = seven.reveals(1, seven.names, seven.names)
    fewer = {name: reveals[name] for name in seven.names[:4]}
    with pytest.raises(RefusalError, match="at least 5 data holders must reveal") as refused:
        seven.unmasker.unmask(1, seven.names, masked, fewer)
    assert refused.value.code is RefusalCode.COHORT


def unlawful_lists(names: list[str]) -> dict[str, list[str]]:
    return {
        "unsorted": [names[1], names[0], *names[2:]],
        "one twice": [names[0], *names],
        "a stranger": [*names, "stranger"],
        "without the one who is asked": names[1:],
    }


@pytest.mark.parametrize("how", list(unlawful_lists(names_of(7))))
def test_unlawful_lists_are_refused(seven: World, how: str) -> None:
    names, member = seven.names, seven.member(seven.names[0])
    wrong = unlawful_lists(names)[how]
    with pytest.raises(MalformedError, match="list of data holders"):
        member.mask(1, wrong, 3)
    with pytest.raises(MalformedError, match="list of data holders"):
        member.reveal(1, wrong, names)
    with pytest.raises(MalformedError, match="list of data holders"):
        member.reveal(1, names, wrong)
    with pytest.raises(MalformedError, match="list of data holders"):
        member.reveal(1, names[:6], names)  # a survivor that is not of the cohort
    if how != "without the one who is asked":
        with pytest.raises(MalformedError, match="list of data holders"):
            seven.unmasker.unmask(1, wrong, {}, {})


def test_members_who_did_not_join_are_refused(seven: World) -> None:
    for members in ([*seven.names, "stranger"], seven.names[::-1], [*seven.names, seven.names[-1]]):
        with pytest.raises(MalformedError, match="list of data holders"):
            Unmasker(seven.joined, members, run=RUN, threshold=5)
    with pytest.raises(RefusalError, match="over 4 data holders"):
        Unmasker(seven.joined, seven.names[:4], run=RUN, threshold=5)


@pytest.mark.parametrize("stage", [-1, 0, 2])
def test_there_are_no_keys_for_other_releases(seven: World, stage: int) -> None:
    member = seven.member(seven.names[0])
    with pytest.raises(MalformedError, match=r"keys are for 1\.\.1"):
        member.mask(stage, seven.names, 3)
    with pytest.raises(MalformedError, match=r"keys are for 1\.\.1"):
        member.reveal(stage, seven.names, seven.names)
    with pytest.raises(MalformedError, match=r"keys are for 1\.\.1"):
        seven.unmasker.unmask(stage, seven.names, {}, {})


def test_words_of_another_shape_are_refused(seven: World) -> None:
    masked = seven.masked(1, seven.names, seven.words())
    masked[seven.names[2]] = masked[seven.names[2]][:-1]
    with pytest.raises(MalformedError, match="shape"):
        seven.unmasker.unmask(1, seven.names, masked, {})
