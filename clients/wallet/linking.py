"""Linking the wallet to a data holder: its offer is checked and kept, and answered with a proof of the key."""

from contextlib import ExitStack
from dataclasses import dataclass

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.key_sets import with_key_set
from clients.wallet.numbering import MAX_UNLOGGED, continued, highest_used
from clients.wallet.service import Connect, LaneService
from clients.wallet.state import Account, Written
from clients.wallet.wallet import Memory
from privacy.consent.linking import LinkOffer, Notice, fingerprint, write_answer
from privacy.consent.record import payload_digest
from privacy.errors import RefusalCode, RefusalError, TamperingError


@dataclass(frozen=True, slots=True)
class Linked:
    """The answer to hand over, and what the person should know."""

    answer: bytes
    remarks: tuple[str, ...]


def link(book: Book, offer: LinkOffer, connect: Connect, *, at: int) -> Linked:
    """Keep what `offer` (verified) says and answer it; the same offer again gives another answer to it.

    TamperingError when the data holder's identity, or the key of its registry, is another than records were written
    under; a link under which nothing was ever written gives way, with a remark.
    RefusalError for another customer number than the one under which something is granted: a later "no" would go to
    the new one alone. RefusalError when the registry must say which numbers are used and does not answer.
    """
    before = book.state.account(offer.holder)
    remarks: list[str] = []
    if before is not None and not _same_parties(before, offer):
        remarks.append(_dropped(before, offer))
        before = None
    if before is not None and before.handle != offer.sub and not _said_no(before):
        raise RefusalError(
            f"this offer is for another customer number at {offer.holder} than the one this wallet is linked as, and "
            f"something may still be granted there. Run `fedcredit wallet withdraw {offer.holder}` first, or keep a "
            "wallet of its own for the other number: fedcredit wallet --wallet ANOTHER_DIRECTORY init",
            RefusalCode.CONSENT,
        )
    account = Account(
        holder=offer.holder,
        identity=offer.identity,
        handle=offer.sub,
        registry=offer.registry,
        notice=offer.notice,
        earlier_notices=() if before is None else _earlier(before, offer),
        categories=offer.categories,
        linked_at=at,
        memory=before.memory if before else Memory(),
        written=before.written if before else (),
        key_set=before.key_set if before else None,
        head=before.head if before else None,
    )
    # A wallet that has written here before, and may have forgotten it, needs the registry; a new one does not.
    ahead = offer.newest is not None and offer.newest.seq > account.memory.seq
    must_ask = book.state.recovered or ahead or (before is not None and before.outdated)
    registry: LaneService | None
    with ExitStack() as stack:
        try:
            registry = stack.enter_context(connect(offer.registry))
            account = _numbered(book, account, offer, registry, forgotten=must_ask)
        except RefusalError:
            if must_ask:
                raise
            registry = None
        try:
            account = account if registry is None else with_key_set(account, registry, at=at)
        except RefusalError:
            registry = None
    if registry is None:
        remarks.append("The registry could not be asked for the sealing keys now; the first grant will ask again.")
    if not account.known:
        remarks.append(
            "This wallet does not know what you granted here before it was lost or restored, nor which share it lent. "
            "Your next command for this data holder replaces all of it; `withdraw` ends it."
        )
    answer = write_answer(offer, book.state.wallet().key_for(offer.holder), at=at)
    book.put(account)
    return Linked(answer, tuple(remarks))


def _said_no(account: Account) -> bool:
    """Whether nothing is granted under a link, and whoever must heed that has it."""
    newest = account.newest
    return account.memory.seq == 0 or (newest is not None and newest.arrived and not newest.record.grants)


def _same_parties(before: Account, offer: LinkOffer) -> bool:
    return (before.identity, before.registry.key) == (offer.identity, offer.registry.key)


def _dropped(before: Account, offer: LinkOffer) -> str:
    """What to say of a link that gives way to another identity. TamperingError once something was written under it.

    Before that nobody has relied on it: it may be the first offer that was posing, and must not shut out the real one.
    """
    what = "identity key" if before.identity != offer.identity else "registry key"
    if before.written or before.memory.seq:
        raise TamperingError(
            f"this wallet is linked to {offer.holder} with another {what} than this offer carries; somebody may be "
            "posing as it. Do not answer the offer. Call the data holder on a number you know and compare the "
            "fingerprint. If it lost its key, begin a new wallet with: "
            "fedcredit wallet --wallet ANOTHER_DIRECTORY init"
        )
    return (
        f"WARNING: this wallet was linked to {offer.holder} with another {what}, fingerprint "
        f"{fingerprint(before.identity_key)}. One of the two is posing as it. Nothing was ever written under the "
        "earlier link, so it is dropped and the new one kept; only the fingerprint that the data holder reads to you "
        "by telephone is right. If that is the earlier one, link again with its offer."
    )


def _earlier(before: Account, offer: LinkOffer) -> tuple[Notice, ...]:
    seen = (*before.earlier_notices, before.notice)
    return tuple(notice for notice in seen if notice != offer.notice)


def _numbered(book: Book, account: Account, offer: LinkOffer, registry: LaneService, *, forgotten: bool) -> Account:
    """The account, ready for its next record after everything that the lane and the data holder have.

    Only a wallet that may have `forgotten` records looks far ahead: each number asked for tells the registry a tag.
    """
    known = max((written.seq for written in account.written if written.arrived), default=0)
    wallet = book.state.wallet()
    if forgotten:
        highest = highest_used(wallet, account.holder, registry, known=known, ahead=MAX_UNLOGGED)
    else:
        highest = highest_used(wallet, account.holder, registry, known=known)
    # A record that another one took the place of in the lane is no longer to be sent, nor to be followed.
    ours = tuple(
        record for record in account.written
        if record.seq <= known or record.seq > highest or _is_logged(account.holder, record, registry)
    )  # fmt: skip
    memory = account.memory
    if memory.seq in {record.seq for record in account.written} - {record.seq for record in ours}:
        last = ours[-1] if ours else None
        memory = Memory(seq=last.seq if last else 0, digest=_digest(last) if last else None, lent=memory.lent)
    memory = continued(memory, offer.newest, highest=highest, disputed=memory.seq > highest)
    ours = tuple(record for record in ours if record.seq != memory.seq or _digest(record) == memory.digest)
    return replace(account, memory=memory, written=ours)


def _is_logged(holder: str, record: Written, registry: LaneService) -> bool:
    position = registry.position(holder, record.stub.tag)
    if position is None:
        return False
    return [entry.stub for entry in registry.entries(holder, position, position + 1)] == [record.stub]


def _digest(record: Written) -> str:
    return payload_digest(bytes.fromhex(record.payload))
