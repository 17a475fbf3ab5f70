"""The registry in process, on SQLite and on PostgreSQL: appends, erasures, key sets, and what edits do to it."""

import multiprocessing
from functools import partial
from hashlib import sha256
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from privacy.consent.lane import Head, TombstoneStub, read_checkpoint
from privacy.consent.merkle import leaf_hash
from privacy.consent.promise import read_promise
from privacy.consent.tiles import TileTree, read_bundle
from privacy.consent.view import Entry
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from server.registry.appends import Append
from server.registry.store import NotThereError, Registry
from tests.privacy.consent.reference_merkle import mth
from tests.server.registry.samples import (
    AT,
    HOLDER,
    KEY,
    LANE,
    LANES,
    OTHER,
    OTHER_HOLDER,
    key_set,
    submission,
    tombstone,
)


def head(registry: Registry, lane: str = LANE) -> Head:
    return read_checkpoint(registry.checkpoint(lane), f"fedcredit/{lane}", KEY.public)


def entries_of(*names: str) -> tuple[Entry, ...]:
    return tuple(Entry(one.stub, one.ciphertext) for one in map(submission, names))


def edit(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount > 0
    engine.dispose()


def test_a_lane_is_the_same_on_every_database(registry: Registry, database_url: str) -> None:
    some = [submission(f"record {k}") for k in range(300)]
    assert registry.append(LANE, some[:257]) == list(range(257))
    assert registry.append(LANE, some[257:]) == list(range(257, 300))
    expected = Head(300, mth([one.stub.leaf() for one in some]))
    assert head(registry) == expected
    assert [entry.beside for entry in registry.entries(LANE, 250, 260)] == [one.ciphertext for one in some[250:260]]
    assert registry.position(LANE, some[299].stub.tag) == 299
    assert registry.position(OTHER, some[299].stub.tag) is None
    again = Registry(database_url, KEY, LANES)
    assert head(again) == expected
    again.close()


def test_tiles_and_bundles_hold_the_lane_at_every_size_that_it_had(registry: Registry) -> None:
    some = [submission(f"record {k}") for k in range(520)]
    registry.append(LANE, some)
    for size in (1, 255, 256, 257, 512, 520):
        tree = TileTree(size, lambda level, index, width: registry.tile(LANE, level, index, width))
        assert tree.subtree_root(0, size) == mth([one.stub.leaf() for one in some[:size]])
    assert read_bundle(registry.entry_bundle(LANE, 1, 3), 3) == [one.stub.leaf() for one in some[256:259]]
    assert read_bundle(registry.sealed_bundle(LANE, 2, 8), 8) == [one.ciphertext for one in some[512:]]
    for too_wide in (
        partial(registry.tile, LANE, 0, 2, 9),
        partial(registry.tile, LANE, 1, 0, 3),
        partial(registry.entry_bundle, LANE, 2, 9),
        partial(registry.sealed_bundle, LANE, 3, 1),
    ):
        with pytest.raises(NotThereError):
            too_wide()


def test_a_commit_of_many_refuses_one_alone(registry: Registry) -> None:
    registry.append(LANE, [submission("old", tag="t")])
    clash = submission("new", tag="t")
    answers = registry.commit(
        [
            Append(LANE, entries_of("a", "b")),
            Append(LANE, (*entries_of("c"), Entry(clash.stub, clash.ciphertext))),
            Append("nobody", entries_of("d")),
            Append(OTHER, entries_of("a")),
            Append(LANE, entries_of("b", "e", "e")),
        ],
        at=AT,
    )
    places = [None if isinstance(one, FedcreditError) else [place.position for place in one] for one in answers]
    assert places == [[1, 2], None, None, [0], [2, 3, 3]]
    assert isinstance(answers[1], RefusalError)
    assert answers[1].code is RefusalCode.REPLAY
    assert isinstance(answers[2], NotThereError)
    assert head(registry).root == mth([submission("old", tag="t").stub.leaf()] + [
        submission(name).stub.leaf() for name in "abe"
    ])  # fmt: skip


def test_a_promise_asked_for_again_is_the_same_bytes(registry: Registry, database_url: str) -> None:
    appends = [Append(LANE, entries_of("a", "b"))]
    (places,) = registry.commit(appends, at=AT)
    assert not isinstance(places, FedcreditError)
    promises = [registry.promise(LANE, place) for place in places]
    later = Registry(database_url, KEY, LANES)
    (again,) = later.commit(appends, at=AT + 500)
    assert not isinstance(again, FedcreditError)
    assert [later.promise(LANE, place) for place in again] == promises
    later.close()
    promise = read_promise(promises[1], registry_key=KEY.public)
    assert (promise.lane, promise.position) == (LANE, 1)
    assert (promise.received_at, promise.merge_by) == (AT, AT + 60)


def test_erasing_deletes_the_ciphertext_and_logs_a_tombstone_once(registry: Registry, database_url: str) -> None:
    some = [submission(f"record {k}") for k in range(3)]
    registry.append(LANE, some)
    statement = tombstone(1, some[1])
    assert registry.erase(LANE, statement, at=AT) == 3
    assert registry.erase(LANE, statement, at=AT + 9) == 3
    entries = registry.entries(LANE, 0)
    assert [entry.beside for entry in entries] == [some[0].ciphertext, None, some[2].ciphertext, statement]
    last = entries[3].stub
    assert isinstance(last, TombstoneStub)
    assert (last.position, last.erased_leaf) == (1, leaf_hash(some[1].stub.leaf()))
    assert read_bundle(registry.sealed_bundle(LANE, 0, 4), 4)[1] is None
    assert head(registry) == Head(4, mth([entry.stub.leaf() for entry in entries]))
    # The same record once more is still known, and does not come back.
    assert registry.append(LANE, [some[1]]) == [1]
    assert registry.entries(LANE, 1, 2)[0].beside is None
    with pytest.raises(RefusalError, match="already") as caught:
        registry.erase(LANE, tombstone(1, some[1], at=AT + 1))
    assert caught.value.code is RefusalCode.REPLAY
    registry.close()
    if database_url.startswith("sqlite"):
        files = list(Path(database_url.removeprefix("sqlite:///")).parent.iterdir())
        assert files
        assert not any(some[1].ciphertext[:64] in path.read_bytes() for path in files)


def test_nobody_else_and_nothing_else_is_erased(registry: Registry) -> None:
    some = [submission(f"record {k}") for k in range(3)]
    registry.append(LANE, some)
    with pytest.raises(TamperingError):
        registry.erase(LANE, tombstone(1, some[1], key=OTHER_HOLDER))
    with pytest.raises(TamperingError):
        registry.erase(LANE, tombstone(1, some[1], lane=OTHER))
    for position in (0, 3, 2**40):
        with pytest.raises(MalformedError):
            registry.erase(LANE, tombstone(position, some[1]))
    assert head(registry).size == 3
    assert all(entry.beside for entry in registry.entries(LANE, 0))


def test_an_erasure_cannot_be_hindered_by_taking_its_tag(registry: Registry) -> None:
    record = submission("a")
    registry.append(LANE, [record])
    statement = tombstone(0, record)
    stub = registry.tombstone(LANE, statement).entries[0].stub
    squatter = submission("squatter")
    registry.append(LANE, [type(squatter)(type(squatter.stub)(stub.tag, 1, bytes(32), squatter.stub.ciphertext_sha256),
                                          squatter.ciphertext)])  # fmt: skip
    assert registry.erase(LANE, statement) == 2
    assert registry.entries(LANE, 0)[0].beside is None


def test_without_the_data_holders_keys_nothing_is_erased(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db", KEY)
    record = submission("a")
    registry.append("any-lane", [record])
    with pytest.raises(RefusalError, match="keys"):
        registry.erase("any-lane", tombstone(0, record, lane="any-lane"))
    registry.close()


def test_key_sets_only_ever_get_newer(registry: Registry) -> None:
    with pytest.raises(NotThereError):
        registry.key_set(LANE)
    first, second = key_set(1, 1), key_set(2, 1, 2)
    registry.publish_key_set(LANE, first, at=AT)
    registry.publish_key_set(LANE, second, at=AT)
    registry.publish_key_set(LANE, second, at=AT + 1)
    for older in (first, key_set(2, 2, 3)):
        with pytest.raises(RefusalError) as caught:
            registry.publish_key_set(LANE, older, at=AT)
        assert caught.value.code is RefusalCode.REPLAY
    with pytest.raises(TamperingError):
        registry.publish_key_set(LANE, key_set(3, 3, key=OTHER_HOLDER), at=AT)
    with pytest.raises(RefusalError):
        registry.publish_key_set(LANE, key_set(3, 3), at=AT + 40 * 86_400)
    assert registry.key_set(LANE) == second


def test_a_record_for_a_key_that_is_no_longer_published_is_refused(registry: Registry) -> None:
    old = submission("old", epoch=1)
    registry.append(LANE, [old])
    registry.publish_key_set(LANE, key_set(1, 2, 3), at=AT)
    # A repeated one is known, whatever its key: its wallet only lost the answer.
    assert registry.append(LANE, [old, submission("two", epoch=2), submission("three", epoch=3)]) == [0, 1, 2]
    for epoch in (1, 4):
        with pytest.raises(MalformedError, match="fetch the key set again"):
            registry.append(LANE, [submission(f"new {epoch}", epoch=epoch)])
    assert head(registry).size == 3


EDITS = {
    "a leaf changed": "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE position = 0) WHERE position = 1",
    "the last entry gone": "DELETE FROM entries WHERE position = 2",
    "a gap": "DELETE FROM entries WHERE position = 1",
    "another size": "UPDATE heads SET size = 2",
    "a longer head": "UPDATE heads SET size = 4",
    "another root": "UPDATE heads SET root = (SELECT tag FROM entries WHERE position = 0)",
    "no head": "DELETE FROM heads",
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_lane_signs_nothing_and_takes_nothing_more(database_url: str, what: str) -> None:
    registry = Registry(database_url, KEY, LANES)
    registry.append(LANE, [submission(f"record {k}") for k in range(3)])
    registry.close()
    edit(database_url, EDITS[what])
    edited = Registry(database_url, KEY, LANES)
    try:
        for _ in range(2):
            with pytest.raises((TamperingError, MalformedError)):
                edited.checkpoint(LANE)
            with pytest.raises((TamperingError, MalformedError)):
                edited.append(LANE, [submission("new")])
        # The other lanes go on.
        assert edited.append(OTHER, [submission("new")]) == [0]
    finally:
        edited.close()


def test_an_entry_edited_while_the_registry_runs_is_not_served(registry: Registry, database_url: str) -> None:
    registry.append(LANE, [submission(f"record {k}") for k in range(3)])
    edit(database_url, EDITS["a leaf changed"])
    with pytest.raises(TamperingError):
        registry.entry_bundle(LANE, 0, 3)


def test_an_older_copy_of_the_database_is_noticed_by_whoever_knew_more(registry: Registry, database_url: str) -> None:
    registry.append(LANE, [submission("a")])
    registry.append(LANE, [submission("b")])
    root = mth([submission("a").stub.leaf()]).hex()
    value = f"x'{root}'" if database_url.startswith("sqlite") else f"'\\x{root}'"
    edit(database_url, "DELETE FROM entries WHERE position = 1")
    edit(database_url, f"UPDATE heads SET size = 1, root = {value}")  # noqa: S608
    with pytest.raises(TamperingError, match="went back"):
        registry.append(LANE, [submission("c")])


def test_two_registries_on_one_database_see_each_others_appends(registry: Registry, database_url: str) -> None:
    other = Registry(database_url, KEY, LANES)
    names = [f"record {k}" for k in range(20)]
    for k, name in enumerate(names):
        assert (registry, other)[k % 2].append(LANE, [submission(name)]) == [k]
        assert (registry, other)[k % 2].append(LANE, [submission(names[0])]) == [0]
    expected = Head(20, mth([submission(name).stub.leaf() for name in names]))
    assert head(registry) == head(other) == expected
    other.close()


def _append(url: str, who: int, count: int, start: Barrier) -> None:
    start.wait(60)
    registry = Registry(url, KEY, LANES)
    for k in range(count):
        both = [Append(lane, entries_of(f"{who}/{k}", f"shared/{k}")) for lane in (LANE, OTHER)]
        answers = registry.commit(both if who else both[::-1], at=AT)
        assert not any(isinstance(answer, FedcreditError) for answer in answers)
    registry.close()


@pytest.mark.slow
def test_two_processes_appending_at_once_lose_nothing_and_store_nothing_twice(database_url: str) -> None:
    count = 25
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    writers = [context.Process(target=_append, args=(database_url, who, count, start)) for who in range(2)]
    try:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [writer.exitcode for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
    registry = Registry(database_url, KEY, LANES)
    expected = {f"{who}/{k}" for who in (0, 1, "shared") for k in range(count)}
    for lane in (LANE, OTHER):
        entries = registry.entries(lane, 0)
        assert len(entries) == len(expected)
        assert {entry.beside for entry in entries} == {submission(name).ciphertext for name in expected}
        assert head(registry, lane).root == mth([entry.stub.leaf() for entry in entries])
    registry.close()


def test_a_database_of_another_kind_is_refused_in_words() -> None:
    for url in ("mysql://root:secret@host/name", "no url at all", "oracle://x"):
        with pytest.raises(MalformedError) as caught:
            Registry(url, KEY)
        assert "secret" not in str(caught.value)


def test_a_database_out_of_reach_is_told_without_its_password() -> None:
    with pytest.raises(RefusalError, match="registry_db") as caught:
        Registry("postgresql://someone:secret@127.0.0.1:1/registry_db", KEY)
    assert "secret" not in str(caught.value) + repr(caught.value.__cause__)
    assert "someone" not in str(caught.value)


def test_a_holder_key_is_not_the_registrys(registry: Registry) -> None:
    assert registry.public_key == KEY.public != HOLDER.public
    assert sha256(registry.public_key).digest() != registry.public_key
