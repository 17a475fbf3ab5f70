"""A data holder's settings: complete, closed, and told wrong by name."""

import datetime
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from clients.holder.init import Start, make_directory
from clients.holder.serve import holder_in
from clients.holder.settings import load_settings
from federated.recipes.base import RecipeName
from federated.trust import TrustModel
from privacy.consent.record import Purpose
from privacy.errors import MalformedError, UsageError

KEY, OTHER_KEY = "ab" * 32, "cd" * 32
TEXT = f"""version = 1
holder = "aster-bank"
schema = "schema.toml"
rows = "rows.csv"
held_out = "held_out.csv"

[registry]
url = "https://registry.example:8443"
key = "{KEY}"
ca = "registry-ca.pem"

[desk]
jurisdiction = "TW"
language = "en"
notice = "notice.txt"
notice_id = "notice-1"
side_door = ""

[policy]
coordinator = "open-scoring"
coordinator_keys = ["{OTHER_KEY}"]
bundles = ["{KEY}"]
purposes = ["train", "score"]
recipes = ["fixed_hessian"]
trust_models = ["shared_noise"]
largest_epsilon = 8.0
largest_delta = 1e-5
fewest_holders = 2
fewest_people = 30
most_people = 1_000_000
most_openings_per_day = 24
hours = "22:00-06:00"
answer_within_s = 300
clock_skew_s = 120
longest_lane_age_s = 86400
sync_every_s = 15
accept_seeded_noise = false
peers = {{ birch-telecom = "{OTHER_KEY}" }}
"""
KEYS = re.findall(r"^(\w+) = ", TEXT, re.MULTILINE)
URL = 'url = "https://registry.example:8443"'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "holder.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_say_what_the_file_says(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, TEXT))
    assert (settings.holder, settings.registry.key) == ("aster-bank", KEY)
    assert (settings.policy.coordinator_keys, settings.policy.bundles) == ([OTHER_KEY], [KEY])
    assert settings.policy.purposes == [Purpose.TRAIN, Purpose.SCORE]
    assert (settings.policy.hours, settings.policy.answer_within_s) == ("22:00-06:00", 300)
    assert settings.registry.public == bytes.fromhex(KEY)
    assert (settings.desk.notice_id, settings.desk.side_door, settings.policy.sync_every_s) == ("notice-1", "", 15)
    assert settings.policy.recipes == [RecipeName.FIXED_HESSIAN]
    assert settings.policy.trust_models == [TrustModel.SHARED_NOISE]
    assert settings.policy.accept_seeded_noise is False


@pytest.mark.parametrize("key", KEYS)
def test_no_key_has_a_default(tmp_path: Path, key: str) -> None:
    text = re.sub(rf"^{key} = .*\n", "", TEXT, flags=re.MULTILINE)
    assert text != TEXT
    with pytest.raises(MalformedError, match=f"`{key}`") as caught:
        load_settings(written(tmp_path, text))
    assert "holder.toml" in str(caught.value)


@pytest.mark.parametrize("table", ["registry", "desk", "policy"])
def test_no_table_has_a_default(tmp_path: Path, table: str) -> None:
    text = re.sub(rf"^\[{table}\]\n(?:\S.*\n)*", "", TEXT, flags=re.MULTILINE)
    assert f"[{table}]" not in text
    with pytest.raises(MalformedError, match=f"`{table}`"):
        load_settings(written(tmp_path, text))


