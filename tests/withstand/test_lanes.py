"""A registry that lies to a data holder, over HTTP: each lie is noticed, and floods change nothing."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from clients.registry_client import RegistryClient
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.record import encode_record
from privacy.consent.signing import SigningKey
from privacy.consent.view import Entry
from privacy.errors import TamperingError
from tests.privacy.consent.samples import (
    IDENTITY,
    LANE,
    NOW,
    REGISTRY,
    digest,
    entry,
    garbage,
    grant,
    head_of,
    record,
)
from tests.registry_process import RegistryProcess, make_registry, serving
from tests.withstand.beds import ALICE, BOB, STRANGER, Source, bed, handed_in, says

GRANTED = entry(ALICE, record(ALICE, grant()), name="granted")
WITHDRAWN = entry(ALICE, record(ALICE, seq=2), name="withdrawn")
BOBS = entry(BOB, record(BOB, grant()), name="bob")
LATER = entry(BOB, record(BOB, grant(), seq=2), name="later")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """A registry over HTTP in whose lane Alice grants, Bob grants, Alice withdraws, Bob grants again."""
    home = make_registry(tmp_path_factory.mktemp("served") / "registry", {LANE: IDENTITY.public}, tls=False)
    with serving(home) as registry:
        with registry.client() as client:
            client.submit(LANE, [handed_in(one) for one in (GRANTED, BOBS, WITHDRAWN, LATER)])
        yield registry


class Lying:
    """What a registry serves over HTTP, changed on the way; the head stays the true one, or is signed anew."""

    def __init__(
        self, client: RegistryClient, lie: Callable[[list[Entry]], list[Entry]], key: SigningKey | None = None
    ) -> None:
        self._client, self._lie, self._key = client, lie, key

    def checkpoint(self, lane: str) -> str:
        if self._key is None:
            return self._client.checkpoint(lane)
        return write_checkpoint(head_of(self._lie(self._client.entries(lane, 0, 4))), f"fedcredit/{lane}", self._key)

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        return self._lie(self._client.entries(lane, 0, 4))[start:stop]


LIES: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "the withdrawal withheld": lambda lane: [*lane[:2], replace(lane[2], beside=None), lane[3]],
    "every ciphertext withheld": lambda lane: [replace(one, beside=None) for one in lane],
    "the withdrawal dropped": lambda lane: [*lane[:2], lane[3]],
    "the withdrawal dropped and another repeated": lambda lane: [*lane[:2], lane[3], lane[3]],
    "the last entry dropped": lambda lane: lane[:3],
    "everything dropped": lambda _: [],
    "grant and withdrawal exchanged": lambda lane: [lane[2], lane[1], lane[0], lane[3]],
    "all in reverse": lambda lane: lane[::-1],
    "the grant's ciphertext under the withdrawal": lambda lane: [
        *lane[:2], replace(lane[2], beside=lane[0].beside), lane[3],
    ],
    "the grant in place of the withdrawal": lambda lane: [*lane[:2], lane[0], lane[3]],
    "garbage in place of the withdrawal": lambda lane: [*lane[:2], garbage("instead"), lane[3]],
    "an empty ciphertext": lambda lane: [*lane[:2], replace(lane[2], beside=b""), lane[3]],
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_withheld_dropped_reordered_or_substituted_ciphertext_fails_the_whole_lane(
    running: RegistryProcess, tmp_path: Path, lie: str
) -> None:
    with bed(tmp_path, registry=running.public_key) as made, running.client() as client:
        with pytest.raises(TamperingError):
            made.lane.sync(Lying(client, LIES[lie]), at=NOW)
        assert (made.lane.head.size, made.asks(), made.asks(BOB)) == (0, "none", "none")
        assert made.lane.sync(client, at=NOW) == 4
        assert (made.asks(), made.asks(BOB)) == ("purpose", "allow")


@pytest.mark.parametrize("lie", [lie for lie in LIES if "withheld" in lie or "under" in lie or "empty" in lie])
def test_a_registry_that_signs_its_own_lie_is_caught_by_the_stub(
    running: RegistryProcess, tmp_path: Path, lie: str
) -> None:
    key = running.home.key()
    with bed(tmp_path, registry=key.public) as made, running.client() as client:
        with pytest.raises(TamperingError, match="withholds or replaces"):
            made.lane.sync(Lying(client, LIES[lie], key), at=NOW)
        assert made.asks(BOB) == "none"


@pytest.mark.parametrize("lie", ["the withdrawal dropped", "all in reverse", "the grant in place of the withdrawal"])
def test_a_registry_that_signs_another_history_is_caught_by_who_knew_the_first(
    running: RegistryProcess, tmp_path: Path, lie: str
) -> None:
    key = running.home.key()
    with bed(tmp_path, registry=key.public) as made, running.client() as client:
        made.lane.sync(client, at=NOW)
        with pytest.raises(TamperingError):
            made.lane.sync(Lying(client, LIES[lie], key), at=NOW + 1)
        assert (made.lane.synced_at, made.asks(), made.asks(BOB)) == (NOW, "purpose", "allow")


def test_a_ciphertext_taken_out_of_the_registrys_database_fails_the_lane(
    running: RegistryProcess, tmp_path: Path
) -> None:
    """Whoever operates the registry can delete; that nobody signed a tombstone for it shows."""
    database = running.home.directory / "registry.db"
    kept = _execute(database, "SELECT content FROM beside WHERE position = 2")
    with bed(tmp_path, registry=running.public_key) as made, running.client() as client:
        for change in ("DELETE FROM beside WHERE position = 2", "UPDATE beside SET content = x'00' WHERE position = 2"):
            _execute(database, change)
            with pytest.raises(TamperingError):
                made.lane.sync(client, at=NOW)
            assert made.asks(BOB) == "none"
            _execute(database, "INSERT OR REPLACE INTO beside (lane, position, content) VALUES (?, 2, ?)", LANE, *kept)
        made.lane.sync(client, at=NOW)
        assert (made.asks(), made.asks(BOB)) == ("purpose", "allow")


def _execute(database: Path, statement: str, *values: object) -> list[object]:
    connection = sqlite3.connect(database, timeout=20)
    try:
        with connection:
            return [value for row in connection.execute(statement, values) for value in row]
    finally:
        connection.close()


def test_a_rollback_is_refused_at_every_size(tmp_path: Path) -> None:
    lane = [GRANTED, BOBS, WITHDRAWN, LATER]
    with bed(tmp_path) as made:
        made.take(*lane)
        for size in range(len(lane)):
            for head in (head_of(lane[:size]), head_of(lane[::-1][:size]), Head(size, digest("root"))):
                with pytest.raises(TamperingError):
                    made.lane.sync(Source(lane[:size], head=head), at=NOW + 1)
        made.restart()
        assert (made.lane.head, made.asks()) == (head_of(lane), "purpose")


def test_a_plan_pinned_to_a_wrong_root_or_a_future_size_gets_no_decision(tmp_path: Path) -> None:
    lane = [GRANTED, BOBS, WITHDRAWN]
    with bed(tmp_path) as made:
        made.take(*lane)
        assert made.lane.view(head_of(lane[:2])).standing(ALICE.handle) == record(ALICE, grant())
        wrong = [Head(size, digest(f"root {size}")) for size in range(1, 4)]
        future = [head_of([*lane, LATER]), Head(2**40, digest("far")), Head(4, head_of(lane).root)]
        for head in (*wrong, *future, Head(0, digest("not the empty root"))):
            with pytest.raises(TamperingError):
                made.lane.view(head)
            with pytest.raises(TamperingError):
                list(made.lane.standings(head))


class Flood:
    """A lane with a grant, a flood of garbage of a sealed record's size, a withdrawal; made as it is asked for."""

    def __init__(self, size: int) -> None:
        self._ends, self._size = {0: GRANTED, 1: BOBS, size - 1: WITHDRAWN}, size
        self._head = head_of([self.entry(position) for position in range(size)])

    def entry(self, position: int) -> Entry:
        return self._ends.get(position) or garbage(f"flood {position}")

    def checkpoint(self, lane: str) -> str:
        return write_checkpoint(self._head, f"fedcredit/{lane}", REGISTRY)

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        assert lane == LANE
        return [self.entry(position) for position in range(start, min(stop, self._size))]


