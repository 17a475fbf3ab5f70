"""The coordinator's run: open, ask each round's masked sums, take the next step, measure. It sees sums only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.channel import Act, Channel
from federated.messages import (
    Header,
    Instruction,
    Joined,
    Letter,
    Measurement,
    Opening,
    Refused,
    Update,
    array_of,
)
from federated.metrics import ScoreHistogram
from federated.model import Model
from federated.plan import SignedPlan, TrainingPlan, run_id
from federated.recipes.base import Recipe
from federated.releases import (
    grid_for_measurement,
    grid_for_round,
    mask_key_statement,
    measurement_edges,
    measurement_stage,
    release_name,
    update_statement,
)
from privacy.consent.signing import PayloadType, verify
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError
from privacy.grid import Grid

MOST_NAMED = 10
Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(frozen=True, slots=True)
class Cohort:
    """The data holders that joined a run: node, and the header each joined with."""

    run: str
    nodes: Mapping[str, int]  # data holder id -> node
    joined: Mapping[str, Joined]
    refused: Mapping[str, RefusalCode]


@dataclass(frozen=True, slots=True)
class Release:
    """One release of the run as the coordinator saw it: its name, and each data holder's signed commitment."""

    name: str
    updates: Mapping[str, Update]


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of the training rounds."""

    model: Model
    releases: tuple[Release, ...]


class Run:
    """One run of a plan over a channel. A data holder lost after the opening ends the run: its mask cannot cancel."""

    def __init__(
        self, plan: TrainingPlan, signed: SignedPlan, recipe: Recipe, channel: Channel, *, deadline_s: float
    ) -> None:
        self._plan, self._signed, self._recipe, self._channel = plan, signed, recipe, channel
        self._deadline_s = deadline_s

    def open(self, checkpoints: dict[str, str]) -> Cohort:
        """Send the plan and the pinned lane heads to every node; those who check and accept are the cohort.

        RefusalError if fewer join than the plan needs.
        """
        run = run_id(self._signed, checkpoints)
        letter = Letter(Opening(self._signed.payload, self._signed.signature, checkpoints))
        identities = {entry.holder: entry.identity for entry in self._plan.roster}
        nodes, joined, refused = {}, {}, {}
        letters = dict.fromkeys(self._channel.nodes(), letter)
        for node, answer in self._channel.ask(letters, act=Act.QUERY, deadline_s=self._deadline_s).items():
            match answer.header:
                case Joined(holder=holder, run=theirs, mask_key=key) as header if (
                    holder in identities and theirs == run
                ):
                    verify(
                        identities[holder],
                        PayloadType.MASK_KEY,
                        mask_key_statement(run, key.public),
                        key.signature,
                    )
                    if holder in nodes:
                        raise MalformedError(
                            f"Two nodes answer for data holder {holder}; its operator should stop one."
                        )
                    nodes[holder], joined[holder] = node, header
                case Refused(holder=holder, code=code):
                    refused[holder] = code
                case header:
                    raise _unexpected(header)
        if len(joined) < self._plan.minimum_holders:
            raise RefusalError(
                f"{len(joined)} data holders joined the run and the plan needs {self._plan.minimum_holders} "
                f"({_told(refused)}). Nothing was released. "
                "The coordinator should ask them, or write a plan that fits.",
                next(iter(refused.values()), RefusalCode.COHORT),
            )
        return Cohort(run, nodes, dict(sorted(joined.items())), refused)

    def train(self, cohort: Cohort, progress: Progress) -> Trained:
        """All rounds of the recipe."""
        state = self._recipe.start()
        releases = []
        for number in range(1, self._recipe.rounds + 1):
            header = Instruction(cohort.run, number, {name: key.mask_key for name, key in cohort.joined.items()})
            letter = Letter(header, self._recipe.instruction(state))
            grid = grid_for_round(self._recipe, number, self._plan)
            total, release = self._sum(
                cohort, letter, release_name(cohort.run, number), self._recipe.length(number), grid, Act.TRAIN
            )
            state = self._recipe.advance(state, total)
            releases.append(release)
            progress("training", number, self._recipe.rounds)
        return Trained(self._recipe.model(state), tuple(releases))

    def measure(self, cohort: Cohort, scorecard: bytes) -> tuple[ScoreHistogram, Release]:
        """The noisy score histogram of the held-out people who agreed to it, summed over the cohort."""
        header = Measurement(cohort.run, {name: key.mask_key for name, key in cohort.joined.items()}, scorecard)
        edges = measurement_edges(self._plan)
        total, release = self._sum(
            cohort,
            Letter(header),
            release_name(cohort.run, measurement_stage(self._recipe)),
            2 * self._plan.measurement_bands,
            grid_for_measurement(self._plan),
            Act.EVALUATE,
        )
        goods, bads = np.split(total, 2)
        return ScoreHistogram(edges, goods, bads), release

    def _sum(
        self, cohort: Cohort, letter: Letter, name: str, length: int, grid: Grid, act: Act
    ) -> tuple[NDArray[np.float64], Release]:
        letters = dict.fromkeys(cohort.nodes.values(), letter)
        answers = self._channel.ask(letters, act=act, deadline_s=self._deadline_s)
        identities = {entry.holder: entry.identity for entry in self._plan.roster}
        total = np.zeros(length, dtype=np.uint64)
        updates = {}
        for holder, node in cohort.nodes.items():
            answer = answers.get(node)
            try:
                if answer is None:
                    raise RefusalError("no answer before the deadline, or none that can be read", RefusalCode.COHORT)
                updates[holder], masked = _read_update(answer, holder, name, length, identities[holder])
            except FedcreditError as error:
                missing = sorted(identities.keys() - cohort.nodes.keys())
                if isinstance(error, RefusalError) and error.code is RefusalCode.REPLAY and missing:
                    raise RefusalError(
                        f"{holder} has made this release before, for another cohort, and {', '.join(missing)} did not "
                        f"join now ({_told(cohort.refused)}). One answer is all there is: whoever is missing should "
                        "put its node in order, then the coordinator runs the same plan again, or writes another plan.",
                        RefusalCode.REPLAY,
                    ) from error
                raise RefusalError(
                    f"Data holder {holder} left the run in step {name.partition('/')[2]}: {error}. Its mask cannot "
                    "cancel, so the run ends here without a model; what was charged stays charged. The coordinator "
                    "should ask its operator, then run the same plan again: releases that were made are repeated, not "
                    "redone. If somebody in one has withdrawn since (consent), it should write another plan.",
                    error.code if isinstance(error, RefusalError) else RefusalCode.COHORT,
                ) from error
            total += masked  # modulo 2^64, where the masks cancel
        return grid.decode(total), Release(name, updates)


def _read_update(
    answer: Letter, holder: str, name: str, length: int, identity: bytes
) -> tuple[Update, NDArray[np.uint64]]:
    header = answer.header
    if isinstance(header, Refused):
        raise RefusalError(f"it refused ({header.code.value})", header.code)
    if not isinstance(header, Update) or header.holder != holder or header.release != name:
        raise MalformedError("it answered something else than its update")
    masked = array_of(answer, "masked", shape=(length,), dtype=np.uint64)
    verify(identity, PayloadType.UPDATE, update_statement(name, header.commitment, masked), header.signature)
    return header, masked


def _told(refused: Mapping[str, RefusalCode]) -> str:
    """Who refused and with what code; of many, the first few and how many more."""
    named = [f"{holder}: {code.value}" for holder, code in sorted(refused.items())]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return ", ".join(named[:MOST_NAMED]) + more or "silence"


def _unexpected(header: Header) -> MalformedError:
    return MalformedError(
        f"A node answered the opening with {type(header).__name__}, which does not belong there or names another run. "
        "Its operator should compare versions and settings with the coordinator's."
    )


def no_progress(what: str, done: int, total: int) -> None:
    """For a run that nobody watches."""