@pytest.mark.parametrize("place", ["version = 1\n", "[registry]\n", "[desk]\n", "[policy]\n"])
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, place: str) -> None:
    assert place in TEXT
    with pytest.raises(MalformedError, match="largest_epsilom"):
        load_settings(written(tmp_path, TEXT.replace(place, f"{place}largest_epsilom = 1.0\n")))


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("version = 1", "version = 2", "version"),
        ("version = 1", "version = true", "version"),
        ("version = 1", "version = 1\nepoch = 1", "epoch"),
        ("version = 1", f'version = 1\nregistry_key = "{KEY}"', "registry_key"),
        ('"rows.csv"', '""', "rows"),
        ("aster-bank", "Aster Bank", "holder"),
        ("aster-bank", "../aster", "holder"),
        ("aster-bank", "aster-", "holder"),
        ("aster-bank", "aster--bank", "holder"),
        (f'key = "{KEY}"', f'key = "{KEY.upper()}"', "registry.key"),
        (f'key = "{KEY}"', f'key = "{KEY[:-1]}"', "registry.key"),
        (OTHER_KEY, OTHER_KEY + "\\n", "policy"),
        (URL, 'url = "http://registry.example:8443"', "registry.url"),
        (URL, 'url = "http://127.0.0.1.example"', "registry.url"),
        (URL, 'url = "http://127.0.0.1@example"', "registry.url"),
        (URL, 'url = "https://somebody:secret@registry.example"', "registry.url"),
        (URL, 'url = "https://registry.example/"', "registry.url"),
        (URL, 'url = "https://registry.example/a?b"', "registry.url"),
        (URL, 'url = "https://registry.example\\n"', "registry.url"),
        (URL, 'url = "HTTPS://registry.example"', "registry.url"),
        (URL, 'url = "ftp://registry.example"', "registry.url"),
        (URL, 'url = ""', "registry.url"),
        ('side_door = ""', 'side_door = "http://holder.example"', "desk.side_door"),
        ('side_door = ""', "side_door = false", "desk.side_door"),
        ('jurisdiction = "TW"', 'jurisdiction = "Taiwan"', "desk.jurisdiction"),
        ('language = "en"', 'language = "English"', "desk.language"),
        ('notice = "notice.txt"', 'notice = ""', "desk.notice"),
        ('"notice-1"', '"Notice 1"', "desk.notice_id"),
        ('"fixed_hessian"', '"fixed_hessien"', "policy.recipes"),
        ('"shared_noise"', '"no_noise"', "policy.trust_models"),
        ("largest_epsilon = 8.0", "largest_epsilon = 0.0", "policy.largest_epsilon"),
        ("largest_epsilon = 8.0", "largest_epsilon = inf", "policy.largest_epsilon"),
        ("largest_epsilon = 8.0", "largest_epsilon = nan", "policy.largest_epsilon"),
        ("largest_delta = 1e-5", "largest_delta = 0.01", "policy.largest_delta"),
        ("fewest_people = 30", "fewest_people = 0", "policy.fewest_people"),
        (f'["{OTHER_KEY}"]', "[]", "policy.coordinator_keys"),
        (f'["{OTHER_KEY}"]', f'["{OTHER_KEY[1:]}"]', "policy.coordinator_keys"),
        (f'bundles = ["{KEY}"]', f'bundles = ["{KEY}a"]', "policy.bundles"),
        (f'bundles = ["{KEY}"]', 'bundles = ["*"]', "policy.bundles"),
        ('"score"', '"marketing"', "policy.purposes"),
        ("fewest_holders = 2", "fewest_holders = 0", "policy.fewest_holders"),
        ('"22:00-06:00"', '"22:00-6:00"', "policy.hours"),
        ('"22:00-06:00"', '"24:00-06:00"', "policy.hours"),
        ('"22:00-06:00"', '"22:00-24:01"', "policy.hours"),
        ('"22:00-06:00"', '"22:00-22:00"', "policy.hours"),
        ('"22:00-06:00"', '"22:00-06:00+08:00"', "policy.hours"),
        ('"22:00-06:00"', '"always"', "policy.hours"),
        ("answer_within_s = 300", "answer_within_s = 0", "policy.answer_within_s"),
        ("answer_within_s = 300", "answer_within_s = 3601", "policy.answer_within_s"),
        ("most_people = 1_000_000", "most_people = 0", "policy.most_people"),
        ("most_openings_per_day = 24", "most_openings_per_day = 0", "policy.most_openings_per_day"),
        ("clock_skew_s = 120", "clock_skew_s = -1", "policy.clock_skew_s"),
        ("sync_every_s = 15", "sync_every_s = 0", "policy.sync_every_s"),
        ("sync_every_s = 15", "sync_every_s = 15.0", "policy.sync_every_s"),
        ("sync_every_s = 15", "sync_every_s = 86401", "policy.sync_every_s"),
        ("accept_seeded_noise = false", "accept_seeded_noise = 0", "policy.accept_seeded_noise"),
        ("[policy]", "[policy", ""),
        ("version = 1", "version = 1\nversion = 1", ""),
        ("version = 1", "version = " + "[" * 5000, ""),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name_and_no_value_is_told(
    tmp_path: Path, good: str, bad: str, named: str
) -> None:
    assert good in TEXT
    with pytest.raises(MalformedError) as caught:
        load_settings(written(tmp_path, TEXT.replace(good, bad)))
    assert named in str(caught.value)
    assert not re.search("(?i)(ab|cd){16}|secret", str(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "https://registry.example",
        "https://[2001:db8::1]:443/a/b",
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:9",
    ],
)
def test_a_registry_is_reached_over_tls_or_on_this_machine(tmp_path: Path, url: str) -> None:
    text = TEXT.replace(URL, f'url = "{url}"').replace('side_door = ""', f'side_door = "{url}"')
    settings = load_settings(written(tmp_path, text))
    assert settings.registry.url == settings.desk.side_door == url


