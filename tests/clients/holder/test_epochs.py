"""Key epochs: what rotating keeps, what destroying ends, and how late a key may be destroyed."""

import os
import shutil
import stat
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from clients import registry_client
from clients.holder import epochs as epochs_module
from clients.holder.desk import Desk
from clients.holder.epochs import KEY_SET_LIFE_S, destroy, is_due, new_epoch, publish, published
from clients.holder.keys import HolderKeys
from clients.holder.watch import Syncer
from privacy.consent.key_set import KeySet, read_key_set, write_key_set
from privacy.consent.limits import MAX_EPOCHS, MAX_MERGE_DELAY_S
from privacy.consent.record import ConsentRecord
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from tests.clients.holder.desk_scene import AT, DAY_S, LANE, Person, Scene, grant

# When nothing sealed to an epoch last listed at AT can still arrive: the key set's life, the clocks, the merge delay.
LAST = AT + KEY_SET_LIFE_S + 120 + MAX_MERGE_DELAY_S


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / LANE)


def newest(scene: Scene, at: int | None = None) -> KeySet:
    """What a wallet reads from the registry."""
    return read_key_set(scene.registry.key_sets[-1], identity=scene.identity.public, holder=LANE, at=at)


def rotate(desk: Desk, scene: Scene, *, at: int = AT) -> int:
    epoch = new_epoch(desk, at=at)
    publish(desk, scene.registry, at=at)
    return epoch


def standing(scene: Scene, person: Person) -> ConsentRecord | None:
    with scene.desk() as desk:
        found = desk.lane.standing(person.handle)
    assert found is None or isinstance(found, ConsentRecord)
    return found


def listed(key_set: KeySet) -> list[int]:
    return [key.epoch for key in key_set.keys]


def test_the_first_key_set_has_the_first_key_for_thirty_days(scene: Scene) -> None:
    with scene.desk() as desk:
        assert is_due(desk, at=AT)
        assert published(desk) is None
        publish(desk, scene.registry, at=AT)
        assert not is_due(desk, at=AT)
        assert newest(scene).current_key == desk.keys.lane_key.public
    key_set = newest(scene)
    assert (key_set.version, key_set.current, listed(key_set), key_set.side_door) == (1, 1, [1], None)
    assert newest(scene, AT + KEY_SET_LIFE_S - 1) == key_set
    with pytest.raises(RefusalError):
        newest(scene, AT + KEY_SET_LIFE_S)


