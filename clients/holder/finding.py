"""One thing that a check has looked at: what it is, what was found, how bad that is, and what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from privacy.errors import FedcreditError

Value = TypeVar("Value")


class State(StrEnum):
    """How something was found."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and what to do about it; empty if nothing."""

    what: str
    found: str
    state: State
    do: str = ""


def ok(what: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(what, found, State.OK)


def warning(what: str, found: str, do: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(what, found, State.WARNING, do)


def problem(what: str, found: str, do: str) -> Finding:
    """It does not work before somebody has done something."""
    return Finding(what, found, State.PROBLEM, do)


def failure(what: str, error: FedcreditError) -> Finding:
    """A problem in the words of the error: what was found, then what to do."""
    text = str(error)
    told, _, do = text.partition(". " if ". " in text else "; ")
    return problem(what, told, do or "Mend it, then check again.")


def attempt(found: list[Finding], what: str, action: Callable[[], Value]) -> Value | None:
    """What `action` gives; None, and a problem among the found, if it fails."""
    try:
        return action()
    except FedcreditError as error:
        found.append(failure(what, error))
        return None
