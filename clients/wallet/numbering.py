"""Numbers of records that are used already: a wallet restored from an old copy must never write one twice.

A record's tag follows from the wallet's secret and the record's number, so the wallet can ask the registry for it.
"""

from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.collecting import accept_head
from clients.wallet.service import LaneService
from clients.wallet.state import Account, Alarm, AlarmKind
from clients.wallet.wallet import Memory, Wallet
from privacy.consent.canonical import base64url
from privacy.consent.lane import AnyStub
from privacy.consent.limits import DIGEST_BYTES, MAX_COUNT
from privacy.consent.linking import Newest
from privacy.consent.merkle import inclusion_proof, leaf_hash, verify_inclusion
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError

# Records that reached the data holder by its side door and never its lane: there cannot be many.
MAX_UNLOGGED: Final = 64
_LOOK_AHEAD: Final = 4
# A registry that claims to have every number must not use them up.
_MOST_AHEAD: Final = 1 << 20
# Numbers passed over when nobody can be asked which are used: fewer than may be missing in a lane.
_SKIPPED: Final = MAX_UNLOGGED // 2
UNKNOWN_PREVIOUS: Final = base64url(bytes(DIGEST_BYTES))
"""What `prev` says in a record whose writer lost the one before; only a record that permits nothing may."""

OUTDATED: Final = (
    "the lane holds a record under this wallet's next number that this wallet did not write: it was restored from an "
    "old copy, or another copy of it is in use. Until the newest record is known, only a freeze or a withdrawal of all "
    "that is granted there can be written: ask the data holder for a fresh offer and run: fedcredit wallet link "
    "OFFER_FILE --out ANSWER_FILE"
)


def next_number_is_free(
    book: Book, account: Account, wallet: Wallet, registry: LaneService | None, *, at: int
) -> bool | None:
    """Whether the lane has no record under the wallet's next number; None when that cannot be told.

    Whoever writes then goes on as if it were free, whatever is to be said: what is wrong shows when the record is
    submitted, and nobody can be kept from a restriction.
    """
    if registry is None:
        return None
    seq = account.memory.seq + 1
    try:
        return logged(book, account.holder, registry, wallet.tag(account.holder, seq), seq=seq, at=at) is None
    except FedcreditError:
        return None


def logged(book: Book, holder: str, registry: LaneService, tag: bytes, *, seq: int, at: int) -> AnyStub | None:
    """The log entry under `tag`, proved to be in the lane that the registry signed; None when it says there is none.

    The registry was asked for the tag, so it could show an entry made up for it. Raises RefusalError while no signed
    head covers the entry, TamperingError after an alarm, and whatever else the registry's failure is.
    """
    position = registry.position(holder, tag)
    if position is None:
        return None
    if not 0 <= position < MAX_COUNT:
        raise MalformedError("the registry names a position that no entry can have. Tell its operator.")
    shown = registry.entries(holder, position, position + 1)
    if [entry.stub.tag for entry in shown] != [tag]:
        book.alarm(Alarm(holder=holder, kind=AlarmKind.POSITION, seq=seq, at=at))
        raise _unproven()
    account, head, tree = accept_head(book, holder, registry, at=at)
    if position >= head.size:
        raise RefusalError(
            "the registry says that a record is in the lane, and has not signed a head that covers it. Run the command "
            "again later.",
            RefusalCode.LANE,
        )
    leaf = shown[0].stub.leaf()
    proof = inclusion_proof(tree, position, head.size)
    try:
        verify_inclusion(leaf_hash(leaf), position, head.size, proof, head.root)
    except TamperingError:
        seen = (account.head.checkpoint,) if account.head else ()
        book.alarm(
            Alarm(
                holder=holder, kind=AlarmKind.POSITION, seq=seq, at=at, checkpoints=seen, leaf=base64url(leaf),
                proof=tuple(map(base64url, proof)),
            )
        )  # fmt: skip
        raise _unproven() from None
    return shown[0].stub


def _unproven() -> TamperingError:
    return TamperingError(
        "the registry says that a record is in the lane already, and cannot prove it. Nothing was believed; tell the "
        "data holder."
    )


def skipped_ahead(account: Account, wallet: Wallet, registry: LaneService | None) -> Account:
    """The account ready to write a record that permits nothing, beyond every number that is used.

    Records that nobody took are given up: others stand in their places.
    """
    memory = account.memory
    highest = memory.seq + _SKIPPED
    if registry is not None:
        with suppress(FedcreditError):
            highest = highest_used(wallet, account.holder, registry, known=memory.seq, ahead=MAX_UNLOGGED)
    return replace(
        account,
        memory=Memory(seq=highest, digest=UNKNOWN_PREVIOUS if highest else None, lent=memory.lent),
        written=tuple(record for record in account.written if record.arrived),
        outdated=False,
    )


def highest_used(
    wallet: Wallet, holder: str, registry: LaneService, *, known: int, ahead: int = _LOOK_AHEAD
) -> int:  # fmt: skip
    """The highest number from `known` on whose record is in the lane; `known` when there is none above it.

    Doubling steps, then halving ones, then `ahead` numbers beyond, for records that are missing between others. Asks
    about 2 log2 times and `ahead` more.
    """

    def used(seq: int) -> bool:
        return seq <= known or registry.position(holder, wallet.tag(holder, seq)) is not None

    highest, most = known, min(known + _MOST_AHEAD, MAX_COUNT)
    while True:
        step = 1
        while highest + step <= most and used(highest + step):
            step *= 2
        low, high = highest + step // 2, highest + step  # used, and not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if used(middle) else (low, middle)
        highest = max(low, highest)
        beyond = next((seq for seq in reversed(range(highest + 2, min(highest + 2 + ahead, most))) if used(seq)), None)
        if beyond is None:
            return highest
        highest = beyond


def continued(memory: Memory, newest: Newest | None, *, highest: int, disputed: bool) -> Memory:
    """The memory from which a wallet goes on after the data holder's `newest`, the lane having `highest`.

    `disputed` when the wallet's own newest record never was acknowledged, so that another may stand in its place.
    RefusalError when the data holder does not know the newest record yet, TamperingError when it contradicts.
    """
    offered = 0 if newest is None else newest.seq
    if highest > max(offered, memory.seq):
        raise RefusalError(
            f"the lane holds {highest} records of this wallet and the offer tells of {offered}; the newest must be "
            "known, because the next record names it. Ask the data holder to sync its lane and for a fresh offer; if "
            "it cannot tell, begin a new wallet with: fedcredit wallet --wallet ANOTHER_DIRECTORY init",
            RefusalCode.REPLAY,
        )
    if newest is None or offered < memory.seq:
        return memory
    if offered > highest + MAX_UNLOGGED:
        raise TamperingError(
            f"the offer tells of {offered} records of this wallet and the lane holds {highest}; a wallet that believed "
            "it could write no more. Ask the data holder what it has, and the registry why it is not in the lane."
        )
    if offered == memory.seq and newest.digest != memory.digest and not disputed:
        raise TamperingError(
            f"the offer tells of another record number {offered} than the one this wallet wrote and has a promise for. "
            "Do not answer it; ask the data holder, and whoever else may have a copy of this wallet."
        )
    return Memory(seq=offered, digest=newest.digest, lent=memory.lent)
