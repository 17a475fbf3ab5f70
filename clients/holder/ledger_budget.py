"""What many people have spent, and who of them would pass an allowance: the arithmetic of the privacy ledger.

The currency is mu², which is good at every delta. Sampled steps do not add up in it: they are composed with everything
else a person has spent, at one delta, by `privacy.accounting`, and compared with the epsilon that the allowance has
there. That is an upper bound at this delta and no other, and samples cost more at small ones than a Gaussian does: who
asks whether people keep within what they said must ask at the delta of their own record.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clients.holder.ledger_charge import Floats
from privacy.accounting import GaussianSpend, Spend, at_share, epsilon_of, mu_squared_of, total_epsilon

ROUNDING = 1e-9
"""Allowances and costs reach the ledger by different roads of floating-point arithmetic; equal means this close."""

Found = TypeVar("Found", float, bool)


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """What each of k people has spent: the sum of mu² over Gaussian releases, shape (k,), and other releases with
    everybody's share in each, shape (k,)."""

    gaussian: Floats
    sampled: tuple[tuple[Spend, Floats], ...] = ()

    def plus(self, spend: Spend, shares: Floats) -> "Histories":
        """The same after one more release, in which everybody pays at their share; 0 pays nothing."""
        if isinstance(spend, GaussianSpend):
            return replace(self, gaussian=self.gaussian + (spend.mu * shares) ** 2)
        return replace(self, sampled=(*self.sampled, (spend, shares)))

    def plus_mu_squared(self, mu_squared: Floats) -> "Histories":
        """The same after Gaussian releases that cost each of them so much more."""
        return replace(self, gaussian=self.gaussian + mu_squared)

    def totals(self, delta: float | None) -> Floats:
        """mu² of everything, shape (k,); `delta` is needed once sampled spends are among it."""
        if not self.sampled:
            return self.gaussian
        found = self._of_each([self.gaussian], lambda _, history: mu_squared_of(history, _at(history, delta)))
        return np.array(found, dtype=np.float64)

    def pass_allowance(self, allowed: Floats, delta: Floats | float | None) -> NDArray[np.bool_]:
        """Whether each has spent more than the mu² in `allowed`, shape (k,). An allowance that is no number is
        passed.

        `delta` is everybody's, or of shape (k,) each person's own; as in `totals`.
        """
        if not self.sampled:
            return ~(self.gaussian <= allowed * (1 + ROUNDING))
        at = np.broadcast_to(np.nan if delta is None else delta, allowed.shape)
        found = self._of_each(
            [self.gaussian, allowed, at],
            lambda row, history: _passes(row[1], history, None if delta is None else row[2]),
        )
        return np.array(found, dtype=np.bool_)

    def _of_each(self, columns: Sequence[Floats], judge: Callable[[Floats, list[Spend]], Found]) -> list[Found]:
        """`judge` of each person's row of `columns`, of which mu² is the first, and history; equal people once."""
        rows = np.column_stack([*columns, *(shares for _, shares in self.sampled)])
        groups, members = np.unique(rows, axis=0, return_inverse=True)
        spends, first = [spend for spend, _ in self.sampled], len(columns)
        found = [judge(row, _history(row[0], spends, row[first:])) for row in groups]
        return [found[group] for group in members.reshape(-1).tolist()]


def _history(mu_squared: float, spends: Sequence[Spend], shares: Floats) -> list[Spend]:
    sampled = [at_share(spend, float(share)) for spend, share in zip(spends, shares, strict=True) if share > 0]
    return [GaussianSpend(math.sqrt(mu_squared)), *sampled]


def _at(history: Sequence[Spend], delta: float | None) -> float:
    if len(history) == 1:
        return 0.5  # Gaussian alone: exact, whatever delta
    if delta is None:
        raise ValueError("sampled spends can only be converted at a delta; pass the plan's or the record's")
    return delta


def _passes(allowed: float, history: Sequence[Spend], delta: float | None) -> bool:
    at = _at(history, delta)
    if len(history) == 1:
        return not mu_squared_of(history, at) <= allowed * (1 + ROUNDING)
    if not allowed >= 0:
        return True
    return not total_epsilon(history, at) <= epsilon_of(math.sqrt(allowed), at) * (1 + ROUNDING)
