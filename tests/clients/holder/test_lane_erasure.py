"""Erasure: a ciphertext may be missing only behind the data holder's own tombstone, and a person can be forgotten."""

import sqlite3
from pathlib import Path

import pytest

from clients.holder.opener import Kind
from experiments.people import Attitude
from privacy.consent.canonical import base64url
from privacy.consent.lane import TombstoneStub
from privacy.consent.merkle import leaf_hash
from privacy.consent.record import ConsentRecord
from privacy.consent.sealing import commitment_of
from privacy.consent.signing import SigningKey
from privacy.consent.tombstone import TombstoneStatement, tombstone_stub, write_tombstone
from privacy.consent.view import Conflict, Entry
from privacy.errors import MalformedError, TamperingError
from tests.clients.holder.lane_scene import AT, IDENTITY, LANE, Person, Scene, Source
from tests.ready import state_of


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def tombstone(
    leaf: bytes, position: int, *, key: SigningKey = IDENTITY, lane: str = LANE, stated: bool = True
) -> Entry:
    statement = TombstoneStatement(lane=lane, position=position, leaf=base64url(leaf_hash(leaf)), at=AT)
    envelope = write_tombstone(statement, key)
    return Entry(tombstone_stub(envelope, statement), envelope if stated else None)


def gone(entry: Entry) -> Entry:
    return Entry(entry.stub, None)


def test_a_missing_ciphertext_behind_a_tombstone_is_in_order(scene: Scene) -> None:
    fresh = Person("new").says(Attitude.AGREES)[0]
    with scene.copy() as lane:
        assert lane.sync(Source([*scene.entries, gone(fresh), tombstone(fresh.stub.leaf(), 5)]), at=AT) == 2
        assert [(opening.state, opening.tombstone) for opening in lane.openings(7)][5:] == [
            (Kind.ERASED, 6), (Kind.TOMBSTONE, None)
        ]  # fmt: skip


STRANGER = SigningKey.from_seed(bytes(32))


@pytest.mark.parametrize("lie", ["none", "stranger", "another lane", "another leaf", "another place", "unstated"])
def test_a_missing_ciphertext_without_its_tombstone_fails_the_whole_sync(scene: Scene, lie: str) -> None:
    fresh, other = Person("new").says(Attitude.AGREES)[0], Person("other").says(Attitude.AGREES)[0]
    leaf = fresh.stub.leaf()
    tombstones = {
        "none": [],
        "stranger": [tombstone(leaf, 5, key=STRANGER)],
        "another lane": [tombstone(leaf, 5, lane="birch-telecom")],
        "another leaf": [tombstone(other.stub.leaf(), 5)],
        "another place": [tombstone(leaf, 4)],
        "unstated": [tombstone(leaf, 5, stated=False)],
    }[lie]
    before = state_of(scene.directory)
    with scene.copy() as lane:
        with pytest.raises(TamperingError, match="withholds"):
            lane.sync(Source([*scene.entries, gone(fresh), *tombstones]), at=AT + 9)
        assert (lane.head.size, lane.synced_at) == (5, AT)
    assert state_of(scene.directory) == before


def test_a_tombstone_does_not_erase_what_comes_after_it(scene: Scene) -> None:
    fresh = Person("new").says(Attitude.AGREES)[0]
    with scene.copy() as lane, pytest.raises(TamperingError):
        lane.sync(Source([*scene.entries, tombstone(fresh.stub.leaf(), 6), gone(fresh)]), at=AT)


def test_a_statement_that_is_not_the_one_logged_erases_nothing(scene: Scene) -> None:
    true = tombstone(scene.entries[0].stub.leaf(), 0)
    stub = true.stub
    assert isinstance(stub, TombstoneStub)
    forged = Entry(TombstoneStub(stub.tag, 2, leaf_hash(scene.entries[2].stub.leaf()), stub.statement_sha256),
                   true.beside)  # fmt: skip
    with scene.copy() as lane:
        lane.sync(Source([*scene.entries, forged]), at=AT)
        assert lane.opening(2).state is Kind.OPENED


def test_a_tombstone_erases_what_was_opened_before(scene: Scene) -> None:
    pinned_before = [*scene.entries]
    with scene.copy() as lane:
        pinned = lane.head
        assert lane.view(pinned).standing(scene.yes.handle) is not None
        lane.sync(Source([*pinned_before, tombstone(scene.entries[0].stub.leaf(), 0)]), at=AT)
        assert lane.view().standing(scene.yes.handle) is None
        assert lane.view(pinned).standing(scene.yes.handle) is None
        assert lane.opening(0)[3:6] == (None, None, None)
    with scene.copy() as lane:
        assert lane.view().standing(scene.yes.handle) is None


def everything_on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("consent.*")))


def test_a_forgotten_person_leaves_the_leaves_and_nothing_else(scene: Scene) -> None:
    with scene.copy() as lane:
        lane.enter_use(scene.left.handle, "lender", "a nonce", at=AT)
        lane.enter_use(scene.yes.handle, "lender", "a nonce", at=AT)
        lane.take(scene.left.hands_in(Attitude.FROZE), at=AT)
        secrets = [part for place in (1, 2) for part in lane.opening(place)[3:6] if isinstance(part, bytes)]
        secrets += [scene.left.handle, scene.left.link().public_key, base64url(scene.left.handle).encode()]
        assert len(secrets) == 9
        assert all(secret in everything_on_disk(scene.directory) for secret in secrets)
        head = lane.head
        assert lane.forget(scene.left.handle) == [1, 2]
        assert not any(secret in everything_on_disk(scene.directory) for secret in secrets)
        assert (lane.forget(scene.left.handle), lane.forgotten()) == ([], [1, 2])
        assert lane.links().keys() == {"yes", "no"}
        assert lane.standing(scene.left.handle) is None
        assert lane.view(head).standing(scene.left.handle) is None
        assert lane.past_uses(scene.left.handle, "lender") == []
        assert lane.past_uses(scene.yes.handle, "lender") == [AT]
    with scene.copy() as lane:  # verified from end to end
        assert (lane.head, lane.forgotten()) == (head, [1, 2])
        more = [tombstone(lane.leaf(place), place) for place in (1, 2)]
        lane.sync(Source([*scene.entries, *more]), at=AT + 1)
        assert lane.forgotten() == []
        assert [lane.opening(place).tombstone for place in (1, 2)] == [5, 6]
    assert not any(secret in everything_on_disk(scene.directory) for secret in secrets)


