"""The wallet's file: everything it knows, encrypted under a passphrase.

Layout, big-endian: magic, memory in KiB (4), passes (4), lanes (4), salt (16), nonce (12), then AES-256-GCM of the
content, with all that stands before it as associated data. The key is Argon2id's (RFC 9106).
"""

import struct
import unicodedata
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from privacy.errors import MalformedError, RefusalCode, RefusalError

FEWEST_CHARACTERS: Final = 12
MAX_VAULT_BYTES: Final = 64 * 2**20
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12

_MAGIC: Final = b"fedcredit/vault/v1\n"
_HEADER: Final = struct.Struct(f">{len(_MAGIC)}sIII{SALT_BYTES}s{NONCE_BYTES}s")
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at the passphrase costs: memory in KiB, passes over it, lanes."""

    memory_kib: int
    passes: int
    lanes: int

    def __post_init__(self) -> None:
        """Within bounds, because a file's own figures are read before anything of it can be verified.

        One gibibyte and 16 passes is some seconds; below 8 MiB somebody chose a file that is quick to guess.
        """
        bounded = 8 * 1024 <= self.memory_kib <= 1024 * 1024 and 1 <= self.passes <= 16 and 1 <= self.lanes <= 16
        if not bounded:
            raise MalformedError(
                f"a wallet's file asks for {self.memory_kib} KiB, {self.passes} passes and {self.lanes} lanes; "
                "8192 to 1048576 KiB, and 1 to 16 of both others, are served. It was not written by this program: "
                "take the file from a copy, or recover the wallet from its written-down code."
            )


RFC_9106_SECOND: Final = Cost(memory_kib=64 * 1024, passes=3, lanes=4)
"""RFC 9106, section 4: the second recommended parameters, for memory-constrained environments."""


class Vault:
    """A key that opens and closes one wallet's file; made from the passphrase once, because that is slow."""

    __slots__ = ("_cost", "_key", "_salt")

    def __init__(self, passphrase: str, *, salt: bytes, cost: Cost = RFC_9106_SECOND) -> None:
        """The key of `passphrase` and `salt` (16 bytes). RefusalError for a passphrase of under 12 characters."""
        self._salt, self._cost = salt, cost
        kdf = Argon2id(
            salt=salt, length=_KEY_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
        )
        self._key = AESGCM(kdf.derive(_required(passphrase)))

    def close(self, content: bytes, *, nonce: bytes) -> bytes:
        """The file that holds `content`; `nonce` is 12 fresh random bytes each time."""
        cost = self._cost
        header = _HEADER.pack(_MAGIC, cost.memory_kib, cost.passes, cost.lanes, self._salt, nonce)
        return header + self._key.encrypt(nonce, content, header)

    def __repr__(self) -> str:
        return "Vault(...)"


def open_vault(data: bytes, passphrase: str) -> tuple[Vault, bytes]:
    """The vault that wrote the file `data`, and the content. MalformedError or RefusalError.

    A wrong passphrase and an altered file cannot be told apart, and the error says so.
    """
    if len(data) <= _HEADER.size or len(data) > MAX_VAULT_BYTES or not data.startswith(_MAGIC):
        raise MalformedError(
            f"a file of {len(data)} bytes is not a wallet's; its first bytes must say so, and it has at most "
            f"{MAX_VAULT_BYTES}. Name the wallet's directory, take the file from a copy, or recover the wallet from "
            "its written-down code."
        )
    header, sealed = data[: _HEADER.size], data[_HEADER.size :]
    _, memory_kib, passes, lanes, salt, nonce = _HEADER.unpack(header)
    vault = Vault(passphrase, salt=salt, cost=Cost(memory_kib, passes, lanes))
    try:
        return vault, vault._key.decrypt(nonce, sealed, header)
    except InvalidTag:
        # Refused and not called tampering: a slip of the fingers is by far the likelier of the two.
        raise RefusalError(
            "the wallet does not open: the passphrase is wrong, or the file was altered; nobody can tell which. Type "
            "the passphrase again; if you are sure of it, take the file from a copy, or recover the wallet from its "
            "written-down code.",
            RefusalCode.INTEGRITY,
        ) from None


def _required(passphrase: str) -> bytes:
    # The same characters typed on another system may come as other code points (RFC 8265, section 4.2.2).
    normal = unicodedata.normalize("NFC", passphrase)
    if len(normal) < FEWEST_CHARACTERS:
        raise RefusalError(
            f"a passphrase of {len(normal)} characters does not protect a wallet; {FEWEST_CHARACTERS} or more are "
            "required. Take some words that nobody would put together.",
            RefusalCode.POLICY,
        )
    return normal.encode("utf-8", "surrogatepass")
