"""What a wallet sends, dates and seals again: no registry keeps a no back, or can tell it from a yes."""

import pytest

from clients.wallet.cli_wishes import whole_days
from clients.wallet.sending import Sender
from privacy.consent.limits import MAX_SUBMISSIONS
from privacy.errors import RefusalCode, RefusalError
from tests.clients.wallet.parties import AT, DAY_S, DataHolder, FakeRegistry, Person


@pytest.mark.parametrize("answer", [b"{}", None])
@pytest.mark.parametrize("command", ["grant", "withdraw", "freeze", "thaw"])
def test_a_registry_cannot_tell_a_yes_from_a_no_by_answering_with_no_key_set(
    linked: Person, aster: DataHolder, registry: FakeRegistry, command: str, answer: bytes | None
) -> None:
    linked.grant("aster", share="0.3")
    if command == "thaw":
        linked.ok("freeze", "aster")
    sent = len(registry.submitted)
    linked.at += 1
    if answer is None:
        del registry.key_sets["aster"]
        registry.key_set = _no_key_set  # type: ignore[method-assign, assignment]
    else:
        registry.key_sets["aster"] = answer
    done = linked.grant("aster", share="0.4") if command == "grant" else linked.run(command, "aster")
    assert done.exit_code == (0 if answer is None else 5)
    assert len(registry.submitted) == sent + 1


def _no_key_set(_: str) -> bytes:
    raise RefusalError("The registry refused (status 404).", RefusalCode.LANE)


