"""Data holders of one run in memory, an honest coordinator, and one that collects all it can."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from privacy.grid import Words
from privacy.secure_sum.derivation import derive
from privacy.secure_sum.keys import Introduction, PublicKeys
from privacy.secure_sum.locks import Entry, opened, share_of_lock, view_digest
from privacy.secure_sum.masks import cohort_digest
from privacy.secure_sum.member import Member, Reveal
from privacy.secure_sum.secrets import Secrets
from privacy.secure_sum.unmask import Unmasked, Unmasker

RUN = "0123456789abcdef"
LENGTH = 6
PRIME = 2**256 + 297


def names_of(count: int) -> list[str]:
    return [f"holder-{chr(97 + k)}" for k in range(count)]


def secrets_of(name: str, *, stages: int, run: str = RUN) -> Secrets:
    return Secrets(hashlib.sha256(f"secret of {name}".encode()).digest(), run=run, holder=name, stages=stages)


@dataclass(frozen=True)
class World:
    secrets: Mapping[str, Secrets]
    joined: Mapping[str, PublicKeys]
    sealed: Mapping[str, Mapping[str, bytes]]
    names: list[str]  # the members
    threshold: int
    members: Mapping[str, Member]

    @property
    def unmasker(self) -> Unmasker:
        return Unmasker(self.joined, self.names, run=RUN, threshold=self.threshold)

    def introduction(self) -> Introduction:
        return Introduction(self.joined, run=RUN, threshold=self.threshold)

    def member(self, name: str) -> Member:
        """One that has not revealed anything yet."""
        sealed = {dealer: self.sealed[dealer][name] for dealer in self.names if dealer != name}
        return self.secrets[name].member(self.joined, self.names, sealed, threshold=self.threshold)

    def view(self, stage: int, cohort: Sequence[str], survivors: Sequence[str]) -> bytes:
        return view_digest(cohort_digest(self.introduction().digest, stage, cohort), survivors)

    def words(self, stage: int = 1, length: int = LENGTH) -> dict[str, Words]:
        drawn = np.random.default_rng(stage).integers(0, 2**64, (len(self.names), length), dtype=np.uint64)
        return dict(zip(self.names, drawn, strict=True))

    def masked(self, stage: int, cohort: Sequence[str], words: Mapping[str, Words]) -> dict[str, Words]:
        return {name: words[name] + self.members[name].mask(stage, cohort, len(words[name])) for name in cohort}

    def reveals(
        self, stage: int, cohort: Sequence[str], survivors: Sequence[str], helpers: Iterable[str] | None = None
    ) -> dict[str, Reveal]:
        helpers = survivors if helpers is None else helpers
        return {name: self.members[name].reveal(stage, cohort, survivors) for name in helpers}

    def summed(
        self, stage: int, survivors: Sequence[str], *, helpers: Iterable[str] | None = None, length: int = LENGTH
    ) -> tuple[Unmasked, Words]:
        """What comes out of one release of the whole membership, and the sum of the survivors' words by hand."""
        words = self.words(stage, length)
        masked = self.masked(stage, self.names, words)
        reveals = self.reveals(stage, self.names, survivors, helpers)
        unmasked = self.unmasker.unmask(stage, self.names, {name: masked[name] for name in survivors}, reveals)
        exact = [sum(int(words[name][k]) for name in survivors) % 2**64 for k in range(length)]
        return unmasked, np.array(exact, dtype=np.uint64)


def world(count: int, tolerated: int, *, stages: int = 2, dealt: int | None = None) -> World:
    """`count` data holders join, the first `dealt` of them deal."""
    names = names_of(count)
    secrets = {name: secrets_of(name, stages=stages) for name in names}
    joined = {name: each.public for name, each in secrets.items()}
    threshold = count - tolerated
    members = names[:dealt]
    sealed = {name: secrets[name].deal(joined, threshold=threshold) for name in members}
    made = World(secrets, joined, sealed, members, threshold, {})
    return World(secrets, joined, sealed, members, threshold, {name: made.member(name) for name in members})


def slow_value(points: Mapping[int, int], at: int = 0) -> int:
    """Lagrange's polynomial through `points`, by fractions: nothing modular until the end."""
    total = Fraction(0)
    for x, y in points.items():
        term = Fraction(y)
        for other in points:
            if other != x:
                term *= Fraction(at - other, x - other)
        total += term
    return total.numerator * pow(total.denominator, -1, PRIME) % PRIME


@dataclass(frozen=True)
class Story:
    cohort: tuple[str, ...]
    survivors: tuple[str, ...]


@dataclass
class Liar:
    """A coordinator that tells each honest data holder its own story, with colluding holders' secrets in hand."""

    world: World
    stage: int
    colluders: frozenset[str]
    stories: Mapping[str, Story]  # of honest holders, each of whom answers

    def opened_shares(self) -> dict[str, dict[str, dict[int, int]]]:
        """By kind and dealer, the shares by point that it can read: the colluders' own, and what honest locks yield.

        It takes for a lock whatever any honest holder with the same story gave, and every colluder's part.
        """
        points = self.world.introduction().points
        known: dict[str, dict[str, dict[int, int]]] = {kind: {name: {} for name in points} for kind in ("seed", "key")}
        for colluder in self.colluders:
            for dealer in self.world.names:
                dealt = self.world.members[colluder]._dealt[dealer]
                known["seed"][dealer][points[colluder]] = dealt.seeds[self.stage - 1]
                known["key"][dealer][points[colluder]] = dealt.keys[self.stage - 1]
        for holder, story in self.stories.items():
            for dealer, share in (self._behind(holder, story) or {}).items():
                kind = "seed" if dealer in story.survivors else "key"
                known[kind][dealer][points[holder]] = share
        return known

    def _entries(self, holder: str) -> dict[str, Entry]:
        story = self.stories[holder]
        reveal = self.world.member(holder).reveal(self.stage, story.cohort, story.survivors)
        about = {**reveal.seeds, **reveal.keys}
        return {name: Entry.from_bytes(about[name]) for name in story.cohort}

    def _behind(self, holder: str, story: Story) -> dict[str, int] | None:
        view = self.world.view(self.stage, story.cohort, story.survivors)
        points, entries = self.world.introduction().points, self._entries(holder)
        parts = {holder: int.from_bytes(entries[holder].padded, "big")}
        for other in story.cohort:
            if other in self.colluders:
                # A colluder computes the pads for any story, its own survival or not.
                channel = self.world.members[other]._own.channels[holder]
                pad = derive(channel, "pad", view, holder, other, length=33)
                parts[other] = share_of_lock(entries[other], Entry(b"", b"", pad))
            elif other != holder and self.stories.get(other) == story:
                parts[other] = share_of_lock(entries[other], self._entries(other)[holder])
        if len(parts) < self.world.threshold:
            return None
        chosen = dict(list(parts.items())[: self.world.threshold])
        key = slow_value({points[name]: part for name, part in chosen.items()})
        return opened(entries, key, holder=holder, view=view)

    def secrets(self) -> dict[str, set[str]]:
        """By kind, whose secret it can reconstruct."""
        return {
            kind: {dealer for dealer, shares in of.items() if len(shares) >= self.world.threshold}
            for kind, of in self.opened_shares().items()
        }
