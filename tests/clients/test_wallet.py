"""The wallet: one secret, keys that match nowhere, one call for every wish."""

import pickle
from hashlib import sha256

import pytest

from clients.wallet.wallet import HolderAddress, Memory, SealedRecord, Wallet
from experiments.people import Attitude
from experiments.wishes import JURISDICTION, TERMS, records_of
from privacy.consent.record import Grant, Purpose, TrainingBudget, parse_record, payload_digest
from privacy.consent.sealing import LaneKey, Opened, Sealed, commitment_of, open_sealed
from privacy.consent.signing import PayloadType, verify
from privacy.errors import RefusalCode, RefusalError

AT = 1_793_491_200
DAY_S = 86_400
SECRET, HANDLE = sha256(b"secret").digest(), sha256(b"handle").digest()
KEYS = {name: LaneKey.from_bytes(b"\x01" + sha256(name.encode()).digest()) for name in ("aster", "birch", "cedar")}


def address(holder: str) -> HolderAddress:
    return HolderAddress(holder, 1, KEYS[holder].public)


def grant(share_milli: int, purpose: Purpose = Purpose.TRAIN) -> Grant:
    return Grant(
        purpose=purpose, to="open-scoring", data=("capacity",), nbf=AT - DAY_S, exp=AT + DAY_S, reconfirm_by=AT + DAY_S,
        retain_s=0, dp=TrainingBudget(share_milli=share_milli, eps_milli=1000, delta_log10=-5, window_s=DAY_S),
    )  # fmt: skip


def write(wallet: Wallet, holder: str, *grants: Grant, frozen: bool = False, at: int = AT) -> SealedRecord:
    return wallet.write(
        address(holder), handle=HANDLE, grants=grants, frozen=frozen, terms=TERMS, jurisdiction=JURISDICTION, at=at
    )


def opened(record: SealedRecord, holder: str) -> Opened:
    return open_sealed(Sealed(record.stub.commit, record.ciphertext), KEYS[holder], lane=holder, epoch=1)


def test_granting_freezing_and_withdrawing_look_alike() -> None:
    wallet = Wallet(SECRET)
    records = [
        write(wallet, "aster", grant(1000)),
        write(wallet, "aster", grant(1), frozen=True),
        write(wallet, "aster"),
    ]
    assert len({len(record.ciphertext) for record in records}) == 1
    assert len({len(record.stub.leaf()) for record in records}) == 1
    assert len({record.stub.tag for record in records}) == 3


def test_each_record_follows_the_one_before_and_is_signed_by_the_key_for_that_holder() -> None:
    wallet = Wallet(SECRET)
    before = None
    for seq, record in enumerate((write(wallet, "aster", grant(1000)), write(wallet, "aster")), start=1):
        content = opened(record, "aster")
        verify(wallet.key_for("aster").public, PayloadType.CONSENT, content.payload, content.signature)
        parsed = parse_record(content.payload)
        assert (parsed.seq, parsed.prev, parsed.handle) == (seq, before, HANDLE)
        before = payload_digest(content.payload)


def test_two_holders_cannot_match_a_person_and_the_registry_cannot_link_records() -> None:
    wallet = Wallet(SECRET)
    keys = [wallet.key_for(holder).public for holder in KEYS]
    assert len(set(keys)) == 3
    tags = [write(wallet, holder).stub.tag for holder in KEYS for _ in range(3)]
    assert len(set(tags)) == 9
    rhos = [opened(write(wallet, holder), holder).rho for holder in KEYS for _ in range(2)]
    assert len(set(rhos)) == 6


def test_the_same_secret_has_the_same_keys_and_another_has_others() -> None:
    assert Wallet(SECRET).key_for("aster").public == Wallet(SECRET).key_for("aster").public
    assert Wallet(SECRET).key_for("aster").public != Wallet(bytes(32)).key_for("aster").public


def test_the_secret_is_in_nothing_that_leaves() -> None:
    wallet = Wallet(SECRET)
    record = write(wallet, "aster", grant(1000))
    content = opened(record, "aster")
    for sent in (record.ciphertext, record.stub.leaf(), content.payload, content.rho, wallet.key_for("aster").public):
        assert SECRET not in sent


def test_shares_over_all_holders_never_pass_one() -> None:
    wallet = Wallet(SECRET)
    write(wallet, "aster", grant(600))
    write(wallet, "birch", grant(400))
    with pytest.raises(RefusalError, match="1001") as caught:
        write(wallet, "cedar", grant(1))
    assert caught.value.code is RefusalCode.BUDGET
    with pytest.raises(RefusalError):
        write(wallet, "birch", grant(401))
    with pytest.raises(RefusalError):
        write(wallet, "cedar", grant(1, Purpose.VALIDATE))
    write(wallet, "aster")  # a withdrawal is never refused, but what the share has bought is still in its window
    with pytest.raises(RefusalError, match="1600"):
        write(wallet, "cedar", grant(600), at=AT + DAY_S - 1)
    write(wallet, "cedar", grant(600), at=AT + DAY_S)
    # What was refused left no trace: numbers go on without a gap.
    assert parse_record(opened(write(wallet, "birch", grant(400)), "birch").payload).seq == 2


def test_moving_a_whole_share_from_holder_to_holder_never_spends_it_twice_in_one_window() -> None:
    wallet = Wallet(SECRET)
    write(wallet, "aster", grant(1000))
    write(wallet, "aster")
    with pytest.raises(RefusalError, match="2000"):
        write(wallet, "birch", grant(1000))
    write(wallet, "aster", grant(1000))  # back where it was: nothing more than before
    write(wallet, "aster", grant(700))
    with pytest.raises(RefusalError, match="1001"):
        write(wallet, "birch", grant(1))
    write(wallet, "birch", grant(300), at=AT + DAY_S)


@pytest.mark.parametrize("attitude", Attitude)
def test_everybody_in_the_demo_can_write_what_they_wish(attitude: Attitude) -> None:
    wallet = Wallet(SECRET)
    records = records_of(
        attitude, wallet, address("aster"), handle=HANDLE, categories=frozenset({"capacity", "behaviour"}),
        share_milli=1000, cap=8.0, at=AT,
    )  # fmt: skip
    parsed = [parse_record(opened(record, "aster").payload) for record in records]
    assert len(parsed) == {Attitude.SILENT: 0, Attitude.WITHDREW: 2, Attitude.FROZE: 2}.get(attitude, 1)
    assert [record.seq for record in parsed] == list(range(1, len(parsed) + 1))
    assert all(record.iat <= AT for record in parsed)


def test_a_wallet_goes_on_from_its_memories_in_another_process() -> None:
    wallet = Wallet(SECRET)
    write(wallet, "aster", grant(600))
    memories = {holder: wallet.memory(holder) for holder in ("aster", "birch")}
    for again in (Wallet(SECRET, memories), pickle.loads(pickle.dumps(wallet))):  # noqa: S301 (our own)
        second = write(again, "aster", grant(500))
        parsed = parse_record(second.payload)
        assert (parsed.seq, parsed.prev) == (2, wallet.memory("aster").digest)
        assert second.stub.tag == wallet.tag("aster", 2)
        with pytest.raises(RefusalError, match="1001"):
            write(again, "birch", grant(401))
    assert memories["birch"] == Memory()


def test_what_a_record_keeps_for_its_receipt_opens_the_commitment_in_its_stub() -> None:
    record = write(Wallet(SECRET), "aster", grant(1))
    assert commitment_of(record.payload, record.signature, record.rho) == record.stub.commit
    assert "payload" not in repr(record)
