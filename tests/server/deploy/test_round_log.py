"""The round log: whatever is done to it but adding to its end is noticed, and a line cut short by a crash is not."""

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.round_log import EMPTY, Event, head_of, split, verify_lines
from privacy.consent.signing import SigningKey, pre_authentication_encoding
from privacy.errors import RefusalError, TamperingError
from server.deploy.round_log import RoundLog

KEY = SigningKey.from_seed(b"\x07" * 32)
AT = 1_793_491_200


def log_in(directory: Path, entries: int = 4) -> Path:
    path = directory / "rounds.log"
    log = RoundLog(path, KEY)
    for number in range(entries):
        log.append(Event.STAGE_ASKED, run="r", at=AT + number, stage=number)
    return path


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    found, torn = split(log_in(tmp_path_factory.mktemp("log")).read_bytes())
    assert torn == b""
    assert len(found) == 4
    return found


def test_each_line_is_signed_and_names_the_hash_of_the_one_before(lines: list[bytes]) -> None:
    """As an auditor with another library sees it."""
    public, previous = Ed25519PublicKey.from_public_bytes(KEY.public), "0" * 64
    for number, line in enumerate(lines, start=1):
        parsed = json.loads(line)
        assert (parsed["entry"]["n"], parsed["entry"]["previous"]) == (number, previous)
        payload = json.dumps(parsed["entry"], sort_keys=True, separators=(",", ":")).encode()
        signed = pre_authentication_encoding("application/vnd.fedcredit.round-log.v1+json", payload)
        public.verify(bytes.fromhex(parsed["signature"]), signed)
        with pytest.raises(InvalidSignature):
            public.verify(bytes.fromhex(parsed["signature"]), signed + b" ")
        previous = hashlib.sha256(line).hexdigest()
    assert [entry.detail["stage"] for entry in verify_lines(lines, KEY.public)] == [0, 1, 2, 3]
    assert head_of(lines).digest == previous


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_byte_of_it_can_be_another(lines: list[bytes], data: st.DataObject) -> None:
    content = bytearray(b"\n".join(lines) + b"\n")
    place = data.draw(st.integers(0, len(content) - 2))  # without the last newline the last line is a torn one
    content[place] ^= data.draw(st.integers(1, 255))
    changed, _ = split(bytes(content))
    with pytest.raises(TamperingError, match="round log does not hold"):
        verify_lines(changed, KEY.public)


@pytest.mark.parametrize("order", [[1, 2, 3], [0, 2, 3], [1, 0, 2, 3], [0, 1, 1, 2, 3], [0, 1, 3]])
def test_no_line_can_be_taken_out_or_moved(lines: list[bytes], order: list[int]) -> None:
    with pytest.raises(TamperingError, match="does not follow"):
        verify_lines([lines[position] for position in order], KEY.public)


def test_no_line_of_another_history_by_the_same_coordinator_fits(lines: list[bytes], tmp_path: Path) -> None:
    """A backup that was gone on with, say: right number, right signature, another past."""
    log = RoundLog(tmp_path / "rounds.log", KEY)
    for number in range(4):
        log.append(Event.STAGE_ASKED, run="other", at=AT + number, stage=number)
    others, _ = split((tmp_path / "rounds.log").read_bytes())
    verify_lines(others, KEY.public)
    with pytest.raises(TamperingError, match=r"Entry 4 .* does not follow"):
        verify_lines([*lines[:3], others[3]], KEY.public)


def test_a_log_that_another_key_has_signed_is_nobodys(lines: list[bytes]) -> None:
    with pytest.raises(TamperingError, match="not the coordinator's"):
        verify_lines(lines, SigningKey.generate().public)


def test_a_line_in_another_spelling_is_refused(lines: list[bytes]) -> None:
    spelled = json.dumps(json.loads(lines[0]), sort_keys=True).encode()
    with pytest.raises(TamperingError, match="Entry 1"):
        verify_lines([spelled], KEY.public)


