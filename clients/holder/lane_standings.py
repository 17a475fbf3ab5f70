"""Each linked subject's newest verified record in a prefix of the lane copy, with as few signatures checked as can be.

A record that a verified newer one replaces can change nothing, so its signature is not looked at until somebody asks
for a shorter prefix. What was checked is remembered as a verdict. The result is that of checking every record.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from clients.holder.lane_base import COLUMNS, LaneBase, Row
from clients.holder.opener import Claim
from privacy.consent.record import ConsentRecord, parse_record
from privacy.consent.view import Conflict, Link

PAGE: Final = 4096
"""How many subjects are looked at in one query."""

_FIELDS: Final = ", ".join(f"e.{column}" for column in COLUMNS["entries"].split(", "))
# All records of a subject under its highest number that has one which was not refused. ?1 is the prefix's size.
_TOPS: Final = f"""
WITH asked (handle, link) AS (VALUES %s)
SELECT {_FIELDS}, e.mac, v.good, v.link, v.mac FROM asked CROSS JOIN entries AS e INDEXED BY newest
ON e.handle = asked.handle AND e.position < ?1 AND e.seq = (
    SELECT other.seq FROM entries AS other INDEXED BY newest
    WHERE other.handle = asked.handle AND other.position < ?1 AND NOT EXISTS (
        SELECT 1 FROM verdicts AS w
        WHERE w.position = other.position AND w.link = asked.link AND refused(w.position, w.good, w.link, w.mac))
    ORDER BY other.seq DESC LIMIT 1)
LEFT JOIN verdicts AS v ON v.position = e.position AND v.link = asked.link
"""  # noqa: S608
# S608, for both: the text is made of constants only; every value is bound.
_BELOW: Final = f"""
SELECT {_FIELDS}, e.mac, v.good, v.link, v.mac FROM entries AS e INDEXED BY newest
LEFT JOIN verdicts AS v ON v.position = e.position AND v.link = ?
WHERE e.handle = ? AND e.position < ? AND (e.seq, e.position) < (?, ?) ORDER BY e.seq DESC, e.position DESC LIMIT 32
"""  # noqa: S608

Check = Callable[[Sequence[Claim]], list[bool]]
Standing = ConsentRecord | Conflict


class Top(NamedTuple):
    """A subject's verified records under its highest number; of several that contradict each other two are named."""

    seq: int
    payloads: tuple[bytes, ...]

    @property
    def standing(self) -> Standing:
        """The record, or a conflict."""
        return Conflict(self.seq) if len(self.payloads) > 1 else parse_record(self.payloads[0])


def newer(one: Top | None, other: Top) -> Top:
    """The one with the higher number; both together under the same number."""
    if one is None or one.seq < other.seq:
        return other
    if one.seq > other.seq:
        return one
    return Top(one.seq, tuple(dict.fromkeys(one.payloads + other.payloads))[:2])


class _Candidate(NamedTuple):
    seq: int
    claim: Claim
    good: bool


class Standings:
    """Answers over one database; whoever calls holds it within a transaction."""

    def __init__(self, base: LaneBase) -> None:
        self._base = base

        def refused(*verdict: Any) -> bool:
            *row, mac = verdict
            return not row[1] and base.seal.holds(mac, "verdicts", *row)

        base.connection.create_function("refused", 4, refused)

    def of(self, links: Sequence[Link], size: int, check: Check) -> tuple[dict[bytes, Top], list[Row]]:
        """The newest verified records of at most `PAGE` subjects in the first `size` entries, and fresh verdicts.

        A verdict is a row: position, 1 if the record holds, and under which link. TamperingError if a row was edited.
        """
        by_handle = {link.handle: link for link in links}
        if not by_handle:
            return {}, []
        marks = ", ".join(f"(?{number}, ?{number + 1})" for number in range(2, 2 * len(by_handle) + 2, 2))
        asked = [value for link in links for value in (link.handle, link_mark(link))]
        verdicts: list[Row] = []
        groups: dict[bytes, list[_Candidate]] = {}
        for one in self._candidates(_TOPS % marks, (size, *asked), by_handle, check, verdicts):
            groups.setdefault(one.claim.link.handle, []).append(one)
        tops: dict[bytes, Top] = {}
        for handle, group in groups.items():
            top = _top(group) or self._below(by_handle[handle], size, group[0].seq, check, verdicts)
            if top is not None:
                tops[handle] = top
        return tops, verdicts

    def _below(self, link: Link, size: int, seq: int, check: Check, verdicts: list[Row]) -> Top | None:
        """As `of` for one subject whose records from `seq` up were all refused."""
        found: Top | None = None
        place = seq, -1
        mine = {link.handle: link}
        while page := self._candidates(_BELOW, (link_mark(link), link.handle, size, *place), mine, check, verdicts):
            for one in page:
                if found is not None and one.seq < found.seq:
                    return found
                if one.good:
                    found = newer(found, Top(one.seq, (one.claim.payload,)))
            place = page[-1].seq, page[-1].claim.position
        return found

    def _candidates(
        self, query: str, values: Sequence[object], links: dict[bytes, Link], check: Check, verdicts: list[Row]
    ) -> list[_Candidate]:
        holds = self._base.seal.holds
        found: list[tuple[int, Claim, int | None]] = []
        for *row, mac, good, mark, verdict in self._base.connection.execute(query, values):
            position, _, _, handle, seq, payload, signature, _, _ = row
            if not holds(mac, "entries", *row) or not (
                good is None or holds(verdict, "verdicts", position, good, mark)
            ):
                raise self._base.edited()
            found.append((seq, Claim(payload, signature, position, links[handle]), good))
        answers = iter(check([claim for _, claim, good in found if good is None]))
        candidates = []
        for seq, claim, known in found:
            good = bool(known)
            if known is None:
                good = next(answers)
                verdicts.append((claim.position, int(good), link_mark(claim.link)))
            candidates.append(_Candidate(seq, claim, good))
        return candidates


def _top(group: Sequence[_Candidate]) -> Top | None:
    top: Top | None = None
    for one in group:
        if one.good:
            top = newer(top, Top(one.seq, (one.claim.payload,)))
    return top


def link_mark(link: Link) -> bytes:
    """What a verdict is bound to: with another key or another size a record may hold that did not, and the reverse."""
    return hashlib.sha256(link.public_key + link.linked_at_size.to_bytes(8, "big")).digest()[:16]
