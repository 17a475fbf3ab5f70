"""`fedcredit coordinator enroll` and `certificates`: nobody is admitted whose fingerprint was not read out."""

import json
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from clients.holder.fleet import load_node_key
from clients.holder.keys import HolderKeys
from federated.enrolment import MAX_FILE_BYTES, read_welcome, write_request
from server.deploy import tls
from server.deploy.members import Members
from tests.enrolment_scene import AT, REGISTRY, REGISTRY_KEY, Federation, Told

DAY_S = 86_400
FAMILIES = {2: "Usage", 3: "Refusal", 4: "Malformed", 5: "Tampering"}


@pytest.fixture
def federation(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Federation:
    return Federation(tmp_path, capsys, monkeypatch)


def assert_refused(told: Told, code: int, words: str) -> None:
    assert told.code == code, told
    assert told.err.startswith(f"{FAMILIES[code]}: ")
    assert re.search(words, " ".join(told.err.split())), told.err
    assert not re.search(r"[0-9a-f]{64}|ecdsa-sha2", told.err), told.err


def payload_of(file: Path) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(b64decode(json.loads(file.read_bytes())["payload"]))
    return payload


def enrolled(federation: Federation) -> set[str]:
    return set(Members(federation.home.directory).current())


def test_a_data_holder_is_enrolled_once_its_fingerprint_was_read_out(federation: Federation) -> None:
    request, spoken = federation.request("aster-bank")
    out = federation.root / "w.json"
    told = federation("enroll", request, "--fingerprint", spoken.replace(" ", "-"), "--out", out, "--json")
    assert told.code == 0, told.err
    assert told.facts == {"holder": "aster-bank", "fingerprint": spoken, "change": "new", "welcome": str(out)}
    member = Members(federation.home.directory).load()["aster-bank"]
    assert (member.enrolled, member.revoked) == (AT, None)
    welcome = payload_of(out)
    own = HolderKeys.load(federation.holder("aster-bank") / "keys").identity.public.hex()
    assert (welcome["holder"], welcome["identity"], welcome["peers"]) == ("aster-bank", own, {})
    assert welcome["address"] == "fleet.example:9443"
    assert welcome["ca"] == (federation.home.directory / "tls" / "ca.pem").read_text()
    assert welcome["registry"] == {"url": REGISTRY, "key": REGISTRY_KEY}


def test_the_fingerprint_is_asked_for_when_it_is_not_given(federation: Federation) -> None:
    request, spoken = federation.request("aster-bank")
    out = federation.root / "w.json"
    wrong = federation("enroll", request, "--out", out, typed="1" * 24)
    assert_refused(Told(wrong.code, wrong.out, wrong.err[wrong.err.index("Tampering") :]), 5, "fingerprint")
    assert spoken in wrong.err
    assert enrolled(federation) == set()
    assert federation("enroll", request, "--out", out, typed=spoken).code == 0
    assert enrolled(federation) == {"aster-bank"}


@pytest.mark.parametrize(("given", "code"), [("111 222 333 444 555 666 777 888", 5), ("111 222", 2), ("", 2)])
def test_a_fingerprint_that_differs_enrols_nobody(federation: Federation, given: str, code: int) -> None:
    request, _ = federation.request("aster-bank")
    out = federation.root / "w.json"
    assert_refused(federation("enroll", request, "--fingerprint", given, "--out", out), code, "fingerprint")
    assert enrolled(federation) == set()
    assert not out.exists()


def test_a_request_that_was_touched_or_is_too_large_enrols_nobody(federation: Federation) -> None:
    request, spoken = federation.request("aster-bank")
    envelope = json.loads(request.read_bytes())
    inner = b64decode(envelope["payload"]).replace(b"aster-bank", b"birch-bank")
    envelope["payload"] = b64encode(inner).decode()
    request.write_text(json.dumps(envelope, separators=(",", ":"), sort_keys=True))
    out = federation.root / "w.json"
    assert_refused(federation("enroll", request, "--fingerprint", spoken, "--out", out), 5, "signature")
    request.write_bytes(b"{" + b" " * MAX_FILE_BYTES)
    assert_refused(federation("enroll", request, "--fingerprint", spoken, "--out", out), 4, "more than 65536 bytes")
    assert_refused(federation("enroll", out, "--fingerprint", spoken, "--out", out), 2, "cannot be opened")
    assert enrolled(federation) == set()


def test_one_identity_under_two_ids_is_refused_before_anybody_is_rung_up(federation: Federation) -> None:
    federation.enrol("aster-bank")
    keys = federation.holder("aster-bank") / "keys"
    twice = federation.root / "twice.request"
    identity, node = HolderKeys.load(keys).identity, load_node_key(keys / "node.key")
    twice.write_bytes(write_request("birch-bank", identity, node, at=AT))
    told = federation("enroll", twice, "--out", federation.root / "w.json", typed="never asked")
    assert_refused(told, 3, "another id")
    assert enrolled(federation) == {"aster-bank"}


def test_a_node_key_is_rotated_and_the_old_request_does_not_bring_it_back(federation: Federation) -> None:
    first, spoken_first = federation.request("aster-bank")
    out = federation.root / "w.json"
    assert federation("enroll", first, "--fingerprint", spoken_first, "--out", out).code == 0
    old = Members(federation.home.directory).load()["aster-bank"].node_key
    second, spoken = federation.request("aster-bank", "--new-node-key")
    assert spoken != spoken_first
    assert_refused(federation("enroll", second, "--fingerprint", spoken_first, "--out", out), 5, "fingerprint")
    told = federation("enroll", second, "--fingerprint", spoken, "--out", out, "--json")
    assert told.facts["change"] == "new node key"
    members = Members(federation.home.directory)
    assert list(members.keys().to_have.values()) == ["aster-bank"]
    assert old not in members.keys().to_have
    assert_refused(federation("enroll", first, "--fingerprint", spoken_first, "--out", out), 3, "replaced before")


def test_another_identity_for_a_known_id_is_refused_with_what_to_do(federation: Federation) -> None:
    federation.enrol("aster-bank")
    federation.holder("aster-bank").rename(federation.root / "lost")
    request, spoken = federation.request("aster-bank")
    out = federation.root / "w.json"
    for more in ((), ("--again",)):
        told = federation("enroll", request, "--fingerprint", spoken, "--out", out, *more)
        assert_refused(told, 3, "another identity key.*--revoke")


def test_who_is_revoked_is_out_until_taken_back(federation: Federation) -> None:
    federation.enrol("aster-bank")
    federation.enrol("birch-bank")
    assert federation("enroll", "--revoke", "aster-bank", "--json").facts == {"revoked": "aster-bank", "before": False}
    assert federation("enroll", "--revoke", "aster-bank", "--json").facts == {"revoked": "aster-bank", "before": True}
    assert list(Members(federation.home.directory).keys().to_have.values()) == ["birch-bank"]
    out = federation.root / "again.json"
    assert_refused(federation("enroll", "--welcome", "aster-bank", "--out", out), 3, "revoked")
    request, spoken = federation.request("aster-bank")
    assert_refused(federation("enroll", request, "--fingerprint", spoken, "--out", out), 3, "--again")
    told = federation("enroll", request, "--fingerprint", spoken, "--out", out, "--again")
    assert_refused(told, 3, "--new-node-key")
    request, spoken = federation.request("aster-bank", "--new-node-key")
    assert payload_of(federation.welcome("birch-bank"))["peers"] == {}
    assert federation("enroll", request, "--fingerprint", spoken, "--out", out, "--again").code == 0
    assert enrolled(federation) == {"aster-bank", "birch-bank"}
    assert_refused(federation("enroll", "--revoke", "nobody"), 2, "enrolled are: aster-bank, birch-bank")


def test_everybody_gets_a_fresh_welcome_with_all_the_others(federation: Federation) -> None:
    assert_refused(federation("enroll", "--all", "--out", federation.root / "all"), 2, "nobody is enrolled")
    for name in ("aster-bank", "birch-bank", "cedar-bank"):
        federation.enrol(name)
    for _ in range(2):  # earlier welcomes are replaced
        assert federation("enroll", "--all", "--out", federation.root / "all").code == 0
    key = federation.home.key().public
    files = sorted((federation.root / "all").iterdir())
    assert [file.name for file in files] == ["aster-bank.json", "birch-bank.json", "cedar-bank.json"]
    for file in files:
        welcome = read_welcome(file.read_bytes(), signers=[key], at=AT)
        assert {welcome.holder, *welcome.peers} == {"aster-bank", "birch-bank", "cedar-bank"}
        assert welcome.issued_at > AT  # later than its first one, though the clock stands


def test_a_welcome_is_written_over_nothing_but_a_welcome(federation: Federation) -> None:
    request, spoken = federation.request("aster-bank")
    key = federation.home.directory / "coordinator.key"
    before = key.read_bytes()
    told = federation("enroll", request, "--fingerprint", spoken, "--out", key)
    assert_refused(told, 2, "no welcome")
    assert key.read_bytes() == before
    assert enrolled(federation) == set()
    assert_refused(federation("enroll", request, "--out", federation.root / "no" / "w.json"), 2, "no directory")
    assert_refused(federation("enroll", request, "--out", federation.root), 2, "cannot be written")


def test_the_list_tells_who_since_when_and_by_which_fingerprint(federation: Federation) -> None:
    assert "Nobody" in federation("enroll", "--list").out
    request, spoken = federation.request("aster-bank")
    federation("enroll", request, "--fingerprint", spoken, "--out", federation.root / "w.json")
    federation.at += DAY_S
    federation("enroll", "--revoke", "aster-bank")
    (told,) = federation("enroll", "--list", "--json").facts["members"]
    assert (told["holder"], told["fingerprint"]) == ("aster-bank", spoken)
    assert (told["enrolled"], told["revoked"]) == ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")
    assert "REVOKED 2026-11-02" in federation("enroll", "--list").out


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("--all",), ("--welcome", "a"), ("--list", "--out", "x"), ("--revoke", "a", "--out", "x"),
        ("--list", "--all", "--out", "x"), ("--list", "--again"), ("--all", "--out", "x", "--fingerprint", "1"),
        ("request.json",), ("request.json", "--all", "--out", "x"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told(federation: Federation, arguments: tuple[str, ...]) -> None:
    assert_refused(federation("enroll", *arguments), 2, "[Gg]ive")


def test_a_directory_that_is_no_coordinators_is_told(federation: Federation) -> None:
    for command, arguments in (("enroll", ["--list"]), ("certificates", [])):
        assert_refused(federation(command, *arguments, directory=federation.root), 2, "coordinator init")


def test_certificates_tell_the_days_left_and_exit_three_once_one_has_run_out(federation: Federation) -> None:
    told = federation("certificates", "--json").facts["certificates"]
    assert {one["file"]: one["days_left"] for one in told} == {"ca.pem": 1095, "fleet.pem": 90, "superlink.pem": 90}
    federation.at += 75 * DAY_S
    assert federation("certificates").out.count("renew now") == 2
    federation.at += 16 * DAY_S
    ended = federation("certificates", "--json")
    assert_refused(ended, 3, "2 of 3 certificates.*--renew")
    assert [one["in_force"] for one in ended.facts["certificates"]] == [True, False, False]
    assert federation("certificates", "--renew").code == 0
    assert federation("certificates").code == 0
    assert_refused(federation("certificates", "--renew", "--new-ca"), 2, "one at a time")


def test_the_overlap_of_two_authorities_is_led_by_commands(federation: Federation) -> None:
    federation.enrol("aster-bank")
    federation.enrol("birch-bank")
    federation.at += DAY_S
    assert federation("certificates", "--new-ca").code == 0
    assert payload_of(federation.welcome("aster-bank"))["ca"].count("BEGIN CERTIFICATE") == 2
    dropped = federation("certificates", "--drop-old-ca")
    assert dropped.code == 0
    assert "shut out until then: birch-bank." in dropped.out
    assert payload_of(federation.welcome("birch-bank"))["ca"] == tls.authorities_pem(federation.home.directory)
    assert_refused(federation("certificates", "--drop-old-ca"), 3, "one authority only")


def test_a_welcome_holds_nothing_that_is_the_coordinators_alone(federation: Federation) -> None:
    welcome = federation.enrol("aster-bank").read_bytes()
    inner = b64decode(json.loads(welcome)["payload"])
    directory = federation.home.directory
    secrets = [(directory / name).read_bytes() for name in ("coordinator.key", "superexec.secret")]
    for key in (directory / "tls").glob("*.key"):
        body = b"".join(key.read_bytes().splitlines()[1:-1])
        secrets += [body, b64decode(body)]
    assert len(secrets) == 2 + 3 * 2
    for secret in secrets:
        for form in (secret, secret.hex().encode()):
            assert form not in welcome
            assert form not in inner
