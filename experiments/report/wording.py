"""Numbers as people read them. Unknown is always the word, never a 0 and never an empty place."""

import math
from typing import Final

UNKNOWN: Final = "unknown"
NO_BREAK: Final = "\N{NO-BREAK SPACE}"
SHORT_ID: Final = 12
# The gate's reasons, closed in the consent rules; a reason this page does not know is shown as it is.
REASONS: Final = {
    "none": "no consent given",
    "conflict": "statements contradict each other",
    "frozen": "frozen by the person",
    "purpose": "not for this purpose",
    "time": "not in force at that time",
    "reconfirm": "not confirmed again in time",
    "data": "not for these kinds of data",
    "uses": "number of uses reached",
    "budget": "privacy budget too small or spent",
    "unlinked": "no wallet linked",
    "cohort": "data holder sat the run out",
}


def figure(value: float | None, places: int = 3) -> str:
    """A figure such as an AUC, with a fixed number of places."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def count(value: float | None) -> str:
    """A number of people or rows."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.0f}"


def percent(share: float | None, places: int = 1) -> str:
    """A share in [0, 1] in per cent."""
    return UNKNOWN if share is None or not math.isfinite(share) else f"{100 * share:.{places}f}{NO_BREAK}%"


def epsilon_text(value: float | None) -> str:
    """An epsilon with as many digits as it needs, at most three places."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.3f}".rstrip("0").rstrip(".")


def delta_text(value: float | None) -> str:
    """A failure probability as "1 in so many"."""
    if value is None or not 0 < value < 1:
        return UNKNOWN
    return f"1 in {round(1 / value):,}"


def plural(number: float, one: str, many: str) -> str:
    """The count with its noun."""
    return f"{count(number)} {one if number == 1 else many}"


def against(value: float, other: float, places: int = 3) -> str:
    """How `value` stands to `other`, by the digits shown: "0.003 below", "0.001 above" or "the same as"."""
    gap = round(value, places) - round(other, places)
    if abs(gap) < 0.5 * 10**-places:
        return "the same as"
    return f"{abs(gap):.{places}f} {'above' if gap > 0 else 'below'}"


def reason_text(reason: str) -> str:
    """Why a row stayed out, in words."""
    return REASONS.get(reason, reason)


def short(text: str) -> str:
    """The beginning of a digest or identifier, enough to tell two apart."""
    return text if len(text) <= SHORT_ID else f"{text[:SHORT_ID]}…"