def test_a_log_cut_short_is_noticed_by_who_kept_its_head(lines: list[bytes]) -> None:
    assert head_of(lines[:3]) != head_of(lines)
    assert verify_lines(lines[2:], KEY.public, after=head_of(lines[:2]))[0].n == 3
    with pytest.raises(TamperingError):
        verify_lines(lines[2:], KEY.public, after=head_of(lines[:1]))
    assert head_of([]) == EMPTY


@given(kept=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_whatever_a_crash_has_left_of_the_last_line_the_next_entry_takes_its_place(
    tmp_path_factory: pytest.TempPathFactory, kept: int
) -> None:
    path = log_in(tmp_path_factory.mktemp("torn"))
    whole = path.read_bytes()
    before, last = split(whole)[0][:3], split(whole)[0][3]
    kept = kept % (len(last) + 1)  # all of the line but its newline is the most
    path.write_bytes(b"".join(line + b"\n" for line in before) + last[:kept])
    log = RoundLog(path, KEY)
    assert log.head == head_of(before)
    log.append(Event.STOPPED, run="r", at=AT)
    found, torn = split(path.read_bytes())
    assert torn == b""
    assert [entry.event for entry in verify_lines(found, KEY.public)] == [Event.STAGE_ASKED] * 3 + [Event.STOPPED]


def test_a_broken_line_before_the_end_is_not_repaired(tmp_path: Path) -> None:
    path = log_in(tmp_path)
    broken = path.read_bytes()[:-20] + b"\n"
    path.write_bytes(broken)
    with pytest.raises(TamperingError, match="Entry 4"):
        RoundLog(path, KEY)
    assert path.read_bytes() == broken


def test_two_programs_append_one_after_the_other(tmp_path: Path) -> None:
    path = log_in(tmp_path)
    one, other = RoundLog(path, KEY), RoundLog(path, KEY)
    one.append(Event.PLAN_SIGNED, at=AT, plan="a")
    other.append(Event.PLAN_SIGNED, at=AT, plan="b")
    one.append(Event.PLAN_SIGNED, at=AT, plan="c")
    found = verify_lines(split(path.read_bytes())[0], KEY.public)
    assert [entry.detail.get("plan") for entry in found[4:]] == ["a", "b", "c"]
    assert one.entries == found


def test_a_log_that_is_cut_or_changed_under_a_program_is_noticed_by_it(tmp_path: Path) -> None:
    path = log_in(tmp_path)
    log = RoundLog(path, KEY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(TamperingError, match="shorter"):
        log.append(Event.STOPPED, run="r", at=AT)
    path.write_bytes(whole + b"{}\n")
    with pytest.raises(TamperingError, match="Entry 5"):
        log.append(Event.STOPPED, run="r", at=AT)


def test_a_disk_that_fills_up_in_a_line_leaves_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log_in(tmp_path)
    before, log, write = path.read_bytes(), RoundLog(path, KEY), os.write
    left = 30

    def full(descriptor: int, content: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(28, "No space left on device")
        taken = min(left, len(content))
        left -= taken
        return write(descriptor, bytes(content)[:taken])

    monkeypatch.setattr("server.deploy.round_log.os.write", full)
    with pytest.raises(RefusalError, match="No space left"):
        log.append(Event.STOPPED, run="r", at=AT)
    assert path.read_bytes() == before
    monkeypatch.undo()
    log.append(Event.STOPPED, run="r", at=AT)
    assert RoundLog(path, KEY).entries == log.entries


def test_a_directory_that_may_not_be_written_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match="could not be written"):
        RoundLog(tmp_path / "gone" / "rounds.log", KEY).append(Event.STOPPED, run="r", at=AT)


def test_who_keeps_the_log_locked_is_not_waited_for_for_ever_and_the_log_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = log_in(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # as an earlier version made it
    monkeypatch.setattr("federated.lock.WAIT_S", 0.05)
    log = RoundLog(path, KEY)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(RefusalError, match=r"rounds\.log has been held"):
            log.append(Event.STOPPED, run="r", at=AT)
    assert RoundLog(path, KEY).entries == log.entries
    log.append(Event.STOPPED, run="r", at=AT)
    assert path.stat().st_mode & 0o777 == 0o600
