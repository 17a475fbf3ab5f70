"""A coordinator that lies, with data holders that work for it: the attacks by name, and that they fail.

Each attack is first shown to succeed where the defence is missing.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.grid import Words, add_words
from privacy.secure_sum.keys import agreed
from privacy.secure_sum.masks import cohort_digest, pair_mask, self_mask
from privacy.secure_sum.member import Member
from privacy.secure_sum.shamir import PRIME
from tests.privacy.secure_sum.world import LENGTH, Liar, Story, World, names_of, slow_value, world

STAGE = 1


def story(cohort: list[str], *, without: tuple[str, ...] = ()) -> Story:
    return Story(tuple(cohort), tuple(name for name in cohort if name not in without))


# Two stories about who left.


@st.composite
def lies(draw: st.DrawFn) -> Liar:
    count = draw(st.integers(4, 7))
    made = WORLDS[count]
    tolerated = count - made.threshold
    colluders = frozenset(draw(st.lists(st.sampled_from(made.names), max_size=tolerated, unique=True)))
    sets = [chosen for size in range(made.threshold, count + 1) for chosen in itertools.combinations(made.names, size)]
    cohorts = draw(st.lists(st.sampled_from(sets), min_size=1, max_size=2))
    told = [
        Story(cohort, survivors)
        for cohort in cohorts
        for survivors in draw(st.lists(st.sampled_from(sets), min_size=1, max_size=3))
        if set(survivors) <= set(cohort)
    ]
    stories = {}
    for name in made.names:
        fitting = [each for each in told if name in each.survivors]
        if name not in colluders and fitting:
            stories[name] = draw(st.sampled_from(fitting))
    return Liar(made, STAGE, colluders, stories)


WORLDS = {count: world(count, (count - 1) // 3, stages=1) for count in range(4, 8)}


@settings(max_examples=60, deadline=None)
@given(lies())
def test_whatever_it_tells_whom_one_story_opens_at_most_and_no_secret_besides_its(liar: Liar) -> None:
    names, threshold = set(liar.world.names), liar.world.threshold
    honest = names - liar.colluders
    known = liar.secrets()
    assert not known["seed"] & known["key"]
    # What opened is one story, told to enough honest holders, and it gives the seeds and the keys that go with it.
    told = list(liar.stories.values())
    loud = {each for each in told if told.count(each) + len(liar.colluders & set(each.cohort)) >= threshold}
    assert len(loud) <= 1
    if not loud:
        assert known == {"seed": set(), "key": set()}
    for one in loud:
        assert known["seed"] == set(one.survivors)
        assert known["key"] == set(one.cohort) - set(one.survivors)
        assert len(known["seed"] & honest) >= threshold - len(liar.colluders)


def test_two_thirds_are_needed_and_enough_for_never_both() -> None:
    for count in range(2, 60):
        for tolerated in range(count):
            threshold = count - tolerated
            # Each honest holder reveals one share of the two; the colluders have both.
            both = any(
                seeds + tolerated >= threshold and (count - tolerated - seeds) + tolerated >= threshold
                for seeds in range(count - tolerated + 1)
            )
            assert both == (count <= 3 * tolerated), (count, tolerated)


def shares_in_hand(made: World, holders: tuple[str, ...], dealer: str, kind: str) -> int:
    """The secret that the shares of `holders` give, were they not locked."""
    points = made.introduction().points
    dealt = {holder: made.members[holder]._dealt[dealer] for holder in holders}
    return slow_value(
        {points[name]: (each.seeds if kind == "seed" else each.keys)[STAGE - 1] for name, each in dealt.items()}
    )


def stripped(made: World, name: str, cohort: list[str], masked: Words, seed: int, keys: dict[str, int]) -> Words:
    """`masked` without the masks of `name` that follow from its seed and the others' keys."""
    bound = cohort_digest(made.introduction().digest, STAGE, cohort)
    rest = masked - self_mask(seed.to_bytes(32, "big"), bound, holder=name, length=len(masked))
    for other, key in keys.items():
        agreement = agreed(key.to_bytes(32, "big"), made.joined[name].stages[STAGE - 1])
        rest = rest - pair_mask(agreement, bound, holder=name, other=other, length=len(masked))
    return rest


