"""The data holder's keys: its owner's only, the same after a restart, another for every use."""

import stat
from hashlib import sha256
from pathlib import Path

import pytest

from clients.holder.keys import HolderKeys
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError

KEYS = HolderKeys(SigningKey.from_seed(sha256(b"identity").digest()), LaneKey.from_bytes(b"\x01" + bytes(range(32))))


def test_saved_keys_come_back_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    KEYS.save(tmp_path)
    loaded = HolderKeys.load(tmp_path)
    assert loaded.identity.seed == KEYS.identity.seed
    assert loaded.lane_key.to_bytes() == KEYS.lane_key.to_bytes()
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_restarted_node_has_the_same_mask_key_and_salt_and_no_two_uses_share_one(tmp_path: Path) -> None:
    KEYS.save(tmp_path)
    loaded = HolderKeys.load(tmp_path)
    assert loaded.mask_key("run").to_bytes() == KEYS.mask_key("run").to_bytes()
    assert loaded.round_salt("run/1") == KEYS.round_salt("run/1")
    secrets = {
        KEYS.identity.seed,
        KEYS.mask_key("run").to_bytes(),
        KEYS.mask_key("other").to_bytes(),
        KEYS.round_salt("run"),
        KEYS.round_salt("run/1"),
        KEYS.round_salt("run/2"),
    }
    assert len(secrets) == 6
    assert {len(secret) for secret in secrets} == {32}


@pytest.mark.parametrize("name", ["identity.key", "lane.key"])
@pytest.mark.parametrize("content", [None, b"", b"\x07" + bytes(31), bytes(33)])
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


def test_keys_do_not_show_themselves() -> None:
    assert KEYS.identity.seed.hex() not in repr(KEYS)
    assert repr(KEYS.identity.seed) not in repr(KEYS)
    assert repr(KEYS.lane_key.to_bytes()) not in repr(KEYS)