@pytest.mark.slow
def test_100_000_garbage_ciphertexts_change_no_decision(tmp_path: Path) -> None:
    size = 100_003
    with bed(tmp_path) as made:
        made.take(GRANTED, BOBS)
        assert (made.asks(), made.asks(BOB)) == ("allow", "allow")
        assert made.lane.sync(Flood(size), at=NOW + 1) == size - 2
        assert (made.lane.head.size, made.seq(), made.asks(), made.asks(BOB)) == (size, 2, "purpose", "allow")
        made.restart()
        assert (made.lane.head.size, made.seq(), made.asks(), made.asks(BOB)) == (size, 2, "purpose", "allow")


def test_a_flood_of_a_strangers_records_in_somebodys_name_changes_no_decision(tmp_path: Path) -> None:
    """Garbage of the costliest kind: it opens, names the subject and the highest numbers, and nobody signed it."""
    with bed(tmp_path) as made:
        made.take(GRANTED, BOBS, WITHDRAWN)
        payload = [encode_record(record(ALICE, grant(), seq=seq)) for seq in range(3, 503)]
        made.take(*(says(one, f"flood {seq}", by=STRANGER) for seq, one in enumerate(payload)))
        assert (made.seq(), made.asks(), made.asks(BOB)) == (2, "purpose", "allow")
        made.restart()
        assert (made.seq(), made.asks(), made.asks(BOB)) == (2, "purpose", "allow")
