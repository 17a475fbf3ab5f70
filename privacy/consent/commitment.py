"""A commitment to the subjects used in a round, which names nobody and hides how many there are."""

import hmac
from collections.abc import Collection, Container, Iterable
from typing import Final

from privacy.consent.limits import HANDLE_BYTES
from privacy.consent.merkle import leaf_hash, root_of
from privacy.errors import MalformedError, TamperingError

SALT_BYTES: Final = 32


def commit_to_subjects(salt: bytes, handles: Iterable[bytes]) -> bytes:
    """Merkle root (32 bytes) over the sorted HMAC-SHA256(`salt`, handle), whatever the order of `handles`.

    `salt` is 32 secret random bytes of one round. Raises MalformedError for another size or a handle twice.
    """
    if len(salt) != SALT_BYTES:
        raise MalformedError(f"a round's salt has {len(salt)} bytes; {SALT_BYTES} are required.")
    # Sort after hashing: two orders of the same table must give one commitment.
    pseudonyms = sorted([_pseudonym(salt, handle) for handle in handles])
    if len(set(pseudonyms)) != len(pseudonyms):
        raise MalformedError(
            f"{len(pseudonyms)} subjects are named, some of them twice; each counts once. "
            "The data holder must remove duplicates from its table."
        )
    return root_of([leaf_hash(pseudonym) for pseudonym in pseudonyms])


def subjects_without_consent(
    used: Collection[bytes], *, salt: bytes, commitment: bytes, allowed: Container[bytes]
) -> int:
    """How many of the subjects `used` are not `allowed`; 0 is the only good answer.

    Raises TamperingError when `used` does not open `commitment`.
    """
    if not hmac.compare_digest(commit_to_subjects(salt, used), commitment):
        raise TamperingError(
            f"the {len(used)} subjects shown are not those committed to in the round; the data holder must "
            "show the list it trained on."
        )
    return sum(handle not in allowed for handle in used)


def _pseudonym(salt: bytes, handle: bytes) -> bytes:
    if len(handle) != HANDLE_BYTES:
        raise MalformedError(f"a handle has {len(handle)} bytes; {HANDLE_BYTES} are required.")
    return hmac.digest(salt, handle, "sha256")
