"""The findings of a check in words for whoever mends them, and as facts for machines."""

from collections.abc import Iterator, Sequence
from typing import Any

from clients.holder.consents_told import IN_THE_HOUSE
from clients.holder.finding import Finding, State

_SHOWN = {State.OK: "ok", State.WARNING: "warning", State.PROBLEM: "PROBLEM"}


def lines(found: Sequence[Finding]) -> Iterator[str]:
    """A table: state, what, what was found; under it what to do."""
    width = max(len(finding.what) for finding in found)
    for finding in found:
        yield f"{_SHOWN[finding.state]:<7}  {finding.what:<{width}}  {finding.found}"
        if finding.do:
            yield f"{'':<7}  {'':<{width}}  -> {finding.do}"
    counts = {state: sum(finding.state is state for finding in found) for state in State}
    yield f"ok: {counts[State.OK]}, warnings: {counts[State.WARNING]}, problems: {counts[State.PROBLEM]}"
    yield IN_THE_HOUSE


def facts(found: Sequence[Finding]) -> dict[str, Any]:
    """The same for machines."""
    return {
        "ready": not any(finding.state is State.PROBLEM for finding in found),
        "findings": [
            {"what": finding.what, "found": finding.found, "state": finding.state.value, "do": finding.do}
            for finding in found
        ],
        "stays_in_the_house": True,
    }
