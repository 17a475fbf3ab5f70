"""Handing records to a registry and keeping what it promises; the very same bytes until it has promised them."""

from typing import Final

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.numbering import OUTDATED, logged
from clients.wallet.service import LaneService
from clients.wallet.state import Account, Alarm, AlarmKind, Written
from privacy.consent.canonical import base64url
from privacy.consent.merkle import leaf_hash
from privacy.consent.promise import read_promise
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError

_CLOCK_ERROR_S: Final = 3600
_MOST_AT_ONCE: Final = 16  # earlier records sent after one newest


def submit_newest(book: Book, holder: str, registry: LaneService, *, at: int) -> None:
    """Send the newest record, if it is still to be sent, and keep the promise. Nothing is written anew.

    It goes alone: an earlier one that the registry refuses must not keep it back. RefusalError, with the account
    marked as outdated, when another record is proved to stand under its number.
    """
    unsent = book.account(holder).unsent
    if unsent is None:
        return
    try:
        _submit(book, holder, registry, unsent, at=at)
    except RefusalError as error:
        if error.code is not RefusalCode.REPLAY:
            raise
        _require_taken(book, holder, registry, unsent, at=at)
        book.put(replace(book.account(holder), outdated=True))
        raise RefusalError(OUTDATED, RefusalCode.REPLAY) from error


def submit_superseded(book: Book, holder: str, registry: LaneService, *, at: int) -> None:
    """Send earlier records that never got through, so that the lane has no gaps for a recovered wallet to fall into.

    Only to be called with a receipt of a newer one: before that, a registry could log the earlier and hide the newer.
    No failure matters; what is refused for good is given up.
    """
    for written in book.account(holder).superseded[:_MOST_AT_ONCE]:
        try:
            _submit(book, holder, registry, written, at=at)
        except FedcreditError as error:
            if not isinstance(error, MalformedError) and getattr(error, "code", None) is not RefusalCode.REPLAY:
                return
            book.put(book.account(holder).with_written(replace(written, given_up_at=at)))


def _submit(book: Book, holder: str, registry: LaneService, written: Written, *, at: int) -> None:
    promises = registry.submit(holder, [written.submission])
    if len(promises) != 1:
        raise TamperingError(
            f"the registry gave {len(promises)} promises for one record; one is required. What was sent is kept and "
            "can be sent again."
        )
    account = book.account(holder)
    _require_promise(book, account, written, promises[0], at=at)
    book.put(account.with_written(replace(written, promise=promises[0].decode(), promised_at=at)))


def _require_taken(book: Book, holder: str, registry: LaneService, written: Written, *, at: int) -> None:
    """RefusalError unless another record is proved to stand under that number: nobody is outdated on hearsay."""
    try:
        stub = logged(book, holder, registry, written.stub.tag, seq=written.seq, at=at)
    except FedcreditError as error:
        raise _hearsay() from error
    if stub is None or stub == written.stub:
        raise _hearsay()


def _hearsay() -> RefusalError:
    return RefusalError(
        "the registry says that another record stands under this number, and does not prove it. The record is kept and "
        "sent again: run the command once more, and tell the data holder if this lasts.",
        RefusalCode.LANE,
    )


def _require_promise(book: Book, account: Account, written: Written, data: bytes, *, at: int) -> None:
    leaf = bytes.fromhex(written.leaf)
    try:
        promise = read_promise(data, registry_key=account.registry_key)
        if (promise.lane, promise.leaf) != (account.holder, base64url(leaf_hash(leaf))):
            raise TamperingError(
                "the registry promised something else than what it was given. The record is kept and will be sent "
                "again; tell the data holder."
            )
    except TamperingError:
        shown = data[:4096].decode("ascii", "replace")
        book.alarm(
            Alarm(
                holder=account.holder, kind=AlarmKind.PROMISE, seq=written.seq, at=at, promises=(shown,),
                leaf=base64url(leaf),
            )
        )  # fmt: skip
        raise
    if promise.received_at > at + _CLOCK_ERROR_S:
        raise RefusalError(
            "the registry promised from more than an hour in the future of this device's clock. Set the clock right "
            "and run the command again; if it is right, tell the data holder. The record is kept and sent again.",
            RefusalCode.LANE,
        )
