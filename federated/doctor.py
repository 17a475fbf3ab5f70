"""What `fedcredit doctor` says: findings, each with how to mend it, and a runner that no check can bring down."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from privacy.errors import FedcreditError


class State(StrEnum):
    """How grave a finding is: a warning can wait, a problem stops the program or the people's protection."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look came to. `mend` says who does what next, and is empty where there is nothing to do."""

    state: State
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One look at one thing; `mend` is for when it ends in an error instead of a verdict."""

    what: str
    look: Callable[[], Verdict]
    mend: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, what was found, and how to mend that."""

    what: str
    state: State
    found: str
    mend: str


@dataclass(frozen=True, slots=True)
class Place:
    """The directory that is looked at, a clock (UTC seconds), and whether nobody may be asked over the network."""

    directory: Path
    clock: Callable[[], float] = time.time
    offline: bool = False

    @property
    def now(self) -> int:
        """The instant, in whole seconds."""
        return int(self.clock())


def ok(found: str) -> Verdict:
    """As it should be."""
    return Verdict(State.OK, found)


def warning(found: str, mend: str) -> Verdict:
    """It works for now."""
    return Verdict(State.WARNING, found, mend)


def problem(found: str, mend: str) -> Verdict:
    """It does not work, or it works and nobody should rely on it."""
    return Verdict(State.PROBLEM, found, mend)


def skipped(found: str) -> Verdict:
    """Not looked at, and why."""
    return Verdict(State.SKIPPED, found)


def examine(checks: Iterable[Check]) -> list[Finding]:
    """Every check's finding, in order. One that raises is a problem; only our own errors' texts are told."""
    findings = []
    for check in checks:
        try:
            verdict = check.look()
        except FedcreditError as error:
            verdict = problem(str(error), check.mend)
        except Exception as error:  # somebody else's text may quote a value
            verdict = problem(f"it could not be looked at ({type(error).__name__})", check.mend)
        findings.append(Finding(check.what, verdict.state, verdict.found, verdict.mend))
    return findings


def gravest(verdicts: Sequence[Verdict], *, well: str) -> Verdict:
    """Several verdicts as one: all that is wrong, as grave as the worst; `well` if nothing is."""
    for state in (State.PROBLEM, State.WARNING):
        if any(verdict.state is state for verdict in verdicts):
            wrong = [verdict for verdict in verdicts if verdict.state in (State.PROBLEM, State.WARNING)]
            found, mend = ([one.found for one in wrong], [one.mend for one in wrong])
            return Verdict(state, "; ".join(dict.fromkeys(found)), " ".join(dict.fromkeys(mend)))
    return ok(well)


def count(findings: Iterable[Finding], state: State) -> int:
    """How many of the findings are in that state."""
    return sum(finding.state is state for finding in findings)


_WIDTH: Final = max(len(state) for state in State)


def table(findings: Sequence[Finding]) -> list[str]:
    """The findings for people, one a line, with how to mend it below, and their sum at the end."""
    wide = max((len(finding.what) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<{_WIDTH}}  {finding.what:<{wide}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<{_WIDTH}}  {'':<{wide}}  -> {finding.mend}")
    sums = [f"{number} {state}" for state in State if (number := count(findings, state))]
    return [*lines, f"{len(findings)} looked at: {', '.join(sums)}"]


def as_plain(role: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings for machines."""
    return {
        "role": role,
        "problems": count(findings, State.PROBLEM),
        "warnings": count(findings, State.WARNING),
        "findings": [asdict(finding) for finding in findings],
    }
