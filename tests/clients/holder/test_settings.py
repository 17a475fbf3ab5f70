"""A data holder's settings: complete, closed, and told wrong by name."""

import re
from pathlib import Path

import pytest

from clients.holder.settings import load_settings
from federated.recipes.base import RecipeName
from privacy.errors import MalformedError

KEY, OTHER_KEY = "ab" * 32, "cd" * 32
TEXT = f"""version = 1
holder = "aster-bank"
epoch = 1
registry_key = "{KEY}"
schema = "schema.toml"
rows = "rows.csv"
held_out = "held_out.csv"

[policy]
coordinator = "open-scoring"
coordinator_key = "{OTHER_KEY}"
recipes = ["fixed_hessian"]
largest_epsilon = 8.0
largest_delta = 1e-5
fewest_people = 30
clock_skew_s = 120
longest_lane_age_s = 86400
accept_seeded_noise = false
peers = {{ birch-telecom = "{OTHER_KEY}" }}
"""
KEYS = re.findall(r"^(\w+) = ", TEXT, re.MULTILINE)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "holder.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_say_what_the_file_says(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, TEXT))
    assert (settings.holder, settings.registry_key, settings.policy.coordinator_key) == ("aster-bank", KEY, OTHER_KEY)
    assert settings.policy.recipes == [RecipeName.FIXED_HESSIAN]
    assert settings.policy.accept_seeded_noise is False


@pytest.mark.parametrize("key", KEYS)
def test_no_key_has_a_default(tmp_path: Path, key: str) -> None:
    text = re.sub(rf"^{key} = .*\n", "", TEXT, flags=re.MULTILINE)
    assert text != TEXT
    with pytest.raises(MalformedError, match=key) as caught:
        load_settings(written(tmp_path, text))
    assert "holder.toml" in str(caught.value)


@pytest.mark.parametrize("place", ["version = 1\n", "[policy]\n"])
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, place: str) -> None:
    with pytest.raises(MalformedError, match="largest_epsilom"):
        load_settings(written(tmp_path, TEXT.replace(place, f"{place}largest_epsilom = 1.0\n")))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("version = 1", "version = 2"),
        ("epoch = 1", "epoch = true"),
        ("epoch = 1", 'epoch = "1"'),
        ("aster-bank", "Aster Bank"),
        ("aster-bank", "../aster"),
        (KEY, KEY.upper()),
        (KEY, KEY[:-1]),
        (OTHER_KEY, OTHER_KEY + "\\n"),
        ('"fixed_hessian"', '"fixed_hessien"'),
        ("largest_epsilon = 8.0", "largest_epsilon = 0.0"),
        ("largest_epsilon = 8.0", "largest_epsilon = inf"),
        ("largest_epsilon = 8.0", "largest_epsilon = nan"),
        ("largest_delta = 1e-5", "largest_delta = 0.01"),
        ("fewest_people = 30", "fewest_people = 0"),
        ("clock_skew_s = 120", "clock_skew_s = -1"),
        ("accept_seeded_noise = false", "accept_seeded_noise = 0"),
        ("[policy]", "[policy"),
        ("version = 1", "version = 1\nversion = 1"),
        ("version = 1", "version = " + "[" * 5000),
    ],
)
def test_what_cannot_be_meant_is_refused_and_no_key_is_told(tmp_path: Path, good: str, bad: str) -> None:
    assert good in TEXT
    with pytest.raises(MalformedError) as caught:
        load_settings(written(tmp_path, TEXT.replace(good, bad)))
    assert not re.search("(?i)(ab|cd){16}", str(caught.value))


def test_a_file_that_is_missing_or_no_text_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match=r"holder\.toml"):
        load_settings(tmp_path / "holder.toml")
    (tmp_path / "holder.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedError, match=r"holder\.toml"):
        load_settings(tmp_path / "holder.toml")
