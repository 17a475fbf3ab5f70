"""Writing a record, keeping it, and only then sending it; and once more when its sealing key is no longer good."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from dataclasses import replace as replace_delivery
from typing import Final

from msgspec.structs import replace

from clients.wallet.book import Book
from clients.wallet.collecting import collect, is_overdue, sound_overdue
from clients.wallet.key_sets import fetch_key_set, kept_key_set
from clients.wallet.numbering import OUTDATED, next_number_is_free, skipped_ahead
from clients.wallet.service import Connect, LaneService, SideDoor
from clients.wallet.state import Account, Written
from clients.wallet.submitting import submit_newest, submit_superseded
from clients.wallet.wallet import HolderAddress
from clients.wallet.wishes import Wishes
from privacy.consent.key_set import KeySet
from privacy.consent.submission import frame
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError

_HOUR_S: Final = 3600
_NEVER_SEEN: Final = (
    "the registry does not give the data holder's sealing keys, and this wallet has never seen any. Run the command "
    "again when it does."
)
_UNCHECKED: Final = (
    "whether another copy of this wallet granted something since could not be checked, because the registry did not "
    "answer in a way that can be believed. Run the command again when it does; until then a grant may still stand."
)
_OVERDUE: Final = (
    "the registry promised the record and has not shown it in the lane in time, so it cannot be relied on. Run the "
    "command again, or hand the record to the data holder in another way with --direct-out FILE."
)
_EXPIRED: Final = (
    "the record is sealed to a key that has expired, because the registry gives no newer one, and perhaps nobody can "
    "open it. It is sealed again as soon as there is a new key: run `fedcredit wallet status` later, and tell the data "
    "holder by telephone."
)
_LOST: Final = (
    "the data holder changed its sealing key before this record arrived, and the registry takes it no more. Run the "
    "same command again: it writes a new record."
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the wishes at one data holder came. `wrote` says whether a record was written for them now.

    `promised` only of a promise that can be relied on. `failure` is why the registry has not promised, or could not be
    held to its word; `direct` whether the data holder itself took the record, and `direct_failure` why it did not.
    `unchecked` when nothing was written although nobody could tell whether something had to be.
    """

    holder: str
    wrote: bool
    promised: bool
    failure: FedcreditError | None = None
    direct: bool = False
    direct_failure: FedcreditError | None = None
    unchecked: bool = False

    @property
    def arrived(self) -> bool:
        """Whether somebody who must heed the wishes has them."""
        return not self.unchecked and (self.promised or self.direct)


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
        lost = newest is not None and newest.lost
        # A grant that is repeated because it did not get through is the one that waits, not another one.
        waits = newest is not None and not newest.arrived and after.renews(before)
        settled = account.known and after == before
        wrote = blind or lost or not (waits or settled)
        unchecked = False
        with ExitStack() as stack:
            registry, failure = self._reach(stack, account)
            if not wrote and settled and after.permit_nothing:
                # Another copy of this wallet may have granted since: then there is something to take back.
                free = next_number_is_free(self.book, account, self.book.state.wallet(), registry, at=at)
                wrote = free is False
                unchecked = free is None
            if wrote:
                self._write(holder, after, registry, restrictive=after.no_wider_than(before), at=at)
            delivery = self._deliver(holder, registry, failure, wrote=wrote, at=at)
        if unchecked and delivery.promised:
            return replace_delivery(delivery, unchecked=True, failure=RefusalError(_UNCHECKED, RefusalCode.LANE))
        return delivery

    def resume(self, holder: str, *, at: int) -> Delivery:
        """Send what is not sent yet, and collect receipts; only what is sealed to a dead key is written once more."""
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
        self, holder: str, wishes: Wishes, registry: LaneService | None, *, restrictive: bool, at: int
    ) -> None:  # fmt: skip
        """One more record, kept with everything needed to send it again byte for byte."""
        key_set, expired, answered = self._key_set(holder, registry, restrictive=restrictive, at=at)
        # A registry that is down is not waited for once more; a number that is taken shows when it is submitted.
        asked = registry if answered else None
        account, wallet = self.book.account(holder), self.book.state.wallet()
        taken = account.outdated or next_number_is_free(self.book, account, wallet, asked, at=at) is False
        if taken:
            account = self.book.put(replace(self.book.account(holder), outdated=True))
            if not wishes.permit_nothing:
                raise RefusalError(OUTDATED, RefusalCode.REPLAY)
            # Nobody can be kept from saying no, not even by a registry that plants records under our numbers. What a
            # freeze would bring back at its end is not known any more, so it brings back nothing.
            self.book.put(skipped_ahead(account, wallet, asked))
            wishes = Wishes((), wishes.frozen)
        self._seal(holder, wishes, key_set, expired=expired, at=at)

    def _seal(self, holder: str, wishes: Wishes, key_set: KeySet, *, expired: bool, at: int) -> None:
        """Write the wishes under the next number, sealed to the current key of `key_set`, and keep them."""
        account, wallet = self.book.account(holder), self.book.state.wallet()
        # The full hour: the second would tell data holders who compare that one person wrote to all of them at once.
        last = account.written[-1].record.iat if account.written else 0
        record = wallet.write(
            HolderAddress(holder, key_set.current, key_set.current_key),
            handle=account.subject_handle,
            grants=wishes.grants,
            frozen=wishes.frozen,
            terms=account.notice.terms,
            jurisdiction=account.notice.jur,
            at=at,
            issued_at=max(at - at % _HOUR_S, last),
        )
        memory = wallet.memory(holder)
        written = Written(
            seq=memory.seq,
            written_at=at,
            leaf=record.stub.leaf().hex(),
            payload=record.payload.hex(),
            signature=record.signature.hex(),
            rho=record.rho.hex(),
            ciphertext=record.ciphertext.hex(),
            expired_key=expired,
        )
        self.book.put(replace(account.with_written(written), memory=memory))

    def _key_set(
        self, holder: str, registry: LaneService | None, *, restrictive: bool, at: int
    ) -> tuple[KeySet, bool, bool]:
        """The data holder's newest key set, or the one seen last; whether it has expired; whether the registry gave it.

        What the registry answers makes no difference to a yes or a no while the last one is in force: it must not
        learn which of them is being written.
        """
        failure: FedcreditError | None = None
        if registry is not None:
            try:
                return fetch_key_set(self.book, holder, registry, at=at), False, True
            except FedcreditError as error:
                failure = error
        account = self.book.account(holder)
        if account.key_set is None:
            raise failure or RefusalError(_NEVER_SEEN, RefusalCode.LANE)
        try:
            return kept_key_set(account, at=at), False, False
        except RefusalError:
            # Nobody can be kept from saying less, not even by holding back newer keys.
            if not restrictive:
                raise
            return kept_key_set(account, at=None), True, False

    def _deliver(
        self, holder: str, registry: LaneService | None, failure: FedcreditError | None, *, wrote: bool, at: int
    ) -> Delivery:
        if registry is not None:
            try:
                if not wrote:
                    self._seal_to_new_key(holder, registry, at=at)
                self._submit(holder, registry, at=at)
                collect(self.book, holder, registry, at=at)
                account = self.book.account(holder)
                if account.newest is not None and account.newest.receipt is not None:
                    submit_superseded(self.book, holder, registry, at=at)
            except FedcreditError as error:
                failure = error
        sound_overdue(self.book, holder, at=at)
        account = self.book.account(holder)
        newest = account.newest
        doubt = None if newest is None else _doubt(account, newest, at=at)
        delivery = Delivery(
            holder,
            wrote,
            promised=account.unsent is None and doubt is None,
            failure=failure if doubt is None else doubt,
        )
        # A promise of a registry that broke its word is not relied on.
        broken = any(alarm.holder == holder for alarm in self.book.state.alarms)
        return delivery if delivery.promised and not broken else self._by_side_door(holder, delivery, at=at)

    def _submit(self, holder: str, registry: LaneService, *, at: int) -> None:
        """Send the newest record; if its key is listed no more, it is given up, and a restriction sealed anew."""
        try:
            submit_newest(self.book, holder, registry, at=at)
            return
        except MalformedError:
            account = self.book.account(holder)
            newest = account.newest
            if newest is None or account.unsent != newest or self._is_listed(holder, newest, registry, at=at):
                raise
        account = self.book.account(holder)
        restrictive = _restricts(account, newest)
        account = self.book.put(account.with_written(replace(newest, given_up_at=at)))
        if not restrictive:
            raise RefusalError(_LOST, RefusalCode.LANE)
        self._seal(holder, Wishes.of(newest.record), kept_key_set(account, at=None), expired=False, at=at)
        submit_newest(self.book, holder, registry, at=at)

    def _is_listed(self, holder: str, written: Written, registry: LaneService, *, at: int) -> bool:
        """Whether the data holder still lists the key that the record is sealed to; also when nobody can tell."""
        try:
            key_set = fetch_key_set(self.book, holder, registry, at=at)
        except FedcreditError:
            return True
        return written.stub.epoch in {key.epoch for key in key_set.keys}

    def _seal_to_new_key(self, holder: str, registry: LaneService, *, at: int) -> None:
        """Seal a restriction once more that was sealed to an expired key, once there is a key set in force."""
        newest = self.book.account(holder).newest
        if newest is None or not newest.perhaps_unreadable:
            return
        with suppress(FedcreditError):
            key_set = fetch_key_set(self.book, holder, registry, at=at)
            if key_set.current != newest.stub.epoch:
                self._seal(holder, Wishes.of(newest.record), key_set, expired=False, at=at)
            else:
                self.book.put(self.book.account(holder).with_written(replace(newest, expired_key=False)))

    def _by_side_door(self, holder: str, delivery: Delivery, *, at: int) -> Delivery:
        """Hand a restriction that the registry did not take to the data holder itself, where it takes any."""
        account = self.book.account(holder)
        newest = account.newest
        if newest is None or account.key_set is None or (newest.receipt is not None and delivery.promised):
            return delivery
        if newest.handed_directly_at is not None:
            return replace_delivery(delivery, direct=True)
        side_door = kept_key_set(account, at=None).side_door
        if side_door is None or not _restricts(account, newest):
            return delivery
        try:
            self.side_door(f"{side_door}/records", account.registry.ca, frame([newest.submission]))
        except FedcreditError as error:
            return replace_delivery(delivery, direct_failure=error)
        self.book.put(account.with_written(replace(newest, handed_directly_at=at)))
        return replace_delivery(delivery, direct=True)


def _restricts(account: Account, newest: Written) -> bool:
    """Whether the newest record permits nothing beyond what somebody was told before."""
    earlier = [written for written in account.written if written.arrived and written.seq < newest.seq]
    before = Wishes.of(earlier[-1].record if earlier else None)
    return Wishes.of(newest.record).no_wider_than(before)


def _doubt(account: Account, newest: Written, *, at: int) -> RefusalError | None:
    """Why the newest record cannot be relied on although nothing is left to be sent."""
    if newest.lost:
        return RefusalError(_LOST, RefusalCode.LANE)
    if newest.perhaps_unreadable:
        return RefusalError(_EXPIRED, RefusalCode.LANE)
    if is_overdue(account, newest, at=at):
        return RefusalError(_OVERDUE, RefusalCode.LANE)
    return None
