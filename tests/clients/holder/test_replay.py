"""Replay: the count of rows used without consent is 0 when it should be, and can be anything else."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from clients.holder import permits
from clients.holder.gate import Decisions, Question, decide_all
from clients.holder.lane import Kind
from clients.holder.node import Holder
from clients.holder.replay import Replay
from experiments.people import Attitude, Membership
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.projection import ALLOW
from privacy.consent.record import ConsentRecord, Purpose
from privacy.consent.submission import Submission
from privacy.errors import TamperingError
from server.coordinator import Coordinator, Outcome
from tests.ready import ASTER, AT, CEDAR, HOLDERS, Ready, commitments_of


def replayed(ready: Ready, outcome: Outcome, name: str = ASTER) -> int:
    with ready.holder(name) as holder:
        return holder.rows_used_without_consent(outcome.run, commitments_of(outcome, name))


@contextmanager
def let_in(ready: Ready, *places: Membership) -> Iterator[None]:
    """A gate that lets these people in, whatever they said."""
    handles = {ready.federation.handles[place] for place in places}

    def decide(question: Question) -> Decisions:
        decided = decide_all(question)
        named = np.array([handle in handles for handle in question.links.values()])
        shares, allowances = np.where(named, 1.0, decided.shares), np.where(named, 1e6, decided.allowances)
        return Decisions(question.links, np.where(named, np.uint8(ALLOW), decided.codes), shares, allowances)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(permits, "decide_all", decide)
        yield


def used(ready: Ready, outcome: Outcome, name: str = ASTER, stage: int = 0) -> set[bytes]:
    with ready.holder(name) as holder:
        return set(holder.ledger.subjects_of(outcome.releases[stage].name))


def test_an_honest_run_used_nobody_without_consent(ready: Ready) -> None:
    outcome = ready.run()
    assert len(outcome.releases) == 5
    assert [replayed(ready, outcome, name) for name in HOLDERS] == [0, 0, 0]
    for name in HOLDERS:
        expected = {ready.federation.handles[place] for place in ready.agreeing(name)}
        assert used(ready, outcome, name) == used(ready, outcome, name, 3) == expected
        measured = {ready.federation.handles[place] for place in ready.measured(name)}
        assert used(ready, outcome, name, 4) == measured


def test_one_withdrawal_is_one_person_fewer_in_the_next_run(ready: Ready) -> None:
    leaver = ready.agreeing()[0]
    first = ready.run()
    ready.federation.withdraw(ready.registry, leaver)
    ready.sync()
    second = ready.run()
    assert second.run != first.run
    assert used(ready, first) - used(ready, second) == {ready.federation.handles[leaver]}
    assert used(ready, second) < used(ready, first)
    for name in HOLDERS:
        if name != ASTER:
            assert used(ready, second, name) == used(ready, first, name)
        assert replayed(ready, first, name) == replayed(ready, second, name) == 0


@pytest.mark.parametrize(
    "attitude", [Attitude.SILENT, Attitude.WITHDREW, Attitude.EXPIRED, Attitude.SCORE_ONLY, Attitude.FROZE]
)
def test_whoever_a_broken_gate_lets_in_is_counted_in_every_release(ready: Ready, attitude: Attitude) -> None:
    victim = next((place for name in HOLDERS for place in ready.with_attitude(attitude, name)), None)
    assert victim is not None
    with let_in(ready, victim):
        outcome = ready.run()
    assert ready.federation.handles[victim] in used(ready, outcome, victim.holder)
    assert replayed(ready, outcome, victim.holder) == 4  # four training rounds
    others = [name for name in HOLDERS if name != victim.holder]
    assert [replayed(ready, outcome, name) for name in others] == [0, 0]


def test_people_let_into_the_measurement_are_counted_too(ready: Ready) -> None:
    victims = ready.with_attitude(Attitude.SILENT, held_out=True)[:2]
    assert len(victims) == 2
    with let_in(ready, *victims):
        outcome = ready.run()
    assert replayed(ready, outcome) == 2


def test_consent_to_training_does_not_cover_the_measurement(ready: Ready) -> None:
    federation, person = ready.federation, ready.agreeing(held_out=True)[0]
    agreed = record_of(ready, federation.handles[person])
    training_only = federation.wallet(person.person).write(
        federation.address(ASTER), handle=federation.handles[person],
        grants=[grant for grant in agreed.grants if grant.purpose is Purpose.TRAIN], frozen=False, terms=agreed.terms,
        jurisdiction=agreed.jur, at=AT,
    )  # fmt: skip
    ready.registry.append(ASTER, [Submission(training_only.stub, training_only.ciphertext)])
    ready.sync()
    assert federation.handles[person] not in used(ready, ready.run(), stage=4)
    other = ready.federation
    other.write_plan(msgspec.structs.replace(Coordinator(other.coordinator_directory).plan, name="again"))
    with let_in(ready, person):
        outcome = ready.run()
    assert federation.handles[person] in used(ready, outcome, stage=4)
    assert replayed(ready, outcome) == 1


def record_of(ready: Ready, handle: bytes) -> ConsentRecord:
    with ready.holder() as holder:
        standing = holder.lane.view().standing(handle)
    assert isinstance(standing, ConsentRecord)
    return standing


def test_a_record_that_came_after_the_pinned_head_is_no_excuse(ready: Ready) -> None:
    silent = ready.with_attitude(Attitude.SILENT)[0]
    with let_in(ready, silent):
        outcome = ready.run()
    assert replayed(ready, outcome) == 4
    federation = ready.federation
    federation.withdraw(ready.registry, ready.agreeing()[0])  # nor does a later withdrawal accuse anybody
    ready.sync()
    assert replayed(ready, outcome) == 4


def test_another_commitment_than_the_one_sent_is_noticed(ready: Ready) -> None:
    outcome = ready.run()
    commitments = commitments_of(outcome, ASTER)
    with ready.holder() as holder:
        for name in commitments:
            with pytest.raises(TamperingError):
                holder.rows_used_without_consent(outcome.run, {**commitments, name: bytes(32)})
        with pytest.raises(TamperingError):
            holder.rows_used_without_consent(outcome.run, commitments_of(outcome, CEDAR))


def test_a_holder_that_committed_to_others_than_it_charged_is_noticed(ready: Ready) -> None:
    outcome = ready.run()
    name = outcome.releases[0].name
    with ready.holder() as holder:
        fewer = holder.ledger.subjects_of(name)[1:]
        lie = commit_to_subjects(holder._keys.round_salt(name), fewer)
        with pytest.raises(TamperingError):
            holder.rows_used_without_consent(outcome.run, {name: lie})


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE entries SET payload = zeroblob(length(payload)) WHERE position = 7",
        "UPDATE entries SET payload = (SELECT payload FROM entries WHERE position = 8) WHERE position = 7",
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE position = 8) WHERE position = 7",
        "DELETE FROM entries WHERE position = 7",
        "DELETE FROM links WHERE handle = (SELECT handle FROM entries WHERE position = 7)",
    ],
)
def test_a_lane_edited_after_the_run_is_noticed(ready: Ready, edit: str) -> None:
    outcome = ready.run()
    with ready.holder() as holder:
        database = sqlite3.connect(ready.home() / "consent.db")
        with database:
            assert database.execute(edit).rowcount == 1
        database.close()
        with pytest.raises(TamperingError):
            holder.rows_used_without_consent(outcome.run, commitments_of(outcome, ASTER))


def test_the_replay_opens_the_sealed_records_and_not_what_the_gate_was_shown(ready: Ready) -> None:
    """A copy of the lane whose opened records were edited with the holder's own key passes the gate, and is caught."""
    victim = ready.federation.handles[ready.with_attitude(Attitude.WITHDREW)[0]]
    forget_newest_record(ready, victim)
    outcome = ready.run()
    assert victim in used(ready, outcome)
    assert replayed(ready, outcome) == 4


