"""Bytes that nobody can foresee: Flower names whatever travels by its SHA-256, and who foresees a name can take it.

A SuperLink keeps one table of names for everybody. Whoever registers the name of another's message first, with other
parts below it, makes it refuse that message ever after. So a letter has a nonce of its own in each thing that is named.
"""

from typing import Final

from privacy.errors import MalformedError

NONCE_BYTES: Final = 16
PIECE_BYTES: Final = 5 << 20
"""Flower names an array's bytes in pieces of this size, the nonce in front of each included."""
_ROOM: Final = PIECE_BYTES - NONCE_BYTES


def woven(nonce: bytes, plain: bytes) -> bytes:
    """`plain`, which is not empty, with the nonce at the start of each of its pieces."""
    return b"".join(nonce + plain[start : start + _ROOM] for start in range(0, len(plain), _ROOM))


def woven_size(size: int) -> int:
    """How many bytes `woven` makes of so many."""
    return size + NONCE_BYTES * -(-size // _ROOM)


def unwoven(nonce: bytes, data: bytes) -> bytes:
    """What `woven` was given. MalformedError for bytes that it never makes."""
    pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
    if len(nonce) != NONCE_BYTES or not all(piece.startswith(nonce) and len(piece) > NONCE_BYTES for piece in pieces):
        raise MalformedError("An array of a Flower message lacks its letter's nonce; its sender is not fedcredit.")
    return b"".join(piece[NONCE_BYTES:] for piece in pieces)