def test_keys_are_published_again_when_half_their_life_is_over(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        assert not is_due(desk, at=AT + KEY_SET_LIFE_S // 2 - 1)
        assert is_due(desk, at=AT + KEY_SET_LIFE_S // 2)
        publish(desk, scene.registry, at=AT + KEY_SET_LIFE_S // 2)
    assert newest(scene).version == 2


def test_a_new_side_door_is_published(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
    settings = scene.directory / "holder.toml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace('side_door = ""', 'side_door = "https://door.example"'), encoding="utf-8")
    with scene.desk() as desk:
        assert is_due(desk, at=AT)
        publish(desk, scene.registry, at=AT)
        assert not is_due(desk, at=AT)
    assert newest(scene).side_door == "https://door.example"


def test_the_version_grows_also_when_the_desk_or_the_registry_has_forgotten(scene: Scene) -> None:
    with scene.desk() as desk:
        for _ in range(3):
            publish(desk, scene.registry, at=AT)
    (scene.directory / "desk.db").unlink()
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        assert newest(scene).version == 4
        scene.registry.key_sets.clear()
        publish(desk, scene.registry, at=AT)
        assert newest(scene).version == 5


def test_a_key_set_by_somebody_else_is_not_followed(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        forged = msgspec.structs.replace(newest(scene), version=1000)
        scene.registry.key_sets.append(write_key_set(forged, SigningKey.from_seed(sha256(b"other").digest())))
        with pytest.raises(TamperingError):
            publish(desk, scene.registry, at=AT)


def test_after_a_rotation_both_epochs_open_and_the_new_one_is_current(scene: Scene) -> None:
    person, old = Person("4711"), scene.lane_key
    scene.link(person)
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        assert rotate(desk, scene) == 2
    key_set = newest(scene)
    assert (key_set.current, listed(key_set)) == (2, [1, 2])
    assert key_set.current_key != old
    scene.sync(person.says(grant(), to=old))
    assert len(standing(scene, person).grants) == 1  # type: ignore[union-attr]
    scene.sync(person.says(to=key_set.current_key, epoch=2))
    assert standing(scene, person).grants == ()  # type: ignore[union-attr]
    scene.sync(person.says(grant(), to=old))
    assert len(standing(scene, person).grants) == 1  # type: ignore[union-attr]
    files = sorted(path.name for path in (scene.directory / "keys").iterdir())
    assert files == ["identity.key", "lane-1.key", "lane-2.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (scene.directory / "keys").iterdir()} == {0o600}


def test_a_record_that_claims_an_epoch_it_is_not_sealed_to_is_garbage(scene: Scene) -> None:
    person, old = Person("4711"), scene.lane_key
    scene.link(person)
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene)
        new = desk.keys.lane_key.public
    scene.sync(
        person.says(grant(), to=old, epoch=2),  # says 2 everywhere, and is sealed with the key of 1
        person.says(grant(), to=old, epoch=2, sealed_as=1),  # the log says 1, the signed record 2
        person.says(grant(), to=new, epoch=1, sealed_as=2),
        person.says(grant(), to=new, epoch=3),
    )
    assert standing(scene, person) is None
    scene.sync(person.says(grant(), to=new, epoch=2))
    assert standing(scene, person) is not None


def test_a_rotation_that_was_not_published_goes_on_and_makes_no_third_key(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        scene.registry.fails = ["publish_key_set"]
        assert new_epoch(desk, at=AT) == 2
        shutil.copy(scene.directory / "desk.db", scene.directory / "before.db")
        with pytest.raises(RefusalError):
            publish(desk, scene.registry, at=AT)
        assert is_due(desk, at=AT)
    # Killed before the desk could even note what it was about to publish: the key is there, and that is all.
    (scene.directory / "before.db").replace(scene.directory / "desk.db")
    with scene.desk() as desk:
        assert is_due(desk, at=AT)
        assert rotate(desk, scene) == 2
    assert newest(scene).current == 2


def test_an_old_epoch_is_listed_as_long_as_a_wallet_may_take_it_for_the_current_one(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene, at=AT + DAY_S)
        assert listed(newest(scene)) == [1, 2]
        publish(desk, scene.registry, at=AT + KEY_SET_LIFE_S - 1)
        assert listed(newest(scene)) == [1, 2]
        publish(desk, scene.registry, at=AT + KEY_SET_LIFE_S)
        assert listed(newest(scene)) == [2]


def test_lost_notes_make_no_epoch_look_unused(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene)
    (scene.directory / "desk.db").unlink()
    with scene.desk() as desk:
        desk.lane.sync(scene.registry, at=AT + 50 * DAY_S)
        with pytest.raises(RefusalError, match="publish-keys"):
            destroy(desk, 1, at=AT + 50 * DAY_S)
        publish(desk, scene.registry, at=AT + 50 * DAY_S)
        assert listed(newest(scene)) == [1, 2]


def test_a_key_is_destroyed_only_when_nothing_sealed_to_it_can_arrive(scene: Scene) -> None:
    person, old = Person("4711"), scene.lane_key
    scene.link(person)
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene)
    scene.sync(person.says(grant(), to=old))
    with scene.desk() as desk:
        for at, synced_at in ((AT, AT), (LAST - 1, LAST - 1), (LAST, LAST - 1), (LAST - 1, LAST)):
            desk.lane.sync(scene.registry, at=synced_at)
            with pytest.raises(RefusalError, match="withdrawal") as caught:
                destroy(desk, 1, at=at)
            assert caught.value.code is RefusalCode.POLICY
        with pytest.raises(RefusalError, match="current"):
            destroy(desk, 2, at=LAST)
        with pytest.raises(UsageError, match="no key"):
            destroy(desk, 3, at=LAST)
        assert sorted(desk.keys.lane_keys) == [1, 2]
        desk.lane.sync(scene.registry, at=LAST)
        destroy(desk, 1, at=LAST)
        assert sorted(desk.keys.lane_keys) == [2]
        new = desk.keys.lane_key.public
    # What it opened stands, what comes now never opens.
    assert len(standing(scene, person).grants) == 1  # type: ignore[union-attr]
    scene.sync(person.says(to=old), at=LAST + 1)
    assert len(standing(scene, person).grants) == 1  # type: ignore[union-attr]
    scene.sync(person.says(to=new, epoch=2), at=LAST + 2)
    assert standing(scene, person).grants == ()  # type: ignore[union-attr]


def aged(scene: Scene) -> bytes:
    """Two epochs, the first ready to be destroyed; its key."""
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene)
        desk.lane.sync(scene.registry, at=LAST)
    return (scene.directory / "keys" / "lane-1.key").read_bytes()


def test_of_a_destroyed_key_nothing_stays_but_the_fact(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = aged(scene)
    written: list[bytes] = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            written.append((scene.directory / "keys" / "lane-1.destroyed").read_bytes())

    with scene.desk() as desk:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            destroy(desk, 1, at=LAST)
        assert written == [bytes(len(secret)), b""]  # overwritten on the disk before it is cut off
        assert rotate(desk, scene, at=LAST) == 3
    files = {path.name: path.read_bytes() for path in scene.directory.rglob("*") if path.is_file()}
    assert files["lane-1.destroyed"] == b""
    assert "lane-1.key" not in files
    assert all(secret not in content for content in files.values())
    assert sorted(HolderKeys.load(scene.directory / "keys").lane_keys) == [2, 3]


def test_a_destruction_that_breaks_off_is_finished_and_the_node_starts_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = aged(scene)
    with scene.desk() as desk, monkeypatch.context() as patch:
        patch.setattr(epochs_module, "_overwrite", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            destroy(desk, 1, at=LAST)
    with scene.desk() as desk:
        assert sorted(desk.keys.lane_keys) == [2]
        assert (scene.directory / "keys" / "lane-1.destroyed").read_bytes() == secret
        destroy(desk, 1, at=LAST)
    assert (scene.directory / "keys" / "lane-1.destroyed").read_bytes() == b""


def test_a_key_that_is_lost_and_not_destroyed_stops_everything(scene: Scene) -> None:
    aged(scene)
    (scene.directory / "keys" / "lane-1.key").unlink()
    with pytest.raises(MalformedError, match="lane-1"):
        HolderKeys.load(scene.directory / "keys")


def test_no_more_epochs_than_a_key_set_can_list(scene: Scene) -> None:
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        for _ in range(MAX_EPOCHS - 1):
            rotate(desk, scene)
        with pytest.raises(RefusalError, match="16"):
            new_epoch(desk, at=AT)
        assert desk.keys.current == MAX_EPOCHS
        assert rotate(desk, scene, at=AT + KEY_SET_LIFE_S) == MAX_EPOCHS + 1


def test_keys_are_destroyed_from_the_oldest_on(scene: Scene) -> None:
    """A copy built anew with the first key and without the second would open a grant and not its withdrawal."""
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        for _ in range(2):
            rotate(desk, scene)
        desk.lane.sync(scene.registry, at=LAST)
        with pytest.raises(RefusalError, match="epoch 1 first") as caught:
            destroy(desk, 2, at=LAST)
        assert caught.value.code is RefusalCode.POLICY
        assert sorted(desk.keys.lane_keys) == [1, 2, 3]
        for epoch in (1, 2):
            destroy(desk, epoch, at=LAST)
        assert sorted(desk.keys.lane_keys) == [3]


def without_newest_key(scene: Scene, *lost: str) -> Person:
    """A grant sealed to epoch 1 and its withdrawal to epoch 2; then the second key and some files are gone."""
    person, old = Person("4711"), scene.lane_key
    scene.link(person)
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene)
        new = desk.keys.lane_key.public
    scene.registry.append(person.says(grant(), to=old), person.says(to=new, epoch=2))
    (scene.directory / "keys" / "lane-2.key").unlink()
    for pattern in lost:
        for path in scene.directory.glob(pattern):
            path.unlink()
    return person


def test_a_copy_built_anew_without_the_newest_key_does_not_sync(scene: Scene) -> None:
    without_newest_key(scene, "consent.*")
    with scene.desk() as desk:
        with pytest.raises(RefusalError, match="newest key file is missing") as caught:
            desk.lane.sync(scene.registry, at=AT)
        assert caught.value.code is RefusalCode.LANE
        assert desk.lane.head.size == 0


@pytest.mark.parametrize("watch", [False, True])
def test_without_the_notes_too_the_published_keys_say_that_one_is_missing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, watch: bool
) -> None:
    without_newest_key(scene, "consent.*", "desk.db")
    monkeypatch.setattr(registry_client, "RegistryClient", lambda *_, **__: scene.registry)
    told: list[object] = []
    with Syncer(scene.desk(), lambda: AT) as syncer:
        for _ in range(2 if watch else 1):
            with pytest.raises(RefusalError, match="newest key file is missing"):
                syncer.once(lambda _, facts: told.append(facts))
        assert syncer.desk.lane.head.size == 0
    assert not told
    with scene.desk() as desk, pytest.raises(RefusalError, match="newest key"):
        desk.lane.sync(scene.registry, at=AT)  # the copy remembers, for a node, too


def test_a_registry_without_a_key_set_or_with_somebody_elses_does_not_hide_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_client, "RegistryClient", lambda *_, **__: scene.registry)
    with Syncer(scene.desk(), lambda: AT) as syncer:
        syncer.once(lambda *_: None)  # the first sync of all: nothing is published yet
    forged = msgspec.structs.replace(newest(scene), current=1, version=1000)
    scene.registry.key_sets.append(write_key_set(forged, SigningKey.from_seed(sha256(b"other").digest())))
    with Syncer(scene.desk(), lambda: AT) as syncer, pytest.raises(TamperingError):
        syncer.once(lambda *_: None)


def test_a_copy_built_anew_over_a_gap_in_the_keys_lets_no_old_grant_in(scene: Scene) -> None:
    person, old = Person("4711"), scene.lane_key
    scene.link(person)
    with scene.desk() as desk:
        publish(desk, scene.registry, at=AT)
        rotate(desk, scene)
        new = desk.keys.lane_key.public
        rotate(desk, scene)
    scene.registry.append(person.says(grant(), to=old), person.says(to=new, epoch=2))
    (scene.directory / "keys" / "lane-2.key").replace(scene.directory / "keys" / "lane-2.destroyed")
    scene.sync()
    assert standing(scene, person) is None
