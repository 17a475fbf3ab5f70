"""Keys, streams and digests with a label and parts of known length, so that no two uses ever read alike."""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_DOMAIN: Final = b"fedcredit/secure-sum/v1/"
KEY_BYTES: Final = 32


def encoded(label: str, *parts: str | int | bytes) -> bytes:
    """The label and the parts, each with its length before it; an integer takes 8 bytes."""
    written = [_DOMAIN + label.encode()]
    for part in parts:
        match part:
            case str():
                written.append(part.encode())
            case int():
                written.append(part.to_bytes(8, "big"))
            case bytes():
                written.append(part)
    return b"".join(len(part).to_bytes(4, "big") + part for part in written)


def digest_of(label: str, *parts: str | int | bytes) -> bytes:
    """SHA-256 of what is `encoded`."""
    return hashlib.sha256(encoded(label, *parts)).digest()


def derive(secret: bytes, label: str, *parts: str | int | bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869) of `secret`, without salt; what is `encoded` is its info."""
    return HKDF(SHA256(), length, salt=None, info=encoded(label, *parts)).derive(secret)


def key_stream(key: bytes, length: int) -> bytes:
    """`length` bytes of ChaCha20 (RFC 8439, section 2.3) from block 0, nonce 0. A key is for one stream."""
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(length))
