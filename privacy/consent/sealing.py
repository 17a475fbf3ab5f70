"""HPKE sealing (RFC 9180) of signed records to one data holder, and of messages to one recipient.

A record is padded to one bucket and bound to lane, epoch and commitment through HPKE's `info`, because
AES-GCM alone does not commit to its key.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.consent.limits import (
    DIGEST_BYTES,
    LENGTH_BYTES,
    MAX_PAYLOAD_BYTES,
    MESSAGE_BUCKETS_BYTES,
    RECORD_BUCKET_BYTES,
    RHO_BYTES,
    SIGNATURE_BYTES,
)
from privacy.errors import MalformedError, TamperingError

_RECORD_LABEL: Final = b"fedcredit/hpke/v1"
_MESSAGE_LABEL: Final = b"fedcredit/hpke-message/v1"
_COMMIT_LABEL: Final = b"fedcredit/commit/v1"
_MESSAGE_LENGTH_BYTES: Final = 4
_TAG_BYTES: Final = 16  # of AES-GCM
_X25519_BYTES: Final = 32
_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = 1184


class Suite(StrEnum):
    """Which HPKE suite a key is for; all use HKDF-SHA256 and AES-256-GCM.

    The hybrid of ML-KEM-768 and X25519 is the default everywhere, because copies of a log live for years.
    """

    X25519 = "x25519"
    MLKEM768_X25519 = "mlkem768-x25519"


_CODES: Final = {Suite.X25519: b"\x01", Suite.MLKEM768_X25519: b"\x02"}
_SUITES: Final = {code: suite for suite, code in _CODES.items()}
_KEMS: Final = {Suite.X25519: hpke.KEM.X25519, Suite.MLKEM768_X25519: hpke.KEM.MLKEM768_X25519}
_HPKE: Final = {suite: hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM) for suite, kem in _KEMS.items()}
# The suite's code, the encapsulated key and the authentication tag.
_OVERHEAD: Final = {suite: 1 + kem.enc_length() + _TAG_BYTES for suite, kem in _KEMS.items()}


class LanePublicKey:
    """The key that records or messages are sealed to; public."""

    __slots__ = ("_bytes", "_key", "suite")

    def __init__(self, suite: Suite, raw: bytes) -> None:
        self.suite: Final = suite
        self._bytes: Final = _CODES[suite] + raw
        self._key: X25519PublicKey | hpke.MLKEM768X25519PublicKey
        match suite:
            case Suite.X25519:
                _require_size("a sealing key", raw, _X25519_BYTES)
                self._key = X25519PublicKey.from_public_bytes(raw)
            case Suite.MLKEM768_X25519:
                _require_size("a sealing key", raw, _MLKEM_PUBLIC_BYTES + _X25519_BYTES)
                try:
                    post_quantum = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES])
                except ValueError:
                    raise MalformedError(
                        "a sealing key's ML-KEM-768 half is not a public key (FIPS 203, section 7.2); "
                        "its owner must publish it again."
                    ) from None
                self._key = hpke.MLKEM768X25519PublicKey(
                    post_quantum, X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:])
                )
            case _:
                assert_never(suite)

    def to_bytes(self) -> bytes:
        """The suite's code (1 byte), then the raw public key."""
        return self._bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> "LanePublicKey":
        """The key that `to_bytes` wrote. Raises MalformedError."""
        return cls(_suite_of(data), data[1:])

    def encrypt(self, plaintext: bytes, *, info: bytes) -> bytes:
        """The suite's code, then HPKE base mode's encapsulated key and ciphertext. Raises MalformedError."""
        try:
            return _CODES[self.suite] + _HPKE[self.suite].encrypt(plaintext, self._key, info=info)
        except ValueError:
            raise MalformedError(
                "a sealing key's X25519 half has small order; its owner must publish a generated one."
            ) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LanePublicKey) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"LanePublicKey({self.suite.value})"


