"""What one person's part in several releases costs: at several data holders, and in run after run.

All in mu of Gaussian differential privacy, where independent noises add in mu squared and changes of one sum add up
before they are squared (Dong, Roth, Su, arXiv:1905.02383, corollary 3.3 and theorem 2.7). `shares` are one person's
shares at the data holders that have a row about them.
"""

import math
from collections.abc import Iterable, Sequence


def mu_with_own_noise(mu: float, shares: Sequence[float]) -> float:
    """Where each data holder adds all the noise of a `mu`-GDP release itself: mu sqrt(sum of squared shares).

    The releases are independent and all of them are seen.
    """
    return _checked_mu(mu) * math.sqrt(math.fsum(share**2 for share in _checked(shares)))


def mu_with_shared_noise(mu: float, shares: Sequence[float]) -> float:
    """Where one noise protects the sum over all data holders: mu times the sum of the shares, and so at most `mu`
    where they sum to at most 1.

    The person's rows may all point the same way, so their contributions to the one sum add up before any noise does.
    """
    return _checked_mu(mu) * math.fsum(_checked(shares))


def mu_of_runs(mus: Iterable[float]) -> float:
    """Of independent runs, one after the other, the later ones chosen by what the earlier ones released."""
    return math.sqrt(math.fsum(_checked_mu(mu) ** 2 for mu in mus))


def _checked_mu(mu: float) -> float:
    if not 0 <= mu < math.inf:
        raise ValueError("requires 0 <= mu < infinity")
    return mu


def _checked(shares: Sequence[float]) -> Sequence[float]:
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError("requires shares from 0 to 1")
    return shares
