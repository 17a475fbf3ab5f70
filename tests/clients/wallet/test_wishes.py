"""Granting, withdrawing, freezing, thawing from the command line, and how it ends when a registry does not answer."""

from pathlib import Path

import click
import pytest

from clients.wallet.cli import wallet
from privacy.consent.record import Purpose
from privacy.consent.sealing import LaneKey
from privacy.consent.submission import parse_frames
from privacy.errors import RefusalCode, RefusalError
from tests.clients.wallet.parties import AT, DAY_S, DataHolder, FakeRegistry, KilledError, Person


def test_a_grant_says_what_was_asked_for_and_nothing_else(linked: Person, aster: DataHolder) -> None:
    done = linked.ok(
        "grant", "aster", "--purpose", "train", "--to", "open-scoring", "--data", "capacity", "--data", "behaviour",
        "--days", "300", "--reconfirm-days", "100", "--retain-days", "365", "--epsilon", "1.5", "--share", "0.25",
        "--window-days", "90",
    )  # fmt: skip
    assert "receipt is kept" in done.out
    assert "counts as 1" in done.err
    (record,) = aster.records
    (grant,) = record.grants
    assert (record.seq, record.prev, record.handle, record.frozen) == (1, None, aster.handle, False)
    assert (grant.purpose, grant.to, grant.data) == (Purpose.TRAIN, "open-scoring", ("behaviour", "capacity"))
    # AT is midnight: the day that has only just begun is begun a day early.
    assert (grant.nbf, grant.exp, grant.reconfirm_by) == (AT - DAY_S, AT + 300 * DAY_S, AT + 100 * DAY_S)
    assert (grant.retain_s, grant.uses) == (365 * DAY_S, None)
    assert grant.dp is not None
    assert (grant.dp.eps_milli, grant.dp.share_milli, grant.dp.window_s) == (1500, 250, 90 * DAY_S)
    linked.ok(
        "grant", "aster", "--purpose", "score", "--to", "harbour-lending", "--data", "capacity", "--days", "30",
        "--retain-days", "0", "--uses", "12", "--per-days", "30",
    )  # fmt: skip
    both = aster.records[-1]
    assert both.seq == 2
    assert [grant.purpose for grant in both.grants] == [Purpose.SCORE, Purpose.TRAIN]
    assert both.grants[0].uses is not None
    assert (both.grants[0].uses.n, both.grants[0].uses.per_s) == (12, 30 * DAY_S)


def test_a_grant_for_the_same_purpose_and_recipient_replaces_the_one_before(linked: Person, aster: DataHolder) -> None:
    linked.grant("aster", share="0.5")
    linked.at += 1
    linked.grant("aster", share="0.25")
    assert [grant.dp.share_milli for grant in aster.records[-1].grants if grant.dp] == [250]


def test_withdrawing_takes_everything_or_only_what_is_named(linked: Person, aster: DataHolder) -> None:
    for to in ("open-scoring", "another"):
        assert linked.grant("aster", to=to, share="0.1").exit_code == 0
    linked.ok("withdraw", "aster", "--to", "another")
    assert [grant.to for grant in aster.records[-1].grants] == ["open-scoring"]
    linked.ok("withdraw", "aster")
    assert aster.records[-1].grants == ()
    count = len(aster.records)
    for again in (("withdraw", "aster"), ("withdraw", "aster", "--to", "another"), ("withdraw", "--all")):
        linked.ok(*again)
    assert len(aster.records) == count


def test_a_misspelt_withdrawal_does_not_look_like_one_that_was_done(linked: Person) -> None:
    linked.grant("aster")
    assert linked.run("withdraw", "aster", "--to", "open-skoring").exit_code == 2
    assert linked.run("withdraw", "aster", "--purpose", "score").exit_code == 2
    assert linked.run("withdraw").exit_code == 2
    assert linked.run("withdraw", "aster", "--all").exit_code == 2
    assert linked.run("withdraw", "cedar").exit_code == 2


def test_withdrawing_needs_no_more_steps_options_prompts_or_credentials_than_granting(
    linked: Person, aster: DataHolder
) -> None:
    def required(command: click.Command) -> list[click.Parameter]:
        return [param for param in command.params if param.required]

    def prompts(command: click.Command) -> list[click.Parameter]:
        return [param for param in command.params if isinstance(param, click.Option) and param.prompt]

    commands = wallet.commands
    counted = len(required(commands["grant"]))
    assert counted >= 5
    for name in ("withdraw", "freeze"):
        assert len(required(commands[name])) < counted
        assert len(prompts(commands[name])) <= len(prompts(commands["grant"]))
    # One command each, with the same passphrase and no other input: nothing is asked on the way.
    calls: list[str] = []
    registry = aster.registry
    registry.before_submit = lambda: calls.append("submit")
    assert linked.grant("aster").exit_code == 0
    granting = len(calls)
    calls.clear()
    linked.ok("withdraw", "aster")
    assert len(calls) <= granting
    assert [len(record.grants) for record in aster.records] == [1, 0]
    sizes = {len(submission.ciphertext) for submission in registry.lanes["aster"]}
    assert len(sizes) == 1


