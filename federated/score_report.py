"""A score put together by the lender from what each data holder answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from federated.reasons import ReasonCode, reason_codes
from federated.scorecard import NEUTRAL_POINTS, Scorecard
from privacy.errors import MalformedError


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """One applicant's score; `low` and `high` are what it could be, whatever the unknown characteristics are."""

    score: int
    low: int
    high: int
    reasons: tuple[ReasonCode, ...]
    sources: int  # data holders that answered with points


def score_report(scorecard: Scorecard, answers: Sequence[Mapping[str, int]]) -> ScoreReport:
    """The report from each answering data holder's points by characteristic.

    A characteristic held by several is their average; one held by nobody counts as its average over the development
    sample, so saying no never lowers the expected score, and the interval widens instead. MalformedError for points
    that the scorecard does not have.
    """
    attainable = {characteristic.id: set(characteristic.points) for characteristic in scorecard.characteristics}
    if any(points not in attainable.get(name, ()) for answer in answers for name, points in answer.items()):
        raise MalformedError(
            "A data holder answered with points that the scorecard does not have. The lender should leave its answer "
            "out and ask its operator which scorecard it used."
        )
    row: list[int | None] = []
    totals = np.full(3, scorecard.base_points, dtype=np.int64)
    for characteristic in scorecard.characteristics:
        told = [answer[characteristic.id] for answer in answers if characteristic.id in answer]
        known = round(sum(told) / len(told)) if told else None
        row.append(known)
        totals += (NEUTRAL_POINTS, min(characteristic.points), max(characteristic.points)) if known is None else known
    score, low, high = scorecard.published(totals).tolist()
    return ScoreReport(score, low, high, reason_codes(scorecard, row), len(answers))
