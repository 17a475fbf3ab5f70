"""A registry that shows a wallet one thing and a data holder another: one of them sees it, or both together do."""

import copy
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.registry_client import RegistryClient
from clients.wallet import book
from clients.wallet.state import AlarmKind
from clients.wallet.vault import Cost, Vault
from privacy.consent.canonical import base64url
from privacy.consent.lane import read_checkpoint
from privacy.consent.linking import RegistryAddress
from privacy.consent.receipt import Receipt, verify_receipt
from privacy.consent.record import ConsentRecord
from privacy.consent.submission import Submission
from privacy.consent.view import Link
from privacy.errors import RefusalError, TamperingError
from server.registry.settings import Home
from tests.clients.wallet.parties import AT, DataHolder, FakeRegistry, Person
from tests.registry_process import RegistryProcess, make_registry, serving
from tests.withstand.beds import SETTINGS

ASTER = "aster"


@pytest.fixture(autouse=True)
def _cheap_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "Vault", partial(Vault, cost=Cost(memory_kib=8192, passes=1, lanes=1)))


@contextmanager
def lane_copy(path: Path, aster: DataHolder, person: Person, registry_key: bytes) -> Iterator[LaneCopy]:
    """The data holder's copy, with the person linked from the lane's beginning."""
    settings = structs.replace(
        SETTINGS, holder=ASTER, registry=structs.replace(SETTINGS.registry, key=registry_key.hex())
    )
    lane = LaneCopy(path, settings, HolderKeys(aster.identity, {1: aster.lane_key}))
    try:
        if not lane.links():
            lane.link({"4711": Link(aster.handle, key_of(person), 0)})
        yield lane
    finally:
        lane.close()


def key_of(person: Person) -> bytes:
    with person.book() as opened:
        return opened.state.wallet().key_for(ASTER).public


def grants(lane: LaneCopy, aster: DataHolder) -> int:
    standing = lane.standing(aster.handle)
    assert isinstance(standing, ConsentRecord)
    return len(standing.grants)


def newest_receipt(person: Person) -> Receipt:
    with person.book() as opened:
        receipt = opened.account(ASTER).written[-1].receipt
    assert receipt is not None
    return receipt


def newest_record(person: Person) -> Submission:
    with person.book() as opened:
        return opened.account(ASTER).written[-1].submission


def kinds(person: Person) -> list[AlarmKind]:
    with person.book() as opened:
        return [alarm.kind for alarm in opened.state.alarms]


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def aster(registry: FakeRegistry) -> DataHolder:
    return DataHolder(ASTER, registry)


@pytest.fixture
def person(tmp_path: Path, registry: FakeRegistry, aster: DataHolder) -> Person:
    someone = Person(tmp_path / "person", registry)
    someone.ok("init")
    assert someone.link(aster).exit_code == 0
    assert someone.grant(ASTER).exit_code == 0
    return someone


