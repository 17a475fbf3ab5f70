"""Locks: what a data holder reveals opens only if a threshold of the cohort was told the same story.

The holder encrypts its shares under a fresh key and shares that key, by Shamir, with the cohort. The share for
each other is padded; the pad is derived from the secret of the two and from the view: release, cohort and who
survived. Each holder reveals the pads of the others' locks for the one view that it was given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privacy.secure_sum.derivation import derive, digest_of
from privacy.secure_sum.shamir import SHARE_BYTES, drawn_coefficients, share_of

_LOCKED_BYTES: Final = SHARE_BYTES + 16  # the share and Poly1305's tag
ENTRY_BYTES: Final = _LOCKED_BYTES + 2 * SHARE_BYTES


def view_digest(cohort: bytes, survivors: Sequence[str]) -> bytes:
    """What a holder was told: the release and cohort, by their digest, and who survived."""
    return digest_of("view", cohort, *survivors)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one holder reveals about one member of the cohort."""

    locked: bytes  # a share of the member's seed or key, encrypted
    padded: bytes  # a share, for the member, of the key that it is encrypted under
    pad: bytes  # of the share of the member's lock for this holder

    def to_bytes(self) -> bytes:
        """The three parts, one after another: `ENTRY_BYTES` bytes."""
        return self.locked + self.padded + self.pad

    @classmethod
    def from_bytes(cls, data: bytes) -> "Entry":
        """What `to_bytes` wrote. Requires `ENTRY_BYTES` bytes."""
        return cls(data[:_LOCKED_BYTES], data[_LOCKED_BYTES:-SHARE_BYTES], data[-SHARE_BYTES:])


def locked_entries(
    shares: Mapping[str, int],
    *,
    holder: str,
    view: bytes,
    secret: bytes,
    channels: Mapping[str, bytes],
    points: Mapping[str, int],
    threshold: int,
) -> dict[str, Entry]:
    """The entries that `holder` reveals for each member of the cohort (the names of `shares`, in order).

    `secret` is the holder's own, from which the lock is drawn, `channels` its secrets with each other member.
    """
    coefficients = drawn_coefficients(secret, "lock", view, count=threshold)
    cipher = ChaCha20Poly1305(_content_key(coefficients[0], view, holder))
    entries = {}
    for place, (name, share) in enumerate(shares.items()):
        locked = cipher.encrypt(_nonce(place), share.to_bytes(SHARE_BYTES, "big"), None)
        of_key = share_of(coefficients, points[name]).to_bytes(SHARE_BYTES, "big")
        if name == holder:
            entries[name] = Entry(locked, of_key, bytes(SHARE_BYTES))
        else:
            mine = _pad(channels[name], view, locker=holder, helper=name)
            entries[name] = Entry(locked, _xor(of_key, mine), _pad(channels[name], view, locker=name, helper=holder))
    return entries


def share_of_lock(locker: Entry, helper: Entry) -> int:
    """What `helper`'s entry about the locker, and the locker's about the helper, say about the lock's key."""
    return int.from_bytes(_xor(locker.padded, helper.pad), "big")


def opened(entries: Mapping[str, Entry], key: int, *, holder: str, view: bytes) -> dict[str, int] | None:
    """The shares that `holder` revealed, of each member of the cohort in order; None if `key` is not the lock's."""
    if key.bit_length() > 8 * SHARE_BYTES:
        return None
    cipher = ChaCha20Poly1305(_content_key(key, view, holder))
    shares = {}
    try:
        for place, (name, entry) in enumerate(entries.items()):
            shares[name] = int.from_bytes(cipher.decrypt(_nonce(place), entry.locked, None), "big")
    except InvalidTag:
        return None
    return shares


def _content_key(key: int, view: bytes, holder: str) -> bytes:
    return derive(key.to_bytes(SHARE_BYTES, "big"), "content", view, holder)


def _pad(channel: bytes, view: bytes, *, locker: str, helper: str) -> bytes:
    return derive(channel, "pad", view, locker, helper, length=SHARE_BYTES)


def _nonce(place: int) -> bytes:
    return place.to_bytes(12, "big")


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(SHARE_BYTES, "big")
