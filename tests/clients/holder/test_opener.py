"""Opening here and opening in many processes give the same rows, and no key shows or outlives its owner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from clients.holder import lane as lane_module
from clients.holder import opener as opener_module
from clients.holder.opener import Claim, Kind, ManyProcesses, OwnProcess, Raw, Reader
from clients.holder.row_seal import RowSeal
from privacy.consent.view import Entry, Link
from privacy.errors import RefusalCode, RefusalError, TamperingError
from tests.clients.holder.lane_scene import AT, IDENTITY, LANE, Source
from tests.clients.holder.test_lane_standings import (
    HANDLES,
    KEYS,
    PERSONS,
    Counting,
    Erases,
    Said,
    head_of,
    judged,
    lane_of,
)

STORAGE = sha256(b"storage").digest()
READER = Reader(LANE, KEYS.lane_keys, IDENTITY.public, STORAGE)
FAULTS = ("", "forged", "another key", "another holder", "another epoch inside", "no record", "garbage")
ENTRIES = lane_of(
    [Said(0, seq, fault=fault) for seq, fault in enumerate(FAULTS, start=1)] + [Erases(7), Erases(2, delivered=True)]
)


def raw(entries: Sequence[Entry]) -> list[Raw]:
    return [Raw(entry.stub.leaf(), entry.beside) for entry in entries]


def test_every_entry_becomes_what_it_is() -> None:
    batch = READER.read(0, raw(ENTRIES))
    kinds = [Kind.MISSING, *[Kind.OPENED] * 5, Kind.GARBAGE, *[Kind.TOMBSTONE] * 2]
    assert [row[2] for row in batch.rows] == kinds
    about = [None, HANDLES[0], HANDLES[0], None, None, None, None, None, None]
    assert [row[3] for row in batch.rows] == about
    assert [(erasure.position, erasure.by) for erasure in batch.erasures] == [(0, 7), (6, 8)]
    seal = RowSeal(STORAGE)
    assert all(seal.holds(row[-1], "entries", *row[:-1]) for row in batch.rows)


def test_a_key_that_is_not_here_opens_nothing_and_another_epochs_key_neither() -> None:
    entry = lane_of([Said(0, 1, epoch=2)])
    right, wrong = KEYS.lane_keys[2], KEYS.lane_keys[1]
    for keys, kind in (({2: right}, Kind.OPENED), ({1: wrong}, Kind.GARBAGE), ({2: wrong}, Kind.GARBAGE)):
        reader = Reader(LANE, keys, IDENTITY.public, STORAGE)
        assert reader.read(0, raw(entry)).rows[0][2] == kind


@pytest.fixture(scope="module")
def many() -> Iterator[ManyProcesses]:
    with ManyProcesses(READER, 2) as opener:
        yield opener


def claims() -> list[Claim]:
    link = Link(HANDLES[0], PERSONS[0].public, 0)
    rows = READER.read(0, raw(lane_of([Said(0, 1), Said(0, 2, fault="forged"), Said(1, 3)]))).rows
    return [Claim(row[5], row[6], 0, link) for row in rows]  # type: ignore[arg-type]


def test_many_processes_give_what_one_gives_in_order(many: ManyProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener_module, "CHUNK", 2)
    batches = [(0, raw(ENTRIES[:5])), (5, raw(ENTRIES[5:]))]
    here, there = OwnProcess(READER).read(batches), many.read(batches)
    rows = [row for batch in here for row in batch.rows]
    found = list(there)
    assert [row for batch in found for row in batch.rows] == rows
    assert len(found) > len(batches)
    assert [erasure for batch in found for erasure in batch.erasures] == READER.read(0, raw(ENTRIES)).erasures
    assert OwnProcess(READER).signed(claims()) == [True, False, False]
    assert many.signed(claims() * 100) == [True, False, False] * 100


def test_a_replaced_ciphertext_is_noticed_in_another_process_too(many: ManyProcesses) -> None:
    forged = raw(ENTRIES)
    forged[1] = Raw(forged[1].leaf, forged[2].beside)
    with pytest.raises(TamperingError, match="replaces"):
        list(many.read([(0, forged)]))


def test_only_a_few_batches_are_taken_before_the_first_is_read(many: ManyProcesses) -> None:
    taken = 0

    def batches() -> Iterator[tuple[int, list[Raw]]]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number, raw(ENTRIES[1:2])

    next(iter(many.read(batches())))
    assert taken == 5


def test_no_key_is_in_an_argument_or_the_environment(many: ManyProcesses) -> None:
    many.signed(claims())
    processes = list(many._pool._processes)
    assert len(processes) == 2
    secrets = [STORAGE, *(key.to_bytes()[1:] for key in KEYS.lane_keys.values())]
    for process in processes:
        shown = Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
        assert len(shown) > 10
        for secret in secrets:
            assert secret not in shown
            assert secret.hex().encode() not in shown


def test_a_process_that_is_ended_from_outside_is_a_refusal() -> None:
    with ManyProcesses(READER, 1) as opener:
        assert opener.signed(claims()) == [True, False, False]
        (process,) = opener._pool._processes
        os.kill(process, signal.SIGKILL)
        with pytest.raises(RefusalError) as caught:  # noqa: PT012  # the pool notices after a moment
            while True:
                opener.signed(claims())
    assert caught.value.code is RefusalCode.INTERNAL


_ORPHANS = """
from tests.clients.holder.test_opener import READER, claims
from clients.holder.opener import ManyProcesses
if __name__ == "__main__":
    opener = ManyProcesses(READER, 2)
    opener.signed(claims() * 64)
    print(*opener._pool._processes, flush=True)
    input()
"""


def test_no_process_outlives_one_that_was_killed(tmp_path: Path) -> None:
    """A pool's processes wait for work on a pipe that they hold themselves: nothing tells them of a killed owner."""
    script = tmp_path / "orphans.py"
    script.write_text(_ORPHANS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    owner = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    processes: list[int] = []
    try:
        assert owner.stdout is not None
        processes = [int(number) for number in owner.stdout.readline().split()]
        assert len(processes) == 2
        assert all(is_running(process) for process in processes)
        owner.kill()
        for _ in range(300):
            if not any(is_running(process) for process in processes):
                break
            time.sleep(0.1)
        assert not any(is_running(process) for process in processes)
    finally:
        owner.kill()
        for process in filter(is_running, processes):
            os.kill(process, signal.SIGKILL)
        owner.communicate()


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_copy_that_is_synced_by_many_processes_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "PARALLEL_FROM", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(opener_module, "CHUNK", 3)
    lane = Counting(tmp_path).lane
    try:
        assert lane.sync(Source(ENTRIES), at=AT) == len(ENTRIES)
        for size in (3, len(ENTRIES)):
            expected = judged(ENTRIES, size, lane.links_by_handle())
            view = lane.view(head_of(ENTRIES, size))
            assert [view.standing(handle) for handle in HANDLES] == [expected.standing(handle) for handle in HANDLES]
        with pytest.raises(TamperingError):
            lane.sync(Source([*ENTRIES, Entry(ENTRIES[1].stub, b"another")]), at=AT)
        assert lane.head.size == len(ENTRIES)
    finally:
        lane.close()
