"""Pairwise masks: each holder's numbers look uniform, and the masks cancel in the sum over the whole cohort.

The mask of one pair and round is a ChaCha20 stream keyed by HKDF-SHA256 from their X25519 secret (Bonawitz et
al., CCS 2017, section 4, without the double masks). No drop-outs: with one holder missing the sum is noise
and the round must be aborted, never repeated with other numbers under the same masks. Who owns a public key
is proved elsewhere, by signature.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import RefusalCode, RefusalError, TamperingError
from privacy.grid import Words

_DOMAIN = b"fedcredit/mask/v1"


class MaskKey:
    """A data holder's X25519 key for the masks of one run."""

    __slots__ = ("_key",)

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> "MaskKey":
        """A fresh key from the operating system's secure source."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, private: bytes) -> "MaskKey":
        """The key with these 32 private bytes (RFC 7748)."""
        return cls(X25519PrivateKey.from_private_bytes(private))

    def to_bytes(self) -> bytes:
        """The 32 private bytes; they belong in the holder's own store only."""
        return self._key.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The 32 public bytes."""
        return self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The 32-byte secret shared with the owner of `public`; TamperingError for a key that shares nothing."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise TamperingError(
                "a mask key in the cohort is not a lawful X25519 key; the round must be aborted: the coordinator "
                "should find out whose key it is"
            ) from None


def _part(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _stream(secret: bytes, context: bytes, *, run_id: bytes, length: int) -> Words:
    # The run id is salted through a hash, so that ids of any length are told apart.
    salt = hashlib.sha256(_DOMAIN + _part(run_id)).digest()
    key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=_DOMAIN + context).derive(secret)
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8 * length))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def mask_of(
    key: MaskKey,
    holder: str,
    cohort: Mapping[str, bytes],
    *,
    run_id: bytes,
    round_number: int,
    length: int,
) -> Words:
    """What `holder` adds to its `length` words modulo 2^64; the masks of a whole cohort add up to 0.

    `cohort` maps every holder's id, this one's too, to its public mask key, and must be the same at every
    holder. One (run, round) gives one mask: use it for one vector only. Raises RefusalError below two
    holders, TamperingError if the cohort has another key for this holder or two holders with one key.
    """
    if len(cohort) < 2:
        raise RefusalError(
            f"a secure sum over {len(cohort)} data holders hides nothing, 2 are needed; the coordinator must plan a "
            "larger cohort",
            RefusalCode.COHORT,
        )
    if cohort.get(holder) != key.public or len(set(cohort.values())) != len(cohort):
        raise TamperingError(
            "the cohort's mask keys are not the ones announced: this data holder's is missing or replaced, or two "
            "are equal; the coordinator must start the run again"
        )
    if round_number < 1 or length < 1:
        raise ValueError("requires round_number >= 1 and length >= 1")
    mask = np.zeros(length, dtype=np.uint64)
    for other, public in cohort.items():
        if other == holder:
            continue
        first, second = sorted((holder, other))
        context = b"".join(
            (
                round_number.to_bytes(8, "big"),
                _part(first.encode()),
                _part(cohort[first]),
                _part(second.encode()),
                _part(cohort[second]),
            )
        )
        stream = _stream(key.agree(public), context, run_id=run_id, length=length)
        # One of the pair adds the stream and the other takes it away.
        mask = mask + stream if holder == first else mask - stream
    return mask


def masked(words: Words, mask: Words) -> Words:
    """`words` plus `mask` modulo 2^64."""
    if words.dtype != np.uint64 or mask.dtype != np.uint64 or words.shape != mask.shape:
        raise TypeError("requires words and mask of type uint64 and one shape")
    return words + mask
