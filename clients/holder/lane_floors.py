"""Below which number a subject's records no longer count, because a newer one was erased by a tombstone in the lane.

Our own erasure ends the link first and needs none of this. But a tombstone for a withdrawal alone, of somebody who is
still linked, would let the grant before it stand again: until a newer record comes, that subject is denied.

Only the gate of this copy knows it, and only if the copy had opened the record before: `privacy.consent.view.project`
cannot see what an erased entry said, and so neither an auditor's replay nor a copy that is built anew denies here.
"""

from collections.abc import Mapping

from clients.holder.lane_base import Change, LaneBase, Row
from clients.holder.lane_links import Links
from clients.holder.lane_standings import Standing, Top, link_mark
from clients.holder.opener import Claim, signed
from privacy.consent.view import Conflict, Link


class Floors:
    """The floors of one database; whoever calls holds it within a transaction."""

    def __init__(self, base: LaneBase, links: Links) -> None:
        self._base, self._links = base, links

    def raise_to(self, change: Change, entry: Row) -> None:
        """A tombstone erases this `entry`: if it is a record that holds, what is not newer counts no more."""
        position, _, _, handle, seq, payload, signature, _, _ = entry
        if handle is None:
            return
        for link in self._links.of([handle]):
            if signed([Claim(payload, signature, position, link)]) == [True]:
                mark = link_mark(link)
                before = [row[1] for row in change.remove("floors", "handle = ?", handle) if row[2] == mark]
                change.insert("floors", [(handle, max(seq, *before, 0), mark)])

    def all(self) -> dict[bytes, tuple[int, bytes]]:
        """Handle to number and the link's mark. TamperingError if one was edited or is gone."""
        return {handle: (seq, mark) for handle, seq, mark in self._base.whole("floors")}


def above_floor(link: Link, top: Top, floors: Mapping[bytes, tuple[int, bytes]]) -> Standing:
    """What stands: the newest record, or a conflict if one with a number as high was erased."""
    seq, mark = floors.get(link.handle, (0, b""))
    return Conflict(seq) if top.seq <= seq and mark == link_mark(link) else top.standing
