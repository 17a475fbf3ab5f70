"""Who is at which data holder, and what they agree to: a made-up population over the rows of a public data set.

The layout comes from a public constant, so that everybody's demo has the same people; keys, handles and noise do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError

LAYOUT_SEED = 20050930
HELD_OUT_SHARE = 0.25
AT_TWO_HOLDERS = 0.10

HOLDER_NAMES = (
    "aster-bank", "birch-telecom", "cedar-power", "dahlia-stores", "elm-credit-union",
    "fern-water", "ginkgo-mobile", "hazel-insurance", "iris-rentals", "juniper-books",
)  # fmt: skip


class Attitude(StrEnum):
    """What a person does about consent, at every data holder alike."""

    AGREES = "agrees"
    SILENT = "silent"  # never wrote a record
    SCORE_ONLY = "score-only"  # may be scored, not trained on
    WITHDREW = "withdrew"  # granted, then withdrew
    EXPIRED = "expired"  # granted, and the grant has run out
    FROZE = "froze"  # granted, then froze everything
    PARTIAL = "partial"  # granted, for some categories of characteristics only


_ATTITUDES: Mapping[Attitude, float] = {
    Attitude.AGREES: 0.85,
    Attitude.SILENT: 0.05,
    Attitude.SCORE_ONLY: 0.03,
    Attitude.WITHDREW: 0.03,
    Attitude.EXPIRED: 0.02,
    Attitude.FROZE: 0.01,
    Attitude.PARTIAL: 0.01,
}
# Caps in epsilon and how many wish them. Whoever is below the smallest tier cannot take part, and is told so.
_CAPS = {8.0: 0.20, 4.0: 0.35, 2.0: 0.33, 1.0: 0.07, 0.5: 0.03, 0.25: 0.01, 0.1: 0.01}
_SPLITS = (
    (500, 500),
    (700, 300),
    (300, 700),
)  # shares of the unit clipping norm at two data holders, in thousandths
_CAUTIOUS = 0.05  # people at one data holder who lend it 600 thousandths only


@dataclass(frozen=True, slots=True)
class Membership:
    """One person at one data holder."""

    person: int  # row of the data set
    holder: str
    share_milli: int


@dataclass(frozen=True)
class Population:
    """Everybody: memberships in order of person, and for each person attitude, cap and sample."""

    holders: tuple[str, ...]
    memberships: tuple[Membership, ...]
    attitudes: tuple[Attitude, ...]
    caps: NDArray[np.float64]  # (people,), epsilon
    held_out: NDArray[np.bool_]  # (people,)

    @cached_property
    def places(self) -> dict[int, list[Membership]]:
        """Each person's memberships."""
        found: dict[int, list[Membership]] = {person: [] for person in range(len(self.attitudes))}
        for place in self.memberships:
            found[place.person].append(place)
        return found

    def at(self, holder: str) -> list[Membership]:
        """The memberships of one data holder, in order of person."""
        return [membership for membership in self.memberships if membership.holder == holder]


def populate(outcome: NDArray[np.float64], holders: int, *, everybody_agrees: bool, split_seed: int = 0) -> Population:
    """A population over people with these outcomes (people,; 1 is bad), spread over data holders of unlike sizes.

    The held-out quarter is stratified by outcome; `split_seed` chooses another one. UsageError for fewer than 2 or
    more data holders than the people can fill.
    """
    people = len(outcome)
    if not 2 <= holders <= people // 20:
        raise UsageError(
            f"{holders} data holders were asked for; {people} people can fill 2 to {people // 20}. "
            "Give --holders a number in that range."
        )
    chance = np.random.default_rng([LAYOUT_SEED, split_seed])
    names = tuple(
        HOLDER_NAMES[k] if k < len(HOLDER_NAMES) else f"{HOLDER_NAMES[k % len(HOLDER_NAMES)]}-{k // len(HOLDER_NAMES)}"
        for k in range(holders)
    )
    sizes = 1 / np.arange(1, holders + 1)
    first = chance.choice(holders, size=people, p=sizes / sizes.sum())
    # Another holder than the first, by the same sizes: drawn until it differs would not end for certain.
    second = (first + chance.integers(1, holders, size=people)) % holders
    at_two = chance.random(people) < AT_TWO_HOLDERS
    split = chance.integers(0, len(_SPLITS), size=people)
    cautious = chance.random(people) < (0.0 if everybody_agrees else _CAUTIOUS)
    memberships = []
    for person in range(people):
        shares = _SPLITS[split[person]] if at_two[person] else (600 if cautious[person] else 1000,)
        for holder, share in zip((first[person], second[person]), shares, strict=False):
            memberships.append(Membership(person, names[holder], share))
    attitudes = list(_ATTITUDES)
    drawn = chance.choice(len(attitudes), size=people, p=list(_ATTITUDES.values()))
    caps = chance.choice(list(_CAPS), size=people, p=list(_CAPS.values()))
    return Population(
        holders=names,
        memberships=tuple(memberships),
        attitudes=tuple(Attitude.AGREES if everybody_agrees else attitudes[k] for k in drawn),
        caps=np.full(people, 8.0) if everybody_agrees else caps,
        held_out=_held_out(outcome, chance),
    )


def _held_out(outcome: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.bool_]:
    held_out = np.zeros(len(outcome), dtype=np.bool_)
    for stratum in (0.0, 1.0):
        members = np.flatnonzero(outcome == stratum)
        held_out[chance.permutation(members)[: round(HELD_OUT_SHARE * len(members))]] = True
    return held_out