def test_a_victim_in_a_cohort_of_its_own_is_exposed_by_open_shares_and_not_by_locked_ones() -> None:
    # 7 data holders, 2 of whom may leave: z1 and z2 collude. The victim is told of a cohort of the colluders and two
    # others, who are then reported missing to everybody else: two by two no holder sees more than 2 missing.
    made = world(7, 2, stages=1)
    victim, gone_one, gone_two, by_one, by_two, z1, z2 = made.names
    colluders = (z1, z2)
    small = sorted((victim, gone_one, gone_two, *colluders))
    words = made.words()[victim]
    masked = words + made.members[victim].mask(STAGE, small, LENGTH)
    stories = {
        victim: story(small),
        gone_one: story(made.names, without=(gone_two,)),
        gone_two: story(made.names, without=(gone_one,)),
        by_one: story(made.names, without=(gone_one, gone_two)),
        by_two: story(made.names, without=(gone_one, gone_two)),
    }
    for name, told in stories.items():  # each of these is lawful by itself
        made.member(name).reveal(STAGE, told.cohort, told.survivors)

    keys = {
        gone_one: shares_in_hand(made, (gone_two, by_one, by_two, *colluders), gone_one, "key"),
        gone_two: shares_in_hand(made, (gone_one, by_one, by_two, *colluders), gone_two, "key"),
        **{z: int.from_bytes(made.members[z]._own.keys[STAGE - 1], "big") for z in colluders},
    }
    seed = shares_in_hand(made, (gone_one, by_one, by_two, *colluders), victim, "seed")
    assert (stripped(made, victim, small, masked, seed, keys) == words).all()  # Shamir alone does not stop this

    liar = Liar(made, STAGE, frozenset(colluders), stories)
    assert liar.secrets() == {"seed": set(), "key": set()}


def test_who_is_told_that_it_is_not_in_the_sum_does_not_help_with_it() -> None:
    # 4 data holders, 1 may leave, z colludes. Were `gone` to help with a sum without it, two honest holders would tell
    # one story, and the victim, told of a smaller cohort, would be exposed.
    made = world(4, 1, stages=1)
    victim, gone, other, z = made.names
    small = [victim, gone, z]
    words = made.words()[victim]
    masked = words + made.members[victim].mask(STAGE, small, LENGTH)
    helpers = (gone, other, z)
    keys = {
        gone: shares_in_hand(made, helpers, gone, "key"),
        z: int.from_bytes(made.members[z]._own.keys[STAGE - 1], "big"),
    }
    seed = shares_in_hand(made, helpers, victim, "seed")
    assert (stripped(made, victim, small, masked, seed, keys) == words).all()

    with pytest.raises(MalformedError, match="list of data holders"):
        made.member(gone).reveal(STAGE, made.names, [victim, other, z])
    liar = Liar(made, STAGE, frozenset({z}), {other: story(made.names, without=(gone,)), victim: story(small)})
    assert liar.secrets() == {"seed": set(), "key": set()}


def test_masks_for_different_cohorts_do_not_cancel() -> None:
    made = world(4, 1, stages=1)
    cohorts = {name: made.names if k else made.names[:3] for k, name in enumerate(made.names)}
    masks = {name: made.members[name].mask(STAGE, cohort, LENGTH) for name, cohort in cohorts.items()}
    agreement = agreed(made.members[made.names[0]]._own.keys[0], made.joined[made.names[1]].stages[0])
    pairs = [
        pair_mask(
            agreement, cohort_digest(made.introduction().digest, STAGE, cohorts[one]), holder=one, other=two, length=4
        )
        for one, two in (made.names[:2], made.names[1::-1])
    ]
    assert (pairs[0] + pairs[1] != 0).all()
    unmasked = made.unmasker.unmask(STAGE, made.names, masks, made.reveals(STAGE, made.names, made.names))
    assert (unmasked.total != 0).all()  # the sum is spoilt, and nothing is given away


# An answer that comes late, or that the coordinator pretended not to have.


def test_late_words_stay_hidden_under_a_mask_of_which_nothing_is_known() -> None:
    made = world(5, 1, stages=1)
    *survivors, late = made.names
    colluder = survivors[0]
    words = made.words()
    masked = made.masked(STAGE, made.names, words)
    reveals = made.reveals(STAGE, made.names, survivors)
    total = made.unmasker.unmask(STAGE, made.names, {name: masked[name] for name in survivors}, reveals).total
    assert (total == add_words(words[name] for name in survivors)).all()

    honest = {name: story(made.names, without=(late,)) for name in survivors[1:]}
    liar = Liar(made, STAGE, frozenset({colluder}), honest)
    known = liar.opened_shares()
    assert liar.secrets() == {"seed": set(survivors), "key": {late}}
    assert len(known["seed"][late]) == 1 < made.threshold  # the colluder's own

    # Everything known is taken off: the late one's key gives its pairs' masks.
    bound = cohort_digest(made.introduction().digest, STAGE, made.names)
    key = slow_value(dict(list(known["key"][late].items())[: made.threshold])).to_bytes(32, "big")
    rest = masked[late]
    for other in survivors:
        agreement = agreed(key, made.joined[other].stages[STAGE - 1])
        rest = rest - pair_mask(agreement, bound, holder=late, other=other, length=LENGTH)
    seed = made.members[late]._own.seeds[STAGE - 1]
    assert (rest == words[late] + self_mask(seed, bound, holder=late, length=LENGTH)).all()
    # Of which seed it is, a share says nothing: with another one, other words give the very same numbers.
    other_seed, seen = bytes(range(32)), known["seed"][late]
    other_words = rest - self_mask(other_seed, bound, holder=late, length=LENGTH)
    assert (other_words != words[late]).all()
    rival = {0: int.from_bytes(other_seed, "big"), **seen, 101: 7, 102: 9}  # threshold points: a lawful polynomial
    assert len(rival) == made.threshold
    assert {point: slow_value(rival, point) for point in seen} == seen


