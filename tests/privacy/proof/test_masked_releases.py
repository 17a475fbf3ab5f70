"""The same in a secure sum, the default: the coordinator sees words that say nothing, and a sum with enough noise."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from federated.trust import TrustModel
from privacy.audit.noise import correlation_allowed, largest_correlation, variance_below
from privacy.grid import Words
from privacy.secure_sum.unmask import Unmasked, Unmasker
from tests.privacy.proof.watching import STEPS, Seen, watched

HOLDERS, DROPOUTS = 4, 1
SURE = 1 - 1e-9


@pytest.fixture(scope="module")
def totals() -> dict[int, Words]:
    """By stage, what the coordinator had in hand once the masks were off."""
    return {}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, totals: dict[int, Words]) -> Iterator[list[Seen]]:
    original = Unmasker.unmask

    def recorded(self: Unmasker, stage: int, *rest: Any, **named: Any) -> Unmasked:
        found = original(self, stage, *rest, **named)
        totals[stage] = found.total
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Unmasker, "unmask", recorded)
        home = tmp_path_factory.mktemp("masked") / "federation"
        with watched(home, TrustModel.SHARED_NOISE, holders=HOLDERS) as seen:
            yield seen


def noises(releases: list[Seen], totals: dict[int, Words]) -> dict[int, NDArray[np.float64]]:
    """By stage, what the sum holds beyond the exact one, in standard deviations of what it needs."""
    found: dict[int, NDArray[np.float64]] = {}
    for stage, total in totals.items():
        parts = [seen for seen in releases if seen.stage == stage]
        assert len(parts) == HOLDERS
        left = total.copy()
        for seen in parts:
            left -= seen.exact(seen.rows.shares)
        found[stage] = left.view(np.int64) / math.sqrt(parts[0].run.shape(stage).variance)
    return found


def test_every_sum_was_seen(releases: list[Seen], totals: dict[int, Words]) -> None:
    assert sorted(totals) == list(range(1, STEPS + 4))
    assert all(seen.run.plan.dropouts_tolerated == DROPOUTS for seen in releases)


def test_the_sum_has_the_noise_it_needs_even_if_the_drop_outs_had_left(
    releases: list[Seen], totals: dict[int, Words]
) -> None:
    drawn = np.concatenate(list(noises(releases, totals).values()))
    expected = HOLDERS / (HOLDERS - DROPOUTS)  # nobody left
    assert variance_below(drawn, confidence=SURE) >= expected
    assert float(np.square(drawn).mean()) <= expected * (1 + 7 * math.sqrt(2 / len(drawn)))


def test_no_two_sums_carry_the_same_noise(releases: list[Seen], totals: dict[int, Words]) -> None:
    found = noises(releases, totals)
    for length in {len(one) for one in found.values()}:
        alike = [one for one in found.values() if len(one) == length]
        if len(alike) > 1:
            allowed = correlation_allowed(length, math.comb(len(alike), 2), confidence=SURE)
            assert largest_correlation(alike) < min(allowed, 0.999)


def test_words_of_one_data_holder_look_like_chance(releases: list[Seen]) -> None:
    words = np.concatenate([seen.words for seen in releases])
    ones = sum(int(np.count_nonzero(words >> np.uint64(bit) & np.uint64(1))) for bit in range(64))
    spread = math.sqrt(64 * len(words)) / 2
    assert abs(ones - 32 * len(words)) < 6.5 * spread
    for seen in releases:
        # Nothing is left of what the data holder computed: the largest sum has far fewer than 62 bits.
        beyond = (seen.words - seen.exact(seen.rows.shares)).view(np.int64)
        assert np.count_nonzero(np.abs(beyond) > 2**61) > len(beyond) / 2
