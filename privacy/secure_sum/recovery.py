"""Secrets from shares some of which may be wrong: each candidate is checked, and wrong shares are told apart.

A secret that passes its check does not prove the shares right that gave it: liars can make wrong shares that give the
right secret together with some right ones, and the rest look wrong then. So there may be several explanations, and
nobody is blamed unless there is one.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from privacy.secure_sum.shamir import Basis, combined

MOST_TRIES: Final = 1000
"""Of sets of holders whose shares are tried together. Where there are no more, all of them are. Else a try succeeds
with a chance of about (fraction of holders that can be spared) to the power of the liars: 1,000 find four liars among
a hundred of whom a third can be spared, but for one case in 10,000. Forty of whom a third can be spared stand about as
many; more liars than that, though fewer than are tolerated, can keep the masks on and stay unnamed. Then nothing is
learnt and the run ends, as if they had not answered."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The secrets that were found, and which holders' shares of which of them are wrong beyond doubt."""

    secrets: Mapping[str, int]
    wrong: Mapping[str, frozenset[str]]  # holder -> secrets


def recover(
    shares: Mapping[str, Mapping[str, int]],
    *,
    points: Mapping[str, int],
    threshold: int,
    is_right: Callable[[str, int], bool],
) -> Recovered:
    """As many of the secrets, by name, as the shares give. `shares` maps names to shares by holder, of all the same
    holders.
    """
    holders = sorted(next(iter(shares.values()))) if shares else []
    every_set = math.comb(len(holders), threshold) <= MOST_TRIES
    found: dict[str, int] = {}
    explanations: dict[str, set[frozenset[str]]] = {name: set() for name in shares}
    unsettled = list(shares)
    for chosen in itertools.islice(_choices(holders, threshold, every_set), MOST_TRIES):
        basis = Basis([points[holder] for holder in chosen])
        others = {holder: points[holder] for holder in holders if holder not in set(chosen)}
        weights: dict[str, list[int]] = {}  # only where they are needed: most sets of an unlucky search give no secret
        at_zero = basis.weights()
        for name in unsettled:
            values = [shares[name][holder] for holder in chosen]
            secret = combined(at_zero, values)
            if found.get(name) == secret or (name not in found and is_right(name, secret)):
                found[name] = secret
                weights = weights or {holder: basis.weights(point) for holder, point in others.items()}
                wrong = (holder for holder, each in weights.items() if combined(each, values) != shares[name][holder])
                explanations[name].add(frozenset(wrong))
        # A share beyond the threshold that fits leaves no room for another explanation without a liar.
        unsettled = [name for name in unsettled if name not in found or (every_set and any(explanations[name]))]
        if not unsettled:
            break
    blamed: dict[str, set[str]] = {holder: set() for holder in holders}
    for name, sets in explanations.items():
        if len(sets) == 1 and (every_set or _is_only_one(next(iter(sets)), len(holders), threshold)):
            for holder in next(iter(sets)):
                blamed[holder].add(name)
    return Recovered(found, {holder: frozenset(names) for holder, names in blamed.items()})


def _is_only_one(wrong: frozenset[str], holders: int, threshold: int) -> bool:
    # Two polynomials with one secret agree at fewer than threshold - 1 holders, so two explanations together blame at
    # least holders - threshold + 2: with fewer than half of that, no other one is as small.
    return 2 * len(wrong) < holders - threshold + 2


def _choices(holders: Sequence[str], threshold: int, every_set: bool) -> Iterator[Sequence[str]]:
    if every_set:
        return itertools.combinations(holders, threshold)
    return (sorted(holders, key=lambda name: _place(name, number))[:threshold] for number in itertools.count())


def _place(name: str, number: int) -> bytes:
    # Not random, so that a sum is repeatable. Liars who know it can make unmasking slow or fail, as by not answering.
    return hashlib.sha256(f"{number}|{name}".encode()).digest()
