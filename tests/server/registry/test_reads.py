"""Reads that take long, or are many, keep neither an append nor anybody else's reads waiting."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from privacy.consent.submission import frame
from server.registry.http import create_app
from server.registry.reads import MOST_READS, MOST_READS_EACH, Reads
from server.registry.store import Registry
from server.registry.tables import DatabaseUnavailableError
from tests.server.registry.asgi import AppClient
from tests.server.registry.samples import AT, KEY, LANE, LANES, settings, submission


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
def go() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_an_append_does_not_wait_for_a_read(
    registry: Registry, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, reading = registry.sealed_bundle, threading.Event()

    def slow(*asked: int) -> bytes:
        reading.set()
        assert go.wait(30)
        return bundle(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "sealed_bundle", slow)
    registry.append(LANE, [submission("a")])
    with AppClient(create_app(settings(), registry, lambda: AT)) as http:
        original = registry.commit

        def commit(*arguments: object, **named: object) -> object:
            assert reading.wait(30)  # the read is under way, and stays so until this append is done
            done = original(*arguments, **named)  # type: ignore[arg-type]
            go.set()
            return done

        monkeypatch.setattr(registry, "commit", commit)
        read, appended = http.together(
            ("GET", f"/lanes/{LANE}/sealed/000.p/1", None),
            ("POST", f"/lanes/{LANE}/records", frame([submission("b")])),
        )
    assert (read.status_code, appended.status_code) == (200, 200)


def test_a_read_that_fetches_much_does_not_hold_the_lane(registry: Registry, go: threading.Event) -> None:
    """In the store itself: what takes long in a read happens after the tree was let go."""
    registry.append(LANE, [submission("a")])
    reading = registry._database.reading

    class Slow:
        def __init__(self) -> None:
            self.inner = reading()

        def __enter__(self) -> object:
            self.connection = self.inner.__enter__()
            return self

        def __exit__(self, *error: object) -> object:
            return self.inner.__exit__(*error)  # type: ignore[arg-type]

        def execute(self, query: object, *rest: object, **named: object) -> object:
            if "beside" in str(query):
                fetching.set()
                assert go.wait(30)
            return self.connection.execute(query, *rest, **named)  # type: ignore[call-overload]

    fetching = threading.Event()
    registry._database.reading = Slow  # type: ignore[method-assign,assignment]
    reader = threading.Thread(target=registry.sealed_bundle, args=(LANE, 0, 1))
    reader.start()
    try:
        assert fetching.wait(30)
        assert registry.append(LANE, [submission("b")]) == [1]
        assert reader.is_alive()
    finally:
        go.set()
        reader.join()


def held(work: Callable[[Reads, list["asyncio.Task[None]"]], Awaitable[None]], most: int, each: int) -> None:
    async def all_of_it() -> None:
        reads, event = Reads(most=most, each=each), threading.Event()
        waiting: list[asyncio.Task[None]] = []

        def wait() -> None:
            assert event.wait(30)

        try:
            for address in ("10.0.0.1", "10.0.0.1", "2001:db8::1", "2001:db8::2"):
                waiting.append(asyncio.create_task(reads.call(address, wait)))
            await asyncio.sleep(0)
            await work(reads, waiting)
            event.set()
            await asyncio.gather(*waiting)
            assert await reads.call("10.0.0.1", lambda: 1) == 1  # every place was given back
        finally:
            event.set()
            reads.close()

    asyncio.run(all_of_it())


def test_one_address_has_a_share_of_the_reads_and_all_have_a_bound() -> None:
    assert MOST_READS_EACH * 4 < MOST_READS

    async def own(reads: Reads, waiting: list["asyncio.Task[None]"]) -> None:
        for address in ("10.0.0.1", "2001:db8::3"):
            with pytest.raises(DatabaseUnavailableError, match="Send the same request again"):
                await reads.call(address, lambda: None)
        waiting.append(asyncio.create_task(reads.call("10.0.0.2", lambda: None)))

    async def all_of_them(reads: Reads, _: list["asyncio.Task[None]"]) -> None:
        with pytest.raises(DatabaseUnavailableError):
            await reads.call("10.0.0.2", lambda: None)

    held(own, 100, 2)
    held(all_of_them, 4, 3)


def test_too_many_reads_are_told_to_come_back(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.append(LANE, [submission("a")])
    with AppClient(create_app(settings(), registry, lambda: AT)) as http:
        answers = http.together(*[("GET", f"/lanes/{LANE}/checkpoint", None)] * (MOST_READS_EACH + 40))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert all("retry-after" in answer.headers for answer in refused)
        assert [answer.status_code for answer in answers].count(200) >= MOST_READS_EACH
        assert http.get("/healthz").status_code == 200


def test_two_threads_read_and_append_without_a_false_alarm(registry: Registry) -> None:
    """Heads that were read before a commit and looked at after it would seem to have gone back."""
    stop, failures = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                size = registry.head(LANE).size
                if size:
                    registry.entry_bundle(LANE, 0, size)
            except Exception as error:
                failures.append(error)
                return

    registry.append(LANE, [submission("first")])
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(100):
            registry.append(LANE, [submission(f"record {number}")])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert Registry(registry._database._engine.url.render_as_string(), KEY, LANES).head(LANE) == registry.head(LANE)