def test_a_split_view_is_seen_once_the_two_compare(
    tmp_path: Path, person: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    """One key, two logs: the wallet is shown its withdrawal, the data holder is shown somebody else's record."""
    shown_to_holder = copy.deepcopy(registry)
    person.at += 1
    person.ok("withdraw", ASTER)
    stranger = Person(tmp_path / "stranger", shown_to_holder)
    stranger.ok("init")
    assert stranger.link(DataHolder(ASTER, shown_to_holder)).exit_code == 0
    assert stranger.grant(ASTER, share="0.1").exit_code == 0
    with lane_copy(tmp_path / "consent.db", aster, person, registry.key.public) as lane:
        # Each alone sees a registry that keeps its word.
        assert lane.sync(shown_to_holder, at=AT) == 2
        assert grants(lane, aster) == 1
        assert person.run("status").exit_code == 0
        receipt = newest_receipt(person)
        proved = verify_receipt(receipt, registry_key=registry.key.public, person_key=key_of(person))
        assert proved.record.grants == ()
        # The data holder is shown the person's receipt: its head is of the same size and of another lane.
        assert proved.head.size == lane.head.size
        with pytest.raises(TamperingError):
            lane.view(proved.head)
        # Or it hears what the person was shown.
        with pytest.raises(TamperingError):
            lane.sync(registry, at=AT + 1)
        # Until they compare, the side door ends the use.
        assert lane.take(newest_record(person), at=AT + 1)
        assert grants(lane, aster) == 0
    # Or the wallet is shown what the data holder was shown: it turns red, and keeps both signed heads.
    person.registry = shown_to_holder
    assert person.run("status").exit_code == 5
    done = person.run("status")
    assert (done.exit_code, done.err[:12]) == (5, "ALARM: aster")
    assert kinds(person) == [AlarmKind.CONSISTENCY]
    with person.book() as opened:
        (alarm,) = opened.state.alarms
    one, other = (read_checkpoint(note, f"fedcredit/{ASTER}", registry.key.public) for note in alarm.checkpoints)
    assert one.size == other.size
    assert one.root != other.root


def test_a_split_view_in_which_only_the_withdrawal_is_missing_is_seen_too(
    tmp_path: Path, person: Person, aster: DataHolder, registry: FakeRegistry
) -> None:
    shown_to_holder = copy.deepcopy(registry)
    person.at += 1
    person.ok("withdraw", ASTER)
    head = verify_receipt(newest_receipt(person), registry_key=registry.key.public, person_key=key_of(person)).head
    with lane_copy(tmp_path / "consent.db", aster, person, registry.key.public) as lane:
        lane.sync(shown_to_holder, at=AT)
        assert grants(lane, aster) == 1
        with pytest.raises(TamperingError):
            lane.view(head)
        # Held to the receipt the registry can only deliver the withdrawal, and that ends it.
        lane.sync(registry, at=AT + 1)
        assert grants(lane, aster) == 0
        with pytest.raises(TamperingError, match="shorter"):
            lane.sync(shown_to_holder, at=AT + 2)
        assert grants(lane, aster) == 0
    person.registry = shown_to_holder
    assert person.run("status").exit_code == 5
    assert kinds(person) == [AlarmKind.WENT_BACK]


class Online(Person):
    """A person whose wallet asks a registry in another process, wherever that is now."""

    client: RegistryClient

    @contextmanager
    def connect(self, _: RegistryAddress) -> Iterator[RegistryClient]:  # type: ignore[override]
        yield self.client


@contextmanager
def online(home: Home, *people: Online) -> Iterator[tuple[RegistryProcess, RegistryClient]]:
    with serving(home) as running, running.client() as client:
        for person in people:
            person.client = client
            person.at = max(person.at + 1, int(time.time()))
        yield running, client


@pytest.mark.slow
def test_a_registry_restored_from_a_backup_is_refused_by_the_data_holder_and_turns_the_wallet_red(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    aster = DataHolder(ASTER, registry)
    home = make_registry(tmp_path / "registry", {ASTER: aster.identity.public}, tls=False)
    database, backup = home.directory / "registry.db", tmp_path / "backup.db"
    now = int(time.time())
    aster.publish(1, at=now)
    people = [Online(tmp_path / name, registry) for name in ("person", "other")]
    person, other = people
    address = RegistryAddress(url="http://127.0.0.1:1", key=base64url(home.key().public), ca=None)
    with online(home, *people) as (_, client):
        client.publish_key_set(ASTER, registry.key_sets[ASTER])
        for someone in people:
            someone.ok("init")
            assert someone.link(aster, structs.replace(aster.offer(at=now), registry=address)).exit_code == 0
        assert person.grant(ASTER).exit_code == 0
    assert not database.with_name("registry.db-wal").exists()  # stopped in order: the file is the whole database
    shutil.copy(database, backup)
    with lane_copy(tmp_path / "consent.db", aster, person, home.key().public) as lane:
        with online(home, *people) as (_, client):
            person.ok("withdraw", ASTER)
            assert lane.sync(client, at=now) == 2
            assert grants(lane, aster) == 0
            person.ok("status")
            assert newest_receipt(person).position == 1
        shutil.copy(backup, database)
        with online(home, *people) as (_, client):
            with pytest.raises(TamperingError, match="shorter"):
                lane.sync(client, at=now + 1)
            assert person.run("status").exit_code == 5
            assert kinds(person) == [AlarmKind.WENT_BACK]
            # The restored registry grows again, past where it was, with somebody else's records in the place.
            assert other.grant(ASTER).exit_code == 0
            with pytest.raises(TamperingError):
                lane.sync(client, at=now + 1)
            other.at += 1
            assert other.grant(ASTER, share="0.1").exit_code == 0
            with pytest.raises(TamperingError):
                lane.sync(client, at=now + 1)
            assert (lane.head.size, lane.synced_at, grants(lane, aster)) == (2, now, 0)
            assert person.run("status").exit_code == 5
            assert AlarmKind.CONSISTENCY in kinds(person)
            # Whoever was lied to can still say less.
            with pytest.raises(RefusalError):
                lane.take(Submission(newest_record(person).stub, b"x"), at=now)
            assert not lane.take(newest_record(person), at=now)  # it is known here
