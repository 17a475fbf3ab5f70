"""The data holder's copy of its own lane, its links, and the runs it has joined, in one database.

A sync downloads what is new in batches, recomputes the root over the whole lane and compares it with the registry's
signed head. The last accepted head also lies in a file of its own, so that a restored database is noticed. Of a sealed
record only the opening is kept: payload, signature and blinding value, which an auditor can hold against the log.

What was edited or deleted is noticed when the copy is opened, and also while it is in use if nobody else writes. What
somebody edits while another process of this data holder writes is noticed when it is read, and a record taken away
then at the next start only. Nothing here notices that this database, the ledger and both head files were restored
together.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final, TypeVar, cast

from clients.holder.keys import HolderKeys
from clients.holder.lane_base import Change
from clients.holder.lane_check import LaneOpening, extends, openings
from clients.holder.lane_direct import SideDoor, direct_tops
from clients.holder.lane_epochs import require_newest
from clients.holder.lane_floors import Floors, above_floor
from clients.holder.lane_links import Links, paged
from clients.holder.lane_notes import LaneNotes
from clients.holder.lane_session import LaneSession
from clients.holder.lane_spool import Spool
from clients.holder.lane_standings import PAGE, Standing, Standings, Top, newer
from clients.holder.lane_sync import Download, LaneSource, empty_row, keep_all, unmatched
from clients.holder.opener import PARALLEL_FROM, Kind, ManyProcesses, Opener, OwnProcess, Reader, signed
from clients.holder.row_seal import RowSeal
from clients.holder.settings import HolderSettings
from privacy.consent.lane import Head, read_checkpoint
from privacy.consent.merkle import Frontier
from privacy.consent.projection import Projection
from privacy.consent.record import Purpose
from privacy.consent.submission import Submission
from privacy.consent.view import LaneView, Link
from privacy.errors import MalformedError, RefusalError, TamperingError

__all__ = ["Kind", "LaneCopy", "LaneOpening", "LaneSource"]

_MOST_KEPT: Final = 32  # a run asks for a few views and projections, again and again
_OF_A_RUN: Final = (Purpose.TRAIN, Purpose.VALIDATE)  # whoever joins a run asks for both, so they are read together

Value = TypeVar("Value")


class LaneCopy(LaneNotes):
    """The lane of one data holder, verified as far as `head`. Every method may be called from any thread."""

    def __init__(self, path: Path, settings: HolderSettings, keys: HolderKeys) -> None:
        """Open the copy, making it if there is none.

        TamperingError if it does not hash to its accepted head, or if something in it was edited or taken away.
        """
        self._name = settings.holder
        self._registry_key = settings.registry.public
        self._newest_epoch = keys.current
        storage_key = keys.storage_key("lane-copy")
        self._reader = Reader(self._name, keys.opening_keys, keys.identity.public, storage_key)
        super().__init__(LaneSession(path, RowSeal(storage_key)), clock_skew_s=settings.policy.clock_skew_s)
        self._base = self._session.base
        self._links, self._standings = Links(self._base), Standings(self._base)
        self._floors = Floors(self._base, self._links)
        self._door = SideDoor(self._base, self._links, self._standings, self._reader)
        self._syncing = threading.Lock()  # one sync at a time is enough for one process
        self._kept: dict[object, object] = {}
        self._settled: set[int] = set()  # shorter prefixes in which every newest record was checked
        self._kept_under = self._session.stamp

    def close(self) -> None:
        """Give the database back."""
        self._session.close()

    @property
    def head(self) -> Head:
        """The newest head that was accepted, by this process or by one that it has caught up with."""
        return self._session.state.head

    def refresh(self) -> None:
        """See what another process has synced, linked or taken. TamperingError if it was not one of ours."""
        with self._session.reading():
            pass

    def sync(self, source: LaneSource, *, at: int) -> int:
        """Download and verify what is new; returns how many entries that was. All of it is kept, or nothing.

        TamperingError if the registry's head goes back, does not match its entries, or is not signed by it.
        """
        self._told = max(self._told, at)
        self.refresh()
        before = self.head
        head = read_checkpoint(source.checkpoint(self._name), f"fedcredit/{self._name}", self._registry_key)
        fresh = head.size - before.size
        if fresh < 0:
            raise TamperingError(
                "The registry's lane is shorter than the one accepted before. Keep both checkpoints, use nobody's "
                "rows, and tell the registry's operator and the auditor."
            )
        with self._syncing, self._opener(fresh) as opener, Spool(self._session.base.path.parent) as spool:
            # Without the database's lock: however long it takes, others may write meanwhile.
            download = Download(self._tree(), head, spool)
            download.fetch(source, self._name, opener)
            downloaded = self._take_over(download, opener, at=at)
            self._told = at
        return downloaded

    def link(self, links: Mapping[str, Link]) -> None:
        """Tie customers of this data holder to wallets: customer number to handle and public key. All or none.

        What they wrote before counts from now on, if it is not from before the size of their link. RefusalError if a
        customer or a handle is tied already.
        """
        with self._opener(min(len(links), self.head.size)) as opener, self._session.changing(standings=True) as change:
            self._links.tie(change, links)
            self._settle(change, change.head.size, list(links.values()), opener)

    def replace_key(self, customer: str, public_key: bytes) -> None:
        """End a customer's link and begin one to another key, from the next entry on; both or neither.

        At once nothing that the old key signed counts, also in a run that is under way. UsageError if not linked.
        """
        with self._session.changing(standings=True) as change:
            handle = self._links.untie(change, customer)
            self._links.tie(change, {customer: Link(handle, public_key, change.head.size)})

    def unlink(self, customer: str) -> bytes:
        """End one customer's link; returns the handle. The records stay, and let nobody be used. UsageError if none."""
        with self._session.changing(standings=True) as change:
            return self._links.untie(change, customer)

    def block(self, customer: str) -> bool:
        """Begin to erase a person: from now on nothing about the customer is used; False if there never was a link.

        The records stay until `forget`, so that what is still to come can be told from a stranger's.
        """
        with self._session.changing(standings=True) as change:
            return self._links.block(change, customer)

    def blocked(self) -> list[bytes]:
        """A handle of everybody whose erasure was begun, each to be forgotten."""
        with self._session.reading():
            return self._links.blocked()

    def forget(self, handle: bytes) -> list[int]:
        """Erase a person: links, ended ones too, records, uses. Returns the positions of the records, to be tombstoned.

        The leaves stay, so the lane still hashes to its heads. `forgotten` returns what still lacks its tombstone.
        """
        positions: list[int] = []
        with self._session.changing(standings=True) as change:
            for one in self._links.destroy(change, handle):
                for table in ("direct", "uses", "floors"):
                    change.remove(table, "handle = ?", one)
                for row in self._base.rows("entries", "WHERE handle = ?", one):
                    empty_row(self._base, row[0], row[1], Kind.FORGOTTEN, None)
                    positions.append(row[0])
        self._session.shred()
        return sorted(positions)

    def forgotten(self) -> list[int]:
        """Positions of what was forgotten here, and whose tombstone is not in the lane as it was synced last."""
        with self._session.reading():
            rows = self._base.rows("entries", f"WHERE kind = {Kind.FORGOTTEN.value} ORDER BY position")
        return [row[0] for row in rows]

    def take(self, submission: Submission, *, at: int) -> bool:
        """Take a record straight from a person (the side door); False if it is not newer than what is known.

        RefusalError if it is not a record of somebody who is linked; its text is the same for all reasons.
        """
        self._told = max(self._told, at)
        with self._session.changing(standings=True) as change:
            return self._door.take(change, submission, at=at)

    def view(self, head: Head | None = None) -> LaneView:
        """Every subject's standing now, or as it was at `head`; directly taken records apart.

        Now, only the links of today count. At `head`, those count that were in force in that prefix, see
        `links_in_force`, and no floor: it says what an auditor's replay says. TamperingError if this lane does not
        extend `head`.
        """

        def compute(at: Head) -> LaneView:
            if head is None:
                return LaneView(at, dict(self._all(self._links.today(), at.size, over={})))
            then = (page for page in paged(self._links.at(at.size), PAGE))
            return LaneView(at, {handle: one for page in then for handle, one in self._of(page, at.size, {}, {})})

        return self._once(head, "now" if head is None else "then", compute)

    def projection(
        self, head: Head | None = None, *, purpose: Purpose, recipient: str, categories: frozenset[str],
        direct: bool = False,
    ) -> Projection:  # fmt: skip
        """What the gate needs of everybody's standing at `head`, with directly taken records or without.

        By the links of today alone: whoever has another key since has no standing at an older head, so that no ended
        key lets anybody in. A record can be taken directly only to restrict: ask without them, too.
        """

        purposes = _OF_A_RUN if purpose in _OF_A_RUN else (purpose,)

        def compute(at: Head, *, over: Mapping[bytes, Top]) -> dict[Purpose, Projection]:
            standings = self._all(self._links.today(), at.size, over=over)
            return Projection.of_each(standings, purposes=purposes, recipient=recipient, categories=categories)

        def of_the_lane(at: Head) -> dict[Purpose, Projection]:
            return compute(at, over={})

        def with_the_side_door(at: Head) -> dict[Purpose, Projection]:
            over = direct_tops(self._base)
            return compute(at, over=over) if over else self._keep((at, (*key, False)), lambda: of_the_lane(at))

        key = (purposes, recipient, categories)
        return self._once(head, (*key, direct), with_the_side_door if direct else of_the_lane)[purpose]

    def standings(self, head: Head | None = None, *, direct: bool = False) -> Iterator[tuple[bytes, Standing]]:
        """Handle and standing at `head` of everybody who has one, by the links of today, ascending, a few at a time."""
        at = self.head if head is None else head
        with self._session.reading():
            self._require(at)
            over = direct_tops(self._base) if direct else {}
            floors = self._floors.all()
        last = b""
        while True:
            with self._session.reading():
                links = self._links.after(last, PAGE)
                found = list(self._of(links, at.size, over, floors))
            if not links:
                return
            yield from found
            last = links[-1].handle

    def standing(self, handle: bytes, *, direct: bool = True) -> Standing | None:
        """What a subject wants by the newest record known, with directly taken ones or without; None if none is."""
        with self._session.reading():
            links = self._links.of([handle])
            over = direct_tops(self._base, handle) if direct else {}
            found = dict(self._of(links, self.head.size, over, self._floors.all()))
        return found.get(handle)

    def opening(self, position: int) -> LaneOpening:
        """What can be shown of one entry. MalformedError for a position that the lane does not have."""
        for opening in self.openings(position + 1, first=position):
            if opening.position == position:
                return opening
        raise MalformedError(
            f"The lane copy has no entry at position {position}; it has {self.head.size}. Sync it, or ask for another."
        )

    def openings(self, size: int, *, first: int = 0) -> Iterator[LaneOpening]:
        """What can be shown of the entries from `first` up to `size` (exclusive), a few at a time."""
        for start in range(first, size, PAGE):
            with self._session.reading():
                found = list(openings(self._base, start, min(start + PAGE, size)))
            yield from found

    def leaf(self, position: int) -> bytes:
        """The log entry's bytes (106); a tombstone names their hash."""
        return self.opening(position).leaf

    def links(self) -> dict[str, bytes]:
        """Customer number to handle, of today's links; TamperingError if a link was edited or is gone."""
        return {customer: handle for customer, handle, _, _ in self._linked()}

    def handles_ever(self) -> dict[str, bytes]:
        """Customer number to handle, of today's links and of those that have ended without another."""
        with self._session.reading():
            ended = self._links.ended()
        return {**ended, **self.links()}

    def links_by_handle(self) -> dict[bytes, Link]:
        """Handle to link, of today's links; TamperingError if a link was edited or is gone."""
        return {handle: Link(handle, key, size) for _, handle, key, size in self._linked()}

    def links_ever(self) -> list[Link]:
        """Every link, ended ones too, ascending by handle and by when it began; TamperingError as `links`."""
        with self._session.reading():
            return list(self._links.ever())

    def public_key_of(self, handle: bytes) -> bytes | None:
        """The linked person's public key, or None; TamperingError if the link was edited."""
        with self._session.reading():
            links = self._links.of([handle])
        return links[0].public_key if links else None

    def _tree(self) -> Frontier:
        with self._session.reading():
            require_newest(self._base, self._newest_epoch)
            return self._session.tree.copy()

    def _take_over(self, download: Download, opener: Opener, *, at: int) -> int:
        head = download.head
        with self._session.changing() as change:
            require_newest(self._base, self._newest_epoch)
            if change.head.size > head.size or change.head == head:
                # Another process may have been faster; what the registry has signed must still be part of the lane.
                if not extends(self._base, head):
                    raise unmatched()
                change.at = max(at, change.at) if change.head.size > head.size else at
                return 0
            change.tree = tree = self._session.tree.copy()
            subjects = keep_all(self._base, change, download.onto(tree), self._floors)
            if subjects is not None:
                self._settle(change, head.size, self._links.of(subjects), opener)
            change.insert("heads", [(head.size, head.root)])
            first, change.head, change.at = change.head.size, head, at
        if subjects is None:
            # Nothing but time depends on it, and of that it takes too much to keep others from writing.
            self._settle_all(head.size, opener)
        return head.size - first

    def _opener(self, entries: int) -> AbstractContextManager[Opener]:
        if entries >= PARALLEL_FROM:
            return ManyProcesses(self._reader)
        return nullcontext(OwnProcess(self._reader))

    def _settle(self, change: Change, size: int, links: Iterable[Link] | None, opener: Opener) -> None:
        """Check the newest records of these linked subjects, or of all, in the first `size` entries."""
        for page in paged(self._links.today() if links is None else links, PAGE):
            _, verdicts = self._standings.of(page, size, opener.signed)
            change.judge(verdicts)

    def _settle_prefix(self, size: int) -> None:
        """Remember what is checked for an older prefix: the next who is pinned to it need not check it again."""
        if size != self.head.size and size not in self._settled:
            self._settle_all(size, OwnProcess(self._reader))
            self._settled.add(size)

    def _settle_all(self, size: int, opener: Opener) -> None:
        for page in paged(self.links_by_handle().values(), PAGE):
            with self._session.reading():
                _, verdicts = self._standings.of(page, size, opener.signed)
            # Somebody else may be writing for a while; then it is checked again, and nothing else is lost.
            with suppress(RefusalError):
                if verdicts:
                    with self._session.changing(verdicts_only=True) as change:
                        change.judge(verdicts)

    def _all(self, links: Iterable[Link], size: int, *, over: Mapping[bytes, Top]) -> Iterator[tuple[bytes, Standing]]:
        floors = self._floors.all()
        for page in paged(links, PAGE):
            yield from self._of(page, size, over, floors)

    def _of(
        self, links: Sequence[Link], size: int, over: Mapping[bytes, Top], floors: Mapping[bytes, tuple[int, bytes]]
    ) -> Iterator[tuple[bytes, Standing]]:
        tops, _ = self._standings.of(links, size, signed)
        for link in links:
            top, above = tops.get(link.handle), over.get(link.handle)
            if above is not None:
                top = newer(top, above)
            if top is not None:
                yield link.handle, above_floor(link, top, floors)

    def _linked(self) -> list[tuple[str, bytes, bytes, int]]:
        with self._session.reading():
            return self._keep("links", lambda: list(self._base.whole("links")))

    def _once(self, head: Head | None, key: object, compute: Callable[[Head], Value]) -> Value:
        with self._session.turn:
            with self._session.reading():
                at = self.head if head is None else head
                self._require(at)
            self._settle_prefix(at.size)
            with self._session.reading():
                return self._keep((at, key), lambda: compute(at))

    def _keep(self, key: object, compute: Callable[[], Value]) -> Value:
        """What was computed for `key` since somebody's standing changed last, or computed now."""
        if self._kept_under != self._session.stamp:
            self._kept_under = self._session.stamp
            self._kept.clear()
            self._settled.clear()
        if key not in self._kept:
            value = compute()
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = value
        return cast(Value, self._kept[key])

    def _require(self, head: Head) -> None:
        if head != self.head and not self._keep(("extends", head), lambda: extends(self._base, head)):
            raise TamperingError(
                "The run is pinned to a head of this data holder's lane that its own copy does not extend: two "
                "histories exist. Keep both checkpoints, use nobody's rows, and tell the registry's operator and "
                "the auditor."
            )
