"""The registry: appends are all or none, for ever, and whatever is edited behind its back is noticed."""

import multiprocessing
import resource
import signal
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from privacy.consent.lane import Stub, read_checkpoint
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from server.registry.store import Registry
from tests.privacy.consent.reference_merkle import mth
from tests.ready import state_of

KEY = SigningKey.from_seed(sha256(b"registry").digest())
LANE = "aster-bank"


def submission(name: str, *, tag: str | None = None) -> Submission:
    ciphertext = name.encode() * 100
    commit, digest = sha256(b"commit" + ciphertext).digest(), sha256(ciphertext).digest()
    return Submission(Stub(sha256((tag or name).encode()).digest()[:16], 1, commit, digest), ciphertext)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path / "registry.db", KEY)
    yield made
    made.close()


def head(registry: Registry, lane: str = LANE) -> tuple[int, bytes]:
    found = read_checkpoint(registry.checkpoint(lane), f"fedcredit/{lane}", KEY.public)
    return found.size, found.root


def edit(path: Path, statement: str) -> None:
    database = sqlite3.connect(path)
    with database:
        assert database.execute(statement).rowcount > 0
    database.close()


def test_the_signed_head_is_the_merkle_root_of_what_was_appended(registry: Registry, tmp_path: Path) -> None:
    some = [submission(f"record {k}") for k in range(13)]
    assert registry.append(LANE, some[:5]) == [0, 1, 2, 3, 4]
    assert registry.append(LANE, some[5:]) == list(range(5, 13))
    expected = 13, mth([one.stub.leaf() for one in some])
    assert head(registry) == expected
    assert [entry.beside for entry in registry.entries(LANE, 11)] == [one.ciphertext for one in some[11:]]
    registry.close()
    again = Registry(tmp_path / "registry.db", KEY)
    assert head(again) == expected
    again.close()


def test_lanes_are_apart(registry: Registry) -> None:
    same = submission("one")
    assert registry.append("birch", [same]) == registry.append("cedar", [same]) == [0]
    assert registry.append("cedar", [submission("two")]) == [1]
    assert head(registry, "birch") != head(registry, "cedar")
    assert head(registry, "nobody") == (0, mth([]))


def test_a_repeated_append_keeps_its_place(registry: Registry) -> None:
    some = [submission(f"record {k}") for k in range(3)]
    registry.append(LANE, some)
    before = head(registry)
    assert registry.append(LANE, [some[1]]) == [1]
    assert registry.append(LANE, [some[2], some[0], some[2]]) == [2, 0, 2]
    assert head(registry) == before
    new = submission("new")
    assert registry.append(LANE, [new, some[0], new]) == [3, 0, 3]
    assert head(registry)[0] == 4


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_another_record_under_a_known_tag_is_refused_and_nothing_of_its_batch_is_kept(
    registry: Registry, in_one_batch: bool
) -> None:
    first, other = submission("first", tag="t"), submission("other", tag="t")
    batch = [submission("good"), *([first] if in_one_batch else []), other]
    if not in_one_batch:
        registry.append(LANE, [first])
    before = head(registry)
    with pytest.raises(RefusalError) as caught:
        registry.append(LANE, batch)
    assert caught.value.code is RefusalCode.REPLAY
    assert head(registry) == before


def test_a_sealed_record_that_is_not_the_stubs_is_refused(registry: Registry) -> None:
    good = submission("good")
    for ciphertext in (b"", good.ciphertext[:-1], good.ciphertext + b"x"):
        with pytest.raises(MalformedError):
            registry.append(LANE, [submission("other"), Submission(good.stub, ciphertext)])
    assert head(registry)[0] == 0


EDITS = {
    "a stub changed": "UPDATE entries SET leaf = CAST(substr(leaf, 1, 40) || zeroblob(66) AS BLOB) WHERE position = 1",
    "the last entry gone": "DELETE FROM entries WHERE position = 2",
    "a gap": "DELETE FROM entries WHERE position = 1",
    "two entries changed places": "UPDATE entries SET position = 3 - position WHERE position IN (1, 2)",
    "the head changed": "UPDATE heads SET root = zeroblob(32)",
    "the head gone": "DELETE FROM heads",
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_database_signs_nothing_and_takes_nothing_more(registry: Registry, tmp_path: Path, what: str) -> None:
    registry.append(LANE, [submission(f"record {k}") for k in range(3)])
    registry.close()
    if what == "two entries changed places":
        edit(tmp_path / "registry.db", "UPDATE entries SET position = position + 10 WHERE position IN (1, 2)")
        edit(tmp_path / "registry.db", "UPDATE entries SET position = 13 - position WHERE position IN (11, 12)")
    else:
        edit(tmp_path / "registry.db", EDITS[what])
    with pytest.raises(TamperingError, match=LANE):
        registry.checkpoint(LANE)
    # An append that took the edit for granted would sign it into the history.
    with pytest.raises(TamperingError, match=LANE):
        registry.append(LANE, [submission("new")])
    with pytest.raises(TamperingError):
        registry.checkpoint(LANE)


@pytest.mark.parametrize("content", [b"no database at all " * 500, b"SQLite format 3\x00" + bytes(5000)])
def test_a_corrupted_database_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(content)
    before = state_of(tmp_path)
    with pytest.raises((TamperingError, RefusalError), match=r"registry\.db"):
        Registry(path, KEY)
    assert state_of(tmp_path) == before


def test_a_directory_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match="permissions"):
        Registry(tmp_path / "nowhere" / "registry.db", KEY)


def test_a_full_disk_loses_nothing_that_was_acknowledged(registry: Registry, tmp_path: Path) -> None:
    registry.append(LANE, [submission("kept")])
    before = head(registry)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        with pytest.raises(RefusalError, match="disk space"):
            registry.append(LANE, [submission(f"record {k}") for k in range(300)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert head(registry) == before
    assert registry.append(LANE, [submission("after")]) == [1]


def _append(path: Path, who: int, count: int, start: Barrier) -> None:
    start.wait(60)
    registry = Registry(path, KEY)
    for k in range(count):
        registry.append(LANE, [submission(f"{who}/{k}")])
    registry.close()


def test_two_processes_appending_at_once_lose_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "registry.db", 30
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    writers = [context.Process(target=_append, args=(path, who, count, start)) for who in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    registry = Registry(path, KEY)
    entries = registry.entries(LANE, 0)
    assert {entry.beside for entry in entries} == {
        submission(f"{who}/{k}").ciphertext for who in range(2) for k in range(count)
    }
    assert head(registry) == (2 * count, mth([entry.stub.leaf() for entry in entries]))
    registry.close()
