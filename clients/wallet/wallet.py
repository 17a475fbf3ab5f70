"""A person's wallet: one secret, one signing key per data holder, and each holder's newest record."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from privacy.consent.canonical import base64url
from privacy.consent.lane import Stub, tag_of
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


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A record on its way to the registry, which can read nothing of it."""

    stub: Stub
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class _Lent:
    """A share of the clipping norm given to a data holder, which counts until the window of its last use is over."""

    share_milli: int
    until: int
    window_s: int


def _lent_by(grants: Sequence[Grant]) -> _Lent | None:
    """The largest share that `grants` give, counted until the last of them is past its window; None without one."""
    budgets = [(grant.exp, grant.dp) for grant in grants if grant.dp is not None]
    if not budgets:
        return None
    window = max(budget.window_s for _, budget in budgets)
    return _Lent(max(budget.share_milli for _, budget in budgets), max(end for end, _ in budgets) + window, window)


class Wallet:
    """The person's side of consent. The secret (32 bytes) never leaves it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._newest: dict[str, tuple[int, str]] = {}  # holder -> seq and digest of its newest record
        self._lent: dict[str, list[_Lent]] = {}  # holder -> shares that still count there

    def key_for(self, holder: str) -> SigningKey:
        """The signing key for one data holder: another one for each, so that no two holders can match people."""
        return SigningKey.from_seed(self._derive("key", holder))

    def write(
        self, address: HolderAddress, *, handle: bytes, grants: Sequence[Grant], frozen: bool, terms: Terms,
        jurisdiction: str, at: int,
    ) -> SealedRecord:  # fmt: skip
        """The person's complete wishes at one data holder, signed and sealed; a later one replaces it entirely.

        No grants is a withdrawal. Granting, withdrawing and freezing are this same call and the same size.
        RefusalError if the shares granted over all data holders would pass 1: noise shared by several data holders
        protects somebody who is at all of them only as far as the shares add up to 1.
        """
        lent = _lent_by(grants)
        share = 0 if lent is None else lent.share_milli
        elsewhere = sum(self._held(holder, at) for holder in self._lent if holder != address.holder)
        # What does not raise the share here is never refused: nobody can be kept from saying less.
        if share > self._held(address.holder, at) and share + elsewhere > WHOLE_SHARE_MILLI:
            raise RefusalError(
                f"The shares over all data holders would add up to {share + elsewhere} thousandths, and 1000 is all "
                "there is. A share that was withdrawn comes back when the window of its budget has passed. The person "
                "should grant less here, or wait.",
                RefusalCode.BUDGET,
            )
        seq, previous = self._newest.get(address.holder, (0, None))
        key = self.key_for(address.holder)
        record = ConsentRecord(
            aud=address.holder,
            aud_kid=address.epoch,
            sub=base64url(handle),
            kid=key_id(key.public),
            seq=seq + 1,
            prev=previous,
            iat=at,
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
        self._newest[address.holder] = (record.seq, payload_digest(payload))
        ended = [_Lent(old.share_milli, min(old.until, at + old.window_s), old.window_s)
                 for old in self._lent.get(address.holder, ()) if old.until > at]  # fmt: skip
        self._lent[address.holder] = [*ended, lent] if lent else ended
        tag = tag_of(self._derive("tag", address.holder), aud=address.holder, seq=record.seq)
        return SealedRecord(Stub.of(sealed, tag=tag, epoch=address.epoch), sealed.ciphertext)

    def _held(self, holder: str, at: int) -> int:
        """The largest share that is lent to a data holder at `at`, or whose budget may still be counted there."""
        return max((lent.share_milli for lent in self._lent.get(holder, ()) if lent.until > at), default=0)

    def _derive(self, use: str, context: str) -> bytes:
        return hmac.digest(self._secret, f"fedcredit/wallet/{use}/v1|{context}".encode(), "sha256")
