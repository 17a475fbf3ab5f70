"""The two kinds of masks: one that a holder shares with each other, which cancel in the sum, and one of its own.

Both are ChaCha20 key streams, read as little-endian 64-bit words, whose keys HKDF-SHA256 binds to one release of one
cohort and to one holder or pair.
"""

from collections.abc import Sequence

import numpy as np

from privacy.grid import Words
from privacy.secure_sum.derivation import derive, digest_of, key_stream


def cohort_digest(introduction: bytes, stage: int, cohort: Sequence[str]) -> bytes:
    """What one release of one cohort is bound to; `introduction` is the digest of who joined."""
    return digest_of("cohort", introduction, stage, *cohort)


def pair_mask(agreement: bytes, cohort: bytes, *, holder: str, other: str, length: int) -> Words:
    """What `holder` adds for its pair with `other`, shape (length,); the two masks of a pair add up to 0.

    `agreement` is the secret of their X25519 keys of this stage, `cohort` the digest of the cohort: masks
    for different cohorts do not cancel, so whoever was told of another cohort spoils the sum and nothing else.
    """
    first, second = sorted((holder, other))
    stream = _stream(derive(agreement, "pair", cohort, first, second), length)
    # One of the pair adds the stream and the other takes it away.
    return stream if holder == first else np.negative(stream)


def self_mask(seed: bytes, cohort: bytes, *, holder: str, length: int) -> Words:
    """What `holder` adds of its own, shape (length,)."""
    return _stream(derive(seed, "self", cohort, holder), length)


def _stream(key: bytes, length: int) -> Words:
    if length < 1:
        raise ValueError("requires length >= 1")
    return np.frombuffer(key_stream(key, 8 * length), dtype="<u8").astype(np.uint64, copy=False)
