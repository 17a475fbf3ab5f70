"""Records that people handed to the data holder itself: in force at once, until the lane has them too.

They lie over the lane and can only restrict: whoever asks must also ask the lane alone.
"""

import hashlib

from clients.holder.lane_base import Change, LaneBase
from clients.holder.lane_links import Links
from clients.holder.lane_standings import Standings, Top, newer
from clients.holder.opener import Claim, Reader, signed
from privacy.consent.submission import Submission
from privacy.errors import RefusalCode, RefusalError


def direct_tops(base: LaneBase, handle: bytes | None = None) -> dict[bytes, Top]:
    """Each subject's newest directly taken record, or that of `handle`. TamperingError if one was edited or is gone."""
    rows = base.whole("direct") if handle is None else base.stream("direct", "WHERE handle = ?", handle)
    tops: dict[bytes, Top] = {}
    for _, subject, seq, payload, _, _, _ in rows:
        tops[subject] = newer(tops.get(subject), Top(seq, (payload,)))
    return tops


class SideDoor:
    """Takes a sealed record straight from a person, verified as if it were the lane's next entry."""

    def __init__(self, base: LaneBase, links: Links, standings: Standings, reader: Reader) -> None:
        self._base, self._links, self._standings, self._reader = base, links, standings, reader

    def take(self, change: Change, submission: Submission, *, at: int) -> bool:
        """Keep the record if it says something new; False if it does not.

        RefusalError, the same for all reasons, if it is not a record of somebody who is linked.
        """
        stub, size = submission.stub, change.head.size
        if hashlib.sha256(submission.ciphertext).digest() != stub.ciphertext_sha256:
            raise _nobodys()
        opened = self._reader.open(stub, submission.ciphertext)
        found = self._reader.subject(stub, opened.payload) if opened else None
        if opened is None or found is None:
            raise _nobodys()
        handle, seq = found
        links = self._links.of([handle])
        # The next entry of the lane comes after every link, also after one to a head that is not synced yet.
        if not links or signed([Claim(opened.payload, opened.signature, links[0].linked_at_size, links[0])]) != [True]:
            raise _nobodys()
        tops, verdicts = self._standings.of(links, size, signed)
        change.judge(verdicts)
        known = tops.get(handle)
        for top in direct_tops(self._base, handle).values():
            known = newer(known, top)
        if known is not None and newer(known, Top(seq, (opened.payload,))) == known:
            return False
        change.remove("direct", "handle = ? AND seq < ?", handle, seq)
        row = (stub.leaf(), handle, seq, opened.payload, opened.signature, opened.rho, at)
        change.insert("direct", [row])
        return True


def _nobodys() -> RefusalError:
    # One text: nobody learns by asking whether somebody is linked.
    return RefusalError(
        "This is not a consent record, sealed to this data holder's key, of somebody who is linked here; nothing was "
        "changed. The person should write it again with the wallet that was linked.",
        RefusalCode.CONSENT,
    )
