"""The coordinator's settings: every key is needed, nothing else is taken, and what is written is what is read."""

from pathlib import Path
from typing import get_args

import pytest

from federated.recipes.base import RecipeName
from privacy.errors import MalformedError, RefusalError, UsageError
from server.deploy.settings import SETTINGS_FILE, Home, RecipeChoice, load_settings, parse_settings
from server.deploy.setup import Start, settings_text

START = Start(
    name="open-scoring",
    address="scoring.example:9443",
    schema=Path("schema.toml"),
    registry_url="https://registry.example:8443",
    registry_key="ab" * 32,
    registry_ca=None,
)
TEXT = settings_text(START)
KEYS = [line for line in TEXT.splitlines() if " = " in line and not line.startswith("#")]


def test_there_are_keys_to_leave_out() -> None:
    assert len(KEYS) > 25


@pytest.mark.parametrize("line", KEYS)
def test_no_key_may_be_missing_or_misspelt(line: str, tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    path.write_text(TEXT.replace(f"\n{line}\n", "\n", 1))
    with pytest.raises(MalformedError, match="Every key is needed"):
        load_settings(path)
    path.write_text(TEXT.replace(f"\n{line}\n", f"\n{line}\nx{line}\n", 1))
    with pytest.raises(MalformedError, match="unknown field"):
        load_settings(path)


def test_the_recipes_that_may_be_named_are_those_that_there_are() -> None:
    assert set(get_args(RecipeChoice)) == {"auto"} | {name.value for name in RecipeName}


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("scoring.example:9443", "scoring.example"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:65535", "::1"),
        ("localhost:9443", "localhost"),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, name: str) -> None:
    text = TEXT.replace('"scoring.example:9443"', f'"{address}"')
    assert parse_settings(text).fleet.name == name


@pytest.mark.parametrize(
    "address",
    ["scoring.example", "https://scoring.example:1", "a:0", "a:65536", ":9443", "a b:1", "-a:1", "256.0.0.1:1", "A:1",
     "a:1\\n", "a:09"],
)  # fmt: skip
def test_what_nobody_can_dial_is_no_address(address: str, tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    path.write_text(TEXT.replace('"scoring.example:9443"', f'"{address}"'))
    with pytest.raises(MalformedError, match=r"fleet\.address"):
        load_settings(path)


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("delta = 1e-5", "delta = nan"),
        ("delta = 1e-5", "delta = 0.01"),
        ("epsilon = 1.0", "epsilon = inf"),
        ("epsilon = 1.0", "epsilon = 0"),
        ("answer_deadline_s = 600.0", "answer_deadline_s = -1"),
        ('trust = "shared_noise"', 'trust = "nobody"'),
        ('recipe = "auto"', 'recipe = "magic"'),
        ("version = 1", "version = 2"),
        ('url = "https://registry.example:8443"', 'url = "http://registry.example:8443"'),
        ("superlink_port = 9092", "superlink_port = 9443"),
        ("people = 10000", "people = 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(line: str, instead: str, tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    assert f"\n{line}\n" in TEXT
    path.write_text(TEXT.replace(f"\n{line}\n", f"\n{instead}\n", 1))
    with pytest.raises(MalformedError, match="coordinator"):
        load_settings(path)


def test_a_directory_that_is_no_coordinators_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no coordinator's directory"):
        Home.open(tmp_path)
    (tmp_path / SETTINGS_FILE).mkdir()
    with pytest.raises(MalformedError, match="is a directory"):
        Home.open(tmp_path)


def test_a_key_of_another_size_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(TEXT)
    home = Home.open(tmp_path)
    with pytest.raises(RefusalError, match=r"coordinator\.key"):
        home.key()
    (tmp_path / "coordinator.key").write_bytes(b"short")
    with pytest.raises(RefusalError, match=r"coordinator\.key"):
        home.key()
    with pytest.raises(RefusalError, match=r"superexec\.secret"):
        home.secret()


def test_a_registry_is_trusted_by_the_file_that_is_named_or_by_the_system(tmp_path: Path) -> None:
    registry = parse_settings(TEXT).registry
    assert registry.trust(tmp_path) is None
    named = parse_settings(TEXT.replace('ca = ""', 'ca = "registry-ca.pem"')).registry
    with pytest.raises(MalformedError, match=r"registry-ca\.pem"):
        named.trust(tmp_path)
    (tmp_path / "registry-ca.pem").write_text("no certificate")
    with pytest.raises(MalformedError, match=r"registry-ca\.pem"):
        named.trust(tmp_path)


def test_a_file_in_place_of_the_directory_is_a_mistake_of_whoever_typed_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no coordinator's directory"):
        Home.open(tmp_path / "file")


def test_what_is_wrong_is_told_with_its_line_and_no_byte_of_it(tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_FILE
    path.write_text(TEXT.replace("delta = 1e-5", 'delta = "small"', 1))
    line = 1 + TEXT.splitlines().index("delta = 1e-5")
    with pytest.raises(MalformedError, match=rf"plan\.delta` \(line {line}\)"):
        load_settings(path)
    path.write_bytes(TEXT.encode() + b"# \xfe")
    with pytest.raises(MalformedError, match=r"it is not UTF-8 text") as caught:
        load_settings(path)
    assert "fe" not in str(caught.value).replace("fedcredit", "")
    path.unlink()
    path.mkdir()
    with pytest.raises(MalformedError, match="it is a directory"):
        load_settings(path)
