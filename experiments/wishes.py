"""The consent records that the demo's people write, by attitude."""

import hashlib
from collections.abc import Sequence

from clients.wallet.wallet import HolderAddress, SealedRecord, Wallet
from experiments.people import Attitude
from privacy.consent.canonical import base64url
from privacy.consent.record import Grant, Purpose, Terms, TrainingBudget, Uses

COORDINATOR = "open-scoring"
LENDER = "harbour-lending"
EPOCH = 1  # of every data holder's sealing key
DAY_S = 86_400

NOTICE = (
    b"Your data holder would like to use your records to train and check a credit scorecard together with others, "
    b"and to answer a lender you name. Your rows stay where they are; only noisy sums leave. You may change or "
    b"withdraw this at any time, in one step.\n"
)
TERMS = Terms(id="demo-notice-1", sha256=base64url(hashlib.sha256(NOTICE).digest()), lang="en")
JURISDICTION = "TW"


def records_of(
    attitude: Attitude, wallet: Wallet, address: HolderAddress, *, handle: bytes, categories: frozenset[str],
    share_milli: int, cap: float, at: int,
) -> list[SealedRecord]:  # fmt: skip
    """What a person with this attitude has written at one data holder until the instant `at`, oldest first."""
    every = tuple(sorted(categories))
    dp = TrainingBudget(share_milli=share_milli, eps_milli=round(1000 * cap), delta_log10=-5, window_s=365 * DAY_S)
    usual = _grants(every, dp, since=at - 30 * DAY_S, until=at + 300 * DAY_S)
    score = [grant for grant in usual if grant.purpose is Purpose.SCORE]

    def write(grants: Sequence[Grant], *, days_ago: int, frozen: bool = False) -> SealedRecord:
        issued = at - days_ago * DAY_S
        return wallet.write(
            address,
            handle=handle,
            grants=grants,
            frozen=frozen,
            terms=TERMS,
            jurisdiction=JURISDICTION,
            at=issued,
        )

    match attitude:
        case Attitude.AGREES:
            return [write(usual, days_ago=30)]
        case Attitude.SILENT:
            return []
        case Attitude.SCORE_ONLY:
            return [write(score, days_ago=30)]
        case Attitude.WITHDREW:
            return [write(usual, days_ago=30), write([], days_ago=3)]
        case Attitude.EXPIRED:
            return [write(_grants(every, dp, since=at - 300 * DAY_S, until=at - 10 * DAY_S), days_ago=300)]
        case Attitude.FROZE:
            return [write(usual, days_ago=30), write(usual, days_ago=1, frozen=True)]
        case Attitude.PARTIAL:
            return [write(_grants(every[:1], dp, since=at - 30 * DAY_S, until=at + 300 * DAY_S), days_ago=30)]


def _grants(data: tuple[str, ...], dp: TrainingBudget, *, since: int, until: int) -> list[Grant]:
    def grant(purpose: Purpose, to: str, dp: TrainingBudget | None, uses: Uses | None) -> Grant:
        return Grant(
            purpose=purpose, to=to, data=data, nbf=since, exp=until, reconfirm_by=until, retain_s=365 * DAY_S,
            dp=dp, uses=uses,
        )  # fmt: skip

    return [
        grant(Purpose.SCORE, LENDER, None, Uses(n=12, per_s=30 * DAY_S)),
        grant(Purpose.TRAIN, COORDINATOR, dp, None),
        grant(Purpose.VALIDATE, COORDINATOR, dp, None),
    ]
