"""The classic, for comparison: FedAvg of local DP-SGD with Opacus (McMahan et al. 2017; Abadi et al. 2016).

Each holder trains on its own rows with Poisson batches, clips every person's gradient, adds its own noise and
sends the change of the model's vector; the coordinator averages. torch and Opacus are imported only inside
`_trained`: the coordinator, the model and the settings need numpy alone.
"""

import math
import warnings
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from federated.model import LinearModel, Model, NetworkModel
from federated.recipes.base import (
    TRUST_IN_MASKS,
    Arrays,
    RecipeName,
    read_array,
    require_keys,
    require_round,
    require_total,
    round_of,
)
from federated.rows import EncodedRows
from privacy.accounting import SampledSpend, Spend, UnprotectedSpend
from privacy.errors import MalformedError, RefusalCode, RefusalError
from privacy.noise import NoiseSource, Vector
from privacy.sampled import noise_multiplier_for

LARGEST_CHANGE = 1024.0
"""A model number that moved further than this in one round has diverged; it is sent as this much."""

START_SEED = 20261121
"""Public: every party draws the same first network."""


@lru_cache(maxsize=256)
def _noise_multiplier(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    return noise_multiplier_for(epsilon, delta, sampling_rate=sampling_rate, steps=steps)


@dataclass(frozen=True, slots=True)
class OpacusFedAvg:
    """Logistic regression (`hidden` empty) or a small rectified network, trained by local private SGD.

    `batch_size` is the expected size of a Poisson batch. `epsilon`, `delta` hold for all rounds of one holder
    together, whatever its number of rows; `epsilon` None is the researcher's baseline without noise (still
    clipped).
    """

    width: int
    hidden: tuple[int, ...]
    learning_rate: float
    batch_size: int
    local_epochs: int
    rounds: int
    clipping_norm: float
    epsilon: float | None
    delta: float
    _: KW_ONLY
    schema_digest: str

    name: ClassVar[RecipeName] = RecipeName.OPACUS_FEDAVG
    accountant: ClassVar[str] = "Rényi DP of the Poisson-sampled Gaussian, an upper bound"
    trust_model: ClassVar[str] = (
        "Each data holder adds all of its own noise while it trains, rounds its update to whole numbers and masks them "
        "with keys agreed with every other data holder, so the coordinator sees sums over all of them only. "
        f"{TRUST_IN_MASKS}"
    )

    def __post_init__(self) -> None:
        lawful = (
            min(self.width, self.batch_size, self.local_epochs, self.rounds, *self.hidden) >= 1
            and 0 < self.learning_rate < math.inf
            and 0 < self.clipping_norm < math.inf
            and (self.epsilon is None or 0 < self.epsilon < math.inf)
            and 0 < self.delta < 1
        )
        if not lawful:
            raise MalformedError(
                "opacus_fedavg needs whole numbers of at least 1, a learning rate, clipping norm and epsilon above 0 "
                "and delta between 0 and 1; the coordinator must correct the plan's settings"
            )

    @property
    def is_private(self) -> bool:
        """False without noise."""
        return self.epsilon is not None

    @property
    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of every layer."""
        widths = (self.width, *self.hidden, 1)
        return tuple(pairwise(widths))

    def _parameters(self) -> int:
        return sum(outputs * (inputs + 1) for inputs, outputs in self._sizes)

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

    def bound(self, round_number: int) -> float:
        """1,024 for a whole holder's update; its aggregation weight makes the sum an average within the same."""
        self._require_round_number(round_number)
        return LARGEST_CHANGE

    def noise_standard_deviation(self, round_number: int) -> float:
        """0: every holder's noise is inside its update, and inside `bound`."""
        self._require_round_number(round_number)
        return 0.0

    def sampling_rate(self, rows: int) -> float:
        """Chance of one person to be in one step at a holder with `rows` rows."""
        return min(1.0, self.batch_size / max(rows, 1))

    def steps_per_round(self, rows: int) -> int:
        """Local steps of one round at a holder with `rows` rows."""
        return self.local_epochs * max(1, math.ceil(rows / self.batch_size))

    def noise_multiplier(self, rows: int) -> float:
        """Enough for the steps of ALL rounds together to meet epsilon and delta; 0 without noise."""
        if self.epsilon is None:
            return 0.0
        steps = self.rounds * self.steps_per_round(rows)
        return _noise_multiplier(self.epsilon, self.delta, self.sampling_rate(rows), steps)

    def spend(self, round_number: int, rows: int) -> Spend:
        """This round's steps. The ledger adds up the steps of all rounds: it is the accountant that is carried."""
        self._require_round_number(round_number)
        if self.epsilon is None:
            return UnprotectedSpend()
        return SampledSpend(self.noise_multiplier(rows), self.sampling_rate(rows), self.steps_per_round(rows))

    def start(self) -> Arrays:
        """Zeros for logistic regression; for a network, public uniform draws within 1 / sqrt(inputs)."""
        if not self.hidden:
            return {"round": np.ones(1), "vector": np.zeros(self._parameters())}
        public = np.random.Generator(np.random.PCG64(START_SEED))
        parts = [
            public.uniform(-1, 1, size=outputs * (inputs + 1)) / math.sqrt(inputs) for inputs, outputs in self._sizes
        ]
        return {"round": np.ones(1), "vector": np.concatenate(parts)}

    def instruction(self, state: Arrays) -> Arrays:
        """The model's vector."""
        self._require_round_number(round_of(state))
        return {"round": state["round"], "vector": state["vector"]}

    def contribution(
        self,
        round_number: int,
        instruction: Arrays,
        rows: EncodedRows,
        *,
        chance: NoiseSource,
        noise_share: float,
    ) -> Vector:
        """`noise_share` times the change of the vector: here it is the holder's public aggregation weight."""
        require_round(instruction, round_number)
        self._require_round_number(round_number)
        require_keys(instruction, ("round", "vector"))
        vector = read_array(instruction, "vector", (self._parameters(),))
        if not 0 < noise_share <= 1:
            raise ValueError("requires 0 < noise_share <= 1")
        if rows.width != self.width:
            raise MalformedError(
                f"rows have {rows.width} encoded columns, the plan needs {self.width}; the data holder must encode by "
                "the plan's schema"
            )
        change = self._trained(vector, rows, chance) - vector
        # Post-processing of a value that is private already. It must not be refused: nothing is charged for a
        # refusal, so the same round could be asked for again and its noise drawn anew.
        change = np.nan_to_num(change, nan=0.0, posinf=LARGEST_CHANGE, neginf=-LARGEST_CHANGE)
        sent: Vector = noise_share * np.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE)
        return sent

    def _trained(self, vector: Vector, rows: EncodedRows, chance: NoiseSource) -> Vector:
        try:
            import torch
            from opacus import GradSampleModule
            from opacus.optimizers import DPOptimizer
            from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
            from torch.nn.utils import parameters_to_vector, skip_init, vector_to_parameters
        except ModuleNotFoundError as error:
            raise RefusalError(
                f"This recipe needs {error.name}, which is not installed here. The data holder should install the "
                "extra `opacus`, or take the recipe out of its policy.",
                RefusalCode.POLICY,
            ) from error

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
        layers: list[torch.nn.Module] = []
        for inputs, outputs in self._sizes:
            # skip_init: the start is the coordinator's vector, so torch's shared generator must not be drawn
            # from.
            layer = skip_init(torch.nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]  # torch has no type for it
            layers += [layer, torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers[:-1])
        vector_to_parameters(torch.from_numpy(vector).to(torch.float32), network.parameters())
        start = parameters_to_vector(network.parameters()).detach().double().numpy()

        x = torch.from_numpy(np.array(rows.x, dtype=np.float32))
        bad = torch.from_numpy(np.array(rows.bad, dtype=np.float32))
        share = torch.from_numpy(np.array(rows.share, dtype=np.float32))
        # Per-person gradients of a summed loss; the optimizer alone divides, by the expected batch size,
        # once.
        private = GradSampleModule(network, loss_reduction="sum", strict=True)
        optimizer = SharedOptimizer(
            torch.optim.SGD(private.parameters(), lr=self.learning_rate),
            noise_multiplier=self.noise_multiplier(len(rows)),
            max_grad_norm=self.clipping_norm,
            expected_batch_size=self.batch_size,
            loss_reduction="mean",
        )
        loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
        with warnings.catch_warnings():
            # Rows need no gradient, which is what torch remarks on in every backward pass with hooks.
            warnings.filterwarnings("ignore", "Full backward hook is firing", category=UserWarning)
            for _ in range(self.steps_per_round(len(rows))):
                batch = torch.from_numpy(self._batch(len(rows), chance))
                optimizer.zero_grad()
                optimizer.shares = share[batch]
                loss(private(x[batch])[:, 0], bad[batch]).backward()
                optimizer.step()
        end = parameters_to_vector(network.parameters()).detach().double().numpy()
        trained: Vector = vector + (end - start)
        return trained

    def _batch(self, rows: int, chance: NoiseSource) -> NDArray[np.intp]:
        """A Poisson batch: the places of the rows that are in, each independently at the sampling rate."""
        # 53 bits are exact in float64 and below 1, so that rate 1 takes everybody.
        bits = np.frombuffer(chance.random_bytes(8 * rows), dtype="<u8") >> np.uint64(11)
        return np.flatnonzero(bits.astype(np.float64) * 2.0**-53 < self.sampling_rate(rows))

    def advance(self, state: Arrays, total: Vector) -> Arrays:
        """The vector moved by the average update."""
        number = round_of(state)
        require_total(total, self.length(number))
        vector = read_array(state, "vector", (self._parameters(),))
        return {"round": np.array([number + 1.0]), "vector": vector + total}

    def model(self, state: Arrays) -> Model:
        """A linear model without hidden layers, so that it can become a scorecard; else a network."""
        require_round(state, self.rounds + 1)
        vector = read_array(state, "vector", (self._parameters(),))
        if not self.hidden:
            return LinearModel(
                schema_digest=self.schema_digest,
                centre=np.zeros(self.width),
                coefficients=vector[: self.width],
                intercept=float(vector[self.width]),
                centred_radius=None,
            )
        layers: list[tuple[Vector, Vector]] = []
        for inputs, outputs in self._sizes:
            matrix, offset, vector = np.split(vector, [outputs * inputs, outputs * (inputs + 1)])
            layers.append((matrix.reshape(outputs, inputs), offset))
        return NetworkModel(schema_digest=self.schema_digest, layers=tuple(layers))

    def excludes(self) -> tuple[str, ...]:
        """What epsilon and delta do not cover."""
        if self.epsilon is None:
            return ("no noise was added: this training is NOT PRIVATE",)
        return (
            "floating-point Gaussian noise, added in 32-bit arithmetic, stands in for the exact Gaussian",
            "each data holder's claim stands alone: a person at several data holders is not bounded by shared noise",
        )
