"""Linking: whose offer is answered, and how a wallet that was lost or restored goes on without using a number twice."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from clients.wallet.numbering import UNKNOWN_PREVIOUS, highest_used
from clients.wallet.wallet import Wallet
from privacy.consent.canonical import base64url
from privacy.consent.linking import LinkOffer, Newest, Notice, fingerprint, notice_digest, read_answer, read_offer
from privacy.consent.record import Terms, encode_record, payload_digest
from privacy.consent.signing import SigningKey
from tests.clients.wallet.parties import (
    AT,
    DAY_S,
    NOTICE,
    NOTICE_TEXT,
    PASSPHRASE,
    DataHolder,
    FakeRegistry,
    Person,
    digest,
)


def newest_of(holder: DataHolder) -> Newest:
    record = max(holder.records, key=lambda record: record.seq)
    return Newest(seq=record.seq, digest=payload_digest(encode_record(record)))


def recovered(person: Person, tmp_path: Path, code: str) -> Person:
    """The same person on a new device, from the code on paper."""
    other = Person(tmp_path / "new device", person.registry)
    (tmp_path / "paper").write_text(code)
    other.ok("init", "--recover", "--recovery-file", tmp_path / "paper")
    return other


def test_linking_shows_whom_to_call_and_answers_with_a_proof_of_the_key(person: Person, aster: DataHolder) -> None:
    offer = aster.offer()
    done = person.link(aster, offer)
    assert done.exit_code == 0
    assert fingerprint(aster.identity.public) in done.out
    assert NOTICE_TEXT in done.out
    assert "aster" in done.out
    (answer,) = person.directory.glob("answer-*.json")
    with person.book() as book:
        key = book.state.wallet().key_for("aster").public
    assert read_answer(answer.read_bytes(), offer=offer, at=AT) == key
    assert answer.stat().st_mode & 0o777 == 0o600
    assert aster.records == []


def test_an_answer_is_never_written_over_another_file(person: Person, aster: DataHolder, tmp_path: Path) -> None:
    (tmp_path / "offer").write_bytes(aster.signed_offer())
    (tmp_path / "answer").write_text("mine")
    assert person.run("link", tmp_path / "offer", "--out", tmp_path / "answer").exit_code == 2
    assert (tmp_path / "answer").read_text() == "mine"


def test_an_offer_that_is_forged_late_or_no_offer_is_not_answered(person: Person, aster: DataHolder) -> None:
    late = aster.offer(at=AT - 8 * DAY_S)
    assert person.link(aster, late).exit_code == 3
    path = person.directory / "offer"
    good = aster.signed_offer()
    for data, code in ((good[:-30] + good[-29:], 4), (b"", 4), (b"{}", 4)):
        path.write_bytes(data)
        assert person.run("link", path, "--out", person.directory / "never").exit_code == code
    assert person.run("link", path.with_name("absent"), "--out", person.directory / "never").exit_code == 2
    assert not (person.directory / "never").exists()


def test_an_offer_that_posed_as_the_data_holder_does_not_shut_out_the_real_one(
    person: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    impostor = DataHolder("aster", registry)
    impostor.identity = SigningKey.from_seed(bytes(32))
    impostor.publish(1)
    assert person.link(impostor).exit_code == 0
    aster.publish(1)
    done = person.link(aster)
    assert done.exit_code == 0
    assert fingerprint(impostor.identity.public) in done.err
    assert "dropped" in done.err
    assert fingerprint(aster.identity.public) in done.out
    assert person.grant("aster").exit_code == 0
    assert len(aster.records) == 1
    assert person.link(impostor).exit_code == 5
    assert person.link(aster).exit_code == 0


def test_another_identity_under_the_same_name_is_refused_for_ever_once_something_was_written(
    linked: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    registry.refuses = {"aster"}
    assert linked.run("freeze", "aster").exit_code == 3  # written is enough; it need not have arrived
    registry.refuses = set()
    impostor = DataHolder("aster", FakeRegistry())
    impostor.identity = SigningKey.from_seed(bytes(32))
    done = linked.link(impostor)
    assert done.exit_code == 5
    assert "fingerprint" in done.err
    elsewhere = replace(
        aster.offer(), registry=replace(aster.offer().registry, key=base64url(SigningKey.generate().public))
    )
    assert linked.link(aster, elsewhere).exit_code == 5
    assert linked.grant("aster").exit_code == 0


def test_a_registry_that_is_down_does_not_keep_a_new_wallet_from_linking(
    person: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    registry.down = {"aster"}
    done = person.link(aster)
    assert done.exit_code == 0
    assert "sealing keys" in done.err
    assert person.run("withdraw", "aster").exit_code == 3
    assert person.grant("aster").exit_code == 3
    registry.down = set()
    assert person.grant("aster").exit_code == 0


def test_a_recovered_wallet_goes_on_after_the_number_in_the_offer(
    tmp_path: Path, registry: FakeRegistry, aster: DataHolder
) -> None:
    person = Person(tmp_path / "old device", registry)
    code = person.ok("init").out
    person.link(aster)
    for step in range(3):
        person.at += 1
        assert person.grant("aster", share=f"0.{step + 1}").exit_code == 0
    again = recovered(person, tmp_path, code)
    # The lane shows that there were records, and only the data holder can say which was the newest.
    done = again.link(aster)
    assert done.exit_code == 3
    assert "fresh offer" in done.err
    assert "3 records" in done.err
    assert again.run("withdraw", "aster").exit_code == 2
    done = again.link(aster, aster.offer(newest=newest_of(aster)))
    assert done.exit_code == 0
    assert "does not know what you granted" in done.err
    status = again.ok("status", "--json").json["holders"][0]
    assert (status["known"], status["record"]) == (False, None)
    again.ok("withdraw", "aster")
    last = aster.records[-1]
    assert (last.seq, last.grants) == (4, ())
    assert last.prev == payload_digest(encode_record(aster.records[-2]))
    assert last.kid == aster.records[0].kid


def test_a_recovered_wallet_needs_the_registry_to_link(
    tmp_path: Path, registry: FakeRegistry, aster: DataHolder
) -> None:
    person = Person(tmp_path / "old device", registry)
    again = recovered(person, tmp_path, person.ok("init").out)
    registry.down = {"aster"}
    assert again.link(aster).exit_code == 3
    registry.down = set()
    assert again.link(aster).exit_code == 0


def test_a_wallet_restored_from_an_old_copy_never_uses_a_number_twice(
    linked: Person, aster: DataHolder, registry: FakeRegistry, tmp_path: Path
) -> None:
    linked.grant("aster", share="0.1")
    shutil.copytree(linked.home, tmp_path / "copy")
    linked.at += 1
    linked.grant("aster", share="0.2")
    shutil.rmtree(linked.home)
    shutil.copytree(tmp_path / "copy", linked.home)
    linked.at += 1
    done = linked.grant("aster", share="0.3")
    assert done.exit_code == 3
    assert "old copy" in done.err
    assert len(aster.records) == 2
    assert linked.ok("status", "--json").json["holders"][0]["outdated"] is True
    assert linked.link(aster).exit_code == 3
    assert linked.link(aster, aster.offer(newest=newest_of(aster))).exit_code == 0
    linked.ok("withdraw", "aster")
    assert [(record.seq, len(record.grants)) for record in aster.records] == [(1, 1), (2, 1), (3, 0)]
    assert len({submission.stub.tag for submission in registry.lanes["aster"]}) == 3


@pytest.mark.parametrize("command", ["withdraw", "freeze"])
def test_a_wallet_restored_from_an_old_copy_can_still_say_no(
    linked: Person, aster: DataHolder, registry: FakeRegistry, tmp_path: Path, command: str
) -> None:
    shutil.copytree(linked.home, tmp_path / "copy")
    for share in ("0.1", "0.2"):
        linked.at += 1
        linked.grant("aster", share=share)
    shutil.rmtree(linked.home)
    shutil.copytree(tmp_path / "copy", linked.home)
    linked.at += 1
    linked.ok(command, "aster")
    last = aster.records[-1]
    assert (last.seq, last.grants, last.frozen) == (3, (), command == "freeze")
    assert last.prev == UNKNOWN_PREVIOUS
    linked.at += 1
    assert linked.grant("aster", share="0.3").exit_code == 0  # what was said last is known again
    assert [record.seq for record in aster.records] == [1, 2, 3, 4]


def test_a_record_that_lost_its_place_to_another_copys_is_not_sent_again(
    linked: Person, aster: DataHolder, registry: FakeRegistry, tmp_path: Path
) -> None:
    shutil.copytree(linked.home, tmp_path / "copy")
    linked.grant("aster", share="0.1")
    shutil.rmtree(linked.home)
    shutil.copytree(tmp_path / "copy", linked.home)
    registry.down = {"aster"}  # so that the number counts as free
    linked.at += 1
    assert linked.grant("aster", share="0.2").exit_code == 3
    registry.down = set()
    done = linked.run("status")
    assert done.exit_code == 3
    assert "another copy" in done.err
    assert len(aster.records) == 1
    assert linked.link(aster).exit_code == 3
    assert linked.link(aster, aster.offer(newest=newest_of(aster))).exit_code == 0
    sent = len(registry.submitted)
    linked.ok("status")
    assert len(registry.submitted) == sent
    linked.ok("withdraw", "aster")
    assert [record.seq for record in aster.records] == [1, 2]


def test_an_offer_cannot_push_a_wallet_beyond_what_the_lane_has(linked: Person, aster: DataHolder) -> None:
    linked.grant("aster")
    far = Newest(seq=2**53 - 1, digest=base64url(digest("nothing")))
    assert linked.link(aster, aster.offer(newest=far)).exit_code == 5
    other = Newest(seq=1, digest=base64url(digest("another record")))
    assert linked.link(aster, aster.offer(newest=other)).exit_code == 5
    assert linked.link(aster, aster.offer(newest=newest_of(aster))).exit_code == 0
    linked.ok("withdraw", "aster")
    assert [record.seq for record in aster.records] == [1, 2]


def test_a_new_handle_begins_with_nothing_known_and_numbers_go_on(linked: Person, aster: DataHolder) -> None:
    linked.grant("aster")
    linked.at += 1
    linked.ok("withdraw", "aster")
    aster.handle = digest("another handle")
    assert linked.link(aster).exit_code == 0
    assert linked.ok("status", "--json").json["holders"][0]["known"] is False
    linked.grant("aster", share="0.2")
    assert (aster.records[-1].seq, aster.records[-1].handle) == (3, aster.handle)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_offer_for_another_customer_number_does_not_take_the_place_of_a_grant(
    linked: Person, aster: DataHolder, frozen: bool
) -> None:
    linked.grant("aster")
    if frozen:
        linked.ok("freeze")
    first, aster.handle = aster.handle, digest("another handle")
    done = linked.link(aster)
    assert done.exit_code == 3
    assert "another customer number" in done.err
    linked.at += 1
    linked.ok("withdraw", "aster")
    assert (aster.records[-1].handle, aster.records[-1].grants) == (first, ())


def test_a_newer_notice_is_the_one_that_records_name(linked: Person, aster: DataHolder) -> None:
    linked.grant("aster")
    text = "A newer notice.\n"
    newer = Notice(terms=Terms(id="notice-2", sha256=notice_digest(text), lang="en"), text=text, jur="TW")
    assert linked.link(aster, aster.offer(notice=newer, newest=newest_of(aster))).exit_code == 0
    linked.ok("withdraw", "aster")
    assert [record.terms for record in aster.records] == [NOTICE.terms, newer.terms]
    linked.ok("export", "--out", linked.directory / "out")
    assert len(list((linked.directory / "out" / "views").iterdir())) == 2
    assert len(list((linked.directory / "out" / "notices").glob("aster-*"))) == 2


@pytest.mark.parametrize("granted", [True, False])
@pytest.mark.parametrize("command", ["withdraw", "freeze"])
def test_a_copy_that_says_no_already_and_cannot_ask_does_not_look_like_a_withdrawal(
    linked: Person, aster: DataHolder, registry: FakeRegistry, tmp_path: Path, command: str, granted: bool
) -> None:
    if granted:
        linked.grant("aster", share="0.1")
    if granted or command == "freeze":
        linked.ok(command, "aster")
    shutil.copytree(linked.home, tmp_path / "copy")
    linked.at += 1
    if command == "freeze":
        linked.ok("thaw", "aster")
    linked.grant("aster", share="0.2")
    linked.home = tmp_path / "copy"
    registry.down = {"aster"}
    done = linked.run(command, "aster")
    assert done.exit_code == 3
    assert "NOT CHECKED, and nothing was written" in done.out
    assert "may still stand" in done.out
    assert "receipt is kept" not in done.out
    count = len(aster.records)
    registry.down = set()
    linked.ok(command, "aster")
    assert len(aster.records) == count + 1
    assert aster.records[-1].grants == ()


@pytest.mark.parametrize("registry_takes_it", [True, False])
def test_a_wallet_that_skipped_numbers_can_be_linked_again(
    linked: Person, birch: DataHolder, registry: FakeRegistry, tmp_path: Path, registry_takes_it: bool
) -> None:
    linked.grant("birch", share="0.1")
    shutil.copytree(linked.home, tmp_path / "copy")
    linked.at += 1
    linked.grant("birch", share="0.2")
    linked.home = tmp_path / "copy"
    linked.at += 1
    assert linked.grant("birch", share="0.3").exit_code == 3
    registry.down = {"birch"}
    linked.ok("withdraw", "birch")
    assert len(linked.handed) == 1
    registry.down, registry.refuses = set(), set() if registry_takes_it else {"birch"}
    with linked.book() as book:
        memory = book.account("birch").memory
    assert memory.digest is not None
    offer = birch.offer(newest=Newest(seq=memory.seq, digest=memory.digest))
    assert linked.link(birch, offer).exit_code == 0
    linked.at += 1
    registry.refuses = set()
    linked.ok("freeze", "birch")
    newest = max(birch.records, key=lambda record: record.seq)
    assert (newest.seq, newest.frozen) == (memory.seq + 1, True)


def test_a_recovered_wallet_sees_a_record_behind_skipped_numbers(
    tmp_path: Path, registry: FakeRegistry, aster: DataHolder
) -> None:
    person = Person(tmp_path / "old device", registry)
    code = person.ok("init").out
    person.link(aster)
    assert person.grant("aster", share="0.1").exit_code == 0
    with person.book() as book:
        book.put(replace(book.account("aster"), outdated=True))
    registry.down = {"aster"}
    assert person.run("withdraw", "aster").exit_code == 3
    registry.down = set()
    person.ok("withdraw", "aster")
    person.at += 1
    assert person.grant("aster", share="0.2").exit_code == 0
    assert [record.seq for record in aster.records] == [1, 34, 35]
    again = recovered(person, tmp_path, code)
    first = Newest(seq=1, digest=payload_digest(encode_record(aster.records[0])))
    assert again.link(aster, aster.offer(newest=first)).exit_code == 3
    assert again.link(aster, aster.offer(newest=newest_of(aster))).exit_code == 0
    again.ok("withdraw", "aster")
    assert aster.records[-1].seq == 36


def test_a_recovered_wallet_says_once_at_each_data_holder_that_earlier_shares_may_still_count(
    tmp_path: Path, registry: FakeRegistry, aster: DataHolder, birch: DataHolder
) -> None:
    person = Person(tmp_path / "old device", registry)
    code = person.ok("init").out
    person.link(aster)
    assert "may still count" not in person.grant("aster", share="1").err
    again = recovered(person, tmp_path, code)
    assert again.link(aster, aster.offer(newest=newest_of(aster))).exit_code == 0
    assert again.link(birch).exit_code == 0
    score = ("--purpose", "score", "--to", "a", "--data", "capacity", "--days", "3", "--retain-days", "1", "--uses",
             "1", "--per-days", "1")  # fmt: skip
    assert "may still count" not in again.ok("grant", "birch", *score).err
    for holder in ("birch", "aster"):
        said = []
        for share in ("0.1", "0.2"):
            again.at += 1
            done = again.grant(holder, share=share)
            assert done.exit_code == 0
            said.append("may still count" in done.err)
        assert said == [True, False]
    assert "made again" in again.ok("grant", "--help").out


class Numbers:
    """A registry that knows which numbers of one wallet are used."""

    def __init__(self, wallet: Wallet, used: set[int]) -> None:
        self.tags = {wallet.tag("aster", seq) for seq in used}
        self.asked = 0

    def position(self, _: str, tag: bytes) -> int | None:
        self.asked += 1
        return 0 if tag in self.tags else None


def test_the_highest_used_number_is_found_in_few_questions_even_behind_a_gap() -> None:
    wallet = Wallet(digest("secret"))
    for used in (set[int](), {1}, {1, 2}, set(range(1, 6)), set(range(1, 1001)), {1, 2, 3, 5}, {1, 2, 5, 6, 9}):
        for known in (0, min(1, len(used)), max(used, default=0)):
            source = Numbers(wallet, used)
            found = highest_used(wallet, "aster", source, known=known)  # type: ignore[arg-type]
            assert found == max(used, default=0)
            assert source.asked < 60


def test_a_registry_that_says_yes_to_everything_does_not_use_up_the_numbers() -> None:
    class Yes:
        def position(self, _: str, __: bytes) -> int | None:
            return 0

    assert highest_used(Wallet(digest("secret")), "aster", Yes(), known=0) <= 2**21  # type: ignore[arg-type]


def test_offers_are_read_before_the_passphrase_is_asked_for(person: Person, aster: DataHolder) -> None:
    person.passphrase_file.write_text("wrong words entirely")
    assert person.link(aster).exit_code == 3
    assert isinstance(read_offer(aster.signed_offer(), at=AT), LinkOffer)
    assert PASSPHRASE not in person.passphrase_file.read_text()
