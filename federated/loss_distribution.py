"""A second opinion on what releases cost: privacy loss distributions, by an accountant that others wrote.

For Poisson-sampled steps it is close to the truth, where the Rényi bound of `privacy.accounting` is 8 to 33 per cent
high; the ledger charges the bound, which needs nothing but numpy. Needs the extra `accounting` (dp-accounting), which
is imported only when a cost is asked for.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, assert_never

from privacy.accounting import GaussianSpend, SampledSpend, Spend, UnprotectedSpend

if TYPE_CHECKING:
    from dp_accounting import DpEvent


def total_epsilon_pld(spends: Iterable[Spend], delta: float) -> float:
    """Epsilon at `delta` of all `spends` together; infinite if one had no noise.

    Rounded up: losses are put on a grid of 1e-4 pessimistically (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022,
    arXiv:2207.04380). Neighbouring relation: add or remove one person.
    """
    if not 0 < delta < 1:
        raise ValueError("requires 0 < delta < 1")
    spends = tuple(spends)
    if any(isinstance(spend, UnprotectedSpend) for spend in spends):
        return math.inf
    counted = Counter(spend for spend in spends if spend != GaussianSpend(0.0))
    if not counted:
        return 0.0
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for spend, times in counted.items():
        accountant.compose(_event(dp_accounting, spend), times)
    return float(accountant.get_epsilon(delta))


def _event(dp_accounting: Any, spend: Spend) -> "DpEvent":
    match spend:
        case GaussianSpend(mu):
            return dp_accounting.GaussianDpEvent(1 / mu)
        case SampledSpend(noise_multiplier, 1.0, steps):
            return dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise_multiplier), steps)
        case SampledSpend(noise_multiplier, sampling_rate, steps):
            step = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
            return dp_accounting.SelfComposedDpEvent(step, steps)
        case UnprotectedSpend():
            return dp_accounting.NonPrivateDpEvent()
        case _:
            assert_never(spend)