def test_freeze_reaches_every_data_holder_in_one_command_and_thaw_brings_all_back(
    linked: Person, aster: DataHolder, birch: DataHolder
) -> None:
    linked.grant("aster", share="0.5")
    linked.grant("birch", share="0.5")
    linked.ok("freeze")
    for holder in (aster, birch):
        assert (holder.records[-1].frozen, len(holder.records[-1].grants)) == (True, 1)
    linked.ok("freeze")
    assert len(aster.records) == 2
    linked.ok("thaw", "aster")
    assert (aster.records[-1].frozen, aster.records[-1].grants) == (False, aster.records[0].grants)
    assert birch.records[-1].frozen
    linked.ok("thaw")
    assert not birch.records[-1].frozen


def test_one_registry_that_is_down_stops_no_other_and_the_same_command_finishes(
    linked: Person, aster: DataHolder, birch: DataHolder, registry: FakeRegistry
) -> None:
    linked.grant("aster", share="0.5")
    linked.grant("birch", share="0.5")
    registry.down = {"aster"}
    linked.at += 1
    done = linked.run("freeze")
    assert done.exit_code == 3
    assert "1 of 2" in done.err
    assert "NOT DELIVERED" in done.out
    assert birch.records[-1].frozen
    assert not aster.records[-1].frozen
    with linked.book() as book:
        waiting = book.account("aster").unsent
    assert waiting is not None
    registry.down = set()
    linked.at += 100
    linked.ok("freeze")
    assert [(record.seq, record.frozen) for record in aster.records] == [(1, False), (2, True)]
    assert registry.lanes["aster"][-1] == waiting.submission
    assert len(birch.records) == 2


def test_a_wallet_that_cannot_write_at_one_data_holder_still_writes_at_the_others(
    linked: Person, birch: DataHolder, registry: FakeRegistry
) -> None:
    registry.down = {"aster"}
    done = linked.run("freeze")
    assert done.exit_code == 3
    assert "aster: signed and kept, but NOT DELIVERED" in done.out
    assert birch.records[-1].frozen


def test_a_restriction_that_the_registry_refuses_goes_through_the_side_door(
    linked: Person, birch: DataHolder, registry: FakeRegistry
) -> None:
    linked.grant("birch")
    registry.refuses = {"birch"}
    linked.at += 1
    done = linked.ok("withdraw", "birch")
    assert "took record 2 itself" in done.out
    ((url, frames),) = linked.handed
    assert url == "https://birch.example:8450/records"
    (submission,) = parse_frames(frames)
    assert (birch.opened(submission).seq, birch.opened(submission).grants) == (2, ())
    # It is still sent to the registry, the same bytes, and not handed over twice.
    assert linked.run("status").exit_code == 3
    assert len(linked.handed) == 1
    registry.refuses = set()
    linked.ok("status")
    assert registry.lanes["birch"][-1] == submission


def test_a_grant_never_goes_through_the_side_door(linked: Person, registry: FakeRegistry) -> None:
    linked.grant("birch", share="0.5")
    registry.refuses = {"birch"}
    linked.at += 1
    assert linked.grant("birch", share="0.6").exit_code == 3
    assert linked.run("thaw").exit_code == 3
    assert linked.handed == []
    assert linked.grant("birch", share="0.55").exit_code == 3  # less than what waits, more than what is there
    assert linked.handed == []
    # Fewer grants are a restriction, measured against what somebody has: the wider grant never got there.
    linked.at += 1
    assert linked.run("withdraw", "birch", "--to", "open-scoring").exit_code == 0
    assert len(linked.handed) == 1


def test_without_a_side_door_that_answers_the_record_waits(linked: Person, registry: FakeRegistry) -> None:
    linked.grant("birch")
    registry.down = {"birch"}
    linked.side_door_open = False
    done = linked.run("withdraw", "birch")
    assert done.exit_code == 3
    assert "NOT DELIVERED" in done.out
    linked.side_door_open = True
    linked.ok("withdraw", "birch")
    assert len(linked.handed) == 1


def test_a_sealed_record_can_be_carried_by_hand(linked: Person, aster: DataHolder, tmp_path: Path) -> None:
    linked.grant("aster")
    aster.registry.down = {"aster"}
    assert linked.run("withdraw", "aster", "--direct-out", tmp_path / "frame").exit_code == 3
    (submission,) = parse_frames((tmp_path / "frame").read_bytes())
    assert aster.opened(submission).grants == ()
    assert (tmp_path / "frame").stat().st_mode & 0o777 == 0o600
    assert linked.run("withdraw", "aster", "--direct-out", tmp_path / "frame").exit_code == 2
    assert linked.run("freeze", "--direct-out", tmp_path / "other").exit_code == 2


