"""One release summed over the data holders that make it. Who does not is left out of it, named, and free to return."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import numpy as np

from federated.messages import Letter, Update
from federated.plan import TrainingPlan
from federated.trust import TrustModel
from privacy.discrete import discrete_gaussian
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Words, add_words
from privacy.noise import NoiseSource, Vector
from server.answers import Absence, Answers, code_of, told
from server.cohort import Cohort
from server.exchange import Exchange
from server.memory import BegunRun, LedgerMarks, Total, Updates
from server.secure_sums import MaskedSums
from server.stage import Stage
from server.visible_sums import aggregated

ROLLED_BACK = Absence("its privacy ledger has lost entries since its last release", RefusalCode.INTEGRITY)
OUT_OF_BOUNDS = Absence("its numbers are larger than any people and noise can make them", RefusalCode.INTEGRITY)


@dataclass(frozen=True, slots=True)
class Release:
    """One release as the coordinator saw it.

    `updates` are the signed headers of those in its sum; `left_out` says of every other member why not. `unhelpful`
    names those who did not help to take the masks off, or lied. Reasons are a refusal's code or a few words.
    """

    name: str
    updates: Mapping[str, Update]
    left_out: Mapping[str, str]
    unhelpful: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Summed:
    """The numbers of one release over `contributors` data holders.

    `deviation` is the standard deviation of the noise in each number of a plain sum, in the numbers' own unit; of a
    median it is up to sqrt(pi / 2) of that. 0 where no noise is added to the sum.
    """

    total: Vector
    contributors: int
    deviation: float
    release: Release

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers (little-endian float64), in hex."""
        return hashlib.sha256(self.total.astype("<f8").tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Sums:
    """The releases of one run. `noise` gives the coordinator's own for a stage, where the plan has it add any."""

    plan: TrainingPlan
    cohort: Cohort
    exchange: Exchange
    answers: Answers
    begun: BegunRun
    marks: LedgerMarks
    noise: Callable[[int], NoiseSource]
    look_for_silent: Callable[[], None]  # before anybody is asked for a release
    # Everybody's ledger at its last release; of whoever has lost entries, longer than any, for the rest of the run.
    _longest: dict[str, float] = field(default_factory=dict, init=False)

    def of(self, stage: Stage, letter: Letter) -> Summed:
        """Ask every member for its update and add up what came; what an earlier try has kept is not asked again.

        RefusalError if too few came, or if the sum is larger than lawful updates can make it.
        """
        name = stage.name(self.cohort.run)
        updates = self.begun.updates(stage.number)
        if updates is None:
            updates = self._asked(stage, name, letter)
            self.begun.keep_updates(stage.number, updates)
        self._longest.update({holder: header.ledger.size for holder, header in updates.headers.items()})
        forked = [holder for holder, reason in updates.left_out.items() if reason == ROLLED_BACK.reason]
        self._longest.update(dict.fromkeys(forked, math.inf))
        total = self.begun.total(stage.number)
        if total is None:
            words = {holder: words_of(content) for holder, content in updates.words.items()}
            numbers, unhelpful = self._total(stage, name, words)
            total = Total(numbers.astype("<f8").tobytes(), _reasons(unhelpful))
            self.begun.keep_total(stage.number, total)
        contributors = len(updates.headers)
        variance = contributors * self._each(stage)
        if self.plan.trust is TrustModel.COORDINATOR_NOISE:
            variance = stage.shape.variance
        return Summed(
            total=np.frombuffer(total.numbers, "<f8").astype(np.float64),
            contributors=contributors,
            deviation=math.sqrt(variance) * stage.step,
            release=Release(name, updates.headers, updates.left_out, total.unhelpful),
        )

    def _asked(self, stage: Stage, name: str, letter: Letter) -> Updates:
        self.look_for_silent()
        read = partial(self.answers.update, release=name, length=stage.shape.length)
        found, absent = self.exchange.ask(dict.fromkeys(self.cohort.members, letter), act=stage.act, read=read)
        for holder, (header, words) in list(found.items()):
            if header.ledger.size <= self._longest.get(holder, 0):
                # A ledger that has lost a release answers it anew; its mark would make the loss the truth.
                absent[holder] = ROLLED_BACK
            elif not self.plan.trust.is_masked and not self._lawful(stage, words):
                absent[holder] = OUT_OF_BOUNDS
        self.marks.keep(
            {holder: seen.ledger for holder, (seen, _) in found.items() if absent.get(holder) is not ROLLED_BACK}
        )
        found = {holder: update for holder, update in found.items() if holder not in absent}
        if len(found) < self.cohort.threshold:
            raise _too_few(stage, len(found), self.cohort, absent)
        return Updates(
            headers={holder: header for holder, (header, _) in found.items()},
            words={holder: words.astype("<u8").tobytes() for holder, (_, words) in found.items()},
            left_out=_reasons(absent),
        )

    def _total(self, stage: Stage, name: str, words: Mapping[str, Words]) -> tuple[Vector, dict[str, Absence]]:
        grid = stage.shape.grid
        match self.plan.trust:
            case TrustModel.HOLDER_NOISE:
                trimmed = self.plan.dropouts_tolerated
                return aggregated(words, grid, self.plan.aggregation, trimmed=trimmed), {}
            case TrustModel.COORDINATOR_NOISE:
                exact, unhelpful = self._unmasked(stage, name, words)
                # Drawn again only if nobody has seen the first draw: it is kept before anything follows from it.
                drawn = discrete_gaussian(len(exact), stage.shape.variance, self.noise(stage.number))
                return grid.decode(add_words([exact, grid.from_steps(drawn)])), unhelpful
            case TrustModel.SHARED_NOISE:
                total, unhelpful = self._unmasked(stage, name, words)
                return grid.decode(total), unhelpful
            case _:
                assert_never(self.plan.trust)

    def _unmasked(self, stage: Stage, name: str, words: Mapping[str, Words]) -> tuple[Words, dict[str, Absence]]:
        masked = MaskedSums(self.cohort, self.exchange, self.answers)
        total, unhelpful = masked.unmask(stage.number, name, words)
        if not self._lawful(stage, total, holders=len(words)):
            raise RefusalError(
                f"The sum of {stage.what} is larger than the plan's people and noise can make it: somebody's update is "
                "out of bounds, and a secure sum does not show whose. The run ends here without a model; what was "
                "charged stays charged. The coordinator should ask every data holder to check its rows, and write a "
                "plan without whoever cannot explain them.",
                RefusalCode.INTEGRITY,
            )
        return total, unhelpful

    def _each(self, stage: Stage) -> int:
        """The variance of the noise that each data holder adds, in squared grid steps."""
        return stage.shape.holder_variance(
            self.plan.trust, members=len(self.cohort.joined), dropouts_tolerated=self.plan.dropouts_tolerated
        )

    def _lawful(self, stage: Stage, words: Words, *, holders: int = 1) -> bool:
        values = stage.shape.grid.decode(words)
        return stage.can_be(values, holders=holders, variance=holders * self._each(stage))


def words_of(content: bytes) -> Words:
    """The words of one update, as they were kept."""
    return np.frombuffer(content, "<u8").astype(np.uint64)


def _reasons(absent: Mapping[str, Absence]) -> dict[str, str]:
    return {holder: absence.reason for holder, absence in sorted(absent.items())}


def _too_few(stage: Stage, left: int, cohort: Cohort, absent: Mapping[str, Absence]) -> RefusalError:
    code = code_of(absent)
    text = (
        f"{left} data holders are left in {stage.what} and {cohort.threshold} are needed ({told(absent)}). The run "
        "ends here without a model; what was charged stays charged. The coordinator should ask the operators of those "
        "named, then run the same plan again: what was released is not asked again."
    )
    if code in {RefusalCode.CONSENT, RefusalCode.REPLAY}:
        text += (
            " Where a data holder says consent, somebody in a release has withdrawn since, and where it says replay, "
            "it has answered another question under this name: then the coordinator should write another plan."
        )
    return RefusalError(text, code)
