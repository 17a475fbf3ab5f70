"""Writing a record, keeping it, and only then sending it; the very same bytes until the registry has promised them."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace as replace_delivery
from typing import Final

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.collecting import collect
from clients.wallet.numbering import OUTDATED, next_number_is_free, skipped_ahead
from clients.wallet.service import Connect, LaneService, SideDoor
from clients.wallet.state import Account, Alarm, AlarmKind, Written
from clients.wallet.wallet import HolderAddress
from clients.wallet.wishes import Wishes
from privacy.consent.canonical import base64url
from privacy.consent.key_set import KeySet, read_key_set
from privacy.consent.merkle import leaf_hash
from privacy.consent.promise import read_promise
from privacy.consent.submission import frame
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError

_CLOCK_ERROR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the wishes at one data holder came. `wrote` says whether a record was written for them now.

    `failure` is why the registry has not promised, or could not be held to its word; `direct` whether the data holder
    itself took the record, and `direct_failure` why it did not.
    """

    holder: str
    wrote: bool
    promised: bool
    failure: FedcreditError | None = None
    direct: bool = False
    direct_failure: FedcreditError | None = None

    @property
    def arrived(self) -> bool:
        """Whether somebody who must heed the record has it."""
        return self.promised or self.direct


@dataclass(frozen=True, slots=True)
class Sender:
    """The ways out of a wallet."""

    book: Book
    connect: Connect
    side_door: SideDoor

    def change(self, holder: str, change: Callable[[Wishes], Wishes], *, at: int) -> Delivery:
        """Make the person's wishes at one data holder what `change` makes of them, and send what is not sent yet.

        The same change again writes nothing new. Raises RefusalError and others before anything is written; what
        fails afterwards is in the Delivery.
        """
        account = self.book.account(holder)
        before = Wishes.of(account.wishes)
        after = change(before)
        newest = account.newest
        blind = account.outdated and after.permit_nothing
        # A grant that is repeated because it did not get through is the one that waits, not another one.
        waits = newest is not None and not newest.arrived and after.renews(before)
        settled = account.known and after == before
        wrote = blind or not (waits or settled)
        with ExitStack() as stack:
            registry, failure = self._reach(stack, account)
            if settled and after.permit_nothing and registry is not None:
                # Another copy of this wallet may have granted since: then there is something to take back.
                wrote |= not next_number_is_free(
                    self.book, account, self.book.state.wallet(), registry, restrictive=True, at=at
                )
            if wrote:
                self._write(account, after, registry, restrictive=after.no_wider_than(before), at=at)
            return self._deliver(holder, registry, failure, wrote=wrote, at=at)

    def resume(self, holder: str, *, at: int) -> Delivery:
        """Send what is not sent yet, and collect receipts; nothing is written."""
        account = self.book.account(holder)
        with ExitStack() as stack:
            registry, failure = self._reach(stack, account)
            return self._deliver(holder, registry, failure, wrote=False, at=at)

    def _reach(self, stack: ExitStack, account: Account) -> tuple[LaneService | None, FedcreditError | None]:
        try:
            return stack.enter_context(self.connect(account.registry)), None
        except FedcreditError as error:
            return None, error

    def _write(
        self, account: Account, wishes: Wishes, registry: LaneService | None, *, restrictive: bool, at: int
    ) -> None:
        """One more record, kept with everything needed to send it again byte for byte."""
        account, key_set, answered = self._key_set(account, registry, restrictive=restrictive, at=at)
        # A registry that is down is not waited for once more; a number that is taken shows when it is submitted.
        asked = registry if answered else None
        wallet = self.book.state.wallet()
        if account.outdated or (
            asked is not None
            and not next_number_is_free(self.book, account, wallet, asked, restrictive=restrictive, at=at)
        ):
            account = self.book.put(replace(account, outdated=True))
            if not wishes.permit_nothing:
                raise RefusalError(OUTDATED, RefusalCode.REPLAY)
            # Nobody can be kept from saying no, not even by a registry that plants records under our numbers. What a
            # freeze would bring back at its end is not known any more, so it brings back nothing.
            account = self.book.put(skipped_ahead(account, wallet, asked))
            wallet, wishes = self.book.state.wallet(), Wishes((), wishes.frozen)
        record = wallet.write(
            HolderAddress(account.holder, key_set.current, key_set.current_key),
            handle=account.subject_handle,
            grants=wishes.grants,
            frozen=wishes.frozen,
            terms=account.notice.terms,
            jurisdiction=account.notice.jur,
            at=at,
        )
        memory = wallet.memory(account.holder)
        written = Written(
            seq=memory.seq,
            written_at=at,
            leaf=record.stub.leaf().hex(),
            payload=record.payload.hex(),
            signature=record.signature.hex(),
            rho=record.rho.hex(),
            ciphertext=record.ciphertext.hex(),
        )
        self.book.put(replace(account.with_written(written), memory=memory))

    def _key_set(
        self, account: Account, registry: LaneService | None, *, restrictive: bool, at: int
    ) -> tuple[Account, KeySet, bool]:
        """The data holder's newest key set, or the one seen last; and whether the registry gave it."""
        failure: FedcreditError | None = None
        if registry is not None:
            try:
                account = with_key_set(account, registry, at=at)
            except FedcreditError as error:
                failure = error
        if failure is not None and not restrictive and not isinstance(failure, RefusalError):
            raise failure
        if account.key_set is None:
            raise failure or RefusalError(
                "the registry does not answer, and this wallet has never seen the data holder's sealing keys. Run the "
                "command again when the registry can be reached.",
                RefusalCode.LANE,
            )
        # Nobody can be kept from saying less, not even by holding back newer keys.
        in_force_at = None if restrictive else at
        key_set = read_key_set(
            account.key_set.encode(), identity=account.identity_key, holder=account.holder, at=in_force_at
        )
        return account, key_set, failure is None and registry is not None

    def _deliver(
        self, holder: str, registry: LaneService | None, failure: FedcreditError | None, *, wrote: bool, at: int
    ) -> Delivery:
        if registry is not None:
            try:
                submit_unsent(self.book, holder, registry, at=at)
            except FedcreditError as error:
                failure = error
        if not self.book.account(holder).unsent and (registry is None or failure is not None):
            return Delivery(holder, wrote, promised=True, failure=failure)
        if registry is None or failure is not None:
            return self._by_side_door(holder, Delivery(holder, wrote, False, failure), at=at)
        try:
            collect(self.book, holder, registry, at=at)
        except FedcreditError as error:
            failure = error
        # A promise of a registry that broke its word is not relied on.
        broken = any(alarm.holder == holder for alarm in self.book.state.alarms)
        delivery = Delivery(holder, wrote, promised=True, failure=failure)
        return self._by_side_door(holder, delivery, at=at) if broken else delivery

    def _by_side_door(self, holder: str, delivery: Delivery, *, at: int) -> Delivery:
        """Hand a restriction that the registry did not take to the data holder itself, where it takes any."""
        account = self.book.account(holder)
        newest = account.newest
        if newest is None or newest.receipt is not None or account.key_set is None:
            return delivery
        if newest.handed_directly_at is not None:
            return replace_delivery(delivery, direct=True)
        earlier = [written for written in account.written if written.arrived and written.seq < newest.seq]
        before = Wishes.of(earlier[-1].record if earlier else None)
        keys = read_key_set(account.key_set.encode(), identity=account.identity_key, holder=account.holder, at=None)
        if keys.side_door is None or not Wishes.of(newest.record).no_wider_than(before):
            return delivery
        try:
            self.side_door(f"{keys.side_door}/records", account.registry.ca, frame([newest.submission]))
        except FedcreditError as error:
            return replace_delivery(delivery, direct_failure=error)
        self.book.put(account.with_written(replace(newest, handed_directly_at=at)))
        return replace_delivery(delivery, direct=True)


