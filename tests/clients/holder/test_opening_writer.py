"""The data holder's side: the file is there whole or not at all, always the same bytes, and shows erasure as it is."""

import gzip
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from clients.audit.opening import ErasedLine, GarbageLine, Line, LinkLine, OpenedLine, TombstoneLine, UsedLine
from clients.holder.keys import HolderKeys
from clients.holder.opening_writer import open_run
from privacy.consent.canonical import base64url
from privacy.consent.lane import Stub
from privacy.consent.merkle import leaf_hash
from privacy.consent.submission import Submission
from privacy.consent.tombstone import TombstoneStatement, write_tombstone
from privacy.errors import FedcreditError, RefusalError, TamperingError, UsageError
from tests.clients.audit.case import ENTRIES, Case, at, case_of, each, usual
from tests.clients.holder.test_replay import forget_newest_record
from tests.ready import ASTER, AT, BIRCH, Ready, state_of


def kinds(case: Case) -> set[type[Line]]:
    return {type(line) for line in case.lines if isinstance(line, ENTRIES)}


def opened_again(case: Case, out: Path, run: str | None = None) -> Path:
    home = case.ready.home(case.holder)
    open_run(home, run or case.outcome.run, out, connect=never, at=AT)
    return out


def never(_: object) -> Any:
    raise AssertionError("the registry was asked")


def test_opening_a_run_twice_gives_the_same_bytes_and_changes_nothing(tmp_path: Path) -> None:
    case = usual()
    before = state_of(case.ready.home())
    again = opened_again(case, tmp_path / "again")
    assert again.read_bytes() == case.opening.read_bytes()
    assert again.read_bytes()[3:8] == bytes(5)  # gzip's flags and time (RFC 1952, section 2.3)
    assert stat.S_IMODE(again.stat().st_mode) == 0o600
    assert state_of(case.ready.home()) == before
    assert list(tmp_path.iterdir()) == [again]


def test_no_line_says_in_which_order_the_customers_are() -> None:
    lines = usual().lines
    for kind in (LinkLine, UsedLine):
        handles = [line.handle for line in lines if isinstance(line, kind)]
        assert len(handles) > 50
        assert handles == sorted(handles)
    assert gzip.decompress(usual().opening.read_bytes()).count(b"\n") == len(lines) + 1


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        opened_again(usual(), out)
    assert out.read_text() == "mine"


def test_a_file_that_comes_meanwhile_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, link = tmp_path / "theirs", os.link

    def slow(source: str, target: Path) -> None:
        out.write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", slow)
    with pytest.raises(UsageError, match="exists"):
        opened_again(usual(), out)
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(out, "theirs")]


