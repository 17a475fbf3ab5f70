"""Every release of a whole run by real data holders: as it left, and what the data holder knows of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.holder import release
from clients.holder.gate import PermittedRows
from clients.holder.node import Holder
from clients.holder.run import Run
from experiments.session import Session
from federated.messages import Instruction, Letter, Measurement, Update
from federated.releases import Shape, measurement_stage
from federated.rows import EncodedRows
from federated.scorecard import Scorecard
from federated.trust import TrustModel
from privacy.consent.record import Purpose
from privacy.grid import Words
from privacy.noise import NoiseSource
from server.rounds import no_progress
from tests.small_federation import small_federation

AT = 1_793_491_200
STEPS = 4


@dataclass(frozen=True)
class Seen:
    """One release as it left a data holder, and what that data holder knows of it."""

    holder: Holder
    run: Run
    stage: int
    letter: Letter
    words: Words
    rows: PermittedRows
    computed: NDArray[np.float64]  # the numbers that the noise was added to

    def exact(self, share: NDArray[np.float64]) -> Words:
        """The sum before noise, on the grid, if people had these shares; 0 is somebody who is not there."""
        grid, there = self.run.shape(self.stage).grid, share > 0
        if isinstance(self.letter.header, Measurement):
            return grid.encode(self._histogram(share, there))
        rows = EncodedRows(self.holder._encoder.encode(self.rows.table), self.rows.outcome, share)
        # This recipe makes no use of chance: an object without it would be noticed.
        return grid.encode(self.run.recipe.contribution(self.stage, self.letter.arrays, rows, chance=None))  # type: ignore[arg-type]

    def _histogram(self, share: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        # Written from the message's definition: goods and bads by band, by weight; then heads and bads, a tenth each.
        assert isinstance(self.letter.header, Measurement)
        plan = self.run.plan
        scale, bands = plan.point_scale, plan.measurement_bands
        scores = Scorecard.from_json(self.letter.header.scorecard).score(self.rows.table)
        width = (scale["maximum"] - scale["minimum"]) / bands
        band = np.minimum((scores - scale["minimum"]) // width, bands - 1).astype(int)
        weight = np.where(there, np.sqrt(np.maximum(share**2 * 1.02 - 0.02, 0)), 0)
        counts = [np.bincount(band, weight * (self.rows.outcome == bad), bands) for bad in (0, 1)]
        return np.concatenate([*counts, [0.1 * there.sum(), 0.1 * self.rows.outcome[there].sum()]])

    @property
    def noise(self) -> NDArray[np.int64]:
        difference: NDArray[np.int64] = (self.words - self.exact(self.rows.shares)).view(np.int64)
        return difference


@contextmanager
def watched(directory: Path, trust: TrustModel, *, holders: int = 3) -> Iterator[list[Seen]]:
    """The releases of a run of 600 people that has no seed; the data holders stay open."""
    _, registry = small_federation(directory, at=AT, trust=trust, holders=holders, seed=None, steps=STEPS)
    answered: list[tuple[Holder, Letter, Letter, NDArray[np.float64]]] = []
    last, original = threading.local(), release.noisy_words

    def noted(shape: Shape, exact: NDArray[np.float64], variance: int, chance: NoiseSource) -> Words:
        last.exact = exact
        return original(shape, exact, variance, chance)

    with pytest.MonkeyPatch.context() as patched, Session(directory, lambda: AT, registry) as session:
        patched.setattr(release, "noisy_words", noted)
        for holder in session.holders.values():

            def recorded(letter: Letter, *, at: int, holder: Holder = holder, answer: Any = holder.answer) -> Letter:
                made: Letter = answer(letter, at=at)
                answered.append((holder, letter, made, getattr(last, "exact", np.zeros(0))))
                return made

            holder.answer = recorded  # type: ignore[method-assign]
        session.run(no_progress)
        yield [_seen(*one) for one in answered if isinstance(one[2].header, Update)]
    registry.close()


def _seen(holder: Holder, letter: Letter, made: Letter, computed: NDArray[np.float64]) -> Seen:
    header = letter.header
    assert isinstance(header, Instruction | Measurement)
    run = holder.run_named(header.run)
    training = isinstance(header, Instruction)
    stage = header.round_number if isinstance(header, Instruction) else measurement_stage(run.recipe)
    rows = holder.permitted(run, Purpose.TRAIN if training else Purpose.VALIDATE)
    return Seen(holder, run, stage, letter, made.arrays["words"], rows, computed)
