"""Syncing: in batches, cheap when nothing is new, fresh only by a sync, and whole after any crash."""

import itertools
import multiprocessing
import random
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from clients.holder import lane_sync
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.lane_epochs import announce
from privacy.consent.lane import Stub
from privacy.consent.merkle import Frontier, leaf_hash
from privacy.consent.sealing import LaneKey
from privacy.consent.view import Entry
from privacy.errors import RefusalCode, RefusalError, TamperingError
from tests.clients.holder.lane_scene import AT, IDENTITY, KEY, SETTINGS, Scene, Source
from tests.clients.holder.test_lane_standings import HANDLES, KEYS, Counting, Said, head_of, lane_of


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@dataclass
class Watched(Source):
    """A source that counts what it is asked for."""

    checkpoints: int = 0

    def checkpoint(self, lane: str) -> str:
        self.checkpoints += 1
        return super().checkpoint(lane)


def test_a_sync_without_news_asks_for_one_checkpoint_and_keeps_what_was_computed(scene: Scene) -> None:
    with scene.copy() as lane:
        source, view = Watched(scene.entries), lane.view()
        assert lane.sync(source, at=AT + 7) == 0
        assert (source.checkpoints, source.asked) == (1, [])
        assert lane.synced_at == AT + 7
        assert lane.view() is view


def test_another_root_at_the_same_size_is_noticed(scene: Scene) -> None:
    with scene.copy() as lane, pytest.raises(TamperingError):
        lane.sync(Source([*scene.entries[1:], scene.entries[0]]), at=AT + 1)


def test_a_source_that_delivers_less_than_asked_is_asked_again_and_one_that_delivers_nothing_is_caught(
    scene: Scene,
) -> None:
    class Slow(Source):
        def entries(self, lane: str, start: int, stop: int) -> list[Entry]:
            return list(super().entries(lane, start, min(stop, start + 1)))

    class Empty(Source):
        def entries(self, lane: str, start: int, stop: int) -> list[Entry]:  # noqa: ARG002
            return []

    more = [*scene.entries, *lane_of([Said(0, 1), Said(0, 2)])]
    with scene.copy() as lane:
        with pytest.raises(TamperingError):
            lane.sync(Empty(more), at=AT)
        assert lane.sync(Slow(more), at=AT) == 2


def test_only_a_sync_makes_a_lane_fresh_whatever_a_clock_says(scene: Scene) -> None:
    class Unreachable(Source):
        def checkpoint(self, lane: str) -> str:  # noqa: ARG002
            raise RefusalError("no connection", RefusalCode.LANE)

    with scene.copy() as lane:
        assert (lane.age(at=AT), lane.age(at=AT + 50)) == (0, 50)
        with pytest.raises(RefusalError):
            lane.sync(Unreachable([]), at=AT + 5000)
        assert lane.age(at=AT + 10) == 5000  # the clock was set back
        assert lane.age(at=AT - 10) == -10
        lane.sync(Source(scene.entries), at=AT - 1000)  # so it was before this sync, and is fresh by no other clock
        assert lane.synced_at == AT - 1000
        assert (lane.age(at=AT - 1000), lane.age(at=AT)) == (0, 1000)
        lane.enter_use(scene.yes.handle, "lender", "nonce", at=AT + 9000)
        assert lane.age(at=AT - 1000) == 10_000


def test_a_head_is_known_again_without_and_with_its_row(tmp_path: Path) -> None:
    entries = lane_of([Said(0, seq) for seq in range(1, 8)])
    lane = Counting(tmp_path).lane
    for size in (3, 7):
        lane.sync(Source(entries[:size]), at=AT)
    for size in range(8):  # 3 and 7 were accepted once, the others are computed
        head = head_of(entries, size)
        assert lane.view(head).head == head
        with pytest.raises(TamperingError, match="two histories"):
            lane.view(type(head)(size, bytes(32)))
    lane.close()


