"""Holding a registry to its word: heads only grow, promised records are in the log, receipts are kept.

Whatever contradicts a signature or a promise becomes an alarm with its evidence, which the wallet never forgets.
"""

from typing import Final

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.service import LaneService
from clients.wallet.state import Account, Alarm, AlarmKind, SeenHead, Written
from privacy.consent.canonical import base64url
from privacy.consent.lane import Head, check_growth, read_checkpoint
from privacy.consent.merkle import HashSource, consistency_proof, inclusion_proof, leaf_hash, verify_inclusion
from privacy.consent.promise import Promise, read_promise
from privacy.consent.receipt import Receipt, verify_receipt
from privacy.errors import TamperingError

CLOCK_SKEW_S: Final = 120


def collect(book: Book, holder: str, registry: LaneService, *, at: int) -> None:
    """Accept the lane's newest head if it extends the last, and keep a receipt for every promised record under it.

    Raises what the registry's failure is, TamperingError after an alarm.
    """
    account, head, tree = accept_head(book, holder, registry, at=at)
    for written in account.unproven:
        if _promise(account, written).position < head.size:
            account = book.put(account.with_written(_with_receipt(book, account, written, head, tree, at=at)))


def accept_head(book: Book, holder: str, registry: LaneService, *, at: int) -> tuple[Account, Head, HashSource]:
    """The account with the lane's newest head, which extends the last; that head; and the lane's hashes under it.

    Raises what the registry's failure is, TamperingError after an alarm.
    """
    account = book.account(holder)
    lane, last = account.holder, account.head
    text = registry.checkpoint(lane)
    both = (text,) if last is None else (last.checkpoint, text)
    try:
        head = read_checkpoint(text, f"fedcredit/{lane}", account.registry_key)
    except TamperingError:
        book.alarm(Alarm(holder=lane, kind=AlarmKind.SIGNATURE, seq=None, at=at, checkpoints=both))
        raise
    tree = registry.tree(lane, head.size)
    if last is not None:
        grew = 0 < last.size < head.size
        proof = consistency_proof(tree, last.size, head.size) if grew else []
        try:
            check_growth(last.head, head, proof)
        except TamperingError:
            kind = AlarmKind.WENT_BACK if head.size < last.size else AlarmKind.CONSISTENCY
            shown = tuple(map(base64url, proof))
            book.alarm(Alarm(holder=lane, kind=kind, seq=None, at=at, checkpoints=both, proof=shown))
            raise
    seen = SeenHead(size=head.size, root=base64url(head.root), checkpoint=text)
    return book.put(replace(account, head=seen)), head, tree


def _with_receipt(
    book: Book, account: Account, written: Written, head: Head, tree: HashSource, *, at: int
) -> Written:  # fmt: skip
    position = _promise(account, written).position
    proof = inclusion_proof(tree, position, head.size)
    leaf = bytes.fromhex(written.leaf)
    checkpoint = account.head.checkpoint if account.head else ""
    try:
        verify_inclusion(leaf_hash(leaf), position, head.size, proof, head.root)
    except TamperingError:
        book.alarm(
            Alarm(
                holder=account.holder, kind=AlarmKind.INCLUSION, seq=written.seq, at=at, checkpoints=(checkpoint,),
                promises=(written.promise or "",), leaf=base64url(leaf), proof=tuple(map(base64url, proof)),
            )
        )  # fmt: skip
        raise
    stub = written.stub
    receipt = Receipt(
        lane=account.holder,
        epoch=stub.epoch,
        tag=base64url(stub.tag),
        payload=base64url(bytes.fromhex(written.payload)),
        signature=base64url(bytes.fromhex(written.signature)),
        rho=base64url(bytes.fromhex(written.rho)),
        ciphertext_sha256=base64url(stub.ciphertext_sha256),
        position=position,
        proof=tuple(map(base64url, proof)),
        checkpoint=checkpoint,
        promise=written.promise,
    )
    # As a stranger would read it: a receipt that does not verify is worth nothing.
    person = book.state.wallet().key_for(account.holder).public
    verify_receipt(receipt, registry_key=account.registry_key, person_key=person)
    return replace(written, receipt=receipt)


def is_overdue(account: Account, written: Written, *, at: int) -> bool:
    """Whether the time of the record's promise is over and no accepted head has shown the record."""
    if written.promise is None or written.receipt is not None:
        return False
    promise = _promise(account, written)
    # By whichever clock is later: a registry's slow clock is no broken promise, nor is ours.
    due = max(promise.merge_by, (written.promised_at or 0) + promise.merge_by - promise.received_at)
    return at > due + CLOCK_SKEW_S


def sound_overdue(book: Book, holder: str, *, at: int) -> None:
    """An alarm for each overdue promise. Silence is no excuse: a registry could promise and then say nothing more."""
    account = book.account(holder)
    for written in account.unproven:
        if is_overdue(account, written, at=at):
            seen = (account.head.checkpoint,) if account.head else ()
            book.alarm(
                Alarm(
                    holder=holder, kind=AlarmKind.OVERDUE, seq=written.seq, at=at, checkpoints=seen,
                    promises=(written.promise or "",), leaf=base64url(bytes.fromhex(written.leaf)),
                )
            )  # fmt: skip


def _promise(account: Account, written: Written) -> Promise:
    return read_promise((written.promise or "").encode(), registry_key=account.registry_key)