def test_an_unsent_record_that_the_registry_refuses_holds_up_no_later_one(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    linked.grant("aster", share="0.3")
    registry.down = {"aster"}
    linked.at += 60
    assert linked.grant("aster", share="0.5").exit_code == 3
    linked.at += DAY_S
    aster.publish(2, epoch=2)
    registry.down, registry.epochs["aster"] = set(), {2}
    linked.ok("withdraw", "aster")
    assert [(record.seq, len(record.grants)) for record in aster.records] == [(1, 1), (3, 0)]
    with linked.book() as book:
        account = book.account("aster")
    assert [(written.seq, written.lost) for written in account.written] == [(1, False), (2, True), (3, False)]
    assert (account.unsent, account.superseded) == (None, ())
    # It is kept for its owner, and never sent again.
    sent = len(registry.submitted)
    linked.ok("status")
    assert len(registry.submitted) == sent
    linked.ok("export", "--out", linked.directory / "out")
    assert (linked.directory / "out" / "records" / "aster-2.json").exists()


def test_a_superseded_record_follows_only_when_the_newer_one_is_proved_to_be_there(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    registry.down = {"aster"}
    assert linked.grant("aster").exit_code == 3
    linked.at += 60
    assert linked.run("withdraw", "aster").exit_code == 3
    registry.down, registry.hide_newest = set(), 1
    linked.ok("status")
    assert [record.seq for record in aster.records] == [2]
    registry.hide_newest = 0
    linked.ok("status")
    assert [record.seq for record in aster.records] == [2, 1]
    linked.ok("status")
    with linked.book() as book:
        assert all(written.receipt for written in book.account("aster").written)


def test_any_number_of_unsent_records_holds_up_no_withdrawal(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    linked.grant("aster")
    with linked.book() as book:
        sender = Sender(book, linked.connect, linked.side_door)
        registry.down = {"aster"}
        for step in range(MAX_SUBMISSIONS + 2):
            delivery = sender.change("aster", lambda wishes: wishes.with_freeze(not wishes.frozen), at=AT + step)
            assert not delivery.arrived
    registry.down = set()
    linked.at += DAY_S
    linked.ok("withdraw", "aster")
    newest = max(aster.records, key=lambda record: record.seq)
    assert (newest.seq, newest.grants) == (MAX_SUBMISSIONS + 4, ())


def test_a_withdrawal_whose_key_is_listed_no_more_is_sealed_again_to_the_current_one(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    linked.grant("aster")
    registry.down = {"aster"}
    linked.at += 60
    assert linked.run("withdraw", "aster").exit_code == 3
    aster.publish(2, epoch=2)
    registry.down, registry.epochs["aster"] = set(), {2}
    linked.ok("status")
    assert [(record.seq, record.aud_kid, len(record.grants)) for record in aster.records] == [(1, 1, 1), (3, 2, 0)]
    linked.ok("withdraw", "aster")
    assert len(aster.records) == 2


def test_a_grant_whose_key_is_listed_no_more_is_written_anew_only_when_it_is_asked_for_again(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    registry.down = {"aster"}
    assert linked.grant("aster").exit_code == 3
    aster.publish(2, epoch=2)
    registry.down, registry.epochs["aster"] = set(), {2}
    for _ in range(2):
        done = linked.run("status")
        assert done.exit_code == 3
        assert "writes a new record" in done.err
    assert "REFUSED" in done.out
    assert linked.grant("aster").exit_code == 0
    assert [(record.seq, record.aud_kid) for record in aster.records] == [(2, 2)]


def test_a_restriction_sealed_to_an_expired_key_is_not_delivered_until_it_is_sealed_again(
    linked: Person, aster: DataHolder, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.grant("aster")
    linked.at += 150 * DAY_S
    with monkeypatch.context() as patch:
        patch.setattr(registry, "key_set", _no_key_set)
        for command in ("withdraw", "withdraw", "status"):
            done = linked.run(command, *(["aster"] if command == "withdraw" else []))
            assert done.exit_code == 3
            assert "a key that has expired" in done.out + done.err
        assert "EXPIRED" in done.out
    assert [record.seq for record in aster.records] == [1, 2]
    aster.publish(2, at=linked.at, epoch=2)
    linked.ok("status")
    assert [(record.seq, record.aud_kid, len(record.grants)) for record in aster.records][2:] == [(3, 2, 0)]
    linked.ok("withdraw", "aster")
    assert len(aster.records) == 3


def test_a_restriction_sealed_to_an_expired_key_that_is_current_again_is_left_as_it_is(
    linked: Person, aster: DataHolder, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.grant("aster")
    linked.at += 150 * DAY_S
    with monkeypatch.context() as patch:
        patch.setattr(registry, "key_set", _no_key_set)
        assert linked.run("freeze", "aster").exit_code == 3
    aster.publish(2, at=linked.at)
    linked.ok("status")
    linked.ok("freeze", "aster")
    assert [record.seq for record in aster.records] == [1, 2]


def test_a_side_door_that_opens_a_restriction_sealed_to_an_expired_key_is_enough(
    linked: Person, birch: DataHolder, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked.grant("birch")
    linked.at += 150 * DAY_S
    monkeypatch.setattr(registry, "key_set", _no_key_set)
    done = linked.ok("withdraw", "birch")
    assert "took record 2 itself" in done.out
    assert len(linked.handed) == 1


@pytest.mark.parametrize("second", [0, 1, 599, 600, 43_200, DAY_S - 1])
@pytest.mark.parametrize("days", [1, 30, 400])
def test_a_grant_is_dated_by_whole_days_and_counts_at_once(second: int, days: int) -> None:
    at = AT + second
    begin, end = whole_days(at, days)
    assert begin % DAY_S == end % DAY_S == 0
    assert begin <= at - 600
    assert at < end <= at + days * DAY_S
    assert end - begin <= 400 * DAY_S
    assert end - AT == days * DAY_S or days == 400


def test_records_for_several_data_holders_have_no_second_in_common_that_others_have_not(
    linked: Person, aster: DataHolder, birch: DataHolder
) -> None:
    linked.at = AT + 12_345
    linked.grant("aster", share="0.1")
    linked.at += 77
    linked.grant("birch", share="0.2")
    linked.at += 3 * 3600
    linked.ok("freeze")
    for holder in (aster, birch):
        first, second = holder.records
        assert (first.iat, second.iat) == (AT + 3 * 3600, AT + 6 * 3600)
        for grant in first.grants:
            assert {grant.nbf % DAY_S, grant.exp % DAY_S, grant.reconfirm_by % DAY_S} == {0}
    linked.at -= 5 * 3600  # a clock that was set back: no record is dated before the one that it replaces
    linked.ok("withdraw", "aster")
    assert aster.records[-1].iat == aster.records[-2].iat
