"""From a plan's settings to a recipe. Settings are frozen and complete: missing and unknown keys are both refused.

A recipe's settings are a dataclass beside the recipe; its fields and their types are the keys and values that a plan
may hold, and the recipe itself checks their ranges.
"""

import sys
import types
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Final, Union, get_args, get_origin, get_type_hints

from federated.encoder import Encoder
from federated.recipes.base import Recipe, RecipeName
from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescentSettings
from federated.recipes.histogram_scorecard import HistogramScorecardSettings
from federated.recipes.local_sgd import LocalSgdSettings
from federated.recipes.opacus_fedavg import OpacusFedAvgSettings
from federated.recipes.sufficient_statistics import SufficientStatisticsSettings
from privacy.errors import MalformedError

RecipeSettings = (
    FixedHessianSettings
    | UncentredFixedHessianSettings
    | GradientDescentSettings
    | SufficientStatisticsSettings
    | HistogramScorecardSettings
    | LocalSgdSettings
    | OpacusFedAvgSettings
)

SETTINGS: Final[Mapping[RecipeName, type[RecipeSettings]]] = {kind.name: kind for kind in get_args(RecipeSettings)}

LARGEST_WHOLE: Final = 1_000_000
"""No plan has more rounds, steps, people in a batch or units in a layer."""

LARGEST_FLOAT: Final = sys.float_info.max


def recipe_from(settings: RecipeSettings, *, encoder: Encoder) -> Recipe:
    """The recipe of `settings` over the columns of `encoder`. Raises MalformedError."""
    return settings.recipe(encoder)


def settings_to_dict(settings: RecipeSettings) -> dict[str, object]:
    """Plain values under the settings' own names, with the recipe's name under "name"."""
    own = {field.name: _plain(getattr(settings, field.name)) for field in fields(settings)}
    return {"name": settings.name.value, **own}


def settings_from_dict(raw: Mapping[str, object]) -> RecipeSettings:
    """The settings that `settings_to_dict` wrote, and nothing else. Raises MalformedError, naming keys only."""
    names = {name.value: name for name in RecipeName}
    named = raw.get("name")
    if not isinstance(named, str) or named not in names:
        raise MalformedError(
            f'[recipe] has no lawful "name"; it must be one of {sorted(names)}: the coordinator must correct the plan'
        )
    kind = SETTINGS[names[named]]
    types_of = _types_of(kind)
    expected = types_of.keys() | {"name"}
    if raw.keys() != expected:
        raise MalformedError(
            f"[recipe]: missing {sorted(expected - raw.keys())}, unknown {sorted(raw.keys() - expected)}; the "
            "coordinator must correct the plan"
        )
    values = {key: _value(key, raw[key], of) for key, of in types_of.items()}
    return kind(**values)  # type: ignore[arg-type]  # every value has just been checked by its field's type


def _types_of(kind: type[RecipeSettings]) -> Mapping[str, object]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


def _value(key: str, value: object, of: object) -> object:
    """`value` as the type `of`, strictly; MalformedError, naming the key, if it is of another kind."""
    if get_origin(of) in (Union, types.UnionType):
        if value is None:
            return None
        (of,) = (part for part in get_args(of) if part is not types.NoneType)
    if get_origin(of) is tuple:
        if not isinstance(value, list | tuple):
            raise _unlawful(key, "a list")
        return tuple(_value(key, item, get_args(of)[0]) for item in value)
    if isinstance(of, type) and issubclass(of, StrEnum):
        if not isinstance(value, str) or value not in {member.value for member in of}:
            raise _unlawful(key, f"one of {sorted(member.value for member in of)}")
        return of(value)
    if of is bool:
        if not isinstance(value, bool):
            raise _unlawful(key, "true or false")
        return value
    # bool is an int in Python, and True is no number of rounds.
    if of is int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_WHOLE:
            raise _unlawful(key, "a whole number up to a million")
        return value
    if of is not float:
        raise TypeError(f"no plan can hold a setting of type {of}")
    # An int beyond the largest float is compared exactly here, where float() would overflow.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST_FLOAT <= value <= LARGEST_FLOAT:
        raise _unlawful(key, "a finite number")
    return float(value)


def _unlawful(key: str, needed: str) -> MalformedError:
    return MalformedError(f"[recipe] {key} must be {needed}; the coordinator must correct the plan")
