"""Ed25519 signatures over DSSE's pre-authentication encoding, with small-order points refused.

Signed by OpenSSL and verified by libsodium, which needs half of OpenSSL's time: verifying is most of what a
data holder does when it syncs a lane. Both accept the same signatures once small-order points are refused:
the verification without the cofactor (RFC 8032, section 5.1.7, second form), so one party never accepts what
another refuses. A test holds them to that.
"""

from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from privacy.consent.limits import KEY_BYTES, SIGNATURE_BYTES
from privacy.errors import MalformedError, TamperingError

# Every encoding of a point of order 1, 2, 4 or 8 (C2SP CCTV, ed25519). For such a public key one signature
# verifies for every message; OpenSSL takes it, and that libsodium does not is no promise of its interface.
SMALL_ORDER_ENCODINGS: Final = frozenset(
    bytes.fromhex(encoding)
    for encoding in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)


class PayloadType(StrEnum):
    """What a signed payload is; a signature under one type is worth nothing under another."""

    CONSENT = "application/vnd.fedcredit.consent.v1+json"
    LINK_OFFER = "application/vnd.fedcredit.link-offer.v1+json"
    LINK = "application/vnd.fedcredit.link.v1+json"
    KEY_SET = "application/vnd.fedcredit.key-set.v1+json"
    PROMISE = "application/vnd.fedcredit.promise.v1+json"
    TOMBSTONE = "application/vnd.fedcredit.tombstone.v1+json"
    OPENING = "application/vnd.fedcredit.opening.v1+json"
    PLAN = "application/vnd.fedcredit.plan.v1+json"
    UPDATE = "application/vnd.fedcredit.update.v1+json"
    CHECKPOINT = "application/vnd.fedcredit.checkpoint.v1+json"
    JOINED = "application/vnd.fedcredit.joined.v1+json"
    SUM_KEYS = "application/vnd.fedcredit.sum-keys.v1+json"
    DEALING = "application/vnd.fedcredit.dealing.v1+json"
    REVEAL = "application/vnd.fedcredit.reveal.v1+json"
    REFUSAL = "application/vnd.fedcredit.refusal.v1+json"
    SCORE_REQUEST = "application/vnd.fedcredit.score-request.v1+json"
    SCORE_ANSWER = "application/vnd.fedcredit.score-answer.v1+json"
    BUNDLE = "application/vnd.fedcredit.bundle.v1+json"
    ENROLMENT_REQUEST = "application/vnd.fedcredit.enrolment-request.v1+json"
    WELCOME = "application/vnd.fedcredit.welcome.v1+json"
    ROUND_LOG = "application/vnd.fedcredit.round-log.v1+json"
    COVERAGE = "application/vnd.fedcredit.coverage.v1+json"


class SigningKey:
    """One Ed25519 private key (RFC 8032)."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: Final = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "SigningKey":
        """A fresh key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """The key of a 32-byte seed. Raises MalformedError for another length."""
        if len(seed) != KEY_BYTES:
            raise MalformedError(f"a signing seed has {len(seed)} bytes; {KEY_BYTES} are required.")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes; whoever has them can sign."""
        return self._key.private_bytes_raw()

    def sign(self, payload_type: str, payload: bytes) -> bytes:
        """Signature (64 bytes) over the DSSE encoding of `payload` as `payload_type`."""
        return self._key.sign(pre_authentication_encoding(payload_type, payload))

    def sign_raw(self, message: bytes) -> bytes:
        """Signature over `message` alone, for formats that name their own kind, such as signed notes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return "SigningKey(...)"


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: `DSSEv1 SP len(type) SP type SP len(payload) SP payload` (DSSE v1)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def verify(public: bytes, payload_type: str, payload: bytes, signature: bytes) -> None:
    """Raise TamperingError unless `signature` is by `public` over `payload` as `payload_type`."""
    verify_raw(public, pre_authentication_encoding(payload_type, payload), signature)


def verify_raw(public: bytes, message: bytes, signature: bytes) -> None:
    """Raise TamperingError unless `signature` is by `public` over `message`; small-order points never are."""
    sized = len(public) == KEY_BYTES and len(signature) == SIGNATURE_BYTES
    if not sized or public in SMALL_ORDER_ENCODINGS or signature[:KEY_BYTES] in SMALL_ORDER_ENCODINGS:
        raise TamperingError(
            f"a key of {len(public)} and a signature of {len(signature)} bytes cannot be relied on; "
            "32 and 64 bytes, neither holding a small-order point, are required. The signer must sign again."
        )
    try:
        # The package binds no detached form; its two copies of the message cost far less than hashing it.
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        raise TamperingError(
            "a signature does not fit its payload, type and key; do not use the payload, "
            "and ask the signer for it again."
        ) from None
