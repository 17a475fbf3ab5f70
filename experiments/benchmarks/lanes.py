"""A lane of made-up people for benchmarks: real records, signed and sealed as wallets do, and links to check them."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from privacy.consent.canonical import base64url
from privacy.consent.lane import Stub
from privacy.consent.record import (
    ConsentRecord,
    Grant,
    Purpose,
    Signer,
    Terms,
    TrainingBudget,
    encode_record,
    key_id,
    payload_digest,
)
from privacy.consent.sealing import LanePublicKey, seal
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.submission import Submission
from privacy.consent.view import Link

HOLDER = "bench-bank"
COORDINATOR = "bench-scoring"
CATEGORIES = ("behaviour", "credit_history")
DAY_S = 86_400
PEOPLE_AT_ONCE = 500

_TERMS = Terms(id="bench-notice", sha256=base64url(hashlib.sha256(b"notice").digest()), lang="en")


@dataclass(frozen=True, slots=True)
class Crowd:
    """`people` people with `records` records each at one data holder, the same whenever they are made."""

    people: int
    records: int
    key: bytes  # the data holder's public sealing key
    at: int

    @property
    def size(self) -> int:
        """Records of all of them."""
        return self.people * self.records

    def links(self) -> dict[str, Link]:
        """Customer number to link, for everybody."""
        return {f"customer-{k}": Link(_secret("handle", k), signing_key(k).public, 0) for k in range(self.people)}

    def submissions(self, pool: Executor) -> Iterator[list[Submission]]:
        """Everybody's records in batches: all first records come before all second ones."""
        firsts = range(0, self.people, PEOPLE_AT_ONCE)
        for seq in range(1, self.records + 1):
            yield from pool.map(partial(_written, self, seq), firsts)


def handle_of(person: int) -> bytes:
    """The handle of a made-up person."""
    return _secret("handle", person)


def signing_key(person: int) -> SigningKey:
    """The key of a made-up person."""
    return SigningKey.from_seed(_secret("key", person))


def payload_of(crowd: Crowd, person: int, seq: int, *, grants: bool = True) -> bytes:
    """Record number `seq` of a person: train and validate for a year, or nothing at all."""
    key = signing_key(person)
    return encode_record(
        ConsentRecord(
            aud=HOLDER,
            aud_kid=1,
            sub=base64url(handle_of(person)),
            kid=key_id(key.public),
            seq=seq,
            prev=None if seq == 1 else payload_digest(b"the record before"),
            iat=crowd.at - DAY_S + seq,
            frozen=False,
            grants=_grants(crowd.at) if grants else (),
            terms=_TERMS,
            jur="TW",
            signer=Signer.SELF,
        )
    )


def sealed_of(crowd: Crowd, person: int, seq: int, *, grants: bool = True) -> Submission:
    """The same record signed, sealed and ready to be submitted."""
    payload = payload_of(crowd, person, seq, grants=grants)
    signature = signing_key(person).sign(PayloadType.CONSENT, payload)
    rho, tag = _secret("rho", person, seq), _secret("tag", person, seq)[:16]
    key = LanePublicKey.from_bytes(crowd.key)
    sealed = seal(payload, signature, to=key, lane=HOLDER, epoch=1, rho=rho)
    return Submission(Stub.of(sealed, tag=tag, epoch=1), sealed.ciphertext)


def _written(crowd: Crowd, seq: int, first: int) -> list[Submission]:
    return [sealed_of(crowd, person, seq) for person in range(first, min(first + PEOPLE_AT_ONCE, crowd.people))]


def _grants(at: int) -> tuple[Grant, ...]:
    dp = TrainingBudget(share_milli=1000, eps_milli=2000, delta_log10=-5, window_s=365 * DAY_S)
    return tuple(
        Grant(
            purpose=purpose,
            to=COORDINATOR,
            data=CATEGORIES,
            nbf=at - DAY_S,
            exp=at + 300 * DAY_S,
            reconfirm_by=at + 200 * DAY_S,
            retain_s=365 * DAY_S,
            dp=dp,
        )
        for purpose in (Purpose.TRAIN, Purpose.VALIDATE)
    )


def _secret(use: str, *numbers: int) -> bytes:
    return hashlib.sha256(f"bench/{use}/{numbers}".encode()).digest()