def test_masking_again_for_fewer_gives_an_update_away_with_pairwise_masks_and_not_here() -> None:
    made = world(4, 1, stages=1)
    words, late = made.words(), made.names[-1]
    rest = made.names[:-1]

    def pairwise(name: str, cohort: list[str]) -> Words:
        bound = cohort_digest(made.introduction().digest, STAGE, cohort)
        masks = (
            pair_mask(
                agreed(made.members[name]._own.keys[0], made.joined[other].stages[0]),
                bound,
                holder=name,
                other=other,
                length=LENGTH,
            )
            for other in cohort
            if other != name
        )
        return words[name] + add_words(masks)

    first = add_words(pairwise(name, made.names) for name in made.names)
    second = add_words(pairwise(name, rest) for name in rest)
    assert (first - second == words[late]).all()  # one data holder's update, with its part of the noise only

    # Here the same words under masks for fewer are still masked, and masks come off one sum of a release.
    masked = made.masked(STAGE, made.names, words)
    reveals = made.reveals(STAGE, made.names, made.names)
    whole = made.unmasker.unmask(STAGE, made.names, masked, reveals).total
    for name in rest:
        for cohort in (made.names, rest):
            with pytest.raises(RefusalError, match="two sums of different sets") as refused:
                made.members[name].reveal(STAGE, cohort, rest)
            assert refused.value.code is RefusalCode.REPLAY
    # What was revealed for all opens no sum of the rest, masked again or not.
    again = {name: words[name] + made.members[name].mask(STAGE, rest, LENGTH) for name in rest}
    for cohort, fewer in ((made.names, {name: masked[name] for name in rest}), (rest, again)):
        asked = {name: reveals[name] for name in rest}
        with pytest.raises(RefusalError, match="must reveal right shares"):
            made.unmasker.unmask(STAGE, cohort, fewer, asked)
    difference = whole - add_words(again.values())
    assert len(set(difference.tolist()) & set(words[late].tolist())) == 0


def test_even_holders_that_forget_what_they_answered_need_a_threshold_to_forget() -> None:
    # Of 7, three honest ones are asked twice (restored from a copy, say): the second story stays locked.
    made = world(7, 2, stages=1)
    first = story(made.names)
    second = story(made.names, without=(made.names[-1],))
    liar = Liar(made, STAGE, frozenset(), dict.fromkeys(made.names, first))
    assert liar.secrets()["seed"] == set(made.names)
    forgetful = Liar(made, STAGE, frozenset(made.names[:2]), dict.fromkeys(made.names[2:4], second))
    assert forgetful.secrets() == {"seed": set(), "key": set()}


# Answers of one release under another.


def test_what_was_revealed_for_one_release_opens_no_other() -> None:
    made = world(4, 1, stages=2)
    survivors = made.names[:3]
    first = made.reveals(1, made.names, survivors)
    masked = made.masked(2, made.names, made.words(2))
    with pytest.raises(RefusalError, match="must reveal right shares"):
        made.unmasker.unmask(2, made.names, {name: masked[name] for name in survivors}, first)


def test_secrets_of_one_release_say_nothing_of_another() -> None:
    made = world(4, 1, stages=3)
    for member in made.members.values():
        own = (*member._own.keys, *member._own.seeds, member._own.locks)
        assert len(set(own)) == len(own) == 7
    public = made.joined[made.names[0]]
    assert len({public.channel, *public.stages, *public.seeds}) == 7
    # The shares of two releases lie on different polynomials, point by point.
    shares = [
        member._dealt[made.names[0]].keys + member._dealt[made.names[0]].seeds for member in made.members.values()
    ]
    assert len(set(itertools.chain(*shares))) == 6 * 4
    differences = [[(share[k] - share[0]) % PRIME for share in shares] for k in range(1, 6)]
    assert all(len(set(each)) == 4 for each in differences)


def test_a_repeated_question_gets_the_same_bytes_and_another_one_none() -> None:
    made = world(4, 1, stages=2)
    member: Member = made.member(made.names[0])
    first = member.reveal(1, made.names, made.names)
    assert member.reveal(1, made.names, made.names) == first
    with pytest.raises(RefusalError, match="release 1, and two sums"):
        member.reveal(1, made.names, made.names[:3])
    assert member.reveal(2, made.names, made.names[:3]).keys.keys() == {made.names[3]}
    assert not first.keys
    assert names_of(4) == made.names
