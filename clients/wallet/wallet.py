"""A person's wallet: one secret, one signing key per data holder, and each holder's newest record."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from privacy.consent.canonical import base64url
from privacy.consent.lane import Stub, tag_of
from privacy.consent.limits import MAX_COUNT, MAX_GRANT_S, Base64Of32
from privacy.consent.record import ConsentRecord, Grant, Signer, Terms, encode_record, key_id, payload_digest
from privacy.consent.sealing import LanePublicKey, seal
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import RefusalCode, RefusalError

WHOLE_SHARE_MILLI = 1000


@dataclass(frozen=True, slots=True)
class HolderAddress:
    """Where a consent record for one data holder goes: its lane, key epoch and sealing key."""

    holder: str
    epoch: int
    key: LanePublicKey


@dataclass(frozen=True, slots=True, repr=False)
class SealedRecord:
    """A record on its way to the registry, which can read nothing of it, and what its receipt will need.

    `stub` and `ciphertext` travel. `payload`, `signature` and the blinding value `rho` open them, and stay here.
    """

    stub: Stub
    ciphertext: bytes
    payload: bytes
    signature: bytes
    rho: bytes


class Lent(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A share of the clipping norm given to a data holder, which counts until the window of its last use is over."""

    share_milli: Annotated[int, Meta(ge=1, le=1000)]
    until: Annotated[int, Meta(ge=0, le=MAX_COUNT)]
    window_s: Annotated[int, Meta(ge=1, le=MAX_GRANT_S)]


class Memory(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the wallet must remember of one data holder: its newest record's number and digest, the shares lent.

    `seq` is 0 and `digest` None before the first record. Whoever forgets this writes a number twice.
    """

    seq: Annotated[int, Meta(ge=0, le=MAX_COUNT)] = 0
    digest: Base64Of32 | None = None
    lent: tuple[Lent, ...] = ()

    def share_milli(self, at: int) -> int:
        """The largest share that is lent at `at`, or whose budget may still be counted; in thousandths."""
        return max((lent.share_milli for lent in self.lent if lent.until > at), default=0)


_NOTHING = Memory()


def _lent_by(grants: Sequence[Grant]) -> Lent | None:
    """The largest share that `grants` give, counted until the last of them is past its window; None without one."""
    budgets = [(grant.exp, grant.dp) for grant in grants if grant.dp is not None]
    if not budgets:
        return None
    window = max(budget.window_s for _, budget in budgets)
    return Lent(
        share_milli=max(budget.share_milli for _, budget in budgets),
        until=max(end for end, _ in budgets) + window,
        window_s=window,
    )


class Wallet:
    """The person's side of consent. The secret (32 bytes) never leaves it."""

    def __init__(self, secret: bytes, memories: Mapping[str, Memory] | None = None) -> None:
        """The wallet of `secret`, which has written before what `memories` (by data holder) say."""
        self._secret = secret
        self._memories: dict[str, Memory] = dict(memories or {})

    def memory(self, holder: str) -> Memory:
        """What to keep of one data holder before a record written now may leave."""
        return self._memories.get(holder, _NOTHING)

    def tag(self, holder: str, seq: int) -> bytes:
        """The tag (16 bytes) under which record `seq` lies in the data holder's lane; nobody else can tell it."""
        return tag_of(self._derive("tag", holder), aud=holder, seq=seq)

    def key_for(self, holder: str) -> SigningKey:
        """The signing key for one data holder: another one for each, so that no two holders can match people."""
        return SigningKey.from_seed(self._derive("key", holder))

    def write(
        self, address: HolderAddress, *, handle: bytes, grants: Sequence[Grant], frozen: bool, terms: Terms,
        jurisdiction: str, at: int, issued_at: int | None = None,
    ) -> SealedRecord:  # fmt: skip
        """The person's complete wishes at one data holder, signed and sealed; a later one replaces it entirely.

        The record says that it was issued at `issued_at` (UTC seconds), or at `at`, by which shares are counted.
        No grants is a withdrawal. Granting, withdrawing and freezing are this same call and the same size.
        RefusalError if the shares granted over all data holders would pass 1: noise shared by several data holders
        protects somebody who is at all of them only as far as the shares add up to 1.
        """
        lent = _lent_by(grants)
        share = 0 if lent is None else lent.share_milli
        elsewhere = sum(memory.share_milli(at) for holder, memory in self._memories.items() if holder != address.holder)
        before = self.memory(address.holder)
        # What does not raise the share here is never refused: nobody can be kept from saying less.
        if share > before.share_milli(at) and share + elsewhere > WHOLE_SHARE_MILLI:
            raise RefusalError(
                f"The shares over all data holders would add up to {share + elsewhere} thousandths, and 1000 is all "
                "there is. A share that was withdrawn comes back when the window of its budget has passed. The person "
                "should grant less here, or wait.",
                RefusalCode.BUDGET,
            )
        key = self.key_for(address.holder)
        record = ConsentRecord(
            aud=address.holder,
            aud_kid=address.epoch,
            sub=base64url(handle),
            kid=key_id(key.public),
            seq=before.seq + 1,
            prev=before.digest,
            iat=at if issued_at is None else issued_at,
            frozen=frozen,
            grants=tuple(sorted(grants, key=lambda grant: (grant.purpose.value, grant.to))),
            terms=terms,
            jur=jurisdiction,
            signer=Signer.SELF,
        )
        payload = encode_record(record)
        rho = self._derive("rho", f"{address.holder}|{record.seq}")
        signature = key.sign(PayloadType.CONSENT, payload)
        sealed = seal(payload, signature, to=address.key, lane=address.holder, epoch=address.epoch, rho=rho)
        ended = tuple(
            Lent(share_milli=old.share_milli, until=min(old.until, at + old.window_s), window_s=old.window_s)
            for old in before.lent
            if old.until > at
        )
        self._memories[address.holder] = Memory(
            seq=record.seq, digest=payload_digest(payload), lent=(*ended, lent) if lent else ended
        )
        stub = Stub.of(sealed, tag=self.tag(address.holder, record.seq), epoch=address.epoch)
        return SealedRecord(stub, sealed.ciphertext, payload, signature, rho)

    def _derive(self, use: str, context: str) -> bytes:
        return hmac.digest(self._secret, f"fedcredit/wallet/{use}/v1|{context}".encode(), "sha256")
