"""Group commit: what queues goes together, what is wrong fails alone, and nobody waits for ever."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from privacy.consent.promise import read_promise
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, RefusalError
from server.registry.appends import Append, Place
from server.registry.committer import MOST_WAITING, Committer
from server.registry.metrics import Metrics
from server.registry.store import Registry
from server.registry.tables import DatabaseUnavailableError
from tests.server.registry.samples import AT, KEY, LANE, LANES, OTHER, submission


class Watched(Registry):
    """A registry whose commits are counted, and that waits at the first until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, KEY, LANES)
        self.groups: list[int] = []
        self.started, self.go = threading.Event(), threading.Event()
        self.fails: Callable[[], Exception] | None = None

    def commit(self, appends: Sequence[Append], *, at: int) -> list[list[Place] | FedcreditError]:
        self.groups.append(sum(len(append.entries) for append in appends))
        self.started.set()
        self.go.wait(30)
        if self.fails is not None:
            raise self.fails()
        return super().commit(appends, at=at)


def record(name: str, *, lane: str = LANE, tag: str | None = None) -> Append:
    one = submission(name, tag=tag)
    return Append(lane, (Entry(one.stub, one.ciphertext),))


def run(path: Path, work: Callable[[Watched, Committer], object]) -> Watched:
    registry = Watched(path / "registry.db")

    async def all_of_it() -> None:
        committer = Committer(registry, lambda: AT, Metrics())
        try:
            await work(registry, committer)  # type: ignore[misc]
        finally:
            registry.go.set()
            await committer.close()

    try:
        asyncio.run(all_of_it())
    finally:
        registry.close()
    return registry


async def busy(registry: Watched, committer: Committer) -> "asyncio.Task[list[bytes]]":
    """A commit that is under way until `registry.go`."""
    first = asyncio.create_task(committer.append(record("first")))
    await asyncio.to_thread(registry.started.wait, 30)
    return first


def test_what_arrives_during_a_commit_goes_into_the_next_together(tmp_path: Path) -> None:
    async def work(registry: Watched, committer: Committer) -> None:
        first = await busy(registry, committer)
        names = [f"record {k}" for k in range(300)]
        asked = [asyncio.create_task(committer.append(record(name, lane=(LANE, OTHER)[k % 2])))
                 for k, name in enumerate(names)]  # fmt: skip
        await asyncio.sleep(0)
        registry.go.set()
        promises = [read_promise((await one)[0], registry_key=KEY.public) for one in (first, *asked)]
        assert [promise.position for promise in promises if promise.lane == LANE] == list(range(151))
        assert [promise.position for promise in promises if promise.lane == OTHER] == list(range(150))

    assert run(tmp_path, work).groups == [1, 256, 44]


def test_a_refused_one_fails_alone(tmp_path: Path) -> None:
    async def work(registry: Watched, committer: Committer) -> None:
        first = await busy(registry, committer)
        appends = [record("a"), record("clash", tag="first"), record("b"), record("c", lane="nobody"), record("d")]
        asked = [asyncio.create_task(committer.append(append)) for append in appends]
        await asyncio.sleep(0)
        registry.go.set()
        answers = await asyncio.gather(first, *asked, return_exceptions=True)
        assert [isinstance(one, RefusalError) for one in answers] == [False, False, True, False, True, False]

    assert run(tmp_path, work).groups == [1, 5]


@pytest.mark.parametrize("kind", [ValueError, DatabaseUnavailableError])
def test_a_commit_that_fails_is_told_to_all_and_the_next_works(tmp_path: Path, kind: type[Exception]) -> None:
    async def work(registry: Watched, committer: Committer) -> None:
        registry.fails = lambda: ValueError() if kind is ValueError else DatabaseUnavailableError("x", "lane")  # type: ignore[arg-type]
        registry.go.set()
        failed = await asyncio.gather(*(committer.append(record(name)) for name in "ab"), return_exceptions=True)
        assert [type(one) for one in failed] == [kind, kind]
        registry.fails = None
        assert len(await committer.append(record("a"))) == 1

    run(tmp_path, work)


def test_a_wallet_that_hangs_up_does_not_disturb_the_others(tmp_path: Path) -> None:
    async def work(registry: Watched, committer: Committer) -> None:
        first = await busy(registry, committer)
        gone, stays = (asyncio.create_task(committer.append(record(name))) for name in ("gone", "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        registry.go.set()
        assert len(await stays) == len(await first) == 1
        assert gone.cancelled()
        assert registry.head(LANE).size == 3

    run(tmp_path, work)


def test_more_than_can_wait_is_sent_away(tmp_path: Path) -> None:
    async def work(registry: Watched, committer: Committer) -> None:
        first = await busy(registry, committer)
        full = Append(LANE, record("x").entries * 256)
        waiting = [asyncio.create_task(committer.append(full)) for _ in range(MOST_WAITING // 256 - 1)]
        await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailableError):
            await committer.append(full)
        registry.go.set()
        assert await asyncio.gather(first, *waiting)
        assert len(await committer.append(full)) == 256

    run(tmp_path, work)


def test_what_waits_when_it_closes_is_still_committed(tmp_path: Path) -> None:
    async def work(registry: Watched, committer: Committer) -> None:
        first = await busy(registry, committer)
        later = asyncio.create_task(committer.append(record("later")))
        await asyncio.sleep(0)
        registry.go.set()
        await committer.close()
        assert len(await later) == len(await first) == 1

    run(tmp_path, work)
