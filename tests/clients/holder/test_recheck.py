"""The last look before a release leaves: whoever withdrew while it was computed is in none of it, and pays nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest

from clients.holder.lane_epochs import announce
from clients.holder.node import Holder
from experiments.people import Membership
from federated.messages import Instruction, Joined, Letter, Update
from federated.recipes.fixed_hessian import FixedHessian
from federated.rows import EncodedRows
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.lane import Head
from privacy.consent.merkle import EMPTY_ROOT
from privacy.consent.record import Purpose
from privacy.errors import RefusalError
from tests.clients.holder.plain import plain_words
from tests.ready import ASTER, AT, Ready, Source, agreement, code_of, first_instruction, joined_by, withdrawal


@dataclass
class Scene:
    """One data holder that has joined; `news` happen one by one, each when the registry is asked in mid-release."""

    ready: Ready
    holder: Holder
    source: Source
    letter: Letter
    run: str
    news: list[Callable[[], object]] = field(default_factory=list)

    def happen(self) -> None:
        if self.news:
            self.news.pop(0)()

    def leaves(self, place: Membership) -> Callable[[], None]:
        return lambda: self.ready.federation.withdraw(self.ready.registry, place)

    def answer(self) -> Letter:
        return self.holder.answer(self.letter, at=AT)

    def used(self) -> set[bytes]:
        return set(self.holder.ledger.subjects_of(f"{self.run}/1"))

    def handles(self, places: list[Membership]) -> set[bytes]:
        return {self.ready.federation.handles[place] for place in places}


@contextmanager
def opened(ready: Ready) -> Iterator[Scene]:
    opening = ready.opening()
    with ready.session() as session:
        joined = joined_by(session.holders, opening)
        letter = first_instruction(ready, joined)
    source = ready.source()
    with ready.holder(source=source) as holder:
        scene = Scene(ready, holder, source, letter, joined[ASTER].run)
        source.before = scene.happen
        yield scene


@pytest.fixture
def scene(ready: Ready) -> Iterator[Scene]:
    with opened(ready) as made:
        yield made


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many people each computation was over."""
    counts: list[int] = []
    contribution = FixedHessian.contribution

    def counting(*args: object, **named: object) -> object:
        rows = args[3]
        assert isinstance(rows, EncodedRows)
        counts.append(len(rows.share))
        return contribution(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FixedHessian, "contribution", counting)
    return counts


def test_nothing_new_costs_one_question_and_one_computation(scene: Scene, computed: list[int]) -> None:
    assert isinstance(scene.answer().header, Update)
    assert scene.source.asked == 1
    assert computed == [len(scene.ready.agreeing())]
    assert scene.used() == scene.handles(scene.ready.agreeing())


def test_a_withdrawal_between_computing_and_charging_is_not_in_the_release(scene: Scene, computed: list[int]) -> None:
    leaver, *others = scene.ready.agreeing()
    scene.news = [scene.leaves(leaver)]
    answer = scene.answer()
    assert computed == [len(others) + 1, len(others)]
    assert scene.used() == scene.handles(others)
    assert [release.people for release in scene.holder.ledger.releases()] == [len(others)]
    assert scene.holder.ledger.spends(scene.ready.federation.handles[leaver]) == []

    # The bytes that left are those of the others alone, as somebody else computes them from their rows.
    assert isinstance(answer.header, Update)
    assert isinstance(scene.letter.header, Instruction)
    salt = scene.holder._keys.round_salt(f"{scene.run}/1")
    assert answer.header.commitment == commit_to_subjects(salt, sorted(scene.handles(others)))
    run = scene.holder.run_named(scene.run)
    assert set(scene.holder.permitted(run, Purpose.TRAIN).handles) == scene.handles(others)
    words = plain_words(scene.holder, scene.letter, joined=3)
    mask = scene.holder._sums._member(run).mask(1, scene.letter.header.cohort, len(words))
    assert np.array_equal(answer.arrays["words"], words + mask)
    assert scene.holder.rows_used_without_consent(scene.run, {f"{scene.run}/1": answer.header.commitment}) == 0


def test_a_withdrawal_through_the_side_door_is_not_in_the_release_either(scene: Scene, computed: list[int]) -> None:
    leaver, *others = scene.ready.agreeing()

    def by_the_side_door() -> None:
        with scene.ready.holder() as other:  # another process of the same data holder
            assert other.lane.take(withdrawal(scene.ready, leaver), at=AT)

    scene.news = [by_the_side_door]
    assert isinstance(scene.answer().header, Update)
    assert computed == [len(others) + 1, len(others)]
    assert scene.used() == scene.handles(others)


def test_a_smaller_budget_is_computed_with_before_it_is_charged(scene: Scene, computed: list[int]) -> None:
    people = scene.ready.agreeing()
    person = max(people, key=lambda place: scene.ready.federation.population.caps[place.person])
    less = agreement(scene.ready, person, cap=0.25, share_milli=1)
    scene.news = [partial(scene.ready.registry.append, ASTER, [less])]
    assert isinstance(scene.answer().header, Update)
    assert computed == [len(people)] * 2
    ((_, share),) = scene.holder.ledger.spends(scene.ready.federation.handles[person])
    assert share <= 0.001


