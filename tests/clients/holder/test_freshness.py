"""How new a lane must be before anybody's row is used by it, and what a registry's silence or lie does to that."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clients.holder.doubt import Doubt
from clients.holder.lane import LaneCopy
from clients.holder.node import Holder
from clients.registry_client import RegistryClient
from federated.messages import Joined, Letter, ScoreRequests, Update
from privacy.consent.lane import Head, read_checkpoint
from privacy.consent.merkle import EMPTY_ROOT
from privacy.consent.record import Purpose
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from tests.clients.holder.test_scoring import some_card
from tests.ready import ASTER, AT, Ready, Source, agreement, code_of, first_instruction, joined_by, withdrawal

LONGEST_S = 3600


@pytest.fixture
def source(ready: Ready) -> Source:
    """Of a data holder whose lane may be an hour old without a registry; with one it syncs after 15 seconds."""
    path = ready.home() / "holder.toml"
    text, times = re.subn(r"longest_lane_age_s = \d+", f"longest_lane_age_s = {LONGEST_S}", path.read_text())
    assert (times, text.count("sync_every_s = 15")) == (1, 1)
    path.write_text(text)
    return ready.source()


def joins(ready: Ready, holder: Holder, *, at: int) -> bool | str:
    """True, or the code of the refusal."""
    answer = holder.answer(Letter(ready.opening()), at=at)
    return True if isinstance(answer.header, Joined) else code_of(answer)


def test_a_lane_is_synced_before_rows_are_read_once_it_is_due(ready: Ready, source: Source) -> None:
    with ready.holder(source=source) as holder:
        for at, asked in ((AT, 0), (AT + 14, 0), (AT + 15, 1), (AT + 29, 1), (AT + 30, 2), (AT + 86_400 // 2, 3)):
            assert joins(ready, holder, at=at) is True
            assert source.asked == asked
        assert holder.lane.synced_at == AT + 86_400 // 2


def test_what_another_process_has_synced_need_not_be_synced_again(ready: Ready, source: Source) -> None:
    with ready.holder(source=source) as holder, ready.holder() as other:
        other.lane.sync(ready.registry, at=AT + 20)
        assert joins(ready, holder, at=AT + 34) is True
        assert source.asked == 0


def test_a_lane_is_synced_before_anybody_is_scored_once_it_is_due(ready: Ready, source: Source) -> None:
    letter = Letter(ScoreRequests(some_card(ready).to_json(), []))
    with ready.holder(source=source) as holder:
        for at, asked in ((AT + 14, 0), (AT + 15, 1), (AT + 16, 1)):
            holder.answer(letter, at=at)
            assert source.asked == asked


def test_a_registry_that_is_away_is_excused_until_the_lane_is_too_old(ready: Ready, source: Source) -> None:
    source.away = True
    with ready.holder(source=source) as holder:
        assert joins(ready, holder, at=AT + LONGEST_S) is True
        assert source.asked == 1
        assert joins(ready, holder, at=AT + LONGEST_S + 1) == "lane"
        source.away = False
        assert joins(ready, holder, at=AT + LONGEST_S + 30) is True


def test_a_registry_that_is_away_is_not_asked_at_every_letter(ready: Ready, source: Source) -> None:
    source.away = True
    with ready.holder(source=source) as holder:
        for at, asked in ((AT + 20, 1), (AT + 21, 1), (AT + 34, 1), (AT + 35, 2), (AT + 36, 2)):
            assert joins(ready, holder, at=at) is True
            assert source.asked == asked


def test_a_clock_set_back_makes_no_old_lane_young(ready: Ready, source: Source) -> None:
    source.away = True
    with ready.holder(source=source) as holder:
        assert joins(ready, holder, at=AT + LONGEST_S + 1) == "lane"
        assert joins(ready, holder, at=AT + 60) == "lane"


def test_a_sync_from_the_future_is_nobodys_word(ready: Ready, source: Source) -> None:
    source.away = True
    with ready.holder(source=source) as holder:
        assert joins(ready, holder, at=AT - 120) is True
        assert joins(ready, holder, at=AT - 121) == "lane"


def test_a_registry_that_lied_is_believed_again_only_after_a_sync_that_holds(ready: Ready, source: Source) -> None:
    with ready.holder(source=source) as holder:
        source.lie = Head(0, EMPTY_ROOT)
        assert joins(ready, holder, at=AT + 15) == "integrity"
        # Neither silence nor a lane that is young enough excuses it, and scoring stops too.
        source.away = True
        assert joins(ready, holder, at=AT + 16) == "lane"
        assert code_of(holder.answer(Letter(ScoreRequests(some_card(ready).to_json(), [])), at=AT)) == "lane"
        source.away, source.lie = False, Head(10**6, bytes(32))
        assert joins(ready, holder, at=AT + 2) == "integrity"
        source.lie = None
        assert joins(ready, holder, at=AT + 3) is True


def test_a_lie_is_remembered_over_a_restart_and_by_every_process_until_a_sync_holds(
    ready: Ready, source: Source
) -> None:
    for _ in range(2):  # also after an earlier doubt was settled
        source.lie = Head(0, EMPTY_ROOT)
        with ready.holder(source=source) as holder, ready.holder(source=source) as other:
            assert joins(ready, holder, at=AT + 15) == "integrity"
            source.away = True
            assert joins(ready, other, at=AT) == "lane"
        with ready.holder(source=source) as restarted:  # its lane is seconds old, and silence is no excuse for it
            assert joins(ready, restarted, at=AT) == "lane"
            source.away, source.lie = False, None
            assert joins(ready, restarted, at=AT) is True
            source.away = True
            assert joins(ready, restarted, at=AT) is True
        with ready.holder(source=source) as restarted:
            assert joins(ready, restarted, at=AT) is True
        source.away = False


def test_a_lie_that_a_sync_by_hand_has_heard_stops_the_node(ready: Ready, source: Source) -> None:
    source.lie = Head(0, EMPTY_ROOT)
    with ready.holder() as by_hand, pytest.raises(TamperingError):
        Doubt(by_hand.lane).sync(source, at=AT)
    source.away = True
    with ready.holder(source=source) as holder:
        assert joins(ready, holder, at=AT) == "lane"


def test_a_sync_that_began_before_the_lie_does_not_excuse_it(ready: Ready, source: Source) -> None:
    liar = ready.source()
    liar.lie = Head(0, EMPTY_ROOT)
    with ready.holder() as one, ready.holder() as other:

        def meanwhile() -> None:
            with pytest.raises(TamperingError):
                Doubt(other.lane).sync(liar, at=AT)

        source.before = meanwhile
        Doubt(one.lane).sync(source, at=AT)
        assert Doubt(one.lane).stands()
        source.before = None
        Doubt(one.lane).sync(source, at=AT)
        assert not Doubt(one.lane).stands()


def test_silence_is_no_lie(ready: Ready, source: Source) -> None:
    source.away = True
    with ready.holder() as holder:
        with pytest.raises(RefusalError):
            Doubt(holder.lane).sync(source, at=AT)
        assert not Doubt(holder.lane).stands()


def test_a_lie_that_cannot_be_kept_is_still_told_and_remembered_while_the_program_runs(
    ready: Ready, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RefusalError("The disk is full.", RefusalCode.INTERNAL)

    source.lie = Head(0, EMPTY_ROOT)
    with ready.holder(source=source) as holder:
        with monkeypatch.context() as patched:
            patched.setattr(LaneCopy, "keep_mark", full)
            assert joins(ready, holder, at=AT + 15) == "integrity"
        source.away = True
        assert joins(ready, holder, at=AT) == "lane"


def test_a_run_pinned_to_a_newer_head_than_the_last_sync_is_joined_after_another(ready: Ready, source: Source) -> None:
    joiner = agreement(ready, ready.agreeing()[0])
    with ready.holder(source=source) as holder:
        before = holder.lane.head
        ready.registry.append(ASTER, [joiner])
        opening = ready.opening()
        newest = msgspec.structs.replace(
            opening, checkpoints={**opening.checkpoints, ASTER: ready.registry.checkpoint(ASTER)}
        )
        assert isinstance(holder.answer(Letter(newest), at=AT).header, Joined)
        assert source.asked == 1
        assert holder.lane.head.size == before.size + 1
        # Records come in all the time: a head that ours has outgrown by some is still a head of this lane.
        assert isinstance(holder.answer(Letter(opening), at=AT).header, Joined)


def test_a_run_pinned_to_another_history_is_refused(ready: Ready, source: Source) -> None:
    opening = ready.opening()
    head = read_checkpoint(opening.checkpoints[ASTER], f"fedcredit/{ASTER}", ready.federation.registry_key.public)
    for size in (1, head.size - 1, head.size):
        source.lie = Head(size, bytes(32))
        other = {**opening.checkpoints, ASTER: source.checkpoint(ASTER)}
        with ready.holder() as holder:
            forged = msgspec.structs.replace(opening, checkpoints=other)
            assert code_of(holder.answer(Letter(forged), at=AT)) == "integrity"


def by_sync(ready: Ready, other: Holder) -> None:
    ready.federation.withdraw(ready.registry, ready.agreeing()[0])
    other.lane.sync(ready.registry, at=AT)


def by_side_door(ready: Ready, other: Holder) -> None:
    assert other.lane.take(withdrawal(ready, ready.agreeing()[0]), at=AT)


def by_unlinking(ready: Ready, other: Holder) -> None:
    other.lane.unlink(ready.federation.customer(ready.agreeing()[0].person))


def by_erasure(ready: Ready, other: Holder) -> None:
    assert other.lane.forget(ready.federation.handles[ready.agreeing()[0]])


@pytest.mark.parametrize("how", [by_sync, by_side_door, by_unlinking, by_erasure])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_whatever_takes_a_person_out_counts_for_the_next_release(
    ready: Ready, how: Callable[[Ready, Holder], None], elsewhere: bool
) -> None:
    leaver, *others = ready.agreeing()
    with ready.session() as session:
        holder = session.holders[ASTER]
        joined = joined_by(session.holders, ready.opening())
        run = holder.run_named(joined[ASTER].run)
        assert len(holder.permitted(run, Purpose.TRAIN).handles) == len(others) + 1
        if elsewhere:
            with ready.holder() as other:
                how(ready, other)
        else:
            how(ready, holder)
        assert isinstance(holder.answer(first_instruction(ready, joined), at=AT).header, Update)
        used = set(holder.ledger.subjects_of(f"{joined[ASTER].run}/1"))
    assert used == {ready.federation.handles[place] for place in others}
    assert ready.federation.handles[leaver] not in used


def test_a_grant_by_the_side_door_gives_nothing_before_the_lane_has_it(ready: Ready) -> None:
    with ready.session() as session:
        holder = session.holders[ASTER]
        run = holder.run_named(joined_by(session.holders, ready.opening())[ASTER].run)
        leaver = ready.agreeing()[0]
        ready.federation.withdraw(ready.registry, leaver)
        holder.lane.sync(ready.registry, at=AT)
        without = holder.permitted(run, Purpose.TRAIN).handles
        assert holder.lane.take(agreement(ready, leaver), at=AT)
        assert holder.permitted(run, Purpose.TRAIN).handles == without
        assert ready.federation.handles[leaver] not in without


def test_the_registry_of_the_settings_is_asked_when_no_other_source_is_given(ready: Ready) -> None:
    holder = Holder(ready.home())
    try:
        assert isinstance(holder.source, RegistryClient)
        assert holder.source is holder.source
        assert joins(ready, holder, at=AT) is True  # a young lane needs nobody
        with pytest.raises(RefusalError):  # nobody answers at that address
            holder.lane.sync(holder.source, at=AT)
    finally:
        holder.close()


def test_a_file_of_certificates_that_is_not_there_stops_the_node_at_its_start(ready: Ready, tmp_path: Path) -> None:
    path = ready.home() / "holder.toml"
    path.write_text(path.read_text().replace('ca = ""', 'ca = "registry-ca.pem"'))
    with pytest.raises(MalformedError, match=r"registry\.ca"):
        Holder(ready.home())
