"""kill -9 at any instant: nothing acknowledged is lost, nothing is half there, no tag is stored twice."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import pytest

from clients.registry_client import RegistryClient
from privacy.errors import RefusalError
from server.registry.serve import open_registry
from server.registry.settings import Home
from server.registry.verify import verify_database
from tests.registry_process import make_registry, serving
from tests.server.registry.samples import LANE, LANES, submission, tombstone

KILLS = 18
BATCHES = 10_000


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Home:
    return make_registry(tmp_path / "registry", LANES, database=database_url, tls=False)


def names_of(batch: int) -> list[str]:
    """Batches of 1 to 40 records, some of which share one with the batch before."""
    random = Random(batch)  # noqa: S311 (the same every time)
    shared = [f"{batch - 1}/0"] if batch and random.random() < 0.5 else []
    return [*(f"{batch}/{k}" for k in range(random.randint(1, 40))), *shared]


def _append(home: Home, first: int, told: Connection) -> None:
    """Append batch after batch, erasing a record now and then; say what was acknowledged."""
    with closing(open_registry(home)) as registry:
        for batch in range(first, BATCHES):
            positions = registry.append(LANE, [submission(name) for name in names_of(batch)])
            told.send((batch, positions, None))
            if batch % 3 == 0:
                erased = registry.erase(LANE, tombstone(positions[0], submission(names_of(batch)[0])))
                told.send((batch, positions, erased))


@pytest.mark.slow
def test_a_registry_killed_while_it_appends_keeps_what_it_acknowledged(home: Home) -> None:
    random = Random(20261122)  # noqa: S311 (the same every time)
    context = multiprocessing.get_context("fork")
    acknowledged: dict[str, int] = {}
    erased: set[str] = set()
    next_batch = 0
    for _ in range(KILLS):
        told, tell = context.Pipe(duplex=False)
        writer = context.Process(target=_append, args=(home, next_batch, tell))
        writer.start()
        tell.close()
        try:
            assert told.poll(30)
            time.sleep(random.uniform(0, 0.15))
            os.kill(writer.pid or 0, signal.SIGKILL)
        finally:
            writer.kill()
            writer.join()
        for batch, positions, tomb in _received(told):
            acknowledged |= dict(zip(names_of(batch), positions, strict=True))
            if tomb is not None:
                erased.add(names_of(batch)[0])
            next_batch = batch
        verify_database(home)
        with closing(open_registry(home)) as registry:
            # What was on its way may be there whole or not at all; handed in again it is there once.
            registry.append(LANE, [submission(name) for name in names_of(next_batch + 1)])
            for name in random.sample(sorted(acknowledged), 20) if len(acknowledged) > 20 else acknowledged:
                assert registry.append(LANE, [submission(name)]) == [acknowledged[name]]
        next_batch += 1
    with closing(open_registry(home)) as registry:
        entries = registry.entries(LANE, 0)
    tags = [entry.stub.tag for entry in entries]
    assert len(tags) == len(set(tags))
    assert len(acknowledged) > KILLS
    assert erased
    for name, position in acknowledged.items():
        assert entries[position].stub == submission(name).stub
        if name in erased:
            assert entries[position].beside is None
    assert verify_database(home)[LANE].erased >= len(erased)


def _received(told: Connection) -> Iterator[tuple[int, list[int], int | None]]:
    with told:
        while True:
            try:
                yield told.recv()
            except (EOFError, OSError):
                return


@pytest.mark.slow
def test_a_registry_killed_while_it_serves_keeps_what_it_promised(home: Home) -> None:
    random = Random(7)  # noqa: S311 (the same every time)
    promised: list[str] = []
    for kill in range(3):
        with serving(home) as running, running.client(timeout_s=5) as client:
            hand_in = partial(_hand_in, client, kill)
            with ThreadPoolExecutor(4) as pool:
                hands = [pool.submit(hand_in, who) for who in range(4)]
                time.sleep(random.uniform(0.1, 0.6))
                running.stop(signal.SIGKILL)
                promised += [name for hand in hands for name in hand.result()]
        verify_database(home)
    assert promised
    with closing(open_registry(home)) as registry:
        size = registry.head(LANE).size
        for name in promised:
            assert registry.position(LANE, submission(name).stub.tag) is not None
            registry.append(LANE, [submission(name)])
        assert registry.head(LANE).size == size


def _hand_in(client: RegistryClient, kill: int, who: int) -> list[str]:
    """Hand in record after record until nobody answers; the names of those that were promised."""
    promised: list[str] = []
    try:
        while True:
            name = f"{kill}/{who}/{len(promised)}"
            client.submit(LANE, [submission(name)])
            promised.append(name)
    except RefusalError:
        return promised