def test_permission_lasts_only_for_no_smaller_share_and_no_smaller_allowance(scene: Scene) -> None:
    rows = scene.holder.permitted(scene.holder.run_named(scene.run), Purpose.TRAIN)
    last = np.arange(len(rows.handles)) == len(rows.handles) - 1
    assert rows.still_permitted(replace(rows, shares=rows.shares * 1.1, allowances=rows.allowances * 1.1))
    assert not rows.still_permitted(replace(rows, shares=rows.shares - 1e-9 * last))
    assert not rows.still_permitted(replace(rows, allowances=rows.allowances - 1e-9 * last))
    turned = {name: getattr(rows, name)[::-1] for name in ("handles", "shares", "allowances")}
    assert rows.still_permitted(replace(rows, **turned))
    assert not rows.still_permitted(replace(rows, handles=(*rows.handles[:-1], bytes(32))))


def test_a_new_grant_changes_nothing_that_was_computed(scene: Scene, computed: list[int]) -> None:
    people = scene.ready.agreeing()
    again = [agreement(scene.ready, people[0])]
    scene.news = [partial(scene.ready.registry.append, ASTER, again)]
    assert isinstance(scene.answer().header, Update)
    assert scene.used() == scene.handles(people)
    assert len(computed) <= 2


def test_who_keeps_leaving_stops_the_release_and_nobody_is_charged(scene: Scene, computed: list[int]) -> None:
    leavers, others = scene.ready.agreeing()[:3], scene.ready.agreeing()[3:]
    scene.news = [scene.leaves(place) for place in leavers]
    assert code_of(scene.answer()) == "consent"
    assert computed == [len(others) + 3, len(others) + 2, len(others) + 1]
    assert scene.holder.ledger.releases() == ()
    assert scene.holder.ledger.kept(f"{scene.run}/1") is None
    assert isinstance(scene.answer().header, Update)
    assert scene.used() == scene.handles(others)


def test_two_who_leave_one_after_the_other_are_both_out(scene: Scene, computed: list[int]) -> None:
    leavers, others = scene.ready.agreeing()[:2], scene.ready.agreeing()[2:]
    scene.news = [scene.leaves(place) for place in leavers]
    assert isinstance(scene.answer().header, Update)
    assert len(computed) == 3
    assert scene.used() == scene.handles(others)


def test_too_few_who_stay_are_charged_nothing(ready: Ready) -> None:
    path, fewer = ready.home() / "holder.toml", ready.agreeing(held_out=True)
    path.write_text(path.read_text().replace("fewest_people = 5", f"fewest_people = {len(fewer)}"))
    # The larger sample is the one that is measured here: so enough people are left for that.
    (ready.home() / "rows.csv").rename(ready.home() / "larger.csv")
    (ready.home() / "held_out.csv").rename(ready.home() / "rows.csv")
    (ready.home() / "larger.csv").rename(ready.home() / "held_out.csv")
    with opened(ready) as scene:
        scene.news = [scene.leaves(fewer[0])]
        assert code_of(scene.answer()) == "cohort"
        assert scene.holder.ledger.releases() == ()


def test_a_registry_that_is_away_stops_a_new_release_however_young_the_lane_is(scene: Scene) -> None:
    leaver, *others = scene.ready.agreeing()
    scene.ready.federation.withdraw(scene.ready.registry, leaver)
    scene.source.away = True
    for at in (AT, AT + 14, AT + 3600):  # the lane may be a day old for everything else
        assert code_of(scene.holder.answer(scene.letter, at=at)) == "lane"
        assert isinstance(scene.holder.answer(Letter(scene.ready.opening()), at=at).header, Joined)
    assert scene.holder.ledger.releases() == ()
    assert scene.holder.ledger.kept(f"{scene.run}/1") is None
    scene.source.away = False
    assert isinstance(scene.answer().header, Update)
    assert scene.used() == scene.handles(others)


def test_a_node_with_old_keys_only_releases_nothing_new(scene: Scene) -> None:
    with scene.ready.holder() as other:
        announce(other.lane, scene.holder._keys.current + 1)
    with pytest.raises(RefusalError, match="rotated"):
        scene.holder.lane.sync(scene.source, at=AT)
    assert code_of(scene.answer()) == "lane"
    assert scene.holder.ledger.releases() == ()
    assert scene.holder.ledger.kept(f"{scene.run}/1") is None


def test_a_registry_that_lies_at_the_last_moment_stops_the_release(scene: Scene) -> None:
    scene.source.lie = Head(0, EMPTY_ROOT)
    assert code_of(scene.answer()) == "integrity"
    assert scene.holder.ledger.releases() == ()
    # The lane is seconds old and would be due for no sync; after a lie it is asked again, whatever is to be done.
    assert code_of(scene.holder.answer(Letter(scene.ready.opening()), at=AT)) == "integrity"
    assert scene.source.asked == 2


def test_what_was_made_is_repeated_as_it_was_and_asks_nobody(scene: Scene) -> None:
    first = scene.answer()
    scene.ready.federation.withdraw(scene.ready.registry, scene.ready.agreeing()[0])
    asked = scene.source.asked
    again = scene.answer()
    assert again.header == first.header
    assert again.arrays["words"].tobytes() == first.arrays["words"].tobytes()
    assert scene.source.asked == asked
    scene.source.away = True  # nor does it need the registry, while the lane is young enough
    assert scene.holder.answer(scene.letter, at=AT + 60).header == first.header
    assert code_of(scene.holder.answer(scene.letter, at=AT + 86_401)) in {"lane", "plan"}
