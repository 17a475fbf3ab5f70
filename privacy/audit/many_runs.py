"""What many runs show: in each a coin decided whether somebody took part, and the auditor guesses the coin.

Nobody guesses a fair coin from a mu-GDP release with a better chance than Phi(mu / 2), and from an (epsilon,
delta)-DP one than (e^epsilon + delta) / (e^epsilon + 1), whatever else is known; and the coins of different runs are
independent. So the number of right guesses has a binomial tail, and both bounds are exact, provided that the rule of
guessing was fixed before the coins were thrown: choosing the best of several rules afterwards gives false alarms.
"""

import math

from privacy.audit.binomial import normal_quantile, probability_above


def mu_above(correct: int, runs: int, *, confidence: float) -> float:
    """With this confidence the releases are not mu-GDP for any smaller mu; 0 if nothing is shown.

    Accuracy is 1 - (alpha + beta) / 2 of a test, and alpha + beta >= 2 Phi(-mu / 2): Dong, Roth, Su
    (arXiv:1905.02383), section 2.
    """
    chance = probability_above(correct, runs, confidence)
    return max(0.0, 2 * normal_quantile(chance))


def epsilon_above(correct: int, runs: int, *, delta: float, confidence: float) -> float:
    """With this confidence the releases are not (epsilon, `delta`)-DP for any smaller epsilon; 0 if nothing is shown.

    Much weaker than `mu_above` where the noise is Gaussian: one pair (epsilon, delta) says less than its whole curve.
    (Kairouz, Oh, Viswanath 2015, arXiv:1311.0776, theorem 2.1.)
    """
    chance = probability_above(correct, runs, confidence)
    return math.log((chance - delta) / (1 - chance)) if chance > (1 + delta) / 2 else 0.0
