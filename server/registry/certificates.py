"""A certificate that a registry signs itself, for trying things out and for closed networks."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from federated.certificates import certificate_pem, certify, key_pem

VALID_DAYS: Final = 397
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


def self_signed(host: str, *, at: int) -> tuple[bytes, bytes]:
    """Certificate and private key (PEM, P-256) for `host` and this machine itself, valid 397 days from `at`.

    Whoever connects must be given the certificate by a way they trust: no authority vouches for it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certify(
        key.public_key(), name="fedcredit registry", hosts=(host, *_LOCAL), signs_others=True, key=key, issuer=None,
        at=at, days=VALID_DAYS,
    )  # fmt: skip
    return certificate_pem(certificate), key_pem(key)
