"""RFC 9180 base mode, receiver's side, and the X-Wing combiner, from the documents: the sealing's judge."""

import hmac
from dataclasses import dataclass
from hashlib import sha3_256, sha256, shake_256

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

X25519_KEM, X_WING_KEM, HKDF_SHA256 = 0x0020, 0x647A, 0x0001


@dataclass(frozen=True)
class XWingKey:
    ml_kem_seed: bytes
    x25519: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> "XWingKey":
        """draft-connolly-cfrg-xwing-kem, section 5.2: SHAKE-256 of the seed, 64 bytes and 32 bytes."""
        expanded = shake_256(seed).digest(96)
        return cls(expanded[:64], expanded[64:])


def dhkem_decap(enc: bytes, private: bytes) -> bytes:
    """DHKEM(X25519, HKDF-SHA256).Decap, section 4.1."""
    key = X25519PrivateKey.from_private_bytes(private)
    dh = key.exchange(X25519PublicKey.from_public_bytes(enc))
    suite = b"KEM" + X25519_KEM.to_bytes(2, "big")
    prk = _extract(b"", suite, b"eae_prk", dh)
    return _expand(prk, suite, b"shared_secret", enc + key.public_key().public_bytes_raw(), 32)


def x_wing_decap(enc: bytes, key: XWingKey) -> bytes:
    """draft-connolly-cfrg-xwing-kem, section 5.5: SHA3-256(ss_M || ss_X || ct_X || pk_X || label)."""
    ml_kem_ciphertext, x25519_ciphertext = enc[:1088], enc[1088:]
    private = X25519PrivateKey.from_private_bytes(key.x25519)
    ss_m = MLKEM768PrivateKey.from_seed_bytes(key.ml_kem_seed).decapsulate(ml_kem_ciphertext)
    ss_x = private.exchange(X25519PublicKey.from_public_bytes(x25519_ciphertext))
    pk_x = private.public_key().public_bytes_raw()
    return sha3_256(ss_m + ss_x + x25519_ciphertext + pk_x + rb"\.//^" + b"\\").digest()


def open_base(
    kem_id: int,
    aead_id: int,
    enc: bytes,
    ciphertext: bytes,
    key: bytes | XWingKey,
    *,
    info: bytes,
    aad: bytes,
) -> bytes:
    """First message of a base-mode context with HKDF-SHA256, sections 5.1 and 5.2."""
    shared = x_wing_decap(enc, key) if isinstance(key, XWingKey) else dhkem_decap(enc, key)
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (kem_id, HKDF_SHA256, aead_id))
    context = b"\x00" + _extract(b"", suite, b"psk_id_hash", b"") + _extract(b"", suite, b"info_hash", info)
    secret = _extract(shared, suite, b"secret", b"")
    aead_key = _expand(secret, suite, b"key", context, 16 if aead_id == 1 else 32)
    nonce = _expand(secret, suite, b"base_nonce", context, 12)
    aead = ChaCha20Poly1305(aead_key) if aead_id == 3 else AESGCM(aead_key)
    return aead.decrypt(nonce, ciphertext, aad)


def _extract(salt: bytes, suite: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def _expand(prk: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    output = block = b""
    for counter in range(1, -(-length // sha256().digest_size) + 1):
        block = hmac.digest(prk, block + labelled + bytes([counter]), "sha256")
        output += block
    return output[:length]
