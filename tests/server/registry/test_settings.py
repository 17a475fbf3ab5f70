"""registry.toml: complete, strict, and what `init` writes is what `serve` reads."""

import ssl
from pathlib import Path

import msgspec
import pytest

from privacy.errors import FedcreditError, MalformedError, RefusalError, UsageError
from server.registry.certificates import self_signed
from server.registry.settings import Home, is_loopback, load_settings, settings_text
from server.registry.setup import add_lane, make_home
from tests.registry_process import make_registry
from tests.server.registry.samples import AT, LANES, settings

DATABASES_WRITTEN = ("sqlite:///registry.db", 'postgresql://a:"\\p@host/name')


@pytest.mark.parametrize("database", DATABASES_WRITTEN)
def test_what_is_written_is_what_is_read(tmp_path: Path, database: str) -> None:
    wanted = msgspec.structs.replace(settings(), database=database)
    path = tmp_path / "registry.toml"
    path.write_text(settings_text(wanted))
    assert load_settings(path) == wanted


CHANGES = {
    "a missing key": ("merge_delay_s = 60\n", "", "merge_delay_s"),
    "an unknown key": ("version = 1", "version = 1\nflavour = 2", "flavour"),
    "an unknown key in a table": ("burst =", "bursts = 1\nburst =", "bursts"),
    "a missing table": ("[limits]", "[limit]", "limit"),
    "another version": ("version = 1", "version = 2", "version"),
    "true for a number": ("merge_delay_s = 60", "merge_delay_s = true", "merge_delay_s"),
    "a delay of a day": ("merge_delay_s = 60", "merge_delay_s = 86400", "merge_delay_s"),
    "a burst below one submission": ("burst = 10000000", "burst = 255", "burst"),
    "a port beyond": ("port = 0", "port = 65536", "port"),
    "no TOML": ("port = 0", "port = = 0", "line 9"),
    "a short key": (next(iter(LANES.values())).hex(), "abc", "lanes"),
    "a lane with a path": ('[lanes."aster-bank"]', '[lanes."../x"]', "lanes"),
    "half a certificate": ('certificate = ""', 'certificate = "tls.pem"', "private_key"),
    "a certificate elsewhere": ('certificate = ""', 'certificate = "../tls.pem"', "certificate"),
    "plain HTTP for everybody": ('host = "127.0.0.1"', 'host = "0.0.0.0"', "unprotected"),
    "plain HTTP for a name": ('host = "127.0.0.1"', 'host = "registry.example"', "unprotected"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_settings_that_are_not_complete_and_known_are_refused(tmp_path: Path, what: str) -> None:
    old, new, named = CHANGES[what]
    text = settings_text(settings())
    assert old in text
    path = tmp_path / "registry.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(MalformedError, match=r"registry\.toml") as caught:
        load_settings(path)
    assert named in str(caught.value)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    home = make_registry(tmp_path / "r", LANES)
    before = {path.name: path.read_bytes() for path in home.directory.iterdir()}
    with pytest.raises(RefusalError, match="overwritten"):
        make_registry(home.directory, LANES)
    assert {path.name: path.read_bytes() for path in home.directory.iterdir()} == before
    (home.directory / "registry.toml").unlink()
    with pytest.raises(RefusalError, match="overwritten"):
        make_registry(home.directory, LANES)


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    home = make_registry(tmp_path / "r", LANES)
    for name in ("registry.key", "tls.key", "registry.toml"):
        assert (home.directory / name).stat().st_mode & 0o077 == 0, name


def test_an_unreachable_database_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RefusalError) as caught:
        make_registry(tmp_path / "r", LANES, database="postgresql://me:secret@127.0.0.1:1/name")
    assert "secret" not in str(caught.value)
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize("lane", ["aster-bank", "aster-bank=", "=" + "0" * 64, "Aster=" + "0" * 64, "a/b=" + "0" * 64])
def test_a_lane_needs_a_name_and_a_key(tmp_path: Path, lane: str) -> None:
    with pytest.raises(UsageError, match="NAME=HEX"):
        make_home(tmp_path / "r", host="127.0.0.1", port=0, database="sqlite:///registry.db", lanes=[lane], at=AT,
                  certified_name=None)  # fmt: skip
    assert not (tmp_path / "r").exists()


def test_a_missing_or_broken_key_is_told(tmp_path: Path) -> None:
    home = make_registry(tmp_path / "r", LANES)
    for content in (b"short", None):
        path = home.directory / "registry.key"
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(RefusalError, match=r"registry\.key"):
            Home.open(home.directory).key()
    with pytest.raises(FedcreditError, match="init"):
        Home.open(tmp_path)


def test_a_self_signed_certificate_is_trusted_only_where_it_is_given(tmp_path: Path) -> None:
    certificate, key = self_signed("127.0.0.1", at=AT)
    (tmp_path / "c.pem").write_bytes(certificate)
    (tmp_path / "k.pem").write_bytes(key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    found = ssl.create_default_context(cadata=certificate.decode()).get_ca_certs()
    assert len(found) == 1
    assert ("IP Address", "127.0.0.1") in found[0]["subjectAltName"]


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "")))  # noqa: S104


def test_a_lane_is_added_once_and_the_comments_stay(tmp_path: Path) -> None:
    home = make_registry(tmp_path / "r", LANES)
    before = (home.directory / "registry.toml").read_text()
    for _ in range(2):
        assert add_lane(home.directory, f"oak-bank={bytes(range(32)).hex()}") == "oak-bank"
    after = (home.directory / "registry.toml").read_text()
    assert after.startswith(before.rstrip("\n"))
    assert after.count("oak-bank") == before.count("oak-bank") + 1
    assert Home.open(home.directory).settings.identities == {**LANES, "oak-bank": bytes(range(32))}
    with pytest.raises(UsageError, match="another identity"):
        add_lane(home.directory, f"oak-bank={bytes(32).hex()}")
    assert (home.directory / "registry.toml").read_text() == after
