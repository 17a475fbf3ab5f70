"""A lane copy's database restored alone from an older copy is noticed, whatever was changed since."""

import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from clients.holder import lane_head
from clients.holder.lane import LaneCopy
from clients.holder.ledger_chain import LedgerHead
from experiments.people import Attitude
from privacy.errors import TamperingError
from tests.clients.holder.lane_scene import AT, KEYS, SETTINGS, Person, Scene, Source


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


STEPS: dict[str, Callable[[Scene, LaneCopy], object]] = {
    "a withdrawal by the side door": lambda scene, lane: lane.take(scene.yes.hands_in(Attitude.WITHDREW), at=AT),
    "a use": lambda scene, lane: lane.enter_use(scene.yes.handle, "lender", "nonce", at=AT),
    "a link": lambda _, lane: lane.link({"new": Person("new").link(5)}),
    "an ended link": lambda _, lane: lane.unlink("yes"),
    "another key": lambda _, lane: lane.replace_key("yes", Person("new").link().public_key),
    "an erasure": lambda scene, lane: lane.forget(scene.yes.handle),
    "a run": lambda _, lane: lane.keep_run("run", b"accepted"),
    "a mark": lambda _, lane: lane.keep_mark("epoch 2"),
    "the ledger's head": lambda _, lane: lane.keep_ledger_head(LedgerHead(1, bytes(32))),
    "a sync without news": lambda scene, lane: lane.sync(Source(scene.entries), at=AT + 9),
}


def restore(scene: Scene, backup: Path) -> None:
    for name in ("consent.db-wal", "consent.db-shm"):
        (scene.directory / name).unlink(missing_ok=True)
    shutil.copy(backup, scene.directory / "consent.db")


@pytest.mark.parametrize("step", STEPS)
def test_a_database_restored_alone_is_noticed_though_the_lane_has_not_grown(
    scene: Scene, tmp_path: Path, step: str
) -> None:
    backup = tmp_path / "backup.db"
    shutil.copy(scene.directory / "consent.db", backup)
    with scene.copy() as lane:
        STEPS[step](scene, lane)
    with scene.copy():
        pass
    restore(scene, backup)
    with pytest.raises(TamperingError, match="older copy"):
        scene.copy()


def test_an_older_head_file_opens_and_is_brought_up_to_date(scene: Scene) -> None:
    """As after a crash between the commit and the file; whoever restores both together is noticed by nobody here."""
    head = scene.directory / "consent.head"
    before = head.read_bytes()
    with scene.copy() as lane:
        lane.take(scene.yes.hands_in(Attitude.WITHDREW), at=AT)
    after = head.read_bytes()
    assert after != before
    head.write_bytes(before)
    with scene.copy():
        pass
    assert head.read_bytes() == after


def test_a_process_that_writes_late_does_not_put_the_file_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    head = scene.directory / "consent.head"
    with scene.copy() as one, scene.copy() as other:

        def overtaken(self: lane_head.HeadFile, reached: lane_head.Reached) -> None:
            monkeypatch.undo()
            other.enter_use(scene.yes.handle, "lender", "second", at=AT)
            self.write(reached)

        monkeypatch.setattr(lane_head.HeadFile, "write", overtaken)
        one.enter_use(scene.yes.handle, "lender", "first", at=AT)
        newest = one._session.state.changes + 1
    assert int(head.read_text().split()[2]) == newest
    with scene.copy() as lane:
        assert len(lane.past_uses(scene.yes.handle, "lender")) == 2


def _enter_many(directory: Path, name: str) -> None:
    with closing(LaneCopy(directory / "consent.db", SETTINGS, KEYS)) as lane:
        for use in range(30):
            lane.enter_use(bytes(32), "lender", f"{name} {use}", at=AT)


@pytest.mark.slow
def test_a_copy_opens_at_any_instant_while_another_process_writes(scene: Scene) -> None:
    writer = multiprocessing.get_context("spawn").Process(target=_enter_many, args=(scene.directory, "one"))
    writer.start()
    try:
        opened = 0
        while writer.is_alive() or not opened:
            with scene.copy():
                opened += 1
        writer.join()
        assert writer.exitcode == 0
    finally:
        writer.kill()
    with scene.copy() as lane:
        assert len(lane.past_uses(bytes(32), "lender")) == 30


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.glob("consent.db*")}


def test_only_the_owner_reads_the_database_from_its_first_byte_on_and_an_earlier_one_is_tightened(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        scene = Scene(tmp_path)
        with scene.copy() as lane:
            lane.enter_use(bytes(32), "lender", "nonce", at=AT)
            assert modes(tmp_path) == {"consent.db": 0o600, "consent.db-wal": 0o600, "consent.db-shm": 0o600}
            for path in tmp_path.glob("consent.db*"):
                path.chmod(0o644)
            with scene.copy():
                assert set(modes(tmp_path).values()) == {0o600}
    finally:
        os.umask(before)