def test_a_lane_written_by_an_earlier_version_is_refused_and_the_text_says_what_to_do(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.edit("PRAGMA user_version = 1", rows=-1)
    with pytest.raises(RefusalError, match="another version"):
        scene.copy()


def test_a_database_that_cannot_be_written_changes_nothing_and_works_again_later(scene: Scene) -> None:
    more = [*scene.entries, *lane_of([Said(0, 1)])]
    with scene.copy() as lane:
        lane._base.connection.execute("PRAGMA busy_timeout=0")
        other = sqlite3.connect(scene.directory / "consent.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(RefusalError, match="busy"):
                lane.sync(Source(more), at=AT + 1)
            assert lane.view().standing(scene.yes.handle) is not None  # reading goes on
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert (lane.head.size, lane.synced_at) == (5, AT)
        assert lane.sync(Source(more), at=AT + 1) == 1


def test_threads_take_turns(scene: Scene) -> None:
    more = [*scene.entries, *lane_of([Said(0, seq) for seq in range(1, 21)])]
    with scene.copy() as lane, ThreadPoolExecutor(4) as threads:
        synced = [threads.submit(lane.sync, Source(more), at=AT) for _ in range(20)]
        entered = [threads.submit(lane.enter_use, bytes(32), "lender", str(use), at=AT) for use in range(20)]
        viewed = [threads.submit(lane.view) for _ in range(20)]
        assert sum(done.result() for done in synced) == 20  # one of them downloads
        assert all(done.result() for done in entered)
        assert {done.result().head.size for done in viewed} <= {5, 25}
        assert len(lane.past_uses(bytes(32), "lender")) == 20
    with scene.copy() as lane:
        assert lane.head.size == 25


STEP, ROUNDS = 40, 8


def _syncs_on(directory: Path, entries: list[Entry], told: Connection) -> None:
    """What the process that will be killed does: a step of the lane and a use of a record, again and again."""
    lane_sync.BATCH = 16  # type: ignore[misc]
    lane = LaneCopy(directory / "consent.db", SETTINGS, KEYS)
    told.send("ready")
    for at in itertools.count(AT):
        size = min(lane.head.size + STEP, len(entries))
        lane.sync(Source(entries[:size]), at=at)
        told.send("synced")
        lane.enter_use(bytes(32), "lender", str(at) + str(size), at=at)


@pytest.mark.slow
def test_a_process_killed_at_any_instant_leaves_a_whole_lane(tmp_path: Path) -> None:
    entries = lane_of([Said(place % 3, place // 3 + 1) for place in range(STEP * ROUNDS)])
    chance = random.Random(7)  # noqa: S311  # instants to kill at, the same in every run
    roots, tree = {0: Frontier().root}, Frontier()
    for entry in entries:
        tree.append(leaf_hash(entry.stub.leaf()))
        roots[tree.size] = tree.root
    forks = multiprocessing.get_context("fork")  # it need not import anything before it can be killed
    sizes = []
    for number in range(16):
        directory = tmp_path / str(number // 4)  # a fresh lane now and then, so that kills fall into every size
        if not directory.exists():
            directory.mkdir()
            Counting(directory).lane.close()
        told, tells = forks.Pipe(duplex=False)
        process = forks.Process(target=_syncs_on, args=(directory, entries, tells), daemon=True)
        process.start()
        tells.close()
        try:
            assert told.recv() == "ready"
            for _ in range(number % 3):  # so that the kills fall into different syncs on a slow machine, too
                assert told.recv() == "synced"
            time.sleep(chance.uniform(0, 0.05))
        finally:
            process.kill()
            process.join()
            told.close()
        assert process.exitcode == -signal.SIGKILL
        lane = LaneCopy(directory / "consent.db", SETTINGS, KEYS)  # verified from end to end
        try:
            sizes.append(lane.head.size)
            assert lane.head.root == roots[lane.head.size]
            assert lane.head.size % STEP == 0
            newest = {place % 3: place // 3 + 1 for place in range(lane.head.size)}
            for person, handle in enumerate(HANDLES):
                assert getattr(lane.standing(handle), "seq", None) == newest.get(person)
            if number % 4 == 3:
                lane.sync(Source(entries), at=AT + 10**6)
                assert (lane.head.size, lane.head.root) == (len(entries), tree.root)
            else:
                lane.sync(Source(entries[: lane.head.size]), at=AT + 10**6)
        finally:
            lane.close()
    assert len(sizes) == 16
    assert len(set(sizes)) >= 3  # each fresh lane was killed within and after its first syncs


def test_a_program_that_runs_on_with_old_keys_after_a_rotation_does_not_sync(scene: Scene) -> None:
    with scene.copy() as old:
        announce(old, 2)
        announce(old, 1)  # what everybody has hinders nobody
        beside = scene.entries[0].beside
        assert beside is not None
        entry = Entry(Stub(bytes(16), 2, bytes(32), sha256(beside).digest()), beside)
        with pytest.raises(RefusalError, match="rotated") as refused:
            old.sync(Source([*scene.entries, entry]), at=AT + 1)
        assert refused.value.code is RefusalCode.LANE
        assert old.head.size == len(scene.entries)
    keys = HolderKeys(IDENTITY, {1: KEY, 2: LaneKey.generate()})
    with scene.copy(keys) as new:
        assert new.sync(Source([*scene.entries, entry]), at=AT + 1) == 1
