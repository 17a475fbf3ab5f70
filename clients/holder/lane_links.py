"""The links in a lane copy: those of today, which are all that the gate knows, and those that have ended.

An ended link lets nobody be used any more. It is kept so that a run from when it lasted can be replayed: which key's
records count in a prefix is the rule of `privacy.consent.view.links_in_force`. Only an erasure destroys it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice

from clients.holder.lane_base import Change, LaneBase
from privacy.consent.view import Link, links_in_force
from privacy.errors import RefusalCode, RefusalError, UsageError


class Links:
    """The links of one database; whoever calls holds it within a transaction.

    Whatever is read raises TamperingError if it was edited; what is read whole does, at its end, if a link is gone.
    """

    def __init__(self, base: LaneBase) -> None:
        self._base = base

    def of(self, handles: Iterable[bytes]) -> list[Link]:
        """Today's link of each of `handles` that has one."""
        return [Link(*row[1:]) for handle in handles for row in self._base.rows("links", "WHERE handle = ?", handle)]

    def after(self, handle: bytes, most: int) -> list[Link]:
        """Today's links behind `handle`, at most so many, ascending by handle."""
        rows = self._base.rows("links", "WHERE handle > ? ORDER BY handle LIMIT ?", handle, most)
        return [Link(*row[1:]) for row in rows]

    def today(self) -> Iterator[Link]:
        """All links of today, ascending by handle."""
        return (Link(*row[1:]) for row in self._base.whole("links", "ORDER BY handle"))

    def ever(self) -> Iterator[Link]:
        """All links, ended ones too, ascending by handle and by when they began."""
        ended = (Link(*row[1:]) for row in self._base.whole("ended_links", "ORDER BY handle, linked_at_size"))
        return merge(ended, self.today(), key=lambda link: (link.handle, link.linked_at_size))

    def ended(self) -> dict[str, bytes]:
        """Customer number to handle, of the link of each that ended last."""
        return {row[0]: row[1] for row in self._base.whole("ended_links", "ORDER BY ended_at_size")}

    def at(self, size: int) -> Iterator[Link]:
        """The link of each subject whose records count in the first `size` entries, ascending by handle."""
        # A link of today is in force where none that has ended is: it began after all of them.
        then = links_in_force((Link(*row[1:]) for row in self._base.whole("ended_links")), size)
        ended = sorted(then.values(), key=lambda link: link.handle)
        today = (link for link in self.today() if link.handle not in then)
        return merge(ended, today, key=lambda link: link.handle)

    def tie(self, change: Change, links: Mapping[str, Link]) -> None:
        """Add links of today; one that is as it was before it ended goes on as if it never had.

        RefusalError for any other that begins before an earlier one of its handle has ended.
        """
        for link in links.values():
            same = "handle = ? AND public_key = ? AND linked_at_size = ?"
            change.remove("ended_links", same, link.handle, link.public_key, link.linked_at_size)
            clause = "WHERE handle = ? AND ended_at_size > ?"
            if link.ended_at_size is not None or self._base.rows(
                "ended_links", clause, link.handle, link.linked_at_size
            ):
                raise RefusalError(
                    "A link has ended, or would begin while an earlier one of the customer lasted; nothing was "
                    "changed. The desk should make the customer a new offer.",
                    RefusalCode.REPLAY,
                )
        rows = [(customer, link.handle, link.public_key, link.linked_at_size) for customer, link in links.items()]
        change.insert("links", rows)

    def untie(self, change: Change, customer: str) -> bytes:
        """End the customer's link at the lane's size; returns the handle. UsageError if there is none."""
        removed = change.remove("links", "customer = ?", customer)
        if not removed:
            raise UsageError("This customer is not linked here. Give the number of one who is.")
        _, handle, _, linked_at_size = removed[0]
        # One that ends where it began was never in force in any prefix.
        if linked_at_size < change.head.size:
            change.insert("ended_links", [(*removed[0], change.head.size)])
        # What came by the side door can only restrict the link that is gone.
        change.remove("direct", "handle = ?", handle)
        return bytes(handle)

    def block(self, change: Change, customer: str) -> bool:
        """End the customer's link, and note that the person is to be erased; False if there never was a link here."""
        if self._base.rows("erasing", "WHERE customer = ?", customer):
            return True
        if self._base.rows("links", "WHERE customer = ?", customer):
            handle = self.untie(change, customer)
        elif ended := self._base.rows("ended_links", "WHERE customer = ? LIMIT 1", customer):
            handle = ended[0][1]
        else:
            return False
        change.insert("erasing", [(handle, customer)])
        return True

    def blocked(self) -> list[bytes]:
        """A handle of everybody who is to be erased."""
        return [row[0] for row in self._base.whole("erasing")]

    def destroy(self, change: Change, handle: bytes) -> list[bytes]:
        """Take away every link that the person of `handle` has or had here; returns all of the person's handles."""
        handles, customers = {handle}, set[str]()
        for table in ("links", "ended_links"):
            customers.update(row[0] for row in self._base.rows(table, "WHERE handle = ?", handle))
        customers.update(row[1] for row in change.remove("erasing", "handle = ?", handle))
        for customer in customers:
            for table in ("links", "ended_links"):
                handles.update(row[1] for row in change.remove(table, "customer = ?", customer))
            change.remove("erasing", "customer = ?", customer)
        return sorted(handles)


def paged(links: Iterable[Link], page: int) -> Iterator[Sequence[Link]]:
    """The links, at most `page` at a time."""
    waiting = iter(links)
    while some := tuple(islice(waiting, page)):
        yield some