def with_key_set(account: Account, registry: LaneService, *, at: int) -> Account:
    """The account with the newest key set, verified. RefusalError, MalformedError or TamperingError."""
    data = registry.key_set(account.holder)
    fresh = read_key_set(data, identity=account.identity_key, holder=account.holder, at=at)
    if account.key_set is not None:
        last = read_key_set(account.key_set.encode(), identity=account.identity_key, holder=account.holder, at=None)
        if fresh.version < last.version or (fresh.version == last.version and fresh != last):
            raise TamperingError(
                f"the registry serves key set {fresh.version} of a data holder, and this wallet has seen "
                f"{last.version}, or another one under that number; nothing was sealed to it. Tell the data holder."
            )
    return replace(account, key_set=data.decode())


def submit_unsent(book: Book, holder: str, registry: LaneService, *, at: int) -> None:
    """Send every record without a promise, oldest first, and keep the promises. Nothing is written anew."""
    account = book.account(holder)
    unsent = account.unsent
    if not unsent:
        return
    try:
        promises = registry.submit(holder, [written.submission for written in unsent])
    except RefusalError as error:
        if error.code is RefusalCode.REPLAY:
            book.put(replace(account, outdated=True))
            raise RefusalError(OUTDATED, RefusalCode.REPLAY) from error
        raise
    if len(promises) != len(unsent):
        raise MalformedError(
            f"the registry gave {len(promises)} promises for {len(unsent)} records; one for each is required. What was "
            "sent is kept and can be sent again."
        )
    for written, data in zip(unsent, promises, strict=True):
        _require_promise(book, account, written, data, at=at)
        account = book.put(account.with_written(replace(written, promise=data.decode(), promised_at=at)))


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
