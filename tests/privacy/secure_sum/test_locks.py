"""Locks open with a threshold of pads for one story, and with nothing else."""

import itertools
from collections.abc import Sequence

import pytest

from privacy.secure_sum.locks import ENTRY_BYTES, Entry, opened, share_of_lock
from tests.privacy.secure_sum.world import World, slow_value, world

Entries = dict[str, dict[str, Entry]]


@pytest.fixture(scope="module")
def made() -> World:
    return world(4, 1)


def entries_of(made: World, stage: int, survivors: list[str]) -> Entries:
    """By who reveals and about whom."""
    revealed = {name: made.member(name).reveal(stage, made.names, survivors) for name in survivors}
    return {
        name: {about: Entry.from_bytes({**each.seeds, **each.keys}[about]) for about in made.names}
        for name, each in revealed.items()
    }


def key_of(made: World, entries: Entries, locker: str, helpers: Sequence[str], pads: Entries | None = None) -> int:
    points = made.introduction().points
    return slow_value(
        {points[each]: share_of_lock(entries[locker][each], (pads or entries)[each][locker]) for each in helpers}
    )


def test_any_threshold_of_one_story_opens_a_lock_and_shows_the_shares_dealt(made: World) -> None:
    entries, view = entries_of(made, 1, made.names), made.view(1, made.names, made.names)
    for locker in made.names:
        shares = {dealer: each.seeds[0] for dealer, each in made.members[locker]._dealt.items()}
        for helpers in itertools.combinations(made.names, 3):
            key = key_of(made, entries, locker, helpers)
            assert opened(entries[locker], key, holder=locker, view=view) == shares
        for fewer in itertools.combinations(made.names, 2):
            key = key_of(made, entries, locker, fewer)
            assert opened(entries[locker], key, holder=locker, view=view) is None


def test_pads_for_another_story_or_release_open_nothing(made: World) -> None:
    entries, view = entries_of(made, 1, made.names), made.view(1, made.names, made.names)
    locker, second, third, _ = made.names
    for pads in (entries_of(made, 1, made.names[:3]), entries_of(made, 2, made.names)):
        mixed = {**pads, second: entries[second]}
        for given in (pads, mixed):
            key = key_of(made, entries, locker, (locker, second, third), given)
            assert opened(entries[locker], key, holder=locker, view=view) is None


def test_the_key_of_one_story_opens_no_other(made: World) -> None:
    locker, helpers = made.names[0], tuple(made.names[:3])
    stories = [(1, made.names), (1, made.names[:3]), (2, made.names)]
    told = [
        (entries_of(made, stage, survivors), made.view(stage, made.names, survivors)) for stage, survivors in stories
    ]
    keys = [key_of(made, entries, locker, helpers) for entries, _ in told]
    assert len(set(keys)) == 3
    for k, (entries, view) in enumerate(told):
        assert [opened(entries[locker], key, holder=locker, view=view) is not None for key in keys] == [
            k == j for j in range(3)
        ]
    # Nor would a key that two stories shared: what is encrypted is bound to the view and the holder, too.
    entries, view = told[0]
    assert opened(entries[locker], keys[0], holder=locker, view=told[1][1]) is None
    assert opened(entries[locker], keys[0], holder=helpers[1], view=view) is None


def test_views_differ_by_all_that_is_told(made: World) -> None:
    names, wide = made.names, world(5, 1)
    views = {
        made.view(1, names, names),
        made.view(2, names, names),
        made.view(1, names, names[:3]),
        made.view(1, names[:3], names[:3]),
        wide.view(1, names, names),
    }
    assert len(views) == 5


def test_a_key_that_is_too_long_opens_nothing(made: World) -> None:
    entries = entries_of(made, 1, made.names)["holder-a"]
    assert opened(entries, 2**264, holder="holder-a", view=bytes(32)) is None


def test_entries_are_written_in_one_way() -> None:
    data = bytes(range(ENTRY_BYTES))
    entry = Entry.from_bytes(data)
    assert entry.to_bytes() == data
    assert (len(entry.locked), len(entry.padded), len(entry.pad)) == (49, 33, 33)
