"""Three families of failure. Each text says what was found, what was needed, what to do next and whose task it is.

No text ever holds a person, a handle, a key or a value from a row.
"""

from enum import StrEnum
from typing import ClassVar


class FedcreditError(Exception):
    """A failure that a person can act on; the command line prints its text and exits with `exit_code`."""

    exit_code: ClassVar[int] = 1


class UsageError(FedcreditError):
    """The command was called with arguments that cannot be served."""

    exit_code = 2


class RefusalCode(StrEnum):
    """Why a party declined, as it travels between parties: a closed set, and never more than the code."""

    BUDGET = "budget"
    BUNDLE = "bundle"
    COHORT = "cohort"
    CONSENT = "consent"
    LANE = "lane"
    PLAN = "plan"
    POLICY = "policy"
    REPLAY = "replay"
    SCHEMA = "schema"
    INTEGRITY = "integrity"
    INTERNAL = "internal"


class RefusalError(FedcreditError):
    """The toolkit working as designed and saying no."""

    exit_code = 3

    def __init__(self, message: str, code: RefusalCode) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["RefusalError"], tuple[str, RefusalCode]]:
        """Both arguments, so that a refusal survives the way back from another process."""
        return type(self), (str(self), self.code)


class MalformedError(FedcreditError):
    """Something cannot be read as what it claims to be."""

    exit_code = 4


class TamperingError(FedcreditError):
    """Something contradicts a signature, a hash or a history."""

    exit_code = 5
