"""A recipe for whoever asks the demo or a benchmark for one by name, at the delta that all of them have."""

from experiments.plans import DELTA
from federated.recipes import by_name
from federated.recipes.base import RecipeName
from federated.recipes.registry import RecipeSettings
from federated.schema import Schema


def settings_named(name: RecipeName, schema: Schema, *, epsilon: float | None) -> RecipeSettings:
    """Settings of the recipe `name` over the columns of `schema`, at that delta. Without epsilon: NOT PRIVATE."""
    return by_name.settings_named(name, schema, epsilon=epsilon, delta=DELTA)