@pytest.mark.parametrize("moment", ["before_submit", "after_submit"])
@pytest.mark.parametrize("then", [("grant",), ("status",)])
def test_killed_in_the_middle_the_same_bytes_are_sent_and_no_number_is_used_twice(
    linked: Person, aster: DataHolder, registry: FakeRegistry, moment: str, then: tuple[str]
) -> None:
    def kill() -> None:
        raise KilledError

    setattr(registry, moment, kill)
    with pytest.raises(KilledError):
        linked.grant("aster")
    with linked.book() as book:
        kept = book.account("aster").unsent
    assert kept is not None
    setattr(registry, moment, lambda: None)
    linked.at += 5
    assert (linked.grant("aster") if then == ("grant",) else linked.run(*then)).exit_code == 0
    assert registry.lanes["aster"] == [kept.submission]
    assert {leaf for lane, leaf in registry.submitted if lane == "aster"} == {kept.submission.stub.leaf()}
    with linked.book() as book:
        assert [written.seq for written in book.account("aster").written] == [1]
        assert book.account("aster").written[0].receipt is not None


def test_nothing_leaves_that_could_not_be_kept_first(
    linked: Person, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clients.wallet import book as book_module

    def full(*_: object, **__: object) -> None:
        raise RefusalError("wallet.vault could not be written (No space left on device).", RefusalCode.INTERNAL)

    monkeypatch.setattr(book_module, "write_whole", full)
    assert linked.grant("aster").exit_code == 3
    assert registry.submitted == []


def test_shares_over_all_data_holders_stay_at_one(linked: Person, aster: DataHolder, birch: DataHolder) -> None:
    assert linked.grant("aster", share="0.7").exit_code == 0
    done = linked.grant("birch", share="0.301")
    assert done.exit_code == 3
    assert "1001" in done.err
    assert birch.records == []
    assert linked.grant("birch", share="0.3").exit_code == 0


def test_a_cap_too_small_to_take_part_is_said(linked: Person) -> None:
    done = linked.grant("aster", epsilon="0.249")
    assert done.exit_code == 0
    assert "no part" in done.err
    (grant,) = linked.ok("status", "--json").json["holders"][0]["grants"]
    assert "takes no part" in grant["state"]


@pytest.mark.parametrize(
    "wrong", [
        ["--share", "1.1"], ["--share", "0"], ["--share", "nan"], ["--share", "1e-1"], ["--share", "0.0005"],
        ["--epsilon", "-1"], ["--epsilon", "101"], ["--epsilon", "١"], ["--days", "401"], ["--days", "0"],
        ["--to", "Open Scoring"], ["--data", "income"], ["--purpose", "everything"], ["--uses", "3"],
        ["--reconfirm-days", "301"],
    ]
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused_and_nothing_is_written(
    linked: Person, registry: FakeRegistry, wrong: list[str]
) -> None:
    done = linked.run(
        "grant", "aster", "--purpose", "train", "--to", "open-scoring", "--data", "capacity", "--days", "300",
        "--retain-days", "365", "--epsilon", "1", "--share", "0.5", *wrong,
    )  # fmt: skip
    assert done.exit_code == 2, done
    assert registry.submitted == []


def test_score_needs_a_limit_of_uses(linked: Person) -> None:
    line = [
        "grant",
        "aster",
        "--purpose",
        "score",
        "--to",
        "a",
        "--data",
        "capacity",
        "--days",
        "3",
        "--retain-days",
        "1",
    ]
    assert linked.run(*line).exit_code == 2
    assert linked.run(*line, "--uses", "1").exit_code == 2
    assert linked.run(*line, "--uses", "1", "--per-days", "1", "--epsilon", "1").exit_code == 2
    assert linked.run(*line, "--uses", "1", "--per-days", "1").exit_code == 0


def test_a_key_set_that_is_forged_expired_or_older_than_one_seen_is_not_sealed_to(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    aster.publish(2)
    assert linked.grant("aster").exit_code == 0
    aster.publish(1)
    assert linked.grant("aster", share="0.4").exit_code == 5
    with linked.book() as book:
        (alarm,) = book.state.alarms
    assert (alarm.kind.value, alarm.key_set) == ("key-set", registry.key_sets["aster"].decode())
    aster.publish(2, epoch=7)
    assert linked.grant("aster", share="0.3").exit_code == 0
    impostor = DataHolder("aster", FakeRegistry())
    impostor.identity = type(aster.identity).from_seed(bytes(32))
    impostor.lane_key = LaneKey.generate()
    impostor.publish(3, epoch=9)
    registry.key_sets["aster"] = impostor.registry.key_sets["aster"]
    assert linked.grant("aster", share="0.2").exit_code == 0
    linked.ok("withdraw", "aster")
    assert [(record.aud_kid, len(record.grants)) for record in aster.records] == [(1, 1)] * 4 + [(1, 0)]
    aster.publish(3, at=AT)
    linked.at = AT + 91 * DAY_S
    assert linked.grant("aster").exit_code == 3


def test_a_new_epoch_is_taken_from_the_key_set(linked: Person, aster: DataHolder) -> None:
    aster.publish(2, epoch=5)
    linked.grant("aster")
    assert aster.records[-1].aud_kid == 5
