"""From a person's cap to the share of the clipping norm at which a release stays within it.

mu is the Gaussian-DP parameter of a release for somebody with share 1; with share w it is w mu, and
independent releases add in mu squared (arXiv:1905.02383, corollary 3.3).
"""

from functools import cache
from math import isfinite, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.consent.record import TrainingBudget
from privacy.discrete import mu_on_grid
from privacy.errors import MalformedError

Floats = NDArray[np.float64]

TIERS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Epsilons to which caps are rounded down: few, because a cap is itself sensitive."""


COUNTED_PART: Final = 0.01
"""Part of every allowance, in mu squared, that is set aside for being counted before runs: no count costs anybody a
run, and no run costs anybody's place in a count."""


def tier_of(epsilon: float) -> float | None:
    """The largest tier not above `epsilon`; None below the smallest, for which nobody can take part."""
    return max((tier for tier in TIERS if tier <= epsilon), default=None)


def aggregation_share(budget: TrainingBudget, *, plan_mu: float, delta: float, releases_per_window: int) -> float:
    """Factor in [0, 1] on the person's contribution: share times min(1, sqrt(0.99) mu(tier) / (plan_mu sqrt(runs))).

    0.99 is what `COUNTED_PART` leaves: a window full of releases costs 99 hundredths of the allowance at most.
    `plan_mu` is the mu of one complete plan, `releases_per_window` how many such plans fit the person's
    window. 0.0 means the cap is too small to take part. The cap is read at the record's own delta: a plan's
    `delta` only says at which point its mu is quoted. Raises MalformedError unless `plan_mu` > 0,
    0 < `delta` < 1 and `releases_per_window` >= 1.
    """
    if not (plan_mu > 0 and isfinite(plan_mu) and 0 < delta < 1 and releases_per_window >= 1):
        raise MalformedError(
            "a plan needs mu above 0, delta between 0 and 1 and at least one release per window; "
            "the coordinator must correct the plan."
        )
    mu = _cap_mu(budget.eps_milli, budget.delta_log10)
    return budget.share_milli / 1000 * min(1.0, mu * sqrt(1 - COUNTED_PART) / (plan_mu * sqrt(releases_per_window)))


def allowance_mu_squared(budget: TrainingBudget) -> float:
    """What a window may cost the person, in mu squared: (share x mu(tier)) squared; 0.0 below the tiers.

    All of it: releases of runs and being counted.
    """
    return (budget.share_milli / 1000 * _cap_mu(budget.eps_milli, budget.delta_log10)) ** 2


def set_aside(allowance: Floats, counted: Floats) -> Floats:
    """What runs must leave of each `allowance`, in mu squared, whatever was spent on being counted so far.

    The hundredth; more only for those who were `counted` for more and have lowered their cap since.
    """
    return np.maximum(COUNTED_PART * allowance, counted)


@cache
def _cap_mu(eps_milli: int, delta_log10: int) -> float:
    tier = tier_of(eps_milli / 1000)
    return 0.0 if tier is None else mu_on_grid(tier, 10.0**delta_log10)
