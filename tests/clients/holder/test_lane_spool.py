"""A download keeps nobody from writing, is kept whole or not at all, and leaves nothing readable behind."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.holder import lane_spool, lane_sync
from clients.holder.lane import LaneCopy
from clients.holder.lane_spool import Spool
from clients.holder.opener import Batch, Erasure, Kind
from experiments.people import Attitude
from privacy.consent.view import Entry
from privacy.errors import RefusalError, TamperingError
from tests.clients.holder.lane_scene import AT, Person, Scene, Source
from tests.clients.holder.test_lane_erasure import gone, tombstone


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_sync, "BATCH", 2)


@dataclass
class Meanwhile(Source):
    """A registry before whose second batch something happens elsewhere."""

    happens: Callable[[], object] = lambda: None

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        if len(self.asked) == 1:
            self.happens()
        return super().entries(lane, start, stop)


def longer(scene: Scene) -> list[Entry]:
    return [*scene.entries, *(entry for k in range(3) for entry in Person(str(k)).says(Attitude.WITHDREW))]


def test_the_side_door_is_open_while_a_registry_drips(scene: Scene) -> None:
    with scene.copy() as node, scene.copy() as door:
        door._base.connection.execute("PRAGMA busy_timeout=0")
        taken: list[bool] = []

        def hand_in() -> None:
            taken.append(door.take(scene.yes.hands_in(Attitude.WITHDREW), at=AT))
            taken.append(node.enter_use(scene.yes.handle, "lender", "nonce", at=AT))  # and this process has a say too

        assert node.sync(Meanwhile(longer(scene), happens=hand_in), at=AT) == 6
        assert taken == [True, True]
        assert getattr(node.standing(scene.yes.handle), "grants", None) == ()
    with scene.copy() as lane:
        assert lane.head.size == 11


@pytest.mark.parametrize("size", [6, 7, 8, 10, 11])
def test_what_another_process_synced_meanwhile_is_taken_for_granted_and_the_rest_is_added(
    scene: Scene, size: int
) -> None:
    fresh = Person("new").says(Attitude.AGREES)[0]
    whole = [*scene.entries, gone(fresh), tombstone(fresh.stub.leaf(), 5), *longer(scene)[5:9]]
    with scene.copy() as node, scene.copy() as other:
        meanwhile = max(size, 7)  # no honest registry signs a head in which the tombstone lacks
        source = Meanwhile(whole, happens=lambda: other.sync(Source(whole[:meanwhile]), at=AT))
        assert node.sync(source, at=AT) == 11 - meanwhile
        assert node.opening(5).state is Kind.ERASED
    with scene.copy() as lane:  # verified from end to end
        assert lane.head.size == 11


def test_two_histories_are_noticed_although_each_download_was_whole(scene: Scene) -> None:
    one, two = longer(scene)[:9], [*scene.entries, *longer(scene)[7:9]]
    with scene.copy() as node, scene.copy() as other:
        with pytest.raises(TamperingError, match="does not hash"):
            node.sync(Meanwhile(one, happens=lambda: other.sync(Source(two), at=AT)), at=AT)
        assert node.head.size == 7
    with scene.copy() as lane:
        assert lane.head.size == 7


def batches() -> list[Batch]:
    row = (7, bytes(106), 1, bytes(32), 2**53, b"the payload", None, b"rho", None, bytes(32))
    return [Batch([row, (8, b"", 0, None, None, None, None, None, 7, b"")], [Erasure(3, bytes(32), 8)]), Batch([], [])]


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_a_spool_gives_back_what_was_put_in_and_nobody_else_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(lane_spool, "_IN_MEMORY", in_memory or 1)
    with Spool(tmp_path) as spool:
        for batch in batches():
            spool.put(batch)
        assert list(tmp_path.iterdir()) == []  # the file has no name
        spool._file.seek(0)
        assert b"payload" not in spool._file.read()
        found = list(spool.batches())
        assert found == batches()
        assert [type(batch.erasures) for batch in found] == [list, list]


def test_a_full_disk_is_a_refusal_and_changes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with scene.copy() as lane:
        with monkeypatch.context() as patched:
            patched.setattr("tempfile.SpooledTemporaryFile", lambda **_: Full(full))
            with pytest.raises(RefusalError, match="make room"):
                lane.sync(Source(longer(scene)), at=AT)
        assert isinstance(lane, LaneCopy)
        assert lane.head.size == 5
        assert lane.sync(Source(longer(scene)), at=AT) == 6


class Full:
    """A file on a disk without room."""

    def __init__(self, full: Callable[..., Any]) -> None:
        self.write = full

    def close(self) -> None:
        pass