def test_without_the_registry_what_the_copy_cannot_open_is_believed(ready: Ready) -> None:
    """The limit of a replay from the copy alone, which only the sealed records or somebody's receipt can lift."""
    victim = ready.federation.handles[ready.with_attitude(Attitude.WITHDREW)[0]]
    forget_newest_record(ready, victim)
    outcome = ready.run()
    with ready.holder() as holder:
        replay = replay_of(holder, outcome)
        assert replay.rows_used_without_consent(commitments_of(outcome, ASTER)) == 4
        believing = replace(replay, source=None)
        assert believing.rows_used_without_consent(commitments_of(outcome, ASTER)) == 0


def replay_of(holder: Holder, outcome: Outcome) -> Replay:
    made: list[Replay] = []

    def caught(self: Replay, _: Any) -> int:
        made.append(self)
        return 0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Replay, "rows_used_without_consent", caught)
        holder.rows_used_without_consent(outcome.run, {})
    return made[0]


def forget_newest_record(ready: Ready, handle: bytes) -> None:
    """What an insider could do: the copy's newest record of a person becomes one that never opened."""
    with ready.holder() as holder:
        lane: Any = holder.lane
        base = lane._base
        row = max(base.rows("entries", "WHERE handle = ?", handle))
        forged = (row[0], row[1], int(Kind.GARBAGE), *[None] * 6)
        base.connection.execute("DELETE FROM entries WHERE position = ?", (row[0],))
        base.connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*forged, base.seal.row("entries", *forged))
        )
