"""Terms of a data holder's policy that are asked about on their own: what for, at what hour, for which app bundle."""

from typing import Final

from clients.holder.settings import HolderPolicy
from privacy.consent.record import Purpose
from privacy.errors import RefusalCode, RefusalError

ANSWERED: Final = (Purpose.TRAIN, Purpose.VALIDATE, Purpose.SCORE)
"""What letters can ask rows for."""

_MINUTE_S, _DAY_S = 60, 86_400


def in_hours(hours: str, *, at: int) -> bool:
    """Whether `at` (UTC seconds) lies in `hours`, "HH:MM-HH:MM" in UTC; the end is exclusive and may be tomorrow's."""
    begin, end = (_second_of_day(time) for time in hours.split("-"))
    now = at % _DAY_S
    return begin <= now < end if begin < end else now >= begin or now < end


def require_hours(policy: HolderPolicy, *, at: int) -> None:
    """RefusalError (policy) outside the hours in which this data holder answers."""
    if not in_hours(policy.hours, at=at):
        raise RefusalError(
            f"This data holder answers at {policy.hours} UTC only (policy.hours). The coordinator should ask again "
            "then; if it is that time now, whoever's clock is wrong should set it.",
            RefusalCode.POLICY,
        )


def require_purpose(policy: HolderPolicy, purpose: Purpose) -> None:
    """RefusalError (policy) if this data holder uses no rows for `purpose`, whatever people have agreed to."""
    if purpose not in policy.purposes:
        raise RefusalError(
            f'This data holder answers nothing for the purpose "{purpose.value}" (policy.purposes). It is the data '
            "holder's to allow it.",
            RefusalCode.POLICY,
        )


def require_bundle(digest: str, policy: HolderPolicy) -> None:
    """RefusalError (bundle) if the app that asks, by the SHA-256 of its bundle, is none that was approved."""
    if digest not in policy.bundles:
        raise RefusalError(
            "The coordinator's app bundle is not among those that this data holder has approved (policy.bundles). The "
            "coordinator should run the agreed version, or the two agree on another and the data holder adds its "
            "digest.",
            RefusalCode.BUNDLE,
        )


def own_bundle() -> str:
    """SHA-256 in hex of the app bundle that this installation would submit as a coordinator."""
    from federated.app_bundle import digest

    return digest()


def _second_of_day(time: str) -> int:
    hour, minute = time.split(":")
    return (60 * int(hour) + int(minute)) * _MINUTE_S
