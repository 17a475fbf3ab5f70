"""The written-down secret: what a person may do to it, and what is noticed."""

import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.wallet.recovery import read_back, write_down
from privacy.errors import MalformedError

SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SECRETS = [bytes(32), b"\xff" * 32, *(sha256(bytes([n])).digest() for n in range(3))]


@given(st.binary(min_size=32, max_size=32))
def test_what_is_written_down_can_be_read_back(secret: bytes) -> None:
    text = write_down(secret)
    assert re.fullmatch(r"(?:[0-9A-Z]{5}[ \n]){11}[0-9A-Z]{5}", text)
    assert not set("ILOU") & set(text)
    assert read_back(text) == secret


@pytest.mark.parametrize("secret", SECRETS)
def test_every_single_wrong_symbol_is_noticed(secret: bytes) -> None:
    text = "".join(write_down(secret).split())
    tried = 0
    for place, right in enumerate(text):
        for wrong in SYMBOLS.replace(right, ""):
            tried += 1
            with pytest.raises(MalformedError):
                read_back(text[:place] + wrong + text[place + 1 :])
    assert tried == 60 * 31


@pytest.mark.parametrize("secret", SECRETS)
def test_every_two_neighbours_that_changed_places_are_noticed(secret: bytes) -> None:
    text = "".join(write_down(secret).split())
    tried = 0
    for place in range(len(text) - 1):
        if text[place] != text[place + 1]:
            tried += 1
            with pytest.raises(MalformedError):
                read_back(text[:place] + text[place + 1] + text[place] + text[place + 2 :])
    assert tried > 5


def test_case_spaces_hyphens_and_letters_that_look_like_digits_do_not_matter() -> None:
    for secret in SECRETS:
        text = write_down(secret)
        assert read_back(text.lower()) == secret
        assert read_back("  " + text.replace(" ", "-").replace("\n", "\r\n") + "\n") == secret
        assert read_back(text.replace("0", "o").replace("1", "l")) == secret
        assert read_back(text.replace("0", "O").replace("1", "I")) == secret


@given(st.text(max_size=80))
def test_any_other_text_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_back("Ü" + text)
    assert "Ü" not in str(caught.value)


def test_a_code_with_stray_bits_or_another_prefix_is_refused() -> None:
    from clients.wallet.recovery import _BECH32M, _remainder

    for prefix, secret in (("FC", "Z" + "0" * 51), ("FD", "0" * 52)):
        values = [SYMBOLS.index(symbol) for symbol in prefix + secret]
        check = _remainder([*values, *[0] * 6]) ^ _BECH32M
        forged = prefix + secret + "".join(SYMBOLS[check >> 5 * place & 31] for place in range(5, -1, -1))
        with pytest.raises(MalformedError):
            read_back(forged)


def test_only_a_whole_secret_can_be_written_down() -> None:
    with pytest.raises(MalformedError):
        write_down(bytes(31))
