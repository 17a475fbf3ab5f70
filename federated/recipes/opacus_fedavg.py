"""The classic, for comparison: FedAvg of local DP-SGD with Opacus (McMahan et al. 2017; Abadi et al. 2016).

Each holder trains on its own rows with Poisson batches, clips every person's gradient, adds its own noise and
sends the change of the model's vector; the coordinator averages. torch and Opacus are imported only where a network
is built: with the built-in layers the coordinator, the model and the settings need numpy alone.

A researcher may train any torch module that Opacus can take apart: `OpacusFedAvg(..., module=factory)`, where
`factory(width)` makes one that turns (people, width) into one log-odds of bad a person. No plan can name a factory.
Its start is what the factory draws under a public seed; `trained_module(state)` is what came out.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from federated.encoder import Encoder
from federated.model import Model
from federated.recipes.base import (
    Arrays,
    RecipeName,
    read_array,
    require_keys,
    require_round,
    require_total,
    round_of,
)
from federated.recipes.layers import START_SEED, Layers
from federated.recipes.local_steps import LAWFUL_STEPS, StepSchedule, lawful_steps, poisson_batch, require_small
from federated.rows import EncodedRows
from privacy.accounting import Spend
from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.noise import NoiseSource, Vector

if TYPE_CHECKING:
    import torch

LARGEST_CHANGE = 1024.0
"""A model number that moved further than this in one round has diverged; it is sent as this much."""


@dataclass(frozen=True, slots=True)
class OpacusFedAvgSettings:
    """Settings of `OpacusFedAvg`."""

    hidden: tuple[int, ...]
    learning_rate: float
    batch_size: int
    local_epochs: int
    rounds: int
    clipping_norm: float
    epsilon: float | None
    delta: float

    name: ClassVar[RecipeName] = RecipeName.OPACUS_FEDAVG

    def recipe(self, encoder: Encoder) -> "OpacusFedAvg":
        """The recipe over the columns of `encoder`. Raises MalformedError."""
        return OpacusFedAvg(width=encoder.width, schema_digest=encoder.schema.digest, **asdict(self))


@dataclass(frozen=True, slots=True)
class OpacusFedAvg:
    """Logistic regression (`hidden` empty), a small rectified network, or a `module`, by local private SGD.

    `batch_size` is the expected size of a Poisson batch. `epsilon`, `delta` hold for all rounds of one holder
    together, whatever its number of rows; `epsilon` None is the researcher's baseline without noise (still
    clipped).
    """

    hidden: tuple[int, ...]
    learning_rate: float
    batch_size: int
    local_epochs: int
    rounds: int
    clipping_norm: float
    epsilon: float | None
    delta: float
    _: KW_ONLY
    width: int
    schema_digest: str
    module: "Callable[[int], torch.nn.Module] | None" = None

    name: ClassVar[RecipeName] = RecipeName.OPACUS_FEDAVG
    accountant: ClassVar[str] = "Rényi DP of the Poisson-sampled Gaussian, an upper bound"

    def __post_init__(self) -> None:
        lawful = (
            min(self.width, self.batch_size, self.local_epochs, self.rounds, *self.hidden) >= 1
            and lawful_steps(self.learning_rate, self.clipping_norm)
            and (self.epsilon is None or 0 < self.epsilon < math.inf)
            and 0 < self.delta < 1
            and not (self.hidden and self.module)
        )
        if not lawful:
            raise MalformedError(
                f"opacus_fedavg needs whole numbers of at least 1, {LAWFUL_STEPS}, epsilon above 0 and delta between 0 "
                "and 1, and a module of one's own has no hidden layers beside it; the coordinator must correct the "
                "plan's settings"
            )

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    @property
    def layers(self) -> Layers:
        """The built-in model's shape."""
        return Layers(self.width, self.hidden)

    @property
    def schedule(self) -> StepSchedule:
        """The steps of a data holder in all rounds."""
        return StepSchedule(self.batch_size, self.rounds * self.local_epochs, self.epsilon, self.delta)

    def _parameters(self) -> int:
        if self.module is None:
            return self.layers.parameters
        return sum(parameter.numel() for parameter in self._network().parameters())

    def _require_round_number(self, round_number: int) -> None:
        if not 1 <= round_number <= self.rounds:
            raise MalformedError(
                f"round {round_number} was asked of a recipe with {self.rounds} rounds; the coordinator must follow "
                "the plan"
            )

    def length(self, round_number: int) -> int:
        """The number of coefficients, in every round."""
        self._require_round_number(round_number)
        return self._parameters()

    def reach(self, round_number: int, *, people: int, holders: int) -> float:  # noqa: ARG002 (people do not matter)
        """Every data holder's numbers are held to 1,024, whoever its people are."""
        self._require_round_number(round_number)
        return holders * LARGEST_CHANGE

    def sensitivity(self, round_number: int) -> float:
        """What the bound on every number allows. The guarantee does not rest on it: the noise is inside the steps."""
        return 2 * LARGEST_CHANGE * math.sqrt(self.length(round_number))

    def mu(self, round_number: int) -> float:
        """Infinite: no noise is added to the sum."""
        self._require_round_number(round_number)
        return math.inf

    def spend(self, round_number: int, rows: int) -> Spend:
        """This round's steps. The ledger adds up the steps of all rounds: it is the accountant that is carried."""
        self._require_round_number(round_number)
        return self.schedule.spend(rows, epochs=self.local_epochs)

    def start(self) -> Arrays:
        """The built-in layers' public start, or what the module's factory draws under a public seed."""
        if self.module is None:
            return {"round": np.ones(1), "vector": self.layers.start()}
        return {"round": np.ones(1), "vector": _vector_of(self._network())}

    def instruction(self, state: Arrays) -> Arrays:
        """The model's vector."""
        self._require_round_number(round_of(state))
        return {"round": state["round"], "vector": state["vector"]}

    def _network(self) -> "torch.nn.Module":
        """A fresh network; torch's shared generator is left as it was."""
        try:
            import torch
        except ModuleNotFoundError as error:
            raise _not_installed(error) from error
        if self.module is not None:
            with torch.random.fork_rng(devices=[]):
                torch.random.manual_seed(START_SEED)
                return self.module(self.width)
        built: list[torch.nn.Module] = []
        for inputs, outputs in self.layers.sizes:
            # skip_init: the start is the coordinator's vector, so torch's shared generator must not be drawn
            # from.
            layer = torch.nn.utils.skip_init(torch.nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]  # torch has no type for it
            built += [layer, torch.nn.ReLU()]
        return torch.nn.Sequential(*built[:-1])

    def contribution(
        self,
        round_number: int,
        instruction: Arrays,
        rows: EncodedRows,
        *,
        chance: NoiseSource,
    ) -> Vector:
        """The change of the vector, not weighted."""
        require_round(instruction, round_number)
        self._require_round_number(round_number)
        require_keys(instruction, ("round", "vector"))
        vector = read_array(instruction, "vector", (self._parameters(),))
        if rows.width != self.width:
            raise MalformedError(
                f"rows have {rows.width} encoded columns, the plan needs {self.width}; the data holder must encode by "
                "the plan's schema"
            )
        require_small(vector)
        change = self._trained(vector, rows, chance) - vector
        # Post-processing of a value that is private already. It must not be refused: nothing is charged for a
        # refusal, so the same round could be asked for again and its noise drawn anew.
        change = np.nan_to_num(change, nan=0.0, posinf=LARGEST_CHANGE, neginf=-LARGEST_CHANGE)
        sent: Vector = np.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE)
        return sent

    def _trained(self, vector: Vector, rows: EncodedRows, chance: NoiseSource) -> Vector:
        try:
            import torch
            from opacus import GradSampleModule
            from opacus.optimizers import DPOptimizer
            from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
        except ModuleNotFoundError as error:
            raise _not_installed(error) from error

        class SharedOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
            """DPOptimizer in which person i's gradient is clipped and then scaled by the person's share.

            Its noise is drawn from `chance`: torch's generator keeps 32 bits of a seed on the processor.
            """

            shares = torch.zeros(0)

            def clip_and_accumulate(self) -> None:
                # A gradient that overflowed has no direction left; one such person must not spoil the sum.
                samples = [g.nan_to_num(0.0, 0.0, 0.0) for g in self.grad_samples]
                norms = torch.stack([g.flatten(1).norm(2, dim=1) for g in samples], dim=1).norm(2, dim=1)
                # As in Opacus, the small number keeps a row without gradient from dividing by 0.
                factor = self.shares * (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
                for parameter, sample in zip(self.params, samples, strict=True):
                    parameter.summed_grad = torch.einsum("i,i...", factor, sample)

            def add_noise(self) -> None:
                for parameter in self.params:
                    _check_processed_flag(parameter.summed_grad)
                    draws = chance.gaussian(parameter.numel(), self.noise_multiplier * self.max_grad_norm)
                    noise = torch.from_numpy(draws).to(parameter.dtype).view_as(parameter)
                    parameter.grad = parameter.summed_grad.view_as(parameter) + noise
                    _mark_as_processed(parameter.summed_grad)

        # Batches of a few dozen rows: a second thread costs more than it computes.
        torch.set_num_threads(1)
        network = self._network()
        _load(network, vector)
        start = _vector_of(network)

        x = torch.from_numpy(np.array(rows.x, dtype=np.float32))
        bad = torch.from_numpy(np.array(rows.bad, dtype=np.float32))
        share = torch.from_numpy(np.array(rows.share, dtype=np.float32))
        # Per-person gradients of a summed loss; the optimizer alone divides, by the expected batch size,
        # once.
        try:
            private = GradSampleModule(network, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            raise MalformedError(
                "The module has layers that mix people, or that Opacus cannot take apart by person; the coordinator "
                "must build it without them (GroupNorm instead of BatchNorm)."
            ) from error
        optimizer = SharedOptimizer(
            torch.optim.SGD(private.parameters(), lr=self.learning_rate),
            noise_multiplier=self.schedule.noise_multiplier(len(rows)),
            max_grad_norm=self.clipping_norm,
            expected_batch_size=self.batch_size,
            loss_reduction="mean",
        )
        loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
        with warnings.catch_warnings():
            # Rows need no gradient, which is what torch remarks on in every backward pass with hooks.
            warnings.filterwarnings("ignore", "Full backward hook is firing", category=UserWarning)
            for _ in range(self.local_epochs * self.schedule.steps_per_epoch(len(rows))):
                places = poisson_batch(len(rows), self.schedule.sampling_rate(len(rows)), chance)
                batch = torch.arange(len(rows)) if places is None else torch.from_numpy(places)
                optimizer.zero_grad()
                optimizer.shares = share[batch]
                loss(private(x[batch]).reshape(-1), bad[batch]).backward()
                optimizer.step()
        trained: Vector = vector + (_vector_of(network) - start)
        return trained

    def advance(self, state: Arrays, total: Vector, *, contributors: int) -> Arrays:
        """The vector moved by the average update."""
        number = round_of(state)
        require_total(total, self.length(number))
        if contributors < 1:
            raise ValueError("requires contributors >= 1")
        vector = read_array(state, "vector", (self._parameters(),))
        return {"round": np.array([number + 1.0]), "vector": vector + total / contributors}

    def model(self, state: Arrays) -> Model:
        """A linear model without hidden layers, so that it can become a scorecard; else a network.

        A module of one's own is none of the models that a run can publish: use `trained_module`.
        """
        if self.module is not None:
            raise TypeError("a module of one's own is no model of this toolkit: use trained_module(state)")
        return self.layers.model(self._finished(state), schema_digest=self.schema_digest)

    def trained_module(self, state: Arrays) -> "torch.nn.Module":
        """The torch module in a finished state, with the numbers that it was trained to."""
        network = self._network()
        _load(network, self._finished(state))
        return network

    def _finished(self, state: Arrays) -> Vector:
        require_round(state, self.rounds + 1)
        return read_array(state, "vector", (self._parameters(),))

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        if self.epsilon is None:
            return ("no noise was added: this training is NOT PRIVATE",)
        return (
            "floating-point Gaussian noise, added in 32-bit arithmetic, stands in for the exact Gaussian",
            "everybody's gradient is worked out in 32-bit arithmetic, whose rounding depends on who else is in a batch",
            "Opacus' secure mode does not work with torch 2; noise and batches come from this toolkit's own ChaCha20 "
            "stream, keyed by the operating system, instead",
            "the number of rows of each data holder, which sets its sampling rate and its steps, is taken to be public",
            "each data holder's claim stands alone: a person at several data holders is not bounded by shared noise",
        )


def _vector_of(network: "torch.nn.Module") -> Vector:
    from torch.nn.utils import parameters_to_vector

    vector: Vector = parameters_to_vector(network.parameters()).detach().double().numpy()
    return vector


def _load(network: "torch.nn.Module", vector: Vector) -> None:
    import torch

    torch.nn.utils.vector_to_parameters(torch.from_numpy(np.array(vector, dtype=np.float32)), network.parameters())


def _not_installed(error: ModuleNotFoundError) -> RefusalError:
    return RefusalError(
        f"This recipe needs {error.name}, which is not installed here. The data holder should install the "
        "extra `opacus`, or take the recipe out of its policy.",
        RefusalCode.POLICY,
    )
