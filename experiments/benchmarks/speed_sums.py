"""What secure sums cost: processor time of one data holder and of the coordinator, set-up and round apart."""

import secrets as system
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Final

import numpy as np

from experiments.benchmarks.speed import timed
from privacy.discrete import discrete_gaussian
from privacy.errors import TamperingError
from privacy.grid import Words, add_words
from privacy.noise import SecureNoise
from privacy.secure_sum.secrets import Secrets
from privacy.secure_sum.unmask import Unmasker

RUN: Final = "0" * 32
STAGES: Final = 11  # releases of the default recipe's run
VARIANCE: Final = 2**50  # squared grid steps: a fitted grid has 2^24 to 2^25 steps a deviation
NAMES: Final = "holder-{:04d}"


@dataclass(frozen=True, slots=True)
class RoundCost:
    """Processor seconds of one round: of one data holder (mean of all) to mask and to reveal, of the coordinator."""

    mask: float
    reveal: float
    coordinator: float


class SecureSums:
    """Data holders that have joined one run and dealt their shares; `set_up` is what that took each, in seconds."""

    def __init__(self, holders: int, *, tolerated: int) -> None:
        self._names = [NAMES.format(place) for place in range(holders)]
        threshold = holders - tolerated
        made = [
            timed(partial(Secrets, system.token_bytes(32), run=RUN, holder=name, stages=STAGES)) for name in self._names
        ]
        everybody = {name: secrets for name, (_, secrets) in zip(self._names, made, strict=True)}
        joined = {name: secrets.public for name, secrets in everybody.items()}
        dealt = {name: timed(partial(each.deal, joined, threshold=threshold)) for name, each in everybody.items()}
        opened = {}
        for name, each in everybody.items():
            sealed = {dealer: shares[name] for dealer, (_, shares) in dealt.items() if dealer != name}
            opened[name] = timed(partial(each.member, joined, self._names, sealed, threshold=threshold))
        self.set_up = mean(
            [first + dealt[name][0] + opened[name][0] for name, (first, _) in zip(self._names, made, strict=True)]
        )
        self._members = {name: member for name, (_, member) in opened.items()}
        self._unmasker = Unmasker(joined, self._names, run=RUN, threshold=threshold)

    def round(self, stage: int, numbers: int, *, dropouts: int) -> RoundCost:
        """One release of that many numbers, `dropouts` data holders gone after they masked for it.

        TamperingError if what comes out is not the sum of what the others put in.
        """
        words = {name: _words(numbers) for name in self._names}
        masks = {
            name: timed(partial(member.mask, stage, self._names, numbers)) for name, member in self._members.items()
        }
        survivors = self._names[: len(self._names) - dropouts]
        reveals = {
            name: timed(partial(self._members[name].reveal, stage, self._names, survivors)) for name in survivors
        }
        masked = {name: words[name] + masks[name][1] for name in survivors}
        told = {name: reveal for name, (_, reveal) in reveals.items()}
        seconds, unmasked = timed(lambda: self._unmasker.unmask(stage, self._names, masked, told))
        if not np.array_equal(unmasked.total, add_words(words[name] for name in survivors)):
            raise TamperingError("A secure sum is not the sum of its words; the benchmark measures nothing.")
        return RoundCost(
            mask=mean([spent for spent, _ in masks.values()]),
            reveal=mean([spent for spent, _ in reveals.values()]),
            coordinator=seconds,
        )


def noise_seconds(numbers: int, *, repeats: int) -> float:
    """Processor seconds of one data holder's exact noise for a release of that many numbers."""
    chance = SecureNoise()
    return mean([timed(lambda: discrete_gaussian(numbers, VARIANCE, chance))[0] for _ in range(repeats)])


def _words(numbers: int) -> Words:
    return np.frombuffer(system.token_bytes(8 * numbers), dtype=np.uint64)
