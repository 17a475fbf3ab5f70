"""Shares judged by slow fractions, by linear algebra, and the modulus by Miller and Rabin's test."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secure_sum.shamir import PRIME, SHARE_BYTES, Basis, combined, drawn_coefficients, share_of
from tests.privacy.secure_sum.world import slow_value

elements = st.integers(0, PRIME - 1)


def polynomial_at(coefficients: list[int], point: int) -> int:
    total: int = sum(coefficient * point**k for k, coefficient in enumerate(coefficients))
    return total % PRIME


def is_probably_prime(n: int) -> bool:
    """Miller and Rabin with the first 40 primes: a composite passes each with a chance below 1/4."""
    witnesses = [k for k in range(2, 174) if all(k % d for d in range(2, k))]
    assert len(witnesses) == 40
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in witnesses:
        if pow(witness, odd, n) in (1, n - 1):
            continue
        if not any(pow(witness, odd << k, n) == n - 1 for k in range(1, twos)):
            return False
    return True


def test_the_modulus_is_the_least_prime_above_every_secret() -> None:
    assert 2**256 <= PRIME < 2 ** (8 * SHARE_BYTES)
    assert is_probably_prime(PRIME)
    assert not any(is_probably_prime(n) for n in range(2**256, PRIME))


@settings(max_examples=40, deadline=None)
@given(st.lists(elements, min_size=1, max_size=6), st.data())
def test_any_threshold_shares_give_the_secret_and_every_other_share(
    coefficients: list[int], data: st.DataObject
) -> None:
    points = data.draw(
        st.lists(st.integers(1, 60), min_size=len(coefficients), max_size=len(coefficients) + 4, unique=True)
    )
    shares = {point: share_of(coefficients, point) for point in points}
    assert shares == {point: polynomial_at(coefficients, point) for point in points}
    for chosen in itertools.islice(itertools.combinations(points, len(coefficients)), 20):
        basis, values = Basis(chosen), [shares[point] for point in chosen]
        assert combined(basis.weights(), values) == coefficients[0]
        for point in points:
            assert combined(basis.weights(point), values) == shares[point]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(1, 100), elements, min_size=1, max_size=6), st.integers(0, 120))
def test_interpolation_is_lagranges_by_fractions(values: dict[int, int], at: int) -> None:
    assert combined(Basis(list(values)).weights(at), list(values.values())) == slow_value(values, at)


@settings(max_examples=25, deadline=None)
@given(st.lists(elements, min_size=2, max_size=6), elements)
def test_one_share_too_few_is_consistent_with_every_secret(coefficients: list[int], other: int) -> None:
    threshold = len(coefficients)
    seen = {point: share_of(coefficients, point) for point in range(1, threshold)}
    # Newton's form: (x - 1)(x - 2)... vanishes wherever a share was seen, so any multiple of it can be added.
    vanishing = [1]
    for point in seen:
        vanishing = [a - point * b for a, b in zip([0, *vanishing], [*vanishing, 0], strict=True)]
    scale = (other - coefficients[0]) * pow(vanishing[0], -1, PRIME)
    rival = [(a + scale * b) % PRIME for a, b in zip(coefficients, vanishing, strict=True)]
    assert len(rival) == threshold
    assert rival[0] == other
    assert {point: polynomial_at(rival, point) for point in seen} == seen


def test_coefficients_are_repeatable_distinct_and_spread_over_the_field() -> None:
    drawn = drawn_coefficients(bytes(32), "use", "run", 3, count=400)
    assert drawn == drawn_coefficients(bytes(32), "use", "run", 3, count=400)
    others = [
        *drawn_coefficients(bytes(32), "use", "run", 4, count=400),
        *drawn_coefficients(bytes(32), "other use", "run", 3, count=400),
        *drawn_coefficients(bytes(31) + b"\1", "use", "run", 3, count=400),
    ]
    assert len({*drawn, *others}) == 1600
    assert all(0 <= value < PRIME for value in drawn)
    # 400 uniform draws: each sixteenth of the field gets 25, give or take 5 deviations.
    sixteenths = [value * 16 // PRIME for value in drawn]
    assert all(abs(sixteenths.count(k) - 25) < 5 * 25**0.5 for k in range(16))


@pytest.mark.parametrize("points", [[], [0], [1, 1], [-1], [2**32 + 1]])
def test_unlawful_points_are_refused(points: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct points"):
        Basis(points)


def test_weights_go_with_as_many_values() -> None:
    with pytest.raises(ValueError, match="as many"):
        combined(Basis([1, 2]).weights(), [5])