class LaneKey:
    """A private HPKE key: a data holder's for its lane, or a recipient's for its messages."""

    __slots__ = ("_bytes", "_key", "public", "suite")

    def __init__(self, suite: Suite, seed: bytes) -> None:
        self.suite: Final = suite
        self._bytes: Final = _CODES[suite] + seed
        self._key: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey
        match suite:
            case Suite.X25519:
                _require_size("a private sealing key", seed, _X25519_BYTES)
                self._key = classical = X25519PrivateKey.from_private_bytes(seed)
                raw = classical.public_key().public_bytes_raw()
            case Suite.MLKEM768_X25519:
                _require_size("a private sealing key", seed, _MLKEM_SEED_BYTES + _X25519_BYTES)
                post_quantum = MLKEM768PrivateKey.from_seed_bytes(seed[:_MLKEM_SEED_BYTES])
                classical = X25519PrivateKey.from_private_bytes(seed[_MLKEM_SEED_BYTES:])
                self._key = hpke.MLKEM768X25519PrivateKey(post_quantum, classical)
                raw = post_quantum.public_key().public_bytes_raw() + classical.public_key().public_bytes_raw()
            case _:
                assert_never(suite)
        self.public: Final = LanePublicKey(suite, raw)

    @classmethod
    def generate(cls, suite: Suite = Suite.MLKEM768_X25519) -> "LaneKey":
        """A fresh key from the operating system's random source."""
        classical = X25519PrivateKey.generate().private_bytes_raw()
        match suite:
            case Suite.X25519:
                return cls(suite, classical)
            case Suite.MLKEM768_X25519:
                return cls(suite, MLKEM768PrivateKey.generate().private_bytes_raw() + classical)
            case _:
                assert_never(suite)

    def to_bytes(self) -> bytes:
        """The suite's code (1 byte), then the secret seed: 32 bytes, or 64 for ML-KEM and 32 for X25519."""
        return self._bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> "LaneKey":
        """The key that `to_bytes` wrote. Raises MalformedError."""
        return cls(_suite_of(data), data[1:])

    def decrypt(self, ciphertext: bytes, *, info: bytes) -> bytes:
        """What `LanePublicKey.encrypt` was given. Raises TamperingError, MalformedError for another suite."""
        if _suite_of(ciphertext) is not self.suite:
            raise MalformedError(
                "a ciphertext's suite is not this key's; the sender must seal it again to the current key."
            )
        try:
            return _HPKE[self.suite].decrypt(memoryview(ciphertext)[1:], self._key, info=info)
        except (InvalidTag, ValueError):
            raise TamperingError(
                "a ciphertext does not open with this key in this place; it was altered, moved or sealed to "
                "another key. The sender must seal it again."
            ) from None

    def __repr__(self) -> str:
        return f"LaneKey({self.suite.value}, ...)"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed record as a registry keeps it: `commit` (32 bytes) in the stub, `ciphertext` beside."""

    commit: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """A record's payload, the signature claimed for it (not yet verified) and its blinding value `rho`."""

    payload: bytes
    signature: bytes
    rho: bytes


def commitment_of(payload: bytes, signature: bytes, rho: bytes) -> bytes:
    """SHA-256 over the label, `rho` (32), `signature` (64) and `payload`: hides them, and fixes them."""
    return hashlib.sha256(_COMMIT_LABEL + rho + signature + payload).digest()


def seal(payload: bytes, signature: bytes, *, to: LanePublicKey, lane: str, epoch: int, rho: bytes) -> Sealed:
    """`payload` and `signature` sealed to `to` for one lane and epoch, at one size whatever they say.

    `rho` is 32 fresh random bytes. Raises MalformedError for a payload of more than 1,438 bytes.
    """
    _require_size("a signature", signature, SIGNATURE_BYTES)
    _require_size("a blinding value", rho, RHO_BYTES)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedError(
            f"a record has {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} fit the one size all records "
            "have. The person's wallet must put fewer grants into it."
        )
    commit = commitment_of(payload, signature, rho)
    inner = len(payload).to_bytes(LENGTH_BYTES, "big") + payload + signature + rho
    ciphertext = to.encrypt(inner.ljust(RECORD_BUCKET_BYTES, b"\0"), info=_record_info(lane, epoch, commit))
    return Sealed(commit, ciphertext)


