"""What the audits of privacy found, for people: a table, what it means, and what no audit can show."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from clients.audit.privacy_audits import CONFIDENCE, Finding
from clients.audit.privacy_harness import DELTA
from privacy.errors import TamperingError, UsageError

LARGEST_CLAIM: Final = 8.0
"""Beyond it an epsilon promises so little that no audit here could tell it from none."""

WHAT_AUDITS_SHOW: Final = (
    "An audit shows what releases cost at least; it can contradict a claim and never prove one. The claim itself rests "
    "on the proofs that the code cites. These audits cover what one data holder computes in the rounds of a run and "
    "the noise it adds there and to the measurement, for a person with one row at it, drawn from the source that its "
    "releases draw from without a seed. They do not cover the sums of the measurement, the masks, how many members a "
    "sum's noise is counted for, who gets which consent, the ledger's charges, what several runs or data holders cost "
    "together, or the two recipes that train locally on samples. A source that somebody else can predict, but that "
    "differs from release to release, looks like a good one."
)

HOW_THEY_DIFFER: Final = (
    "Exact transcript: replays what one person changes in every sum, no chance involved, and takes the noise to be "
    "there. Noise: takes the changes for granted and measures the variance. Independent noise: looks for the same "
    "noise in two releases, which no other audit sees. One run and many runs: guess who took part, as an attacker "
    "would; one run is blunt and finds gross faults only."
)


@dataclass(frozen=True, slots=True)
class PrivacyReport:
    """The findings, in the order they were made."""

    findings: tuple[Finding, ...]
    runs: int

    @property
    def contradictions(self) -> int:
        """How many audits show more than was claimed."""
        return sum(found.contradicted for found in self.findings)

    def text(self) -> str:
        """The table and what it means."""
        rows: list[tuple[str, ...]] = [("audit", "recipe", "claim", "at least", "verdict", "seconds", "")]
        rows += [_row(found) for found in self.findings]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        lines = ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]).rstrip() for row in rows]
        seconds = sum(found.seconds for found in self.findings)
        closing = (
            f"Epsilon at delta {DELTA:g}, add or remove one person. Statistical audits at {CONFIDENCE:.1%} confidence. "
            f"{len(self.findings)} audits in {seconds:.0f} s: {self._verdict()}"
        )
        paragraphs = [textwrap.fill(part, 120) for part in (closing, HOW_THEY_DIFFER, WHAT_AUDITS_SHOW)]
        return "\n".join([*lines, "", "\n\n".join(paragraphs)])

    def _verdict(self) -> str:
        return f"{self.contradictions} contradict the claim." if self.contradictions else "none contradicts the claim."

    def to_json(self) -> Mapping[str, Any]:
        """The same for programs."""
        return {
            "delta": DELTA,
            "confidence": CONFIDENCE,
            "runs": self.runs,
            "findings": [asdict(found) for found in self.findings],
            "contradictions": self.contradictions,
        }

    def raise_if_contradicted(self) -> None:
        """TamperingError, naming the audits, if one shows more than was claimed."""
        if not self.contradictions:
            return
        named = Counter(found.audit for found in self.findings if found.contradicted)
        raise TamperingError(
            f"{self.contradictions} of {len(self.findings)} audits contradict the claim: {', '.join(sorted(named))}. "
            "A claim that holds is contradicted by each statistical audit once in a thousand times, so run the command "
            "again; if it says the same, this data holder's operator should release nothing and compare its "
            "installation with the published one."
        )


def read_claims(text: str) -> Sequence[float]:
    """The claims in `text`, numbers with commas between them. UsageError for anything else."""
    try:
        claims = [float(part) for part in text.split(",")]
    except ValueError:
        claims = []
    if not claims or not all(0.1 <= claim <= LARGEST_CLAIM for claim in claims):
        raise UsageError(
            f"--claims must be values of epsilon from 0.1 to {LARGEST_CLAIM:g} with commas between them, such as 1,3."
        )
    return claims


def _row(found: Finding) -> tuple[str, ...]:
    shown = "-" if found.shown is None else f"{found.shown:.4f}"
    verdict = "CONTRADICTED" if found.contradicted else "holds"
    return (found.audit, found.recipe, f"{found.claim:g}", shown, verdict, f"{found.seconds:.2f}", found.note)
