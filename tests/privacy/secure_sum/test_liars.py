"""Holders that reveal wrong shares, pads or locks: found and named, and the sum is right all the same."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from privacy.errors import RefusalError
from privacy.secure_sum import recovery
from privacy.secure_sum.locks import ENTRY_BYTES, Entry
from privacy.secure_sum.member import Dealt, Member, Reveal
from privacy.secure_sum.recovery import recover
from privacy.secure_sum.shamir import PRIME, Basis, share_of
from tests.privacy.secure_sum.world import LENGTH, World, world

Lie = Callable[[World, str, list[str], list[str]], Reveal]


def honest(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    return made.member(name).reveal(1, cohort, survivors)


def changed(reveal: Reveal, change: Callable[[Entry], Entry], *, only: set[str] | None = None) -> Reveal:
    def new(name: str, entry: bytes) -> bytes:
        return change(Entry.from_bytes(entry)).to_bytes() if only is None or name in only else entry

    return Reveal(
        {name: new(name, entry) for name, entry in reveal.seeds.items()},
        {name: new(name, entry) for name, entry in reveal.keys.items()},
    )


def shares_off(by: Callable[[int], int]) -> Lie:
    """Locked as they should be, but off by what `by` gives for the liar's point."""

    def lie(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
        member, off = made.member(name), by(made.introduction().points[name])
        dealt = {
            dealer: Dealt(
                tuple((share + off) % PRIME for share in each.keys),
                tuple((share + off) % PRIME for share in each.seeds),
            )
            for dealer, each in member._dealt.items()
        }
        return Member(made.introduction(), name, member._own, dealt).reveal(1, cohort, survivors)

    return lie


def wrong_shares(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    return shares_off(lambda point: 10**point)(made, name, cohort, survivors)


def wrong_pads(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    return changed(honest(made, name, cohort, survivors), lambda entry: replace(entry, pad=bytes(33)))


def wrong_lock(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    return changed(honest(made, name, cohort, survivors), lambda entry: replace(entry, padded=b"\xff" * 33))


def wrong_content(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    return changed(honest(made, name, cohort, survivors), lambda entry: replace(entry, locked=bytes(49)))


def other_story(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    """Shares of the right names, locked to another sum."""
    other = honest(made, name, cohort, cohort)
    return Reveal(
        {each: other.seeds[each] for each in survivors},
        {each: other.seeds[each] for each in cohort if each not in survivors},
    )


def entries_cut(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    reveal = honest(made, name, cohort, survivors)
    return Reveal({each: entry[:-1] for each, entry in reveal.seeds.items()}, reveal.keys)


def entry_missing(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    reveal = honest(made, name, cohort, survivors)
    return Reveal({each: entry for each, entry in reveal.seeds.items() if each != name}, reveal.keys)


def entries_longer(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    reveal = honest(made, name, cohort, survivors)
    return Reveal({each: entry[:60] + entry[59:] for each, entry in reveal.seeds.items()}, reveal.keys)


def keys_left_out(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    return Reveal(honest(made, name, cohort, survivors).seeds, {})


def key_of_a_survivor(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    reveal = honest(made, name, cohort, survivors)
    return Reveal(reveal.seeds, {**reveal.keys, name: bytes(ENTRY_BYTES)})


def seed_of_the_missing(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
    reveal = honest(made, name, cohort, survivors)
    return Reveal({**reveal.seeds, "stranger": bytes(ENTRY_BYTES)}, reveal.keys)


LIES: list[Lie] = [
    wrong_shares,
    wrong_pads,
    wrong_lock,
    wrong_content,
    entries_cut,
    entries_longer,
    entry_missing,
    key_of_a_survivor,
    seed_of_the_missing,
]


def unmasked_with(
    made: World, survivors: list[str], liars: Mapping[str, Lie], *, helpers: list[str] | None = None
) -> tuple[str, ...]:
    """Who was named; the sum is checked."""
    words = made.words()
    masked = made.masked(1, made.names, words)
    reveals = {
        name: liars.get(name, honest)(made, name, made.names, survivors)
        for name in (survivors if helpers is None else helpers)
    }
    unmasked = made.unmasker.unmask(1, made.names, {name: masked[name] for name in survivors}, reveals)
    exact = [sum(int(words[name][k]) for name in survivors) % 2**64 for k in range(LENGTH)]
    assert unmasked.total.tolist() == exact
    return unmasked.liars


@pytest.fixture(scope="module")
def seven() -> World:
    return world(7, 2, stages=1)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_up_to_as_many_liars_as_can_be_spared_are_found_and_named(seven: World, lie: Lie) -> None:
    for liars in [(name,) for name in seven.names] + [(0, 1), (0, 6), (5, 6), (2, 4)]:
        named = tuple(name if isinstance(name, str) else seven.names[name] for name in liars)
        assert unmasked_with(seven, seven.names, dict.fromkeys(named, lie)) == named


@pytest.mark.parametrize("lie", [*LIES, other_story, keys_left_out], ids=lambda lie: lie.__name__)
def test_with_one_missing_one_liar_is_found_and_with_two_missing_the_masks_stay_on(seven: World, lie: Lie) -> None:
    for liar in (seven.names[1], seven.names[5]):
        survivors = [name for name in seven.names if name != seven.names[3]]
        assert unmasked_with(seven, survivors, {liar: lie}) == (liar,)
        with pytest.raises(RefusalError, match="must reveal right shares"):
            unmasked_with(seven, [name for name in survivors if name != seven.names[0]], {liar: lie})
        with pytest.raises(RefusalError, match="must reveal right shares"):
            unmasked_with(seven, survivors, {liar: lie}, helpers=survivors[1:])


@pytest.mark.parametrize(
    "pair", list(itertools.combinations(LIES[:4], 2)), ids=lambda pair: "+".join(x.__name__ for x in pair)
)
def test_liars_of_two_kinds(seven: World, pair: tuple[Lie, Lie]) -> None:
    one, two = seven.names[1], seven.names[4]
    assert unmasked_with(seven, seven.names, {one: pair[0], two: pair[1]}) == (one, two)


def test_liars_cannot_have_others_blamed(seven: World) -> None:
    # Off by a polynomial that is 0 at 0 and at three honest points: with those three, two liars give the right secret,
    # and it is the other two whose shares look wrong. Nobody can tell which of the two pairs lied.
    names, points = seven.names, seven.introduction().points
    one, two = names[0], names[3]
    helped = [points[name] for name in (names[1], names[4], names[6])]

    def off(point: int) -> int:
        return point * math.prod(point - each for each in helped)

    assert unmasked_with(seven, names, {one: shares_off(off), two: shares_off(off)}) == ()
    assert unmasked_with(seven, names, {one: shares_off(off)}) == (one,)


def test_of_two_that_contradict_each_other_none_is_named(seven: World) -> None:
    one, other = seven.names[0], seven.names[1]

    def wrong_pad_for_one(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
        reveal = honest(made, name, cohort, survivors)
        return changed(reveal, lambda entry: replace(entry, pad=bytes(33)), only={one})

    assert unmasked_with(seven, seven.names, {other: wrong_pad_for_one}) == ()


def test_a_candidate_beyond_32_bytes_is_no_secret() -> None:
    # Liars know the polynomial of a colluding dealer, and can make the first candidate whatever they like.
    made = world(4, 1, stages=1)
    liar, *_ = made.names
    points = made.introduction().points
    weight = Basis([points[name] for name in made.names[:3]]).weights()[0]
    member = made.member(liar)
    dealt = {
        dealer: Dealt(
            each.keys,
            (
                (
                    each.seeds[0]
                    + (2**256 - int.from_bytes(made.members[dealer]._own.seeds[0], "big")) * pow(weight, -1, PRIME)
                )
                % PRIME,
            ),
        )
        for dealer, each in member._dealt.items()
    }

    def lie(made: World, name: str, cohort: list[str], survivors: list[str]) -> Reveal:
        return Member(made.introduction(), name, member._own, dealt).reveal(1, cohort, survivors)

    assert unmasked_with(made, made.names, {liar: lie}) == (liar,)


@pytest.mark.parametrize(("liars", "named"), [(1, True), (24, True), (25, False), (30, False)])
def test_among_many_nobody_is_blamed_unless_the_others_are_too_many_to_be_liars(liars: int, named: bool) -> None:
    # 50 shares of a secret, any 3 of which give it: two explanations would blame 49 together.
    points = {f"h{k:02d}": k for k in range(1, 51)}
    right = {name: share_of([5, 6, 7], point) for name, point in points.items()}
    wrong = {
        name: (share + 10 ** points[name]) % PRIME if points[name] <= liars else share for name, share in right.items()
    }
    found = recover({"secret": wrong}, points=points, threshold=3, is_right=lambda _name, secret: secret == 5)
    assert found.secrets == {"secret": 5}
    assert {name for name, secrets in found.wrong.items() if secrets} == (set(list(points)[:liars]) if named else set())


def test_help_of_those_not_in_the_sum_is_set_aside(seven: World) -> None:
    survivors, late = seven.names[:-1], seven.names[-1]
    words = seven.words()
    masked = seven.masked(1, seven.names, words)
    reveals = {name: honest(seven, name, seven.names, survivors) for name in survivors}
    reveals |= {late: reveals[survivors[0]], "stranger": reveals[survivors[0]]}
    unmasked = seven.unmasker.unmask(1, seven.names, {name: masked[name] for name in survivors}, reveals)
    assert unmasked.liars == (late, "stranger")


def test_among_many_a_few_are_found_without_trying_every_set() -> None:
    made = world(25, 8, stages=1)
    liars = dict(zip(made.names[3::8], (wrong_shares, wrong_pads, wrong_lock), strict=True))
    assert unmasked_with(made, made.names, liars) == tuple(sorted(liars))


def test_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOST_TRIES", 40)
    tried = 0

    def never(_name: str, _secret: int) -> bool:
        nonlocal tried
        tried += 1
        return False

    points = {f"h{k}": k for k in range(1, 31)}
    shares = {"secret": {name: share_of([5, 6, 7], point) for name, point in points.items()}}
    found = recover(shares, points=points, threshold=20, is_right=never)
    assert tried == 40
    assert not found.secrets
