"""A new coordinator's directory: whole or not there, its secrets its own, and nothing overwritten."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import server.deploy.setup
from federated.files import write_whole
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, UsageError
from server.deploy.settings import Home
from server.deploy.setup import Start, make_home, settings_text
from server.deploy.tls import make_tls
from tests.small_federation import DATA

AT = 1_793_491_200
FILES = {"coordinator.toml", "coordinator.key", "schema.toml", "superexec.secret", "tls"}


def start(**changes: Any) -> Start:
    return replace(
        Start(
            name="open-scoring",
            address="scoring.example:9443",
            schema=DATA / "schema.toml",
            registry_url="https://registry.example:8443",
            registry_key="ab" * 32,
            registry_ca=None,
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("made") / "coordinator", start(), at=AT)


def test_it_is_a_coordinators(home: Home) -> None:
    assert {path.name for path in home.directory.iterdir()} == FILES
    assert Home.open(home.directory) == home
    assert (home.directory / "schema.toml").read_bytes() == (DATA / "schema.toml").read_bytes()
    assert len(bytes.fromhex(home.secret())) == 32
    assert (home.settings.fleet.host, home.settings.fleet.port) == ("0.0.0.0", 9443)  # noqa: S104 (a setting)
    assert home.settings.plan.point_scale.maximum == 850


def test_secrets_are_their_owners_alone(home: Home) -> None:
    for name in ("coordinator.key", "superexec.secret", "tls/ca.key", "tls/fleet.key", "tls/superlink.key"):
        assert (home.directory / name).stat().st_mode & 0o077 == 0, name


def test_two_coordinators_share_no_secret(home: Home, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other", start(), at=AT)
    assert other.key().public != home.key().public
    assert other.secret() != home.secret()


@pytest.mark.parametrize("name", sorted(FILES | {"registry-ca.pem"}))
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="nothing is overwritten"):
        make_home(tmp_path, start(), at=AT)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_every_setting_is_explained() -> None:
    lines = settings_text(start()).splitlines()
    tables = [number for number, line in enumerate(lines) if line.startswith("[")]
    assert len(tables) == 5
    assert all(lines[number + 1].startswith("#") for number in tables)
    # A key without a comment above it stands under another key: of one subject, and at most four of them.
    bare = "".join(" " if line.startswith("#") or not line else "k" for line in lines if not line.startswith("["))
    assert max(map(len, bare.split()[:-1])) <= 4


@pytest.mark.parametrize(
    ("address", "listens"),
    [("127.0.0.1:9443", "127.0.0.1"), ("localhost:1", "localhost"), ("[::1]:1", "::1"), ("a.example:1", "0.0.0.0")],  # noqa: S104 (a setting)
)
def test_it_listens_where_its_address_can_be_reached(address: str, listens: str) -> None:
    assert tomllib.loads(settings_text(start(address=address)))["fleet"]["host"] == listens
    assert tomllib.loads(settings_text(start(address=address, host="10.0.0.1")))["fleet"]["host"] == "10.0.0.1"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Open Scoring"},
        {"name": 'a"b'},
        {"address": "scoring.example"},
        {"registry_url": "http://registry.example"},
        {"registry_key": "ab"},
        {"superlink_port": 9443},
        {"epsilon": float("nan")},
        {"people": 0},
    ],
)
def test_what_makes_no_settings_makes_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_home(tmp_path / "coordinator", start(**changes), at=AT)
    assert not list(tmp_path.iterdir())


def test_a_schema_or_a_certificate_that_is_none_makes_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("neither")
    for changes in ({"schema": wrong}, {"registry_ca": wrong}, {"registry_ca": tmp_path / "gone"}):
        with pytest.raises(MalformedError):
            make_home(tmp_path / "coordinator", start(**changes), at=AT)
    assert not (tmp_path / "coordinator").exists()


@pytest.mark.parametrize("writes", range(4))
def test_a_disk_that_fills_up_leaves_nothing_and_the_command_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = writes

    def full(path: Path, content: bytes, *, secret: bool = False) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RefusalError(f"{path.name} could not be written", RefusalCode.INTERNAL)
        write_whole(path, content, secret=secret)

    with monkeypatch.context() as patch:
        patch.setattr(server.deploy.setup, "write_whole", full)
        with pytest.raises(RefusalError):
            make_home(tmp_path / "coordinator", start(), at=AT)
    assert not list((tmp_path / "coordinator").iterdir())
    make_home(tmp_path / "coordinator", start(), at=AT)


def test_certificates_that_cannot_be_made_leave_nothing(tmp_path: Path) -> None:
    def broken(directory: Path, host: str, at: int) -> None:
        make_tls(directory, host, at)
        raise RefusalError("no room", RefusalCode.INTERNAL)

    with pytest.raises(FedcreditError):
        make_home(tmp_path / "coordinator", start(), at=AT, make_tls=broken)
    assert not list((tmp_path / "coordinator").iterdir())


def test_the_registrys_certificates_are_kept_and_nothing_else_of_the_file(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    certificate = (home.tls / "ca.pem").read_text()
    file.write_text("a note that somebody left\n" + certificate)
    made = make_home(tmp_path / "coordinator", start(registry_ca=file), at=AT)
    assert made.settings.registry.trust(made.directory) == certificate
    assert (made.directory / "registry-ca.pem").read_text() == certificate


def test_the_key_is_one_that_plans_can_be_signed_with(home: Home) -> None:
    assert SigningKey.from_seed((home.directory / "coordinator.key").read_bytes()).public == home.key().public
