"""`fedcredit holder join`: only the coordinator's own, newest welcome for this data holder is taken."""

import json
import re
import stat
import subprocess
import tomllib
from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomlkit
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from clients.holder.fleet import Fleet, load_fleet, load_node_key
from clients.holder.keys import HolderKeys
from clients.holder.settings import load_settings
from federated.app_bundle import digest
from federated.enrolment import MAX_FILE_BYTES, Welcome, fingerprint_of, node_key_text, read_welcome, write_welcome
from privacy.consent.linking import fingerprint
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalError, UsageError
from tests.enrolment_scene import AT, SCHEMA, Federation, Told

DAY_S = 86_400
FAMILIES = {2: "Usage", 3: "Refusal", 4: "Malformed", 5: "Tampering"}
ME = "aster-bank"


@pytest.fixture
def federation(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Federation:
    return Federation(tmp_path, capsys, monkeypatch)


def assert_refused(told: Told, code: int, words: str) -> None:
    assert told.code == code, told
    assert told.err.startswith(f"{FAMILIES[code]}: ")
    assert re.search(words, " ".join(told.err.split())), told.err
    assert not re.search(r"[0-9a-f]{64}|ecdsa-sha2", told.err), told.err


def everything_in(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def changed(federation: Federation, welcome: Path, **changes: Any) -> Path:
    """The coordinator's own `welcome` with other contents, signed by its key all the same."""
    key = federation.home.key()
    before = read_welcome(welcome.read_bytes(), signers=[key.public], at=federation.at)
    file = federation.root / f"changed-{len(list(federation.root.iterdir()))}.json"
    file.write_bytes(write_welcome(msgspec.structs.replace(before, **changes), key))
    return file


def test_joining_ends_in_a_fleet_that_can_be_dialled(federation: Federation) -> None:
    welcome = federation.enrol(ME)
    told = federation.join(ME, welcome, "--json")
    assert told.code == 0, told.err
    fleet = Fleet.load(federation.holder(ME), at=AT)
    assert (fleet.address, fleet.coordinator) == ("fleet.example:9443", "open-scoring")
    assert fleet.ca.read_bytes() == (federation.home.directory / "tls" / "ca.pem").read_bytes()
    assert stat.S_IMODE(fleet.node_key.stat().st_mode) == 0o600
    assert told.facts["new_bundle"] is False  # made and submitted by one installation
    assert (told.facts["same_schema"], told.facts["same_registry"]) == (None, True)
    assert federation.join(ME, welcome).code == 0  # once more, if it broke off


def test_the_node_key_is_one_that_openssh_and_flower_read(federation: Federation) -> None:
    federation.request(ME)
    file = federation.holder(ME) / "keys" / "node.key"
    key = load_ssh_private_key(file.read_bytes(), None)  # as flower-supernode does
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    try:
        shown = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("there is no ssh-keygen on this machine")
    assert shown.strip() == node_key_text(key.public_key())


def test_a_request_repeats_its_fingerprint_and_makes_its_key_once(federation: Federation) -> None:
    _, spoken = federation.request(ME)
    before = everything_in(federation.holder(ME))
    _, again = federation.request(ME)
    assert spoken == again
    assert everything_in(federation.holder(ME)) == before
    keys = federation.holder(ME) / "keys"
    identity, node = HolderKeys.load(keys).identity.public.hex(), load_node_key(keys / "node.key")
    assert spoken == fingerprint_of(ME, identity, node_key_text(node.public_key()))
    assert_refused(federation.join(ME, "--request", federation.root / ME / "holder.toml"), 2, "exists")


def test_no_private_key_leaves_in_a_request(federation: Federation) -> None:
    request, _ = federation.request(ME)
    inner = b64decode(json.loads(request.read_bytes())["payload"])
    keys = federation.holder(ME) / "keys"
    node = load_node_key(keys / "node.key")
    number = node.private_numbers().private_value.to_bytes(48, "big")
    der = node.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secrets = [number, der, *(file.read_bytes() for file in keys.iterdir())]
    assert len(secrets) >= 5
    for secret in secrets:
        for form in (secret, secret.hex().encode()):
            assert form not in request.read_bytes()
            assert form not in inner


def test_peers_become_policy_only_when_they_are_accepted(federation: Federation) -> None:
    federation.enrol(ME)
    federation.enrol("birch-bank")
    welcome = federation.welcome(ME)
    settings = federation.holder(ME) / "holder.toml"
    before = settings.read_text()
    told = federation.join(ME, welcome)
    birch = HolderKeys.load(federation.holder("birch-bank") / "keys").identity.public
    assert fingerprint(birch) in told.out
    assert f"holder join {welcome} --directory {federation.holder(ME)} --accept-peers" in told.out
    assert settings.read_text() == before

    taken = federation.join(ME, welcome, "--accept-peers", "--json").facts
    assert (taken["new_peers"], taken["peers_accepted"]) == (["birch-bank"], True)
    assert load_settings(settings).policy.peers == {"birch-bank": birch.hex()}
    added = [line for line in settings.read_text().splitlines() if line not in before.splitlines()]
    assert added == [f'birch-bank = "{birch.hex()}"']
    assert [line for line in before.splitlines() if line not in settings.read_text().splitlines()] == []
    assert "NEW" not in federation.join(ME, welcome).out


def test_a_bundle_becomes_policy_only_when_it_is_accepted(federation: Federation) -> None:
    welcome = changed(federation, federation.enrol(ME), bundle="cd" * 32)
    settings = federation.holder(ME) / "holder.toml"
    before = settings.read_text()
    told = federation.join(ME, welcome)
    assert "--accept-bundle" in told.out
    assert settings.read_text() == before
    assert federation.join(ME, welcome, "--accept-bundle").code == 0
    assert load_settings(settings).policy.bundles == [digest(), "cd" * 32]
    after = settings.read_text()
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in after.splitlines() if line.startswith("#")
    ]
    assert federation.join(ME, welcome, "--accept-bundle").code == 0  # and is added once
    assert settings.read_text() == after


def test_settings_that_others_cannot_read_stay_so(federation: Federation) -> None:
    welcome = changed(federation, federation.enrol(ME), bundle="cd" * 32)
    settings = federation.holder(ME) / "holder.toml"
    settings.chmod(0o600)
    assert federation.join(ME, welcome, "--accept-bundle").code == 0
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600


def test_peers_in_a_table_on_one_line_are_extended_too(federation: Federation) -> None:
    federation.enrol(ME)
    federation.enrol("birch-bank")
    settings = federation.holder(ME) / "holder.toml"
    head, _ = settings.read_text().split("[policy.peers]")
    settings.write_text(head + f'peers = {{ elm = "{"ab" * 32}" }}  # ours\n')
    told = federation.join(ME, federation.welcome(ME), "--accept-peers", "--json")
    assert (told.facts["new_peers"], told.facts["gone_peers"]) == (["birch-bank"], ["elm"])
    assert list(load_settings(settings).policy.peers) == ["elm", "birch-bank"]
    assert "# ours" in settings.read_text()


def test_a_peer_whose_key_has_changed_is_never_written_over(federation: Federation) -> None:
    federation.enrol(ME)
    federation.enrol("birch-bank")
    federation.join(ME, federation.welcome(ME), "--accept-peers")
    moved = changed(federation, federation.welcome(ME), peers={"birch-bank": "ef" * 32, "cedar-bank": "ab" * 32})
    before = everything_in(federation.holder(ME))
    assert_refused(federation.join(ME, moved, "--accept-peers"), 3, "birch-bank.*another identity key")
    assert everything_in(federation.holder(ME)) == before
    told = federation.join(ME, moved)
    assert "ANOTHER KEY" in told.out
    assert load_settings(federation.holder(ME) / "holder.toml").policy.peers.keys() == {"birch-bank"}


def test_a_welcome_by_another_coordinator_is_refused(federation: Federation) -> None:
    welcome = federation.enrol(ME)
    stranger = SigningKey.generate()
    own = read_welcome(welcome.read_bytes(), signers=[federation.home.key().public], at=AT)
    forged = msgspec.structs.replace(own, coordinator_key=stranger.public.hex(), address="evil.example:1")
    welcome.write_bytes(write_welcome(forged, stranger))
    before = everything_in(federation.holder(ME))
    assert_refused(federation.join(ME, welcome, "--accept-peers", "--accept-bundle"), 5, "coordinator_keys")
    assert everything_in(federation.holder(ME)) == before


def test_any_of_the_coordinators_keys_may_sign(federation: Federation) -> None:
    welcome, new = federation.enrol(ME), SigningKey.generate()
    own = read_welcome(welcome.read_bytes(), signers=[federation.home.key().public], at=AT)
    settings = federation.holder(ME) / "holder.toml"
    text = settings.read_text().replace("coordinator_keys = [", f'coordinator_keys = ["{new.public.hex()}", ')
    settings.write_text(text)
    for key in (federation.home.key(), new):
        welcome.write_bytes(write_welcome(msgspec.structs.replace(own, coordinator_key=key.public.hex()), key))
        assert federation.join(ME, welcome).code == 0


def test_a_welcome_for_somebody_else_is_refused(federation: Federation) -> None:
    mine, other = federation.enrol(ME), federation.enrol("birch-bank")
    before = everything_in(federation.holder(ME))
    assert_refused(federation.join(ME, other), 5, "another data holder")
    for changes, code, words in (
        ({"holder": "birch-bank"}, 5, "another data holder"),
        ({"identity": "ab" * 32}, 5, "another identity key"),
        ({"node_key": node_key_text(ec.generate_private_key(ec.SECP384R1()).public_key())}, 3, "node key"),
        ({"coordinator": "closed-scoring"}, 3, "another name"),
    ):
        assert_refused(federation.join(ME, changed(federation, mine, **changes)), code, words)
    assert everything_in(federation.holder(ME)) == before


def test_an_older_welcome_does_not_come_back(federation: Federation) -> None:
    first = federation.enrol(ME)
    federation.at += DAY_S
    second = federation.welcome(ME)
    assert federation.join(ME, second).code == 0
    before = everything_in(federation.holder(ME))
    assert_refused(federation.join(ME, first), 5, "older than the one taken before")
    assert everything_in(federation.holder(ME)) == before
    federation.at += 31 * DAY_S
    assert_refused(federation.join(ME, second), 3, "30 days")
    federation.at = AT - 2 * 3600
    assert_refused(federation.join(ME, second), 3, "clocks")


def test_files_that_are_no_welcome_are_told_in_words(federation: Federation) -> None:
    request, _ = federation.request(ME)
    file = federation.root / "w.json"
    assert_refused(federation.join(ME, request), 4, "another type")
    assert_refused(federation.join(ME, file), 2, "cannot be opened")
    file.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    assert_refused(federation.join(ME, file), 4, "more than 65536 bytes")


def test_a_node_key_is_rotated_without_a_gap(federation: Federation) -> None:
    federation.join(ME, federation.enrol(ME))
    keys = federation.holder(ME) / "keys"
    old = (keys / "node.key").read_bytes()
    request, spoken = federation.request(ME, "--new-node-key")
    assert (keys / "node.key").read_bytes() == old  # the node goes on
    assert federation.request(ME, "--new-node-key")[1] == spoken
    welcome = federation.root / "w.json"
    assert federation("enroll", request, "--fingerprint", spoken, "--out", welcome).code == 0
    HolderKeys.load(keys)  # what waits beside the other keys is none of theirs
    assert federation.join(ME, welcome, "--json").facts["new_node_key"] is True
    assert (keys / "node.key").read_bytes() != old
    assert not (keys / "node-next.key").exists()
    assert stat.S_IMODE((keys / "node.key").stat().st_mode) == 0o600
    assert federation.join(ME, welcome, "--json").facts["new_node_key"] is False
    Fleet.load(federation.holder(ME), at=AT)


def test_the_authoritys_successor_arrives_by_a_welcome(federation: Federation) -> None:
    federation.join(ME, federation.enrol(ME))
    federation.at += DAY_S
    federation("certificates", "--new-ca")
    federation.join(ME, federation.welcome(ME))
    assert Fleet.load(federation.holder(ME), at=federation.at).ca.read_text().count("BEGIN") == 2
    federation("certificates", "--drop-old-ca")
    federation.join(ME, federation.welcome(ME))
    assert Fleet.load(federation.holder(ME), at=federation.at).ca.read_text().count("BEGIN") == 1


def test_another_schema_or_registry_is_told(federation: Federation) -> None:
    welcome = federation.enrol(ME)
    schema = federation.holder(ME) / "schema.toml"
    schema.write_bytes(SCHEMA.read_bytes())
    assert federation.join(ME, welcome, "--json").facts["same_schema"] is True
    other = changed(federation, welcome, schema="ab" * 32, registry=None)
    assert "schema is another" in federation.join(ME, other).out
    assert federation.join(ME, other, "--json").facts["same_registry"] is True  # the coordinator named none
    settings = federation.holder(ME) / "holder.toml"
    settings.write_text(settings.read_text().replace("registry.example", "elsewhere.example"))
    assert "another consent registry" in federation.join(ME, welcome).out


@pytest.mark.parametrize("stage", ["policy", "certificates", "fleet", "key"])
def test_whatever_step_breaks_off_the_same_command_finishes_it(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    federation.join(ME, federation.enrol(ME))
    request, spoken = federation.request(ME, "--new-node-key")
    welcome = federation.root / "w.json"
    federation("enroll", request, "--fingerprint", spoken, "--out", welcome)
    welcome = changed(federation, welcome, bundle="cd" * 32, peers={"birch-bank": "ef" * 32}, address="new.example:1")
    names = {"policy": "holder.toml", "certificates": "fleet-ca.pem", "fleet": "fleet.toml", "key": "node.key"}
    real = Path.replace

    def full(path: Path, target: Path) -> Path:
        if Path(target).name == names[stage]:
            raise OSError(28, "No space left on device")
        return real(path, target)

    accepted = ("--accept-peers", "--accept-bundle")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert_refused(federation.join(ME, welcome, *accepted), 3, "No space left")
    assert federation.join(ME, welcome, *accepted).code == 0
    policy = load_settings(federation.holder(ME) / "holder.toml").policy
    assert (policy.bundles.count("cd" * 32), policy.peers) == (1, {"birch-bank": "ef" * 32})
    assert Fleet.load(federation.holder(ME), at=AT).address == "new.example:1"
    assert not (federation.holder(ME) / "keys" / "node-next.key").exists()


def test_what_does_not_go_together_is_told(federation: Federation) -> None:
    for arguments in (
        (), ("w.json", "--request", "r.json"), ("w.json", "--new-node-key"), ("--request", "r.json", "--accept-peers"),
    ):  # fmt: skip
        assert_refused(federation.join(ME, *arguments), 2, r"[Gg]ive|goes? with")
    assert_refused(federation("join", "--request", federation.root / "r", directory=federation.root), 2, "holder init")


def test_a_policy_that_cannot_be_extended_stays_as_it_is(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    welcome = changed(federation, federation.enrol(ME), bundle="cd" * 32)
    before = everything_in(federation.holder(ME))
    real = tomlkit.dumps
    for old, new in (("most_openings_per_day = 24", "most_openings_per_day = 2400"), ("version = 1", "version = ")):
        monkeypatch.setattr(tomlkit, "dumps", lambda document, o=old, n=new: real(document).replace(o, n))
        assert_refused(federation.join(ME, welcome, "--accept-bundle"), 4, "by hand")
        assert everything_in(federation.holder(ME)) == before


def _spoil(name: str, content: bytes | None) -> Any:
    def spoil(directory: Path) -> None:
        (directory / name).unlink() if content is None else (directory / name).write_bytes(content)

    return spoil


def _alter(name: str, before: str, after: str) -> Any:
    def alter(directory: Path) -> None:
        text = (directory / name).read_text()
        assert before in text
        (directory / name).write_text(text.replace(before, after))

    return alter


P256 = ec.derive_private_key(7, ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (_spoil("fleet.toml", None), UsageError, "--request"),
        (_spoil("fleet.toml", b"\xff"), MalformedError, "newest welcome"),
        (_alter("fleet.toml", "version = 1", "version = 2"), MalformedError, "version"),
        (_alter("fleet.toml", "version = 1", "version = 1\nmore = 1"), MalformedError, "more"),
        (_alter("fleet.toml", "fleet.example:9443", "--evil"), MalformedError, "address"),
        (_alter("fleet.toml", "fleet-ca.pem", "../fleet-ca.pem"), MalformedError, "ca"),
        (_spoil("fleet-ca.pem", None), MalformedError, "newest welcome"),
        (_spoil("fleet-ca.pem", b"x"), MalformedError, "PEM"),
        (_spoil("keys/node.key", None), MalformedError, "restore"),
        (_spoil("keys/node.key", b"x"), MalformedError, "restore"),
        (_spoil("keys/node.key", P256), MalformedError, "P-384"),
        (lambda directory: (directory / "keys/node.key").chmod(0o640), RefusalError, "chmod 600"),
    ],
)
def test_a_fleet_that_cannot_be_dialled_is_told_in_words(
    federation: Federation, spoil: Any, kind: type[FedcreditError], words: str
) -> None:
    federation.join(ME, federation.enrol(ME))
    Fleet.load(federation.holder(ME), at=AT)
    spoil(federation.holder(ME))
    with pytest.raises(kind, match=words):
        Fleet.load(federation.holder(ME), at=AT)


def test_certificates_that_have_run_out_are_told_before_anything_is_dialled(federation: Federation) -> None:
    federation.join(ME, federation.enrol(ME))
    for at in (AT + 1096 * DAY_S, AT - 2 * 3600):
        with pytest.raises(RefusalError, match="fresh welcome"):
            Fleet.load(federation.holder(ME), at=at)


def test_fleet_toml_says_what_the_welcome_said(federation: Federation) -> None:
    welcome = federation.enrol(ME)
    federation.join(ME, welcome)
    said: Welcome = read_welcome(welcome.read_bytes(), signers=[federation.home.key().public], at=AT)
    raw = tomllib.loads((federation.holder(ME) / "fleet.toml").read_text())
    assert raw == {
        "version": 1, "address": said.address, "ca": "fleet-ca.pem", "coordinator": said.coordinator,
        "welcomed": said.issued_at,
    }  # fmt: skip
    assert load_fleet(federation.holder(ME)).welcomed == said.issued_at
