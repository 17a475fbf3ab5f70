"""Lane heads over HTTP, from a registry that is a program of its own, and from none."""

from pathlib import Path

import pytest

from privacy.consent.lane import read_checkpoint
from privacy.errors import RefusalCode, RefusalError, TamperingError
from server.deploy.checkpoints import newest, registry_of
from server.deploy.settings import Home, parse_settings
from server.deploy.setup import Start, settings_text
from tests.registry_process import make_registry, serving
from tests.server.registry.samples import LANE, LANES


def home_of(directory: Path, url: str, key: bytes) -> Home:
    start = Start(
        name="open-scoring", address="a.example:1", schema=Path("schema.toml"), registry_url=url,
        registry_key=key.hex(), registry_ca=Path("ca"),
    )  # fmt: skip
    return Home(directory, parse_settings(settings_text(start)))


def test_heads_come_from_the_registry_and_are_its_own(tmp_path: Path) -> None:
    with serving(make_registry(tmp_path / "registry", LANES)) as running:
        home = home_of(tmp_path, running.url, running.public_key)
        (tmp_path / "registry-ca.pem").write_text(running.ca or "")
        with registry_of(home) as heads:
            found = newest(heads, [LANE], public=home.settings.registry.public)
            assert read_checkpoint(found[LANE], f"fedcredit/{LANE}", running.public_key).size == 0
            with pytest.raises(TamperingError):
                newest(heads, [LANE], public=bytes(31) + b"\x09")
            with pytest.raises(RefusalError, match="lane nobody was not to be had") as caught:
                newest(heads, ["nobody"], public=home.settings.registry.public)
            assert "adds lanes" in str(caught.value)
    with registry_of(home) as heads, pytest.raises(RefusalError, match="cannot be reached") as caught:
        newest(heads, [LANE], public=home.settings.registry.public)
    assert caught.value.code is RefusalCode.LANE
