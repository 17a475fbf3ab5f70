"""A whole run by real data holders, without a seed: what left them, what was charged, and what it really cost.

Each data holder adds all its noise here, so that nothing is masked and every release can be looked at. Noise from the
operating system differs from run to run; the confidence asked for is a billion to one.
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from federated.messages import Measurement
from federated.releases import measurement_spend, release_name
from federated.trust import TrustModel
from privacy.accounting import GaussianSpend, at_share
from privacy.audit.noise import correlation_allowed, largest_correlation, variance_below
from privacy.audit.transcript import Step, mu_squared
from privacy.discrete import mu_on_grid
from tests.privacy.proof.watching import STEPS, Seen, watched

SURE = 1 - 1e-9


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Seen]]:
    with watched(tmp_path_factory.mktemp("proof") / "federation", TrustModel.HOLDER_NOISE) as seen:
        yield seen


def test_everything_was_seen(releases: list[Seen]) -> None:
    stages = STEPS + 3
    assert sorted((seen.holder.name, seen.stage) for seen in releases) == [
        (holder, stage) for holder in ("aster-bank", "birch-telecom", "cedar-power") for stage in range(1, stages + 1)
    ]


def test_what_left_is_the_exact_sum_and_the_noise_it_needs(releases: list[Seen]) -> None:
    for kind in ("rounds", "measurement"):
        chosen = [seen for seen in releases if isinstance(seen.letter.header, Measurement) == (kind == "measurement")]
        drawn = np.concatenate([seen.noise / math.sqrt(seen.run.shape(seen.stage).variance) for seen in chosen])
        assert variance_below(drawn, confidence=SURE) >= 1, kind
        # Were the exact sum another, the rest would not look like noise: this is sharp, sums are far longer.
        assert float(np.square(drawn).mean()) <= 1 + 7 * math.sqrt(2 / len(drawn)), kind
        assert np.abs(drawn).max() < 9, kind


def test_noise_is_added_to_the_sum_that_was_asked_for(releases: list[Seen]) -> None:
    for seen in releases:
        exact = seen.run.shape(seen.stage).grid.decode(seen.exact(seen.rows.shares))
        # What is kept back for rounding is a millionth of a part.
        np.testing.assert_allclose(seen.computed, exact, atol=1e-3)


def test_no_two_releases_carry_the_same_noise(releases: list[Seen]) -> None:
    for length in {len(seen.words) for seen in releases}:
        noises = [seen.noise for seen in releases if len(seen.words) == length]
        allowed = correlation_allowed(length, math.comb(len(noises), 2), confidence=SURE)
        assert largest_correlation(noises) < min(allowed, 0.999)


def test_noise_is_another_in_releases_of_other_lengths_too(releases: list[Seen]) -> None:
    longest = max(releases, key=lambda seen: len(seen.words)).noise
    for seen in releases:
        if len(seen.words) < len(longest):
            allowed = correlation_allowed(len(seen.words), len(releases), confidence=SURE)
            assert largest_correlation([seen.noise, longest[: len(seen.words)]]) < min(allowed, 0.999)


def _charged(seen: Seen) -> list[float]:
    """The squared mu that the ledger holds for each person in a release, in the order of the rows."""
    name, found = release_name(seen.run.name, seen.stage), []
    for handle in seen.rows.handles:
        charges = [spend for paid_for, spend in seen.holder.ledger.paid(handle) if paid_for == name]
        assert len(charges) == 1
        assert isinstance(charges[0], GaussianSpend)
        found.append(charges[0].mu ** 2)
    return found


def test_every_release_is_charged_to_everybody_in_it_by_their_share(releases: list[Seen]) -> None:
    for seen in releases:
        measured = isinstance(seen.letter.header, Measurement)
        whole = (
            measurement_spend(seen.run.plan) if measured else seen.run.recipe.spend(seen.stage, len(seen.rows.handles))
        )
        for charge, share in zip(_charged(seen), seen.rows.shares.tolist(), strict=True):
            expected = at_share(whole, share)
            assert isinstance(expected, GaussianSpend)
            assert charge == pytest.approx(expected.mu**2, rel=1e-9)


def test_a_run_costs_each_person_their_share_of_the_plan_and_nothing_is_left_out(releases: list[Seen]) -> None:
    plan = releases[0].run.plan
    mu = mu_on_grid(plan.privacy.epsilon, plan.privacy.delta)
    for holder in {seen.holder.name: seen.holder for seen in releases}.values():
        own = [seen for seen in releases if seen.holder is holder and not isinstance(seen.letter.header, Measurement)]
        totals = np.sum([_charged(seen) for seen in own], axis=0)
        assert len({tuple(seen.rows.handles) for seen in own}) == 1
        np.testing.assert_allclose(totals, (mu * own[0].rows.shares) ** 2, rtol=1e-9)


def test_nobody_really_lost_more_than_they_were_charged(releases: list[Seen]) -> None:
    checked = 0
    for seen in releases:
        shape, charged, full = seen.run.shape(seen.stage), _charged(seen), seen.exact(seen.rows.shares)
        for i in range(0, len(charged), max(1, len(charged) // 8)):
            without = seen.rows.shares.copy()
            without[i] = 0
            lost = mu_squared([Step(full, seen.exact(without), shape.variance)])
            # Rounding to the grid weighs a little more where the share is small.
            assert lost <= charged[i] * (1 + 1e-4)
            checked += lost > 0
    assert checked > 100


def test_shares_differ_so_that_the_tests_above_mean_something(releases: list[Seen]) -> None:
    shares = np.concatenate([seen.rows.shares for seen in releases])
    assert len(set(shares.tolist())) > 1
    assert shares.min() < 0.6
