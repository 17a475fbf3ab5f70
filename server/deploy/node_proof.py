"""How a SuperNode proves that a request is its own: Flower's signature over the time at which it asks."""

from base64 import b64decode, b64encode
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256

AHEAD_S: Final = 10
BEHIND_S: Final = 310
"""How far the node's clock may be from ours: five seconds more than SuperLink allows, which looks once more."""
_LONGEST: Final = 256
_HOW: Final = ECDSA(SHA256())


def is_proven(key: EllipticCurvePublicKey, *, timestamp: bytes, signature: bytes, at: float) -> bool:
    """Whether `signature` (base64) is the key's over `timestamp` (ISO 8601), and that is about now, `at` (UTC s)."""
    if max(len(timestamp), len(signature)) > _LONGEST:
        return False
    try:
        asked = datetime.fromisoformat(timestamp.decode("ascii"))
        # A time without a zone says nothing; SuperLink refuses it as well.
        if asked.utcoffset() is None or not -AHEAD_S < at - asked.timestamp() < BEHIND_S:
            return False
        proof = b64decode(signature, validate=True)
        if b64encode(proof) != signature:  # more padding than there should be is taken by Python
            return False
        key.verify(proof, timestamp, _HOW)
    except (ValueError, OverflowError, InvalidSignature):
        return False
    return True
