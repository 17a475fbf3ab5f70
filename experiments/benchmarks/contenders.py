"""The recipes that the benchmarks compare, with the settings that each is given. None is tuned to lose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from experiments.benchmarks.bed import Bed
from experiments.plans import DELTA, STEPS
from federated.recipes.base import Recipe
from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescentSettings
from federated.recipes.histogram_scorecard import HistogramScorecardSettings
from federated.recipes.local_sgd import LocalAlgorithm, LocalSgdSettings
from federated.recipes.registry import RecipeSettings, recipe_from
from federated.recipes.sufficient_statistics import SufficientStatisticsSettings

LOCAL_BATCH = 256
LOCAL_ROUNDS = 10
LOCAL_SETTINGS: Final = (
    f"Poisson batches of {LOCAL_BATCH}, clipping norm 1, {LOCAL_ROUNDS} rounds of one local epoch, updates averaged "
    "over the data holders; learning rate 2 (1 for SCAFFOLD, 0.5 for the network), FedProx strength 0.01: the best of "
    "a few tried on the first two of these very splits"
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A recipe under a title. `settings` are for a bed and an epsilon."""

    title: str
    settings: Callable[[Bed, float], RecipeSettings]
    is_sum: bool  # sums over people with the noise in the sum, so that who holds whom should not matter
    is_additive: bool = True  # gives a scorecard

    def recipe(self, bed: Bed, epsilon: float) -> Recipe:
        """The recipe over the bed's columns."""
        return recipe_from(self.settings(bed, epsilon), encoder=bed.encoder)


def centred(bed: Bed, epsilon: float | None) -> FixedHessianSettings:
    """The default recipe's settings; `epsilon` None is NOT PRIVATE."""
    return FixedHessianSettings(
        radius=bed.schema.radius, centred_radius=bed.schema.centred_radius, epsilon=epsilon, delta=DELTA, steps=STEPS,
        monotone=True,
    )  # fmt: skip


def local(
    algorithm: LocalAlgorithm, *, hidden: tuple[int, ...] = (), rate: float = 2.0, strength: float = 0.0
) -> Callable[[Bed, float], LocalSgdSettings]:
    """Settings of local private steps for any bed and epsilon."""

    def settings(_: Bed, epsilon: float) -> LocalSgdSettings:
        return LocalSgdSettings(
            algorithm=algorithm, proximal_strength=strength, hidden=hidden, learning_rate=rate, batch_size=LOCAL_BATCH,
            local_epochs=1, rounds=LOCAL_ROUNDS, clipping_norm=1.0, epsilon=epsilon, delta=DELTA,
        )  # fmt: skip

    return settings


DEFAULT: Final = Contender("centred fixed Hessian", centred, is_sum=True)
FEDAVG: Final = Contender("FedAvg of local private steps", local(LocalAlgorithm.FEDAVG), is_sum=False)

CONTENDERS: Final[Mapping[str, Contender]] = {
    contender.title: contender
    for contender in (
        DEFAULT,
        Contender(
            "uncentred fixed Hessian",
            lambda bed, epsilon: UncentredFixedHessianSettings(
                bed.schema.centred_radius, epsilon, DELTA, STEPS, monotone=True
            ),
            is_sum=True,
        ),
        Contender(
            "gradient descent",
            lambda bed, epsilon: GradientDescentSettings(bed.schema.radius, bed.schema.centred_radius, epsilon, DELTA),
            is_sum=True,
        ),
        Contender(
            "one-shot sufficient statistics",
            lambda bed, epsilon: SufficientStatisticsSettings(bed.schema.centred_radius, epsilon, DELTA, monotone=True),
            is_sum=True,
        ),
        Contender(
            "additive histogram scorecard",
            lambda _, epsilon: HistogramScorecardSettings(epsilon, DELTA, STEPS, monotone=True),
            is_sum=True,
        ),
        FEDAVG,
        Contender("FedProx", local(LocalAlgorithm.FEDPROX, strength=0.01), is_sum=False),
        Contender("SCAFFOLD", local(LocalAlgorithm.SCAFFOLD, rate=1.0), is_sum=False),
        Contender(
            "FedAvg of a network 64-32",
            local(LocalAlgorithm.FEDAVG, hidden=(64, 32), rate=0.5),
            is_sum=False,
            is_additive=False,
        ),
    )
}
