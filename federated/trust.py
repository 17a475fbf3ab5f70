"""Whom one must trust for a plan's epsilon to hold: a closed set, one of them named in every plan and report."""

from enum import StrEnum
from typing import Final, assert_never


class TrustModel(StrEnum):
    """Where the noise of a run is drawn, and what the coordinator sees."""

    SHARED_NOISE = "shared_noise"
    HOLDER_NOISE = "holder_noise"
    COORDINATOR_NOISE = "coordinator_noise"

    @property
    def is_masked(self) -> bool:
        """Whether the coordinator sees sums over data holders only."""
        return self is not TrustModel.HOLDER_NOISE


class Aggregation(StrEnum):
    """How the updates of one round become one; only visible updates can be aggregated otherwise than by their sum."""

    SUM = "sum"
    TRIMMED_MEAN = "trimmed_mean"
    MEDIAN = "median"


_MASKS: Final = (
    "The masks hold even against a coordinator that lies about who left, together with as many data holders as the "
    "plan tolerates drop-outs. They assume that the other data holders are real and follow the protocol. Any one of "
    "them that sends numbers which are no lawful update can spoil a sum without being named: only numbers out of all "
    "reach are noticed."
)
_ADDED_WHILE_TRAINING: Final = (
    "Each data holder adds all the noise of the training itself, while it trains, so the training's epsilon holds for "
    "every update, whoever leaves and whoever sees it; "
)


def told(trust: TrustModel, *, adds_noise: bool) -> str:
    """Whom one must trust, and how far, as sentences for reports.

    `adds_noise` says whether training needs noise in its sums: some recipes have it in the contributions already. The
    measurement always needs it.
    """
    if adds_noise:
        return _told(trust)
    match trust:
        case TrustModel.HOLDER_NOISE:
            return _ADDED_WHILE_TRAINING + "the coordinator sees every update. Of the measurement: " + _told(trust)
        case TrustModel.SHARED_NOISE | TrustModel.COORDINATOR_NOISE:
            hidden = "masks hide single updates from the coordinator, too. Of the measurement: "
            return _ADDED_WHILE_TRAINING + hidden + _told(trust)
        case _:
            assert_never(trust)


def _told(trust: TrustModel) -> str:
    match trust:
        case TrustModel.SHARED_NOISE:
            return (
                "Each data holder adds its part of one common noise to whole numbers and masks them, so the "
                "coordinator sees sums over the data holders only, never one update. Enough noise for epsilon is left "
                "as long as those that leave one sum and those that tell the coordinator their noise are together no "
                "more than the drop-outs that the plan tolerates. " + _MASKS
            )
        case TrustModel.HOLDER_NOISE:
            return (
                "Each data holder adds all the noise that its own people need, so nobody else has to be trusted: the "
                "coordinator sees every update, and epsilon holds for each of them."
            )
        case TrustModel.COORDINATOR_NOISE:
            return (
                "The coordinator adds the noise, so it sees exact sums over the data holders, and epsilon holds "
                "against everybody but the coordinator, which must be trusted. Masks keep single updates from it. "
                + _MASKS
            )
        case _:
            assert_never(trust)
