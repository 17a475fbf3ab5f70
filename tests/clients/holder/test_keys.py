"""The data holder's keys: its owner's only, the same after a restart, another for every use."""

import stat
from hashlib import sha256
from pathlib import Path

import pytest

from clients.holder.keys import HolderKeys
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError

LANE_KEYS = {epoch: LaneKey.from_bytes(b"\x01" + sha256(b"%d" % epoch).digest()) for epoch in (1, 2, 3)}
KEYS = HolderKeys(SigningKey.from_seed(sha256(b"identity").digest()), LANE_KEYS)


def test_saved_keys_come_back_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    KEYS.save(tmp_path)
    loaded = HolderKeys.load(tmp_path)
    assert loaded.identity.seed == KEYS.identity.seed
    assert {epoch: key.to_bytes() for epoch, key in loaded.lane_keys.items()} == {
        epoch: key.to_bytes() for epoch, key in LANE_KEYS.items()
    }
    files = list(tmp_path.iterdir())
    assert {file.name for file in files} == {"identity.key", "lane-1.key", "lane-2.key", "lane-3.key"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_restarted_node_has_the_same_secret_and_salt_and_no_two_uses_share_one(tmp_path: Path) -> None:
    KEYS.save(tmp_path)
    loaded = HolderKeys.load(tmp_path)
    assert loaded.sum_secret("run") == KEYS.sum_secret("run")
    assert loaded.round_salt("run/1") == KEYS.round_salt("run/1")
    secrets = {
        KEYS.identity.seed,
        KEYS.sum_secret("run"),
        KEYS.sum_secret("other"),
        KEYS.round_salt("run"),
        KEYS.round_salt("run/1"),
        KEYS.round_salt("run/2"),
        KEYS.storage_key("run"),
        KEYS.storage_key("lane-copy"),
    }
    assert len(secrets) == 8
    assert {len(secret) for secret in secrets} == {32}


NAMES, CONTENTS = (
    ("identity.key", "lane-1.key", "lane-2.key", "lane-3.key"),
    (None, b"", b"\x07" + bytes(31), bytes(33)),
)
# Without its newest key a data holder looks as it did before it had one.
BROKEN = [(name, content) for name in NAMES for content in CONTENTS if (name, content) != ("lane-3.key", None)]


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_a_missing_or_broken_key_is_told_without_its_content(tmp_path: Path, name: str, content: bytes | None) -> None:
    KEYS.save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content[:31] if name == "identity.key" else content)
    with pytest.raises(MalformedError) as caught:
        HolderKeys.load(tmp_path)
    assert isinstance(caught.value, FedcreditError)
    assert (content or b"nothing").hex() not in str(caught.value) or not content


def test_the_newest_epoch_is_current_and_the_stores_keep_their_key_when_it_changes() -> None:
    assert (KEYS.current, KEYS.lane_key) == (3, LANE_KEYS[3])
    before = HolderKeys(KEYS.identity, {1: LANE_KEYS[1]})
    assert (before.current, before.lane_key) == (1, LANE_KEYS[1])
    assert before.storage_key("lane-copy") == KEYS.storage_key("lane-copy")


@pytest.mark.parametrize("epochs", [(), (0,), (-1, 1)])
def test_keys_without_an_epoch_or_with_one_before_the_first_are_refused(epochs: tuple[int, ...]) -> None:
    with pytest.raises(MalformedError):
        HolderKeys(KEYS.identity, dict.fromkeys(epochs, LANE_KEYS[1]))


def test_a_new_epoch_is_added_beside_the_others(tmp_path: Path) -> None:
    HolderKeys(KEYS.identity, {1: LANE_KEYS[1]}).save(tmp_path)
    assert HolderKeys.load(tmp_path).current == 1
    (tmp_path / "lane-02.key").write_bytes(LANE_KEYS[2].to_bytes())  # no epoch's file
    assert HolderKeys.load(tmp_path).current == 1
    HolderKeys(KEYS.identity, {1: LANE_KEYS[1], 2: LANE_KEYS[2]}).save(tmp_path)
    assert HolderKeys.load(tmp_path).current == 2


def test_keys_do_not_show_themselves() -> None:
    assert KEYS.identity.seed.hex() not in repr(KEYS)
    assert repr(KEYS.identity.seed) not in repr(KEYS)
    assert repr(KEYS.lane_key.to_bytes()) not in repr(KEYS)


@pytest.mark.parametrize(
    ("there", "opening"), [([1], [1]), ([1, 2, 3], [1, 2, 3]), ([1, 3], [3]), ([1, 2, 4, 5], [4, 5]), ([7], [7])]
)
def test_no_key_older_than_a_gap_opens_anything(there: list[int], opening: list[int]) -> None:
    keys = HolderKeys(SigningKey.from_seed(bytes(32)), {epoch: LaneKey.generate() for epoch in there})
    assert sorted(keys.opening_keys) == opening
