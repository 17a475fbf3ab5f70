"""The side door: a record handed to the data holder itself restricts at once, and never more than the lane allows."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from clients.wallet.wallet import HolderAddress, Wallet
from experiments.people import Attitude
from privacy.consent.gate import GatePolicy, Interval
from privacy.consent.record import ConsentRecord, Purpose
from privacy.consent.submission import Submission
from privacy.consent.view import Conflict, Entry
from privacy.errors import RefusalCode, RefusalError
from tests.clients.holder.lane_scene import ADDRESS, AT, KEY, LANE, Person, Scene, Source


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def grants(standing: object) -> int:
    assert isinstance(standing, ConsentRecord)
    return len(standing.grants)


def test_a_withdrawal_handed_in_counts_at_once_and_goes_when_the_lane_has_it(scene: Scene) -> None:
    withdrawal = scene.yes.hands_in(Attitude.WITHDREW)
    with scene.copy() as lane:
        assert grants(lane.standing(scene.yes.handle)) == 3
        assert lane.take(withdrawal, at=AT)
        assert not lane.take(withdrawal, at=AT + 1)
        assert grants(lane.standing(scene.yes.handle)) == 0
        assert grants(lane.view().standing(scene.yes.handle)) == 3  # the lane alone says what it always said
        assert grants(dict(lane.standings(direct=True))[scene.yes.handle]) == 0
        assert grants(dict(lane.standings())[scene.yes.handle]) == 3
    with scene.copy() as lane:
        assert grants(lane.standing(scene.yes.handle)) == 0
        logged = Entry(withdrawal.stub, withdrawal.ciphertext)
        lane.sync(Source([*scene.entries, logged]), at=AT + 2)
        assert grants(lane.view().standing(scene.yes.handle)) == 0
        assert not lane.take(withdrawal, at=AT + 3)
    scene.edit("DELETE FROM direct", rows=0)
    with scene.copy() as lane:  # there was none left to delete
        assert grants(lane.standing(scene.yes.handle)) == 0


def test_the_gate_sees_it_in_the_projection_that_is_asked_with_direct_records(scene: Scene) -> None:
    asked = {"purpose": Purpose.TRAIN, "recipient": "open-scoring", "categories": frozenset({"capacity"})}

    def allowed(*, direct: bool) -> bool:
        projection = lane.projection(direct=direct, **asked)  # type: ignore[arg-type]
        return bool(projection.reasons(Interval(AT, AT), GatePolicy(120))[projection.rows[scene.yes.handle]] == 0)

    with scene.copy() as lane:
        assert (allowed(direct=False), allowed(direct=True)) == (True, True)
        # As long as nothing came in there, everybody's record need not be read and verified twice.
        assert lane.projection(direct=True, **asked) is lane.projection(**asked)  # type: ignore[arg-type]
        lane.take(scene.yes.hands_in(Attitude.WITHDREW), at=AT)
        assert (allowed(direct=False), allowed(direct=True)) == (True, False)


def test_an_older_record_and_the_same_one_change_nothing(scene: Scene) -> None:
    left = Person("left").writes(Attitude.WITHDREW)[0]
    old = Submission(left.stub, left.ciphertext)
    with scene.copy() as lane:
        assert not lane.take(old, at=AT)
        assert grants(lane.standing(scene.left.handle)) == 0
        first, second = (scene.yes.hands_in(Attitude.SCORE_ONLY) for _ in range(2))
        assert lane.take(second, at=AT)
        assert not lane.take(first, at=AT)
        assert grants(lane.standing(scene.yes.handle)) == 1


def test_two_records_under_one_number_are_a_conflict_wherever_they_came_in(scene: Scene) -> None:
    twin = Person("yes")
    first = twin.writes(Attitude.FROZE)[0]
    other = Submission(first.stub, first.ciphertext)
    with scene.copy() as lane:
        # The twin's first record has the number of the one in the lane, and the same payload: it says nothing new.
        assert not lane.take(other, at=AT)
        changed = Person("yes").hands_in(Attitude.SCORE_ONLY)
        assert lane.take(changed, at=AT)
        assert lane.standing(scene.yes.handle) == Conflict(1)
        assert grants(lane.view().standing(scene.yes.handle)) == 3
        assert not lane.take(Person("yes").hands_in(Attitude.SCORE_ONLY), at=AT)
        assert lane.take(scene.yes.hands_in(Attitude.WITHDREW), at=AT)
        assert grants(lane.standing(scene.yes.handle)) == 0


def refused(scene: Scene) -> dict[str, Submission]:
    good = scene.yes.hands_in(Attitude.WITHDREW)
    forger = Person("yes")
    forger.wallet = Wallet(b"\1" * 32)
    elsewhere = HolderAddress("birch-telecom", 1, KEY.public)
    unknown_epoch = HolderAddress(LANE, 2, KEY.public)
    return {
        "nobody's": Person("stranger").hands_in(Attitude.WITHDREW),
        "forged": forger.hands_in(Attitude.WITHDREW),
        "garbage": replace(good, ciphertext=b"garbage"),
        "another stub": Submission(Person("yes").hands_in(Attitude.AGREES).stub, good.ciphertext),
        "garbage under its own stub": Submission(
            replace(good.stub, ciphertext_sha256=sha256(b"junk").digest()), b"junk"
        ),
        "for another data holder": scene.yes.hands_in(Attitude.SCORE_ONLY, elsewhere),
        "for an epoch without a key": scene.yes.hands_in(Attitude.WITHDREW, unknown_epoch),
    }


def test_whatever_cannot_be_taken_is_refused_with_one_text(scene: Scene) -> None:
    texts = set()
    with scene.copy() as lane:
        for name, submission in refused(scene).items():
            with pytest.raises(RefusalError) as caught:
                lane.take(submission, at=AT)
            assert caught.value.code is RefusalCode.CONSENT, name
            texts.add(str(caught.value))
        assert grants(lane.standing(scene.yes.handle)) == 3
    assert len(texts) == 1
    assert len(refused(scene)) == 7


def test_somebody_linked_beyond_the_synced_head_is_heard(scene: Scene) -> None:
    late = Person("late")
    with scene.copy() as lane:
        lane.link({"late": late.link(at_size=9)})
        assert lane.take(late.hands_in(Attitude.AGREES, ADDRESS), at=AT)
        assert grants(lane.standing(late.handle)) == 3
        lane.unlink("late")
        assert lane.standing(late.handle) is None
        lane.link({"late": late.link(at_size=9)})
        assert lane.standing(late.handle) is None
