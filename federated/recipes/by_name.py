"""A recipe for whoever asks for one by name: settings that have done well on the embedded data, none tuned to lose."""

from typing import assert_never

from federated.recipes.base import RecipeName
from federated.recipes.choice import STEPS
from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescentSettings
from federated.recipes.histogram_scorecard import HistogramScorecardSettings
from federated.recipes.local_sgd import LocalAlgorithm, LocalSgdSettings
from federated.recipes.opacus_fedavg import OpacusFedAvgSettings
from federated.recipes.registry import RecipeSettings
from federated.recipes.sufficient_statistics import SufficientStatisticsSettings
from federated.schema import Schema

LOCAL_ROUNDS = 10
LOCAL_BATCH = 256


def settings_named(name: RecipeName, schema: Schema, *, epsilon: float | None, delta: float) -> RecipeSettings:
    """Settings of the recipe `name` over the columns of `schema`; every one gives a scorecard.

    Without an epsilon they are NOT PRIVATE.
    """
    match name:
        case RecipeName.FIXED_HESSIAN:
            return FixedHessianSettings(schema.radius, schema.centred_radius, epsilon, delta, STEPS, monotone=True)
        case RecipeName.UNCENTRED_FIXED_HESSIAN:
            return UncentredFixedHessianSettings(schema.centred_radius, epsilon, delta, STEPS, monotone=True)
        case RecipeName.GRADIENT_DESCENT:
            return GradientDescentSettings(schema.radius, schema.centred_radius, epsilon, delta, monotone=True)
        case RecipeName.SUFFICIENT_STATISTICS:
            return SufficientStatisticsSettings(schema.centred_radius, epsilon, delta, monotone=True)
        case RecipeName.HISTOGRAM_SCORECARD:
            return HistogramScorecardSettings(epsilon, delta, STEPS, monotone=True)
        case RecipeName.LOCAL_SGD:
            return LocalSgdSettings(
                LocalAlgorithm.FEDAVG,
                proximal_strength=0.0,
                hidden=(),
                learning_rate=2.0,
                batch_size=LOCAL_BATCH,
                local_epochs=1,
                rounds=LOCAL_ROUNDS,
                clipping_norm=1.0,
                epsilon=epsilon,
                delta=delta,
            )
        case RecipeName.OPACUS_FEDAVG:
            return OpacusFedAvgSettings(
                hidden=(),
                learning_rate=2.0,
                batch_size=LOCAL_BATCH,
                local_epochs=1,
                rounds=LOCAL_ROUNDS,
                clipping_norm=1.0,
                epsilon=epsilon,
                delta=delta,
            )
        case _:
            assert_never(name)
