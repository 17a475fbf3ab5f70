"""Sampled steps are judged at the delta that each person chose: what they cost there, not where the plan quotes it."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clients.holder.ledger_budget import Histories
from clients.holder.node import Holder
from experiments.plans import DELTA
from federated.loss_distribution import total_epsilon_pld
from privacy.accounting import GaussianSpend, SampledSpend, at_share, epsilon_of, total_epsilon
from privacy.consent.record import Purpose
from privacy.discrete import mu_on_grid
from privacy.sampled import noise_multiplier_for
from tests.clients.holder.test_permits import Sampling, run_of, with_recipe
from tests.ready import Ready

OWN = 1e-12


class FewSteps(Sampling):
    """Little noise and few samples: what is rare costs much, which a small delta does not forgive."""

    def spend(self, round_number: int, rows: int) -> SampledSpend:
        del round_number, rows
        return SampledSpend(self.noise_multiplier, 0.1, 10)


@pytest.fixture
def holder(ready: Ready) -> Iterator[Holder]:
    with ready.holder() as opened:
        yield opened


def dear(tier: float, delta: float) -> tuple[SampledSpend, float]:
    """Steps that cost exactly a cap of `tier` at `delta` if they are judged at the plan's, and the cap in mu."""
    mu = mu_on_grid(tier, delta)
    noise = noise_multiplier_for(epsilon_of(mu, DELTA), DELTA, sampling_rate=0.1, steps=10)
    return SampledSpend(noise, 0.1, 10), mu


@pytest.mark.parametrize(("tier", "delta"), [(1.0, 1e-12), (4.0, 1e-12), (4.0, 1e-10), (8.0, 1e-9)])
def test_what_fits_at_the_plans_delta_passes_a_cap_at_a_smaller_one(tier: float, delta: float) -> None:
    spend, mu = dear(tier, delta)
    # An independent accountant, by convolution of losses, says that the promise was broken, too.
    if tier > 1:
        assert total_epsilon_pld([spend], delta) > tier
    history, allowed = Histories(np.zeros(2)).plus(spend, np.ones(2)), np.full(2, mu**2)
    assert history.pass_allowance(allowed, np.array([DELTA, delta])).tolist() == [False, True]


def test_a_gaussian_history_is_the_same_at_every_delta() -> None:
    history = Histories(np.full(2, 0.5)).plus(GaussianSpend(1.0), np.ones(2))
    for delta in (None, DELTA, np.array([1e-3, 1e-15])):
        assert history.pass_allowance(np.array([1.5, 1.49]), delta).tolist() == [False, True]


def test_nobody_is_in_a_sampled_run_that_passes_the_cap_at_their_own_delta(
    ready: Ready, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, permits = with_recipe(run_of(ready, holder), FewSteps(rounds=1, noise_multiplier=1.3)), holder._permits
    views = permits._views(run)

    def smaller(view: Any) -> Any:
        def seen(**asked: Any) -> Any:
            projection = view(**asked)
            projection.delta_log10 = np.full_like(projection.delta_log10, round(math.log10(OWN)))
            return projection

        return seen

    monkeypatch.setattr(permits, "_views", lambda _: tuple(map(smaller, views)))
    rows = holder.permitted(run, Purpose.TRAIN)
    assert len(rows.handles) > 5
    spend = run.recipe.spend(1, len(rows.handles))
    for share, allowance in zip(rows.shares.tolist(), rows.allowances.tolist(), strict=True):
        cost = [at_share(spend, share)]
        for delta in (DELTA, OWN):
            assert total_epsilon(cost, delta) <= epsilon_of(math.sqrt(allowance), delta) * (1 + 1e-9)