def test_a_file_that_is_missing_is_another_directory_and_one_that_is_no_text_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--directory"):
        load_settings(tmp_path / "holder.toml")
    (tmp_path / "holder.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedError, match=r"holder\.toml"):
        load_settings(tmp_path / "holder.toml")


def certificate() -> bytes:
    key, now = Ed25519PrivateKey.generate(), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    return made.sign(key, None).public_bytes(Encoding.PEM)


def test_the_registrys_certificates_are_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    registry = load_settings(written(tmp_path, TEXT)).registry
    (tmp_path / "registry-ca.pem").write_bytes(certificate() + certificate())
    assert registry.trust(tmp_path) == (tmp_path / "registry-ca.pem").read_text()
    system = load_settings(written(tmp_path, TEXT.replace('"registry-ca.pem"', '""'))).registry
    assert system.trust(tmp_path) is None


@pytest.mark.parametrize("content", [None, b"", b"no certificate", certificate()[:-60], b"\xff"])
def test_a_file_without_a_certificate_is_never_taken_for_trust(tmp_path: Path, content: bytes | None) -> None:
    registry = load_settings(written(tmp_path, TEXT)).registry
    if content is not None:
        (tmp_path / "registry-ca.pem").write_bytes(content)
    with pytest.raises(MalformedError, match=r"registry\.ca"):
        registry.trust(tmp_path)


def test_a_new_data_holders_settings_let_a_withdrawal_count_within_a_minute(tmp_path: Path) -> None:
    start = Start(
        holder="aster-bank",
        registry_url="https://registry.example",
        registry_key=KEY,
        registry_ca=None,
        coordinator="open-scoring",
        coordinator_key=OTHER_KEY,
        jurisdiction="TW",
        language="en",
        contact="Box 1",
        side_door="",
    )
    make_directory(tmp_path / "home", start)
    policy = load_settings(tmp_path / "home" / "holder.toml").policy
    assert (policy.longest_lane_age_s, policy.sync_every_s) == (60, 15)
    assert TrustModel.COORDINATOR_NOISE not in policy.trust_models  # whoever wants to trust it says so
    assert "usually within a minute" in " ".join((tmp_path / "home" / "notice.txt").read_text().split())


def test_a_file_in_place_of_the_directory_is_a_mistake_of_whoever_typed_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for read in (load_settings, lambda path: holder_in(path.parent)):
        with pytest.raises(UsageError, match="no data holder's directory"):
            read(tmp_path / "file" / "holder.toml")


def test_what_is_wrong_is_told_with_its_line_and_no_byte_of_it(tmp_path: Path) -> None:
    path = tmp_path / "holder.toml"
    path.write_text(TEXT.replace("largest_delta = 1e-5", "largest_delta = 1"))
    line = 1 + TEXT.splitlines().index("largest_delta = 1e-5")
    with pytest.raises(MalformedError, match=rf"policy\.largest_delta` \(line {line}\)"):
        load_settings(path)
    path.write_bytes(TEXT.encode() + b"# \xfe")
    with pytest.raises(MalformedError, match="it is not UTF-8 text") as caught:
        load_settings(path)
    assert "xfe" not in str(caught.value)
