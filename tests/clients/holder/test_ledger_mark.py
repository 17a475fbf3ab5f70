"""The ledger's mark at the coordinator: a data holder restored whole from a backup is noticed, and releases nothing."""

import shutil
from pathlib import Path

import msgspec
import pytest

from clients.holder.ledger import PrivacyLedger
from federated.messages import Joined, LedgerMark, Letter, Opening, Unmasking, Update
from federated.releases import update_statement
from privacy.consent.signing import PayloadType, verify
from tests.clients.holder.sum_scene import refused_with
from tests.ready import ASTER, AT, HOLDERS, Ready, code_of, first_instruction, joined_by


class Scene:
    """One data holder has answered round 1; a backup of everything it has lies aside, from before it joined."""

    def __init__(self, ready: Ready, backup: Path) -> None:
        self.ready, self.home, self.backup = ready, ready.home(), backup
        shutil.copytree(self.home, backup)
        with ready.session() as session:
            self.joined = joined_by(session.holders, ready.opening())
            self.letter = first_instruction(ready, self.joined)
            answer = session.holders[ASTER].answer(self.letter, at=AT)
        assert isinstance(answer.header, Update)
        self.update, self.words = answer.header, answer.arrays["words"]

    def restore_everything(self) -> None:
        shutil.rmtree(self.home)
        shutil.copytree(self.backup, self.home)

    def opening(self, mark: LedgerMark | None) -> Opening:
        marks = {} if mark is None else {ASTER: mark}
        return msgspec.structs.replace(self.ready.opening(), ledgers=marks)

    def ask(self, letter: Letter) -> Letter:
        with self.ready.holder() as holder:
            return holder.answer(letter, at=AT)

    def charged(self) -> int:
        with self.ready.holder() as holder:
            return len(holder.ledger.releases())


@pytest.fixture
def scene(ready: Ready, tmp_path: Path) -> Scene:
    return Scene(ready, tmp_path / "backup")


def test_a_restore_of_everything_is_noticed_by_the_coordinators_mark_alone(scene: Scene) -> None:
    scene.restore_everything()
    forgotten = scene.opening(scene.update.ledger)
    for _ in range(2):
        assert code_of(scene.ask(Letter(forgotten))) == "integrity"
        assert code_of(scene.ask(scene.letter)) == "plan"  # the run was never opened by what it remembers
        assert scene.charged() == 0
    # What does it is the mark: without it the restored copy knows of nothing.
    assert isinstance(scene.ask(Letter(scene.opening(None))).header, Joined)


def test_a_mark_that_the_ledger_goes_on_from_is_no_hindrance(scene: Scene) -> None:
    with scene.ready.holder() as holder:
        now = holder.ledger.head
    marks = [scene.joined[ASTER].ledger, scene.update.ledger, LedgerMark(now.size, now.digest)]
    for mark in marks:
        header = scene.ask(Letter(scene.opening(mark))).header
        assert isinstance(header, Joined)
        assert header.ledger == LedgerMark(now.size, now.digest)


@pytest.mark.parametrize(
    "change",
    [
        lambda mark: LedgerMark(mark.size + 1, mark.digest),
        lambda mark: LedgerMark(mark.size - 1, mark.digest),
        lambda mark: LedgerMark(mark.size, bytes(32)),
        lambda mark: LedgerMark(0, mark.digest),
        lambda mark: LedgerMark(-1, mark.digest),
        lambda mark: LedgerMark(2**70, mark.digest),
        lambda mark: LedgerMark(mark.size, b""),
    ],
)
def test_a_mark_of_another_history_is_refused_before_anything_else(scene: Scene, change: object) -> None:
    assert callable(change)
    opening = scene.opening(change(scene.update.ledger))
    # Before even the plan is looked at.
    for asked in (opening, msgspec.structs.replace(opening, plan=b"no plan", checkpoints={})):
        assert code_of(scene.ask(Letter(asked))) == "integrity"


def test_marks_of_others_say_nothing_about_us(scene: Scene) -> None:
    opening = msgspec.structs.replace(scene.ready.opening(), ledgers={HOLDERS[1]: LedgerMark(99, bytes(32))})
    assert isinstance(scene.ask(Letter(opening)).header, Joined)


def test_the_mark_of_an_update_is_signed_and_holds_the_kept_bytes(scene: Scene) -> None:
    with scene.ready.holder() as holder:
        identity, name = holder._keys.identity.public, scene.update.release
        assert holder.ledger.kept_at(name).digest == scene.update.ledger.digest
        assert holder.ledger.head.digest == scene.update.ledger.digest
        statement = update_statement(name, scene.update.commitment, scene.words, scene.update.ledger)
        verify(identity, PayloadType.UPDATE, statement, scene.update.signature)
        # Later entries leave it as it is, so that a repeated answer is the same bytes.
        asked = Letter(Unmasking(scene.joined[ASTER].run, 1, list(HOLDERS)))
        assert refused_with(holder.answer(asked, at=AT)) is None
        assert holder.ledger.head.size == scene.update.ledger.size + 1
    assert scene.ask(scene.letter).header == scene.update


def test_a_copy_from_before_the_bytes_were_kept_cannot_pass_for_the_one_that_has_them(
    scene: Scene, ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.restore_everything()
    with ready.session() as session:
        joined_by(session.holders, ready.opening())

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(PrivacyLedger, "keep", crash)
            with pytest.raises(KeyboardInterrupt):
                session.holders[ASTER].answer(scene.letter, at=AT)
    charged_only = tmp_path / "charged"
    shutil.copytree(scene.home, charged_only)
    answer = scene.ask(scene.letter).header
    assert isinstance(answer, Update)
    shutil.rmtree(scene.home)
    shutil.copytree(charged_only, scene.home)
    assert scene.charged() == 1
    assert code_of(scene.ask(Letter(scene.opening(answer.ledger)))) == "integrity"
