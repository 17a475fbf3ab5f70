"""The wallet's secret as text that a person can write down on paper and type in again.

Crockford's base32 (no I, L, O or U), with the checksum of Bech32m (BIP 350): 60 symbols in 12 groups of five.
"""

from typing import Final

from privacy.errors import MalformedError

SECRET_BYTES: Final = 32

_SYMBOLS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {symbol: value for value, symbol in enumerate(_SYMBOLS)} | {"O": 0, "I": 1, "L": 1}
_PREFIX: Final = "FC"  # says what the paper is for; under the checksum like everything else
_SECRET_SYMBOLS: Final = 52
_CHECK_SYMBOLS: Final = 6
_GROUP: Final = 5
_GROUPS_A_LINE: Final = 4
# BIP 173's generator: up to 89 symbols, any three wrong ones are found for certain, so also two that changed places.
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M: Final = 0x2BC830A3


def write_down(secret: bytes) -> str:
    """`secret` (32 bytes) in three lines of four groups. MalformedError for another length."""
    if len(secret) != SECRET_BYTES:
        raise MalformedError(f"a wallet's secret has {len(secret)} bytes; {SECRET_BYTES} are required.")
    number = int.from_bytes(secret, "big")
    values = [_VALUES[symbol] for symbol in _PREFIX]
    values += [number >> 5 * place & 31 for place in reversed(range(_SECRET_SYMBOLS))]
    remainder = _remainder([*values, *[0] * _CHECK_SYMBOLS]) ^ _BECH32M
    values += [remainder >> 5 * place & 31 for place in reversed(range(_CHECK_SYMBOLS))]
    symbols = "".join(_SYMBOLS[value] for value in values)
    groups = [symbols[start : start + _GROUP] for start in range(0, len(symbols), _GROUP)]
    lines = [groups[start : start + _GROUPS_A_LINE] for start in range(0, len(groups), _GROUPS_A_LINE)]
    return "\n".join(" ".join(line) for line in lines)


def read_back(text: str) -> bytes:
    """The secret in what a person typed: spaces, hyphens and case do not matter; O is 0, I and L are 1.

    MalformedError, which repeats nothing of what was typed.
    """
    symbols = "".join(text.split()).replace("-", "").upper()
    needed = len(_PREFIX) + _SECRET_SYMBOLS + _CHECK_SYMBOLS
    # Upper case makes an S of more letters than s.
    if len(symbols) != needed or not text.isascii() or any(symbol not in _VALUES for symbol in symbols):
        raise MalformedError(
            f"what was typed has {len(symbols)} letters and digits that count; a recovery code has {needed}, in "
            f"{needed // _GROUP} groups of {_GROUP}, without the letter U. Compare it with the paper, group by group."
        )
    values = [_VALUES[symbol] for symbol in symbols]
    number = 0
    for value in values[len(_PREFIX) : -_CHECK_SYMBOLS]:
        number = number << 5 | value
    whole = symbols.startswith(_PREFIX) and number.bit_length() <= 8 * SECRET_BYTES
    if _remainder(values) != _BECH32M or not whole:
        raise MalformedError(
            "what was typed is not a recovery code as it was given: at least one letter or digit is wrong, or two "
            "changed places. Compare it with the paper, group by group."
        )
    return number.to_bytes(SECRET_BYTES, "big")


def _remainder(values: list[int]) -> int:
    """BIP 173's polymod: the remainder of the symbols as a polynomial over GF(32), begun at 1."""
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                remainder ^= term
    return remainder
