"""The wallet's file: closed to whoever lacks the passphrase, and unchanged or refused."""

import struct

import pytest

from clients.wallet.vault import RFC_9106_SECOND, Cost, Vault, open_vault
from privacy.errors import FedcreditError, MalformedError, RefusalError

PASSPHRASE = "four words nobody says"
CHEAP = Cost(memory_kib=8192, passes=1, lanes=1)
SALT, NONCE = bytes(range(16)), bytes(range(12))
CONTENT = b"everything the wallet knows"
FILE = Vault(PASSPHRASE, salt=SALT, cost=CHEAP).close(CONTENT, nonce=NONCE)
HEADER_BYTES = len(FILE) - len(CONTENT) - 16


def test_what_was_closed_opens_and_shows_nothing_outside() -> None:
    vault, content = open_vault(FILE, PASSPHRASE)
    assert content == CONTENT
    assert CONTENT not in FILE
    assert vault.close(CONTENT, nonce=NONCE) == FILE
    assert PASSPHRASE not in repr(vault)


def test_the_cost_is_rfc_9106s_second_recommendation() -> None:
    assert Cost(memory_kib=65_536, passes=3, lanes=4) == RFC_9106_SECOND
    data = Vault(PASSPHRASE, salt=SALT).close(CONTENT, nonce=NONCE)
    assert struct.unpack_from(">III", data, HEADER_BYTES - 40) == (65_536, 3, 4)
    assert open_vault(data, PASSPHRASE)[1] == CONTENT


def test_a_wrong_passphrase_and_an_altered_file_look_the_same() -> None:
    texts = set()
    with pytest.raises(RefusalError) as caught:
        open_vault(FILE, PASSPHRASE + "!")
    texts.add(str(caught.value))
    for place in (HEADER_BYTES - 28, HEADER_BYTES - 1, HEADER_BYTES, len(FILE) - 1):
        altered = bytearray(FILE)
        altered[place] ^= 1
        with pytest.raises(RefusalError) as caught:
            open_vault(bytes(altered), PASSPHRASE)
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert "nobody can tell which" in texts.pop()


def test_cut_or_flipped_anywhere_it_never_opens() -> None:
    for end in range(0, len(FILE), 5):
        with pytest.raises(FedcreditError):
            open_vault(FILE[:end], PASSPHRASE)
    for place in [*range(HEADER_BYTES - 41), *range(HEADER_BYTES - 28, len(FILE), 3)]:
        altered = bytearray(FILE)
        altered[place] ^= 0x80
        with pytest.raises(FedcreditError):
            open_vault(bytes(altered), PASSPHRASE)


@pytest.mark.parametrize(
    "figures", [(2**32 - 1, 3, 4), (65_536, 2**32 - 1, 4), (65_536, 3, 2**32 - 1), (1024, 1, 1), (65_536, 0, 4),
                (65_536, 3, 0), (1024 * 1024 + 1, 3, 4)]
)  # fmt: skip
def test_a_hostile_file_cannot_ask_for_a_terabyte_or_for_nothing(figures: tuple[int, int, int]) -> None:
    hostile = bytearray(FILE)
    struct.pack_into(">III", hostile, HEADER_BYTES - 40, *figures)
    with pytest.raises(MalformedError, match="KiB"):
        open_vault(bytes(hostile), PASSPHRASE)


def test_other_figures_within_the_bounds_do_not_open_it() -> None:
    weaker = bytearray(FILE)
    struct.pack_into(">III", weaker, HEADER_BYTES - 40, 8192, 2, 1)
    with pytest.raises(RefusalError):
        open_vault(bytes(weaker), PASSPHRASE)


@pytest.mark.parametrize("passphrase", ["", " ", "short", "elevenchars"])
def test_a_short_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(RefusalError, match="12"):
        Vault(passphrase, salt=SALT, cost=CHEAP)


def test_one_passphrase_typed_on_two_systems_is_one_passphrase() -> None:
    data = Vault("caf\u00e9 caf\u00e9 caf\u00e9", salt=SALT, cost=CHEAP).close(CONTENT, nonce=NONCE)
    assert open_vault(data, "cafe\u0301 cafe\u0301 cafe\u0301")[1] == CONTENT
