"""What a run costs in exchanges and bytes, before it: every letter of it is made, with nothing in it, and measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from federated.flower import size_of
from federated.messages import (
    Dealt,
    Delivery,
    Instruction,
    Introduction,
    Joined,
    LedgerMark,
    Letter,
    Measurement,
    Received,
    Revealed,
    SumKeys,
    Unmasking,
    Update,
)
from federated.model import LinearModel, Model
from federated.recipes.base import Arrays
from federated.scorecard import scorecard_from
from privacy.consent.limits import DIGEST_BYTES, KEY_BYTES, SIGNATURE_BYTES
from privacy.errors import FedcreditError
from privacy.secure_sum.locks import ENTRY_BYTES
from privacy.secure_sum.secrets import sealed_bytes
from server.coordinator import Coordinator
from server.stage import Stage, stages

_DIGEST, _KEY, _SIGNATURE = bytes(DIGEST_BYTES), bytes(KEY_BYTES), bytes(SIGNATURE_BYTES)
_MARK: Final = LedgerMark(1000, _DIGEST)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one run in which everybody takes part to the end: how often everybody is asked, and bytes each way.

    `to_each` and `from_each` are one data holder's; what TLS and Flower wrap around a letter comes on top.
    """

    holders: int
    exchanges: int
    to_each: int
    from_each: int

    @property
    def sent(self) -> int:
        """From the coordinator, to all data holders together."""
        return self.holders * self.to_each

    @property
    def received(self) -> int:
        """By the coordinator, of all data holders together."""
        return self.holders * self.from_each


def traffic_of(coordinator: Coordinator, holders: Sequence[str]) -> Traffic:
    """Of a run of the coordinator's plan with these data holders, of whom there is at least one."""
    exchanges = list(_Letters(coordinator, sorted(holders)).exchanges())
    return Traffic(
        holders=len(holders),
        exchanges=len(exchanges),
        to_each=sum(size_of(question) for question, _ in exchanges),
        from_each=sum(size_of(answer) for _, answer in exchanges),
    )


@dataclass(frozen=True)
class _Letters:
    """What the first of `holders` is asked and answers, one exchange after the other."""

    coordinator: Coordinator
    holders: Sequence[str]

    def exchanges(self) -> Iterator[tuple[Letter, Letter]]:
        """Each question with its answer."""
        plan, run = self.coordinator.plan, self._run
        us, others = self.holders[0], self.holders[1:]
        releases = stages(self.coordinator.recipe, plan)
        keys = SumKeys(_KEY, [_KEY] * len(releases), [_DIGEST] * len(releases), _SIGNATURE)
        masked = plan.trust.is_masked
        yield Letter(self.coordinator.opening), Letter(Joined(us, run, keys if masked else None, _MARK, _SIGNATURE))
        if masked:
            sealed = dict.fromkeys(others, bytes(sealed_bytes(len(releases))))
            introduction = Introduction(run, dict.fromkeys(self.holders, keys))
            yield Letter(introduction), Letter(Dealt(us, run, sealed, _SIGNATURE))
            yield Letter(Delivery(run, list(self.holders), sealed)), Letter(Received(us, run, []))
        arrays, model = self._instructions(releases)
        for stage, instruction in zip(releases, arrays, strict=False):
            yield Letter(Instruction(run, stage.number, list(self.holders)), instruction), self._update(stage)
            yield from self._unmasking(stage)
        if isinstance(model, LinearModel):
            card = scorecard_from(model, self.coordinator.encoder, self.coordinator.scale).to_json()
            yield Letter(Measurement(run, list(self.holders), card)), self._update(releases[-1])
            yield from self._unmasking(releases[-1])

    @property
    def _run(self) -> str:
        return "0" * 32

    def _instructions(self, releases: Sequence[Stage]) -> tuple[list[Arrays], Model | None]:
        """The arrays of each round, if all sums were zero, and the model that would come of it."""
        recipe = self.coordinator.recipe
        state, found = recipe.start(), list[Arrays]()
        try:
            for stage in releases[: recipe.rounds]:
                found.append(recipe.instruction(state))
                state = recipe.advance(state, np.zeros(stage.shape.length), contributors=len(self.holders))
            return found, recipe.model(state)
        except FedcreditError:  # sums of nobody lead nowhere with this recipe: the rounds left are taken to be alike
            return found + [found[-1]] * (recipe.rounds - len(found)), None

    def _update(self, stage: Stage) -> Letter:
        update = Update(self.holders[0], stage.name(self._run), _DIGEST, _SIGNATURE, _MARK)
        return Letter(update, {"words": np.zeros(stage.shape.length, dtype=np.uint64)})

    def _unmasking(self, stage: Stage) -> Iterator[tuple[Letter, Letter]]:
        if self.coordinator.plan.trust.is_masked:
            seeds = dict.fromkeys(self.holders, bytes(ENTRY_BYTES))
            revealed = Revealed(self.holders[0], stage.name(self._run), seeds, {}, _SIGNATURE)
            yield Letter(Unmasking(self._run, stage.number, list(self.holders))), Letter(revealed)
