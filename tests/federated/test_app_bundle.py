"""The digest of an app bundle: the same for the same code however it was packed, and another for anything else."""

import io
import tomllib
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated import app_bundle
from federated.app_bundle import (
    DEEPEST_KEY,
    LARGEST_PACKED_BYTES,
    LARGEST_PROJECT_BYTES,
    MOST_FILES,
    PROJECT,
    _digest,
    digest,
    digest_of,
    files,
)
from federated.flower_tasks import packed_bundle
from privacy.errors import MalformedError

ROOT = Path(__file__).parent.parent.parent
SMALL = {PROJECT: b'[project]\nname = "x"\n', "server/app.py": b"app = 1\n", "clients/app.py": b""}


def pack(content: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")  # Flower's own use of a library
def test_what_flower_packs_has_the_digest_that_is_approved() -> None:
    bundle = packed_bundle()
    assert digest_of(bundle) == _digest(files())
    with zipfile.ZipFile(io.BytesIO(bundle)) as packed:
        assert ".info/CONTENT" in packed.namelist()  # Flower's own list, which is no code


def test_it_carries_the_code_of_data_holders_and_rounds_and_nothing_else() -> None:
    names = set(files())
    assert {PROJECT, "clients/app.py", "server/app.py", "clients/holder/node.py", "privacy/errors.py"} <= names
    assert [name for name in names if not name.endswith(".py") and name != PROJECT] == []
    for room in ("tests/", "experiments/", "clients/wallet/", "server/registry/", "server/deploy/"):
        assert [name for name in names if name.startswith(room)] == []


def test_the_project_settings_say_what_the_repository_says() -> None:
    """Two lists of what is bundled, one for `flwr build` in the working tree, may not go apart."""
    text = (ROOT / PROJECT).read_text()
    assert all(f'"{pattern}"' in text for pattern in app_bundle.INCLUDED)


def test_the_digest_is_sha256_in_hex() -> None:
    assert len(bytes.fromhex(digest())) == 32
    assert digest() == digest().lower()


def test_packing_and_order_do_not_count() -> None:
    expected = digest_of(pack(SMALL))
    assert digest_of(pack(SMALL, method=zipfile.ZIP_STORED)) == expected
    assert digest_of(pack(dict(reversed(SMALL.items())))) == expected
    assert digest_of(pack({**SMALL, ".info/CONTENT": b"whatever"})) == expected
    assert digest_of(pack({**SMALL, PROJECT: b"# a comment\n[project]\nname='x'"})) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {**SMALL, "server/app.py": b"app = 2\n"},
        {**SMALL, "server/more.py": b""},
        {name: data for name, data in SMALL.items() if name != "clients/app.py"},
        {**SMALL, PROJECT: b'[project]\nname = "y"\n'},
        {**SMALL, ".info/OTHER": b""},
        {**{name: data for name, data in SMALL.items() if name != "server/app.py"}, "server/App.py": b"app = 1\n"},
    ],
)
def test_any_other_code_has_another_digest(changed: dict[str, bytes]) -> None:
    assert digest_of(pack(changed)) != digest_of(pack(SMALL))


@given(st.dictionaries(st.text("ab/.py", min_size=1, max_size=4), st.binary(max_size=4), max_size=4))
def test_names_and_contents_cannot_be_shifted_into_each_other(other: dict[str, bytes]) -> None:
    content = {f"x{name}": data for name, data in other.items()}
    assert (_digest({**SMALL, **content}) == _digest(SMALL)) == (content == {})


def _twice() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("server/app.py", b"app = 1\n")
        packed.writestr("server/APP.py", b"app = 2\n")
    return file.getvalue().replace(b"server/APP.py", b"server/app.py")


def test_one_name_twice_is_malformed() -> None:
    with pytest.raises(MalformedError):
        digest_of(_twice())


def test_more_than_the_bound_unpacked_is_malformed_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = pack({**SMALL, "server/large.py": bytes(1000)})
    digest_of(bundle)
    monkeypatch.setattr(app_bundle, "LARGEST_BYTES", 999)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(MalformedError):
        digest_of(bundle)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_larger_than_it_claims_is_malformed_and_never_unpacked_whole(method: int) -> None:
    size = (32 << 20) + 0x123456  # bytes that stand nowhere else in the archive
    bundle = pack({**SMALL, "server/bomb.py": bytes(size)}, method=method).replace(
        size.to_bytes(4, "little"), (1).to_bytes(4, "little")
    )
    with zipfile.ZipFile(io.BytesIO(bundle)) as packed:
        assert packed.getinfo("server/bomb.py").file_size == 1
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError):
            digest_of(bundle)
        assert tracemalloc.get_traced_memory()[1] < size / 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "project",
    [
        b"\xff",
        b"[project",
        b"[a]\nb = 1\n[a]\nb = 2\n",
        b"a = " + b"[" * 10_000,
        b"a = nan",
        b"a = 1979-05-27",
        b"a = 1" + b"0" * 30,
        b"a = 1" + b"0" * 5000,
    ],
)
def test_settings_that_are_none_are_malformed_or_settings(project: bytes) -> None:
    try:
        assert len(digest_of(pack({**SMALL, PROJECT: project}))) == 64
    except MalformedError:
        return


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_bundle_is_malformed_or_another(data: st.DataObject) -> None:
    damaged = bytearray(pack(SMALL))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(digest_of(bytes(damaged))) == 64
    except MalformedError:
        return


@pytest.mark.parametrize("bundle", [b"", b"no archive", pack(SMALL)[:-30], pack({})[:10]])
def test_what_is_no_archive_is_malformed(bundle: bytes) -> None:
    with pytest.raises(MalformedError):
        digest_of(bundle)


def _parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The settings that are parsed from now on."""
    loads, parsed = tomllib.loads, list[str]()

    def noted(text: str) -> dict[str, Any]:
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", noted)
    return parsed


@pytest.mark.parametrize(
    "project",
    [
        b".".join([b"a"] * 16_000) + b" = 1",
        b"[" + b".".join([b"a"] * 16_000) + b"]",
        b"a = 1\n" + b" . ".join([b'"a"'] * 1_000) + b" = 1",
        b"#" + bytes(LARGEST_PROJECT_BYTES),
    ],
)
def test_settings_that_take_long_to_read_are_not_read(project: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = _parsed(monkeypatch)
    with pytest.raises(MalformedError):
        digest_of(pack({**SMALL, PROJECT: project}))
    assert parsed == []


def test_settings_at_the_bounds_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = _parsed(monkeypatch)
    deep = b".".join([b"a"] * (DEEPEST_KEY + 1)) + b" = 1\n#"
    digest_of(pack({**SMALL, PROJECT: deep + b"x" * (LARGEST_PROJECT_BYTES - len(deep))}))
    assert len(parsed) == 1


def test_more_files_than_any_version_has_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_bundle, "MOST_FILES", 3)
    digest_of(pack(SMALL))
    bundle = pack({**SMALL, "server/more.py": b""})
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(MalformedError):
        digest_of(bundle)


def test_a_larger_archive_than_flower_packs_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(MalformedError):
        digest_of(bytes(LARGEST_PACKED_BYTES + 1))


def test_this_version_is_far_within_the_limits() -> None:
    assert len(files()) < MOST_FILES / 5
    assert len(files()[PROJECT]) < LARGEST_PROJECT_BYTES / 10
