"""What is wrong with a settings file is told with its key and line, and no value of it."""

from pathlib import Path

import msgspec
import pytest

from federated.settings_file import NotSettingsError, read_settings


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int
    hosts: list[str]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    inner: Inner


GOOD = 'version = 1\n\n# where it listens\n[inner]\nport = 5\nhosts = ["a"]\n'


def complaint(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(NotSettingsError) as caught:
        read_settings(path, Settings)
    return str(caught.value)


def test_what_is_in_order_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    assert read_settings(tmp_path / "a.toml", Settings) == Settings(1, Inner(5, ["a"]))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 1", "version = '1'", "$.version` (line 1)"),
        ("port = 5", "port = 'x'", "$.inner.port` (line 5)"),
        ('["a"]', '["a", 7]', "$.inner.hosts[1]` (line 6)"),
        ("port = 5\n", "", "missing required field `port` - at `$.inner` (line 4)"),
        ("port = 5\n", "port = 5\nports = 6\n", "unknown field `ports` - at `$.inner` (line 6)"),
        ("version = 1\n", "version = 1\nother = 2\n", "unknown field `other` (line 2)"),
        ("version = 1\n", "", "missing required field `version`"),
        ("port = 5", "port 5", "line 5, column"),
    ],
)
def test_a_complaint_names_the_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in complaint(tmp_path / "a.toml", GOOD.replace(old, new).encode())


def test_what_is_no_text_is_told_without_a_byte_of_it(tmp_path: Path) -> None:
    assert complaint(tmp_path / "a.toml", b"version = 1 # \xfe").startswith("it is not UTF-8 text")
    assert "nested too deeply" in complaint(tmp_path / "a.toml", b"a = " + b"[" * 100_000)


def test_a_directory_is_told_as_one_and_what_is_not_there_is_the_systems_to_tell(tmp_path: Path) -> None:
    with pytest.raises(NotSettingsError, match="is a directory"):
        read_settings(tmp_path, Settings)
    with pytest.raises(FileNotFoundError):
        read_settings(tmp_path / "none.toml", Settings)
