"""Holding the registry to its word: receipts when it keeps it, an alarm that stays when it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from privacy.consent.lane import Stub
from privacy.consent.receipt import read_receipt, verify_receipt
from privacy.consent.signing import SigningKey
from privacy.consent.submission import parse_frames
from privacy.consent.view import Entry
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from tests.clients.wallet.parties import DataHolder, FakeRegistry, KilledError, Person, digest


def alarms(person: Person) -> list[tuple[str, str]]:
    with person.book() as book:
        return [(alarm.holder, alarm.kind.value) for alarm in book.state.alarms]


def others(registry: FakeRegistry, lane: str, count: int) -> None:
    """Records of other people come into the lane."""
    stranger = Person(registry_directory(registry) / f"stranger-{len(registry.lanes.get(lane, []))}", registry)
    stranger.ok("init")
    holder = DataHolder(lane, registry)
    assert stranger.link(holder).exit_code == 0
    for step in range(count):
        stranger.at += 1
        assert stranger.grant(lane, share=f"0.{step + 1}").exit_code == 0


def registry_directory(registry: FakeRegistry) -> Path:
    directory = registry.__dict__["directory"]
    assert isinstance(directory, Path)
    return directory


@pytest.fixture(autouse=True)
def _place(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.__dict__["directory"] = tmp_path


def test_a_receipt_is_kept_that_verifies_offline(linked: Person, aster: DataHolder, registry: FakeRegistry) -> None:
    others(registry, "aster", 3)
    linked.grant("aster")
    others(registry, "aster", 2)
    linked.at += 1
    linked.ok("withdraw", "aster")
    with linked.book() as book:
        written = book.account("aster").written
        person_key = book.state.wallet().key_for("aster").public
    assert [record.receipt.position for record in written if record.receipt] == [3, 6]
    for record, seen in zip(written, (1, 0), strict=True):
        assert record.receipt is not None
        verified = verify_receipt(record.receipt, registry_key=registry.key.public, person_key=person_key)
        assert len(verified.record.grants) == seen
        with pytest.raises(TamperingError):
            verify_receipt(record.receipt, registry_key=SigningKey.from_seed(bytes(32)).public, person_key=person_key)


def test_a_promise_without_a_head_yet_becomes_a_receipt_later(linked: Person, registry: FakeRegistry) -> None:
    registry.hide_newest = 1
    done = linked.grant("aster")
    assert done.exit_code == 0
    assert "promised" in done.out
    linked.at += 60 + 120
    holder = linked.ok("status", "--json").json["holders"][0]
    assert (holder["record"]["promised"], holder["record"]["receipt"]) == (True, False)
    registry.hide_newest = 0
    assert linked.ok("status", "--json").json["holders"][0]["record"]["receipt"] is True
    assert alarms(linked) == []


def test_a_promise_that_is_overdue_is_an_alarm_that_stays(linked: Person, registry: FakeRegistry) -> None:
    registry.hide_newest = 1
    linked.grant("aster")
    linked.at += 60 + 121
    done = linked.run("status", "--json")
    assert done.exit_code == 5
    assert done.json["alarms"][0]["kind"] == "overdue"
    registry.hide_newest = 0
    done = linked.run("status")
    assert done.exit_code == 5
    assert done.err.startswith("ALARM: aster")
    assert alarms(linked) == [("aster", "overdue")]


def test_a_withdrawal_whose_promise_was_broken_goes_through_the_side_door_and_a_grant_does_not(
    linked: Person, birch: DataHolder, registry: FakeRegistry
) -> None:
    linked.grant("birch")
    registry.hide_newest = 1
    linked.at += 1
    linked.grant("birch", share="0.6")
    linked.at += 60 + 121
    assert linked.run("status").exit_code == 5
    assert alarms(linked) == [("birch", "overdue")]
    assert linked.handed == []
    registry.hide_newest = 2
    linked.ok("withdraw", "birch")
    assert [url for url, _ in linked.handed] == ["https://birch.example:8450/records"]


def test_clocks_that_differ_are_no_broken_promise(linked: Person, registry: FakeRegistry) -> None:
    registry.hide_newest = 1
    registry.before_submit = lambda: setattr(registry, "now", linked.at - 3000)
    linked.grant("aster")
    assert linked.run("status").exit_code == 0
    registry.before_submit = lambda: setattr(registry, "now", linked.at + 3601)
    linked.at += 1
    done = linked.grant("aster", share="0.1")
    assert done.exit_code == 3
    assert "clock" in done.out
    assert alarms(linked) == []


def test_a_registry_that_is_down_is_no_alarm_until_a_promise_is_overdue(linked: Person, registry: FakeRegistry) -> None:
    linked.grant("birch", share="0.1")
    registry.hide_newest = 1
    linked.grant("aster")
    registry.down = {"aster", "birch"}
    linked.at += 60 + 120
    assert linked.run("status").exit_code == 3
    assert alarms(linked) == []
    linked.at += 1
    assert linked.run("status").exit_code == 5
    assert alarms(linked) == [("aster", "overdue")]


@pytest.mark.parametrize("command", ["withdraw", "freeze"])
@pytest.mark.parametrize("silence", ["silent", "down"])
def test_a_promise_followed_by_silence_is_an_alarm_and_the_side_door_takes_the_restriction(
    linked: Person, birch: DataHolder, registry: FakeRegistry, command: str, silence: str
) -> None:
    linked.grant("birch")
    registry.silent = {"birch"}
    linked.ok(command, "birch")
    setattr(registry, silence, {"birch"})
    assert linked.handed == []
    linked.side_door_open = False
    linked.at += 30 * 86_400
    assert linked.run("status").exit_code == 5
    assert alarms(linked) == [("birch", "overdue")]
    for _ in range(2):
        done = linked.run(command, "birch")
        assert done.exit_code == 3
        assert "NOT DELIVERED" in done.out
        assert "promised the record and has not shown it" in done.out
    linked.side_door_open = True
    done = linked.ok(command, "birch")
    assert "took record 2 itself" in done.out
    (submission,) = parse_frames(linked.handed[0][1])
    assert birch.opened(submission) == birch.records[-1]


def test_a_promise_followed_by_silence_makes_a_withdrawal_fail_where_there_is_no_side_door(
    linked: Person, registry: FakeRegistry
) -> None:
    linked.grant("aster")
    registry.silent = {"aster"}
    linked.ok("withdraw", "aster")
    linked.at += 60 + 121
    assert linked.run("withdraw", "aster").exit_code == 5
    assert linked.run("withdraw", "aster").exit_code == 3
    registry.silent = set()
    linked.ok("withdraw", "aster")


def _goes_back(registry: FakeRegistry) -> None:
    registry.hide_newest = 2


def _signs_with_another_key(registry: FakeRegistry) -> None:
    registry.checkpoint_key = SigningKey.from_seed(bytes(32))


def _forges_history(registry: FakeRegistry) -> None:
    leaves = registry.leaves("aster")
    registry.forged["aster"] = [digest("another leaf"), *leaves[1:], digest("one more")]


def _forks_at_the_same_size(registry: FakeRegistry) -> None:
    registry.forged["aster"] = [digest("another leaf"), *registry.leaves("aster")[1:]]


@pytest.mark.parametrize(
    ("lie", "kind", "checkpoints"),
    [(_goes_back, "went-back", 2), (_signs_with_another_key, "signature", 2), (_forges_history, "consistency", 2),
     (_forks_at_the_same_size, "consistency", 2)],
)  # fmt: skip
def test_every_lie_about_the_log_is_an_alarm_with_its_evidence(
    linked: Person, registry: FakeRegistry, lie: Callable[[FakeRegistry], None], kind: str, checkpoints: int
) -> None:
    others(registry, "aster", 2)
    linked.grant("aster")
    with linked.book() as book:
        before = book.account("aster").head
    lie(registry)
    assert linked.run("status").exit_code == 5
    assert linked.run("status").exit_code == 5
    assert [about for about in alarms(linked) if about[0] == "aster"] == [("aster", kind)]
    with linked.book() as book:
        assert book.account("aster").head == before
        assert len(book.state.alarms[0].checkpoints) == checkpoints
    # It is the first thing that any command says, and does not keep anybody from withdrawing.
    registry.checkpoint_key, registry.hide_newest, registry.forged = None, 0, {}
    done = linked.run("withdraw", "aster")
    assert done.exit_code == 0
    assert done.err.startswith("ALARM: aster")
    linked.ok("export", "--out", linked.directory / "evidence")
    alarm = json.loads((linked.directory / "evidence" / "alarms.json").read_bytes())[0]
    assert (alarm["kind"], len(alarm["checkpoints"])) == (kind, checkpoints)


def test_a_promised_record_that_is_not_there_is_an_alarm(linked: Person, registry: FakeRegistry) -> None:
    registry.hide_newest = 1
    linked.grant("aster")
    registry.forged["aster"] = [digest("another record")]
    assert linked.run("status").exit_code == 5
    assert alarms(linked) == [("aster", "inclusion")]
    with linked.book() as book:
        (alarm,) = book.state.alarms
        assert (alarm.seq, len(alarm.promises), len(alarm.checkpoints), alarm.leaf is not None) == (1, 1, 1, True)


@pytest.mark.parametrize("forge", ["lane", "key"])
def test_a_forged_promise_is_an_alarm_and_the_record_still_waits(
    linked: Person, registry: FakeRegistry, forge: str
) -> None:
    if forge == "lane":
        registry.promised_lane = "birch"
    else:
        registry.promise_key = SigningKey.from_seed(bytes(32))
    assert linked.grant("aster").exit_code == 5
    assert alarms(linked) == [("aster", "promise")]
    registry.promised_lane = registry.promise_key = None
    with linked.book() as book:
        waiting = book.account("aster").unsent
    assert waiting is not None
    assert linked.run("status").exit_code == 5
    assert registry.lanes["aster"] == [waiting.submission]
    with linked.book() as book:
        assert book.account("aster").unproven == ()


def test_a_registry_that_lies_about_a_number_keeps_nobody_from_withdrawing(
    linked: Person, aster: DataHolder, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.grant("aster")
    monkeypatch.setattr(FakeRegistry, "position", lambda *_: 0)
    linked.at += 1
    assert linked.grant("aster", share="0.1").exit_code == 5
    assert alarms(linked) == [("aster", "position")]
    # A yes and a no go the same way on, or the registry could tell one from the other.
    assert linked.run("withdraw", "aster").exit_code == 5
    assert [len(record.grants) for record in aster.records] == [1, 1, 0]
    # Nothing is left to be said, and whether that is so cannot be believed.
    assert linked.run("withdraw", "aster").exit_code == 5
    done = linked.run("withdraw", "aster")
    assert done.exit_code == 3
    assert "NOT CHECKED" in done.out


def test_an_entry_made_up_for_our_tag_is_not_believed_and_outdates_no_wallet(
    linked: Person, aster: DataHolder, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.grant("aster")
    asked: list[bytes] = []

    def position(_: object, __: str, tag: bytes) -> int:
        asked.append(tag)
        return 0

    def entries(*_: object) -> list[Entry]:
        return [Entry(Stub(asked[-1], 1, bytes(32), bytes(32)), b"made up")]

    monkeypatch.setattr(FakeRegistry, "position", position)
    monkeypatch.setattr(FakeRegistry, "entries", entries)
    linked.at += 1
    assert linked.grant("aster", share="0.1").exit_code == 5
    linked.run("withdraw", "aster")
    with linked.book() as book:
        assert not book.account("aster").outdated
        alarm = book.state.alarms[0]
    assert (alarm.kind.value, len(alarm.checkpoints), alarm.leaf is not None) == ("position", 1, True)
    assert [len(record.grants) for record in aster.records] == [1, 1, 0]


def test_a_tag_that_is_said_to_be_taken_outdates_no_wallet_without_proof(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    def taken() -> None:
        raise RefusalError("The registry refused (status 409): tag taken.", RefusalCode.REPLAY)

    linked.grant("aster")
    registry.before_submit = taken
    linked.at += 1
    assert linked.grant("aster", share="0.1").exit_code == 3
    registry.before_submit = lambda: None
    with linked.book() as book:
        assert not book.account("aster").outdated
    assert linked.grant("aster", share="0.1").exit_code == 0
    assert [len(record.grants) for record in aster.records] == [1, 1]


def test_a_registry_that_answers_nonsense_keeps_nobody_from_withdrawing(
    linked: Person, aster: DataHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(*_: object) -> int | None:
        raise MalformedError("The registry's answer cannot be read as what was asked for.")

    linked.grant("aster")
    monkeypatch.setattr(FakeRegistry, "position", nonsense)
    linked.at += 1
    assert linked.grant("aster", share="0.1").exit_code == 0
    linked.ok("withdraw", "aster")
    assert [len(record.grants) for record in aster.records] == [1, 1, 0]


def test_evidence_of_the_same_lie_does_not_pile_up(linked: Person, registry: FakeRegistry) -> None:
    linked.grant("aster")
    registry.checkpoint_key = SigningKey.from_seed(bytes(32))
    sizes = set()
    for _ in range(3):
        linked.at += 1
        assert linked.run("status").exit_code == 5
        sizes.add((linked.home / "wallet.vault").stat().st_size)
    assert len(sizes) == 1


def test_killed_between_two_receipts_nothing_is_lost(linked: Person, registry: FakeRegistry) -> None:
    registry.hide_newest = 1
    linked.grant("aster")
    calls: list[None] = []
    tree = registry.tree

    def dies(lane: str, size: int) -> object:
        calls.append(None)
        raise KilledError

    registry.hide_newest = 0
    registry.tree = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(KilledError):
        linked.run("status")
    registry.tree = tree  # type: ignore[method-assign]
    linked.ok("status")
    with linked.book() as book:
        assert [written.receipt is not None for written in book.account("aster").written] == [True]
    assert len(calls) == 1


def test_an_exported_receipt_can_be_verified_by_a_stranger(linked: Person, tmp_path: Path) -> None:
    linked.grant("aster")
    linked.ok("export", "--out", tmp_path / "out")
    keys = json.loads((tmp_path / "out" / "keys.json").read_bytes())["aster"]
    file = tmp_path / "out" / "receipts" / "aster-1.json"
    assert "position 0" in linked.ok("receipts", "--verify", file).out
    assert linked.ok("receipts", "--verify", file, "--json").json["grants"] == 1
    stranger = Person(tmp_path / "stranger", linked.registry)
    both = ("--registry-key", keys["registry_key"], "--person-key", keys["person_key"])
    assert "position 0" in stranger.ok("receipts", "--verify", file, *both).out
    assert stranger.run("receipts", "--verify", file, *both[:2]).exit_code == 2
    assert stranger.run("receipts", *both).exit_code == 2
    assert stranger.run("receipts", "--verify", file, *both[:3], "f" * 63).exit_code == 2
    wrong = ("--registry-key", keys["person_key"], "--person-key", keys["person_key"])
    assert stranger.run("receipts", "--verify", file, *wrong).exit_code == 5
    receipt = read_receipt(file.read_bytes())
    altered = file.read_bytes().replace(
        receipt.proof[0].encode() if receipt.proof else b'"position":0', b'"position":1'
    )
    file.write_bytes(altered)
    assert linked.run("receipts", "--verify", file).exit_code == 5
