"""The ledger's head in the lane copy: a ledger restored with its own head file cannot answer a second time."""

import shutil
from pathlib import Path

import pytest

from clients.holder.lane import LaneCopy
from clients.holder.ledger_chain import LedgerHead
from clients.holder.node import Holder
from federated.messages import Letter, Update, encode_header
from privacy.errors import TamperingError
from tests.clients.holder.lane_scene import Scene as Lane
from tests.ready import ASTER, AT, Ready, first_instruction, joined_by

FIRST, SECOND = LedgerHead(2, bytes([1]) * 32), LedgerHead(4, bytes([2]) * 32)


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(tmp_path)


def test_the_newest_head_is_kept_over_a_restart(lane: Lane) -> None:
    with lane.copy() as copy:
        assert copy.ledger_head() is None
        for head in (FIRST, SECOND, FIRST):  # the last comes from a process that fell behind
            copy.keep_ledger_head(head)
    with lane.copy() as copy:
        assert copy.ledger_head() == SECOND


EDITS = (
    "UPDATE ledger_head SET size = 2",
    "UPDATE ledger_head SET digest = zeroblob(32)",
    "UPDATE ledger_head SET mac = zeroblob(32)",
)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_head_is_noticed(lane: Lane, edit: str) -> None:
    with lane.copy() as copy:
        copy.keep_ledger_head(SECOND)
    lane.edit(edit)
    with lane.copy() as copy, pytest.raises(TamperingError):
        copy.ledger_head()


class Scene:
    """One data holder has joined; the letter of round 1 lies ready, and a backup of the ledger from before."""

    def __init__(self, ready: Ready, backup: Path) -> None:
        self.ready, self.home, self._backup = ready, ready.home(ASTER), backup
        with ready.session() as session:
            self.letter = first_instruction(ready, joined_by(session.holders, ready.opening()))
        backup.mkdir()
        for path in self.ledger_files():
            shutil.copy(path, backup)

    def ledger_files(self) -> list[Path]:
        return sorted(self.home.glob("ledger.db*"))

    def restore(self) -> None:
        self.delete()
        for path in self._backup.iterdir():
            shutil.copy(path, self.home)

    def delete(self) -> None:
        for path in self.ledger_files():
            path.unlink()

    def answer(self) -> Letter:
        with self.ready.holder() as holder:
            answer = holder.answer(self.letter, at=AT)
            assert holder.lane.ledger_head() == holder.ledger.head
        assert isinstance(answer.header, Update), answer.header
        return answer


@pytest.fixture
def scene(ready: Ready, tmp_path: Path) -> Scene:
    return Scene(ready, tmp_path / "backup")


def same(one: Letter, other: Letter) -> bool:
    return (encode_header(one.header), one.arrays["words"].tobytes()) == (
        encode_header(other.header),
        other.arrays["words"].tobytes(),
    )


def test_a_restart_gives_the_same_bytes(scene: Scene) -> None:
    assert same(scene.answer(), scene.answer())


def test_a_ledger_restored_with_its_head_file_is_noticed(scene: Scene) -> None:
    scene.answer()
    scene.restore()
    for _ in range(2):
        with pytest.raises(TamperingError, match="kept elsewhere"):
            Holder(scene.home)


def test_a_ledger_that_is_gone_with_its_head_file_is_noticed(scene: Scene) -> None:
    scene.answer()
    scene.delete()
    for _ in range(2):  # the first attempt leaves an empty ledger behind
        with pytest.raises(TamperingError, match="kept elsewhere"):
            Holder(scene.home)


def test_nothing_leaves_before_the_head_is_remembered_and_a_crash_before_it_heals(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LaneCopy, "keep_ledger_head", crash)
        with pytest.raises(KeyboardInterrupt):
            scene.answer()
    first = scene.answer()  # the remembered head is behind, and catches up before this answer leaves
    assert same(first, scene.answer())
    scene.restore()
    with pytest.raises(TamperingError):
        Holder(scene.home)