def test_what_can_be_shown_of_each_entry_opens_its_commitment(scene: Scene) -> None:
    junk = Person("junk").says(Attitude.AGREES)[0]
    with scene.copy() as lane:
        lane.sync(Source([*scene.entries, junk]), at=AT)
        shown = list(lane.openings(6))
        assert [opening.position for opening in shown] == list(range(6))
        for opening, entry in zip(shown, [*scene.entries, junk], strict=True):
            assert opening.leaf == entry.stub.leaf()
            assert opening.payload is not None
            assert opening.signature is not None
            assert opening.rho is not None
            commit = commitment_of(opening.payload, opening.signature, opening.rho)
            assert commit == getattr(entry.stub, "commit")  # noqa: B009  # only a record's stub has one
        assert list(lane.openings(4, first=2)) == shown[2:4]
        for place in (-1, 6):
            with pytest.raises(MalformedError):
                lane.opening(place)


def test_no_ciphertext_is_kept(scene: Scene) -> None:
    database = sqlite3.connect(scene.directory / "consent.db")
    assert database.execute("SELECT max(length(payload)) FROM entries").fetchone()[0] < 1439
    database.close()
    stored = everything_on_disk(scene.directory)
    assert all(entry.beside is not None and entry.beside[:64] not in stored for entry in scene.entries)


def test_a_tombstone_for_a_withdrawal_alone_lets_no_earlier_grant_stand_again(scene: Scene) -> None:
    left = scene.left
    entries = [*scene.entries, tombstone(scene.entries[2].stub.leaf(), 2)]
    with scene.copy() as lane:
        lane.sync(Source(entries), at=AT)
        assert lane.opening(2).state is Kind.ERASED
        assert lane.opening(1).state is Kind.OPENED  # the grant before it
    with scene.copy() as lane:
        for standing in (
            lane.standing(left.handle),
            lane.view().standing(left.handle),
            dict(lane.standings())[left.handle],
        ):
            assert standing == Conflict(2)
        # A replay can only say what the log shows today.
        assert isinstance(lane.view(lane.head).standing(left.handle), ConsentRecord)
        # A newer record counts again; the same number does not.
        grant, withdrawal = left.writes(Attitude.WITHDREW)
        more = [Entry(grant.stub, grant.ciphertext), Entry(withdrawal.stub, withdrawal.ciphertext)]
        lane.sync(Source([*entries, *more]), at=AT)
        assert getattr(lane.standing(left.handle), "seq", None) == 4
        assert isinstance(lane.standing(left.handle), ConsentRecord)


def test_a_tombstone_for_a_forgery_raises_no_floor(scene: Scene) -> None:
    impostor = Person("impostor")
    impostor.handle = scene.yes.handle
    forged = [impostor.says(Attitude.AGREES)[0] for _ in range(3)]  # the last has a higher number than the true one
    leaf = forged[-1].stub.leaf()
    with scene.copy() as lane:
        lane.sync(Source([*scene.entries, *forged, tombstone(leaf, 7)]), at=AT)
        assert lane.opening(7).state is Kind.ERASED
        assert getattr(lane.standing(scene.yes.handle), "seq", None) == 1
        assert isinstance(lane.standing(scene.yes.handle), ConsentRecord)


def test_a_blocked_person_is_used_for_nothing_at_once_and_forgotten_later(scene: Scene) -> None:
    with scene.copy() as lane, scene.copy() as other:
        assert not lane.block("nobody")
        assert lane.block("left")
        assert lane.block("left")
        assert other.standing(scene.left.handle) is None
        assert "left" not in other.links()
    with scene.copy() as lane:
        assert lane.blocked() == [scene.left.handle]
        more = scene.left.says(Attitude.AGREES)[:1]  # comes in before the records go
        lane.sync(Source([*scene.entries, *more]), at=AT)
        assert lane.standing(scene.left.handle) is None
        assert lane.forget(scene.left.handle) == [1, 2, 5]
        assert lane.blocked() == []
        assert not lane.block("left")
        assert scene.left.handle not in everything_on_disk(scene.directory)
        assert b"left" not in everything_on_disk(scene.directory)


def test_whoever_is_blocked_in_the_instant_of_the_link_is_forgotten_too(scene: Scene) -> None:
    """The link was never in force in any prefix, so nothing of it is kept but that the person is to be erased."""
    new = Person("new")
    with scene.copy() as lane:
        lane.link({"new": new.link(5)})
        lane.block("new")
    with scene.copy() as lane:
        lane.sync(Source([*scene.entries, *new.says(Attitude.AGREES)]), at=AT)
        assert [lane.forget(handle) for handle in lane.blocked()] == [[5]]
        assert new.handle not in everything_on_disk(scene.directory)


def test_whoever_is_blocked_after_the_link_had_ended_is_forgotten_too(scene: Scene) -> None:
    with scene.copy() as lane:
        lane.unlink("left")
        assert lane.block("left")
        assert [lane.forget(handle) for handle in lane.blocked()] == [[1, 2]]
