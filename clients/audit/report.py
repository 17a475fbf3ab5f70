"""What an auditor is told: what was shown, what adds up, and exactly what does not, by position and by release."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from privacy.consent.audit import Aside, Fault, Finding, Flaw, LaneFindings
from privacy.consent.gate import Reason
from privacy.consent.record import Purpose

WHAT_IS_BELIEVED: Final = (
    "A data holder cannot show that an entry does not open without giving its key away, nor of whom an erased one was. "
    "Both are believed unless a receipt contradicts them: ask people for receipts (--receipt)."
)


@dataclass(frozen=True, slots=True)
class Judged:
    """One release of the run, and how many subjects the data holder says it used.

    `left_out` is why the coordinator left this data holder out of the sum; None if it is in it.
    """

    name: str
    purpose: Purpose
    subjects: int
    left_out: str | None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """One data holder's part in one run, replayed. `receipts` are those that lie in the pinned prefix."""

    run: str
    plan: str
    holder: str
    clock_skew_s: int
    lane: LaneFindings
    receipts: int
    releases: tuple[Judged, ...]
    findings: tuple[Finding, ...]

    @property
    def adds_up(self) -> bool:
        """Whether nothing at all was found."""
        return self.lane.adds_up and not self.findings

    def complaints(self) -> list[str]:
        """What does not add up, one line each; empty when all does."""
        return [*_lane_complaints(self.lane), *map(_complaint, self.findings)]

    def text(self) -> str:
        """The report for people."""
        lane, aside = self.lane, self.lane.aside
        lines = [
            f"run       {self.run} of plan {self.plan}, as opened by {self.holder}",
            f"lane      {lane.pinned.size:,} entries pinned, {lane.shown.size:,} shown: {lane.counted:,} records that "
            f"count, {sum(aside.values()):,} that count for nothing{_listed(aside)}, {lane.garbage:,} said to be "
            f"garbage, {lane.erased_before:,} erased before the run and {lane.erased_since:,} since, "
            f"{lane.tombstones:,} tombstones",
            f"subjects  {lane.links:,} linked, {lane.subjects:,} with a record, {lane.conflicts:,} in conflict",
            f"receipts  {self.receipts:,} held against the pinned entries",
            f"clocks    may differ by {self.clock_skew_s} s, by the data holder's policy",
            *(
                f"release   {release.name} ({release.purpose.value}): {release.subjects:,} subjects used"
                + (f"; left out of the sum ({release.left_out})" if release.left_out is not None else "")
                for release in self.releases
            ),
        ]
        if lane.garbage or lane.erased_before or lane.erased_since:
            lines.append(f"note      {WHAT_IS_BELIEVED}")
        complaints = self.complaints()
        lines += [f"WRONG     {complaint}" for complaint in complaints] or ["adds up   every decision and commitment"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report for machines."""
        lane = self.lane
        return {
            "adds_up": self.adds_up,
            "run": self.run,
            "plan": self.plan,
            "holder": self.holder,
            "clock_skew_s": self.clock_skew_s,
            "receipts": self.receipts,
            "lane": {
                "pinned": {"size": lane.pinned.size, "root": lane.pinned.root.hex()},
                "shown": {"size": lane.shown.size, "root": lane.shown.root.hex()},
                "counted": lane.counted,
                "aside": {kind.name.lower(): lane.aside.get(kind, 0) for kind in Aside},
                "garbage": lane.garbage,
                "erased_before": lane.erased_before,
                "erased_since": lane.erased_since,
                "tombstones": lane.tombstones,
                "conflicts": lane.conflicts,
                "links": lane.links,
                "linked_twice": lane.linked_twice,
                "subjects": lane.subjects,
                "faults": [
                    {"fault": fault.name.lower(), "count": lane.faults[fault], "positions": list(lane.places[fault])}
                    for fault in Fault
                    if fault in lane.faults
                ],
            },
            "releases": [
                {
                    "name": release.name,
                    "purpose": release.purpose.value,
                    "subjects": release.subjects,
                    "left_out": release.left_out,
                }
                for release in self.releases
            ],
            "findings": [
                {
                    "release": found.release,
                    "flaw": found.flaw.name.lower(),
                    "count": found.count,
                    "of": found.of,
                    "reasons": {reason.value: found.reasons[reason] for reason in Reason if reason in found.reasons},
                }
                for found in self.findings
            ],
            "complaints": self.complaints(),
        }


def _lane_complaints(lane: LaneFindings) -> Iterator[str]:
    if lane.shown.size != lane.pinned.size:
        yield f"lane: {lane.shown.size:,} entries are shown and the run was pinned to {lane.pinned.size:,}"
    elif lane.shown != lane.pinned:
        yield "lane: the entries shown do not hash to the pinned root; one was left out, added, changed or moved"
    if lane.linked_twice:
        yield f"links: subjects linked twice for the same entries, of whom no record counts: {lane.linked_twice:,}"
    for fault in Fault:
        places = lane.places.get(fault, ())
        yield from (f"entry {place}: {fault.value}" for place in places)
        if lane.faults.get(fault, 0) > len(places):
            yield f"{lane.faults[fault] - len(places):,} more entries: {fault.value}"


def _complaint(found: Finding) -> str:
    match found.flaw:
        case Flaw.CONSENT:
            return f"release {found.release}: {_share(found)} were not allowed:{_reasons(found.reasons)}"
        case Flaw.UNLINKED:
            return f"release {found.release}: {_share(found)} are not linked, so nobody can say that they agreed"
        case Flaw.ERASED:
            return (
                f"release {found.release}: {_share(found)} are not linked; entries were erased since the run, so their "
                "consent may have been erased and can no longer be shown"
            )
        case Flaw.COMMITMENT | Flaw.UNSHOWN | Flaw.UNRECORDED | Flaw.SIGNATURE:
            return f"release {found.release}: {found.flaw.value}"


def _share(found: Finding) -> str:
    return f"{found.count:,} of {found.of:,} subjects used"


def _reasons(reasons: Mapping[Reason, int]) -> str:
    told = [f" {reason.value} ({reasons[reason]:,})" for reason in Reason if reason in reasons]
    return ",".join(told)


def _listed(aside: Mapping[Aside, int]) -> str:
    told = ", ".join(f"{aside[kind]:,} {kind.value}" for kind in Aside if kind in aside)
    return f" ({told})" if told else ""
