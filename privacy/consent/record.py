"""The consent record: a person's complete wishes at one data holder, as canonical JSON."""

import hashlib
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from privacy.consent.canonical import CanonicalJson, base64url, from_base64url
from privacy.consent.limits import (
    DAY_S,
    HANDLE_BYTES,
    KEY_ID_BYTES,
    MAX_CATEGORIES,
    MAX_GRANT_S,
    MAX_GRANTS,
    MAX_PAYLOAD_BYTES,
    MAX_RETAIN_S,
    Base64Of16,
    Base64Of32,
    CategoryName,
    Count,
    Name,
    UtcSeconds,
)
from privacy.errors import MalformedError


class Purpose(StrEnum):
    """What data may be used for. There is no wildcard, and none implies another."""

    TRAIN = "train"
    VALIDATE = "validate"
    SCORE = "score"
    MONITOR = "monitor"


class Signer(StrEnum):
    """In which role the record was signed."""

    SELF = "self"
    GUARDIAN = "guardian"
    COLLECTOR = "collector"


class TrainingBudget(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What statistics about the person may cost: a cap in each window, and a share of the clipping norm.

    The cap is epsilon `eps_milli` / 1000 at delta 10**`delta_log10`, spent within any `window_s` seconds.
    """

    share_milli: Annotated[int, Meta(ge=1, le=1000)]
    eps_milli: Annotated[int, Meta(ge=1, le=100_000)]
    delta_log10: Annotated[int, Meta(ge=-15, le=-3)]
    window_s: Annotated[int, Meta(ge=1, le=MAX_GRANT_S)]


class Uses(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """At most `n` answers about the person in any `per_s` seconds."""

    n: Annotated[int, Meta(ge=1, le=1_000_000)]
    per_s: Annotated[int, Meta(ge=1, le=MAX_GRANT_S)]


class Grant(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False, omit_defaults=True):
    """Consent for one purpose and one recipient, in force from `nbf` until `exp` (exclusive), UTC seconds.

    `data` are the schema's categories covered, ascending. From `reconfirm_by` on the grant pauses. Results
    may be kept `retain_s` seconds. `dp` belongs to `train` and `validate`, `uses` to `score` and `monitor`.
    """

    purpose: Purpose
    to: Name
    data: Annotated[tuple[CategoryName, ...], Meta(min_length=1, max_length=MAX_CATEGORIES)]
    nbf: UtcSeconds
    exp: UtcSeconds
    reconfirm_by: UtcSeconds
    retain_s: Annotated[int, Meta(ge=0, le=MAX_RETAIN_S)]
    dp: TrainingBudget | None = None
    uses: Uses | None = None


class Terms(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The notice the person saw: its name, SHA-256 (base64url) and language."""

    id: Name
    sha256: Base64Of32
    lang: Annotated[str, Meta(pattern=r"^[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*\Z", max_length=16)]


class ConsentRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Everything one person wants at one data holder; a higher `seq` replaces it entirely.

    `aud` and `aud_kid` are the data holder and the epoch of its key; `sub` the handle there, `kid` the id of
    the person's key, `prev` the SHA-256 of the payload before (null for the first), all in base64url; `iat`
    UTC seconds. No grants is a withdrawal of everything; `frozen` overrides every grant.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.consent"] = "fedcredit.consent"
    aud: Name
    aud_kid: Count
    sub: Base64Of32
    kid: Base64Of16
    seq: Count
    prev: Base64Of32 | None
    iat: UtcSeconds
    frozen: bool
    grants: Annotated[tuple[Grant, ...], Meta(max_length=MAX_GRANTS)]
    terms: Terms
    jur: Annotated[str, Meta(pattern=r"^[A-Z]{2}(?:-[A-Z0-9]{1,3})?\Z")]
    signer: Signer

    @property
    def handle(self) -> bytes:
        """The 32 bytes of `sub`."""
        return from_base64url(self.sub, size=HANDLE_BYTES)


_CODEC = CanonicalJson(ConsentRecord, what="a consent record", max_bytes=MAX_PAYLOAD_BYTES)


def encode_record(record: ConsentRecord) -> bytes:
    """Canonical JSON (RFC 8785) of `record`, at most 1,438 bytes. Raises MalformedError for a broken rule."""
    payload = _CODEC.encode(record)
    _check_rules(record)
    return payload


def parse_record(payload: bytes) -> ConsentRecord:
    """The record in `payload`. Raises MalformedError unless it is canonical and within every rule."""
    record = _CODEC.parse(payload)
    _check_rules(record)
    return record


def payload_digest(payload: bytes) -> str:
    """What the next record's `prev` holds: SHA-256 of `payload` in base64url."""
    return base64url(hashlib.sha256(payload).digest())


def key_id(public: bytes) -> str:
    """The `kid` of an Ed25519 public key: 16 bytes of its labelled SHA-256, in base64url."""
    return base64url(hashlib.sha256(b"fedcredit/kid/v1" + public).digest()[:KEY_ID_BYTES])


def _check_rules(record: ConsentRecord) -> None:
    if (record.seq == 1) != (record.prev is None):
        raise _broken("prev", "null in the first record and a digest in every later one")
    targets = [(grant.purpose, grant.to) for grant in record.grants]
    if targets != sorted(set(targets)):
        raise _broken("grants", "one grant for each purpose and recipient, ascending by purpose and recipient")
    for grant in record.grants:
        if not grant.nbf < grant.exp <= grant.nbf + MAX_GRANT_S:
            raise _broken("exp", f"later than nbf by at most {MAX_GRANT_S // DAY_S} days")
        if not grant.nbf < grant.reconfirm_by <= grant.exp:
            raise _broken("reconfirm_by", "later than nbf and not later than exp")
        if grant.data != tuple(sorted(set(grant.data))):
            raise _broken("data", "each category once, ascending")
        releases_statistics = grant.purpose in _STATISTICS
        if (grant.dp is not None) != releases_statistics or (grant.uses is None) != releases_statistics:
            raise _broken("dp and uses", "dp alone for train and validate, uses alone for score and monitor")


_STATISTICS = frozenset({Purpose.TRAIN, Purpose.VALIDATE})


def _broken(field: str, needed: str) -> MalformedError:
    return MalformedError(
        f"a consent record's {field} breaks its rule: {needed}. The person's wallet must write it again."
    )