def open_sealed(sealed: Sealed, key: LaneKey, *, lane: str, epoch: int) -> Opened:
    """What was sealed. The signature is still to be verified.

    Raises MalformedError for a wrong size, suite or padding, TamperingError when it was altered, sealed for
    another key, lane or epoch, or does not match its commitment.
    """
    _require_size("a commitment", sealed.commit, DIGEST_BYTES)
    _require_size("a sealed record", sealed.ciphertext, _OVERHEAD[key.suite] + RECORD_BUCKET_BYTES)
    inner = key.decrypt(sealed.ciphertext, info=_record_info(lane, epoch, sealed.commit))
    end = LENGTH_BYTES + int.from_bytes(inner[:LENGTH_BYTES], "big")
    signature_end = end + SIGNATURE_BYTES
    rho_end = signature_end + RHO_BYTES
    if rho_end > RECORD_BUCKET_BYTES or any(inner[rho_end:]):
        raise MalformedError("a sealed record's length or padding is wrong; the person's wallet must seal it again.")
    opened = Opened(inner[LENGTH_BYTES:end], inner[end:signature_end], inner[signature_end:rho_end])
    if commitment_of(opened.payload, opened.signature, opened.rho) != sealed.commit:
        raise TamperingError(
            "a sealed record does not match its commitment; do not use it, and keep it for the auditor."
        )
    return opened


def seal_message(plaintext: bytes, *, to: LanePublicKey, context: bytes) -> bytes:
    """`plaintext` padded to a bucket and sealed to `to`; opens only under the same `context`.

    `context` names the exchange (both parties, request id). Raises MalformedError beyond 1 MiB.
    """
    inner = len(plaintext).to_bytes(_MESSAGE_LENGTH_BYTES, "big") + plaintext
    return to.encrypt(inner.ljust(_bucket_for(len(inner)), b"\0"), info=_MESSAGE_LABEL + context)


def open_message(ciphertext: bytes, *, key: LaneKey, context: bytes) -> bytes:
    """What `seal_message` was given. Raises MalformedError or TamperingError."""
    if len(ciphertext) - _OVERHEAD[key.suite] not in MESSAGE_BUCKETS_BYTES:
        raise MalformedError(
            f"a sealed message has {len(ciphertext)} bytes, which no bucket gives; the sender must seal it again."
        )
    inner = key.decrypt(ciphertext, info=_MESSAGE_LABEL + context)
    end = _MESSAGE_LENGTH_BYTES + int.from_bytes(inner[:_MESSAGE_LENGTH_BYTES], "big")
    if _bucket_for(end) != len(inner) or any(inner[end:]):
        raise MalformedError("a sealed message's length or padding is wrong; the sender must seal it again.")
    return inner[_MESSAGE_LENGTH_BYTES:end]


def _record_info(lane: str, epoch: int, commit: bytes) -> bytes:
    name = lane.encode()
    # The lane's length makes the concatenation readable in one way only.
    return b"%b%b%b%b%b" % (
        _RECORD_LABEL,
        len(name).to_bytes(2, "big"),
        name,
        epoch.to_bytes(8, "big"),
        commit,
    )


def _bucket_for(size: int) -> int:
    for bucket in MESSAGE_BUCKETS_BYTES:
        if size <= bucket:
            return bucket
    raise MalformedError(
        f"a message has {size} bytes; at most {MESSAGE_BUCKETS_BYTES[-1]} can be sealed. The sender must split it."
    )


def _suite_of(data: bytes) -> Suite:
    suite = _SUITES.get(data[:1])
    if suite is None:
        raise MalformedError(
            "a key or ciphertext names no known HPKE suite; x25519 or mlkem768-x25519 is required. "
            "Its owner must make it again."
        )
    return suite


def _require_size(what: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise MalformedError(f"{what} has {len(data)} bytes; {size} are required. Its owner must make it again.")
