"""A data holder's published sealing keys: one for each epoch, signed by its identity key, for a limited time."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from privacy.consent.canonical import CanonicalJson, from_base64url
from privacy.consent.envelope import open_envelope, write_envelope
from privacy.consent.limits import DAY_S, MAX_EPOCHS, MAX_KEY_SET_S, Count, Name, ServiceUrl, UtcSeconds
from privacy.consent.sealing import LanePublicKey
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

_WHAT: Final = "a data holder's key set"
_MAX_BYTES: Final = 32_768
_MAX_EARLY_S: Final = 3600


class EpochKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The public key (base64url of `LanePublicKey.to_bytes()`) that records of one epoch are sealed to."""

    epoch: Count
    key: Annotated[str, Meta(max_length=2048)]

    @property
    def public(self) -> LanePublicKey:
        """The key itself. Raises MalformedError."""
        return LanePublicKey.from_bytes(from_base64url(self.key, size=3 * len(self.key) // 4))


class KeySet(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of data holder `holder`, ascending by epoch; records are to be sealed to that of `current`.

    `version` grows with each set. Not to be used from `expires` on, at most 90 days after `issued_at`.
    `side_door` is where the data holder takes records directly; None where it does not.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.key-set"] = "fedcredit.key-set"
    holder: Name
    version: Count
    issued_at: UtcSeconds
    expires: UtcSeconds
    current: Count
    keys: Annotated[tuple[EpochKey, ...], Meta(min_length=1, max_length=MAX_EPOCHS)]
    side_door: ServiceUrl | None

    @property
    def current_key(self) -> LanePublicKey:
        """The key to seal to now."""
        return next(key.public for key in self.keys if key.epoch == self.current)


_CODEC: Final = CanonicalJson(KeySet, what=_WHAT, max_bytes=_MAX_BYTES)


def write_key_set(key_set: KeySet, identity: SigningKey) -> bytes:
    """The envelope of `key_set` signed by the data holder's identity. Raises MalformedError for a broken rule."""
    payload = _CODEC.encode(key_set)
    _check_rules(key_set)
    return write_envelope(PayloadType.KEY_SET, payload, identity)


def read_key_set(data: bytes, *, identity: bytes, holder: str, at: int | None) -> KeySet:
    """The key set that `holder` signed with `identity` (32 bytes), in force at `at` (UTC seconds) unless None.

    Raises MalformedError, TamperingError, and RefusalError when it has expired or is issued in the future.
    """
    key_set = _CODEC.parse(open_envelope(data, PayloadType.KEY_SET, identity, what=_WHAT))
    _check_rules(key_set)
    if key_set.holder != holder:
        raise TamperingError(
            "a key set is signed for another data holder than the one it was asked of; do not seal to it, and ask "
            "the registry for this data holder's own."
        )
    if at is not None and (at >= key_set.expires or key_set.issued_at > at + _MAX_EARLY_S):
        raise RefusalError(
            f"a key set is in force for {(key_set.expires - key_set.issued_at) // DAY_S} days and not now; the data "
            "holder must publish a new one, and both clocks must be right.",
            RefusalCode.LANE,
        )
    return key_set


def _check_rules(key_set: KeySet) -> None:
    epochs = [key.epoch for key in key_set.keys]
    if epochs != sorted(set(epochs)):
        raise _broken("keys", "each epoch once, ascending")
    if key_set.current not in epochs:
        raise _broken("current", "one of the epochs")
    if not key_set.issued_at < key_set.expires <= key_set.issued_at + MAX_KEY_SET_S:
        raise _broken("expires", f"later than issued_at by at most {MAX_KEY_SET_S // DAY_S} days")
    for key in key_set.keys:
        _ = key.public


def _broken(field: str, needed: str) -> MalformedError:
    return MalformedError(f"a key set's {field} breaks its rule: {needed}. The data holder must write it again.")
