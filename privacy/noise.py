"""Where noise comes from. Noise that protects people is a type of its own; a seeded one says that it protects
nobody.

What protects a release is discrete noise on its integer grid (`privacy.discrete`), made from `random_bytes`. The
float draws of `gaussian` serve recipes whose noise is inside their own steps, and experiments.
"""

import hashlib
import math
import os
from typing import ClassVar, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LARGEST_DEVIATION = math.sqrt(2 * 53 * math.log(2))
"""No draw is further from 0 than this many standard deviations (8.58; a normal variable passes it with chance
1e-17)."""


class NoiseSource(Protocol):
    """A source of randomness that is passed in; nothing below the rim draws from anywhere else."""

    is_private: ClassVar[bool]

    def gaussian(self, n: int, standard_deviation: float) -> Vector:
        """`n` independent normal draws with mean 0, shape (n,), as floats: never the noise of a released sum, whose
        low bits would show what it hides (Mironov, CCS 2012)."""
        ...

    def random_bytes(self, n: int) -> bytes:
        """`n` uniform bytes."""
        ...


class _ChaChaStream:
    def __init__(self, key: bytes) -> None:
        # One key, one stream, read once from its start: the nonce has nothing to tell apart.
        self._keystream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def random_bytes(self, n: int) -> bytes:
        """The next `n` bytes of the stream."""
        return self._keystream.update(bytes(n))

    def gaussian(self, n: int, standard_deviation: float) -> Vector:
        """The next `n` normal draws, shape (n,): Box and Muller 1958 on 53-bit uniforms.

        Requires n >= 0 and a finite standard_deviation >= 0.
        """
        if not 0 <= standard_deviation < math.inf:
            raise ValueError("requires a finite standard deviation, at least 0")
        pairs = (n + 1) // 2
        bits = np.frombuffer(self.random_bytes(16 * pairs), dtype="<u8") >> np.uint64(11)
        uniform = bits.astype(np.float64).reshape(2, pairs)
        # (k + 1) / 2^53 lies in (0, 1], so the logarithm is finite.
        length = np.sqrt(-2 * np.log((uniform[0] + 1) * 2.0**-53))
        angle = uniform[1] * (2 * math.pi * 2.0**-53)
        draws = np.concatenate([length * np.cos(angle), length * np.sin(angle)])[:n]
        return np.asarray(draws * standard_deviation, dtype=np.float64)


class SecureNoise(_ChaChaStream):
    """ChaCha20 keyed from the operating system's secure source: the only noise that protects people."""

    is_private: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(os.urandom(32))


class SeededNoise(_ChaChaStream):
    """Repeatable noise for experiments and tests. Whatever it made is NOT PRIVATE.

    One (`seed`, `label`) is one stream: give every holder, round and repetition a label of its own.
    """

    is_private: ClassVar[bool] = False

    def __init__(self, seed: int, label: str) -> None:
        super().__init__(hashlib.sha256(f"fedcredit/not-private/v1\n{seed:d}\n{label}".encode()).digest())