def test_what_cannot_be_served_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    case, out = usual(), tmp_path / "out"
    home = case.ready.home()
    refusals: list[tuple[Path, str, Path, type[FedcreditError]]] = [
        (home, "0" * 32, out, RefusalError),
        (home, "no run", out, RefusalError),
        (tmp_path / "nowhere", case.outcome.run, out, UsageError),
        (tmp_path, case.outcome.run, out, UsageError),
        (home, case.outcome.run, tmp_path / "no" / "out", RefusalError),
    ]
    for directory, run, path, family in refusals:
        with pytest.raises(family):
            open_run(directory, run, path, connect=never, at=AT)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RefusalError, match="No space left"):
        opened_again(usual(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_write_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(RefusalError, match="Permission denied"):
        opened_again(usual(), tmp_path / "out")


# --- erasure


def erase_one(ready: Ready, *, held_out: bool = False) -> None:
    """Forget a person who agreed, and log the tombstones."""
    identity = HolderKeys.load(ready.home() / "keys").identity
    with ready.holder() as holder:
        positions = holder.lane.forget(ready.federation.handles[ready.agreeing(held_out=held_out)[0]])
        assert positions
        for position in positions:
            leaf = base64url(leaf_hash(holder.lane.leaf(position)))
            statement = TombstoneStatement(lane=ASTER, position=position, leaf=leaf, at=AT)
            ready.registry.erase(ASTER, write_tombstone(statement, identity))


def test_a_person_erased_since_the_run_is_shown_by_tombstones_in_a_later_checkpoint(ready: Ready) -> None:
    outcome = ready.run()
    erase_one(ready)
    case = case_of(ready, outcome)
    assert case.header.later is not None
    late = [line for line in case.lines if isinstance(line, ErasedLine)]
    assert late
    assert all(line.late for line in late)
    report = case.audit()
    assert report.lane.adds_up
    assert report.lane.erased_since == len(late)
    used = report.releases[0].subjects
    assert report.complaints() == [
        f"release {outcome.run}/{stage}: 1 of {used} subjects used are not linked; entries were erased since the run, "
        "so their consent may have been erased and can no longer be shown"
        for stage in range(1, 5)
    ]
    with ready.holder() as holder:
        commitments = {release.name: release.updates[ASTER].commitment for release in outcome.releases}
        assert holder.rows_used_without_consent(outcome.run, commitments) == 4
    for forged in (
        case.forged(later=None),
        case.forged(each(ErasedLine, lambda line: type(line)(line.leaf, line.tombstone, None))),
        case.forged(each(ErasedLine, lambda line: type(line)(line.leaf, line.tombstone + 1, line.late))),
        case.forged(each(ErasedLine, lambda line: GarbageLine(line.leaf)), later=None),
    ):
        found = case.audit(forged)
        assert not found.adds_up
    later = case.header.later
    with pytest.raises(TamperingError):
        case.audit(case.forged(later=type(later)(later.checkpoint, later.consistency[1:])))


def test_a_person_erased_before_the_run_is_in_nobodys_way(ready: Ready) -> None:
    erase_one(ready, held_out=True)
    ready.sync()
    outcome = ready.run()
    case = case_of(ready, outcome)
    assert {ErasedLine, TombstoneLine, OpenedLine} == kinds(case)
    assert case.header.later is None
    report = case.audit()
    assert report.adds_up
    assert report.lane.erased_before == report.lane.tombstones >= 1
    forged = case.audit(case.forged(each(TombstoneLine, lambda line: type(line)(line.leaf, None))))
    assert "said to be erased" in forged.complaints()[0]


def test_what_waits_for_its_tombstone_cannot_be_opened_yet(ready: Ready) -> None:
    outcome = ready.run()
    with ready.holder() as holder:
        handle = ready.federation.handles[ready.agreeing()[0]]
        assert holder.lane.forget(handle)
    with pytest.raises(RefusalError, match="tombstone"):
        case_of(ready, outcome)


# --- garbage


def rubbish(ready: Ready, name: str) -> None:
    """Somebody appends bytes that nobody sealed."""
    place = ready.agreeing()[0]
    record = ready.federation.wallet(place.person).write(
        ready.federation.address(BIRCH), handle=bytes(32), grants=[], frozen=False,
        terms=terms_of(ready), jurisdiction="TW", at=AT,
    )  # fmt: skip
    stub = Stub(name.encode().ljust(16, b"\0"), 1, record.stub.commit, record.stub.ciphertext_sha256)
    ready.registry.append(ASTER, [Submission(stub, record.ciphertext)])


def terms_of(ready: Ready) -> Any:
    with ready.holder() as holder:
        return next(standing.terms for _, standing in holder.lane.standings() if hasattr(standing, "terms"))


def test_garbage_in_the_lane_is_tried_once_more_and_shown_as_what_it_is(ready: Ready) -> None:
    for number in range(3):
        rubbish(ready, f"garbage {number}")
    ready.sync()
    report = case_of(ready, ready.run()).audit()
    assert report.adds_up
    assert report.lane.garbage == 3


def test_a_record_that_the_copy_lost_is_opened_from_the_registry(ready: Ready) -> None:
    victim = ready.federation.handles[ready.agreeing()[0]]
    outcome = ready.run()
    forget_newest_record(ready, victim)
    case = case_of(ready, outcome)
    assert kinds(case) == {OpenedLine}
    assert case.audit().adds_up
    hidden = case.forged(at(0, lambda line: GarbageLine(line.leaf)))
    assert case.audit(hidden).lane.garbage == 1


@pytest.mark.parametrize("edit", ["withheld", "replaced", "another history"])
def test_a_registry_that_withholds_what_lies_beside_an_entry_is_told(ready: Ready, edit: str) -> None:
    victim = ready.federation.handles[ready.agreeing()[0]]
    outcome = ready.run()
    forget_newest_record(ready, victim)

    class Lying:
        def checkpoint(self, lane: str) -> str:
            return ready.registry.checkpoint(lane)

        def entries(self, lane: str, start: int, stop: int) -> list[Any]:
            entries = ready.registry.entries(lane, start, stop)
            if edit == "another history":
                return ready.registry.entries(lane, start + 1, stop + 1)
            beside = None if edit == "withheld" else b"x"
            return [type(entry)(entry.stub, beside) for entry in entries]

    with pytest.raises(TamperingError, match="histories" if edit == "another history" else "withholds"):
        open_run(ready.home(), outcome.run, ready.directory / "out", connect=lambda _: Lying(), at=AT)
    assert not (ready.directory / "out").exists()
