"""From a plan's settings to a recipe. Settings are frozen and complete: missing and unknown keys are both refused."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, assert_never

from federated.recipes.base import Recipe, RecipeName
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.opacus_fedavg import OpacusFedAvg
from privacy.errors import MalformedError


@dataclass(frozen=True, slots=True)
class FixedHessianSettings:
    """Settings of `FixedHessian`; radii in units of encoded columns."""

    radius: float
    centred_radius: float
    epsilon: float | None
    delta: float
    steps: int

    name: ClassVar[RecipeName] = RecipeName.FIXED_HESSIAN


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


RecipeSettings = FixedHessianSettings | OpacusFedAvgSettings

LARGEST_WHOLE = 1_000_000
"""No plan has more rounds, steps, people in a batch or units in a layer."""

LARGEST_FLOAT = sys.float_info.max

_WHOLE = frozenset({"steps", "batch_size", "local_epochs", "rounds"})
_SETTINGS: Mapping[RecipeName, type[FixedHessianSettings] | type[OpacusFedAvgSettings]] = {
    RecipeName.FIXED_HESSIAN: FixedHessianSettings,
    RecipeName.OPACUS_FEDAVG: OpacusFedAvgSettings,
}


def recipe_from(settings: RecipeSettings, *, width: int, schema_digest: str) -> Recipe:
    """The recipe of `settings` for `width` encoded columns of that schema. Raises MalformedError."""
    match settings:
        case FixedHessianSettings():
            return FixedHessian(
                width=width,
                radius=settings.radius,
                centred_radius=settings.centred_radius,
                epsilon=settings.epsilon,
                delta=settings.delta,
                steps=settings.steps,
                schema_digest=schema_digest,
            )
        case OpacusFedAvgSettings():
            return OpacusFedAvg(
                width=width,
                hidden=settings.hidden,
                learning_rate=settings.learning_rate,
                batch_size=settings.batch_size,
                local_epochs=settings.local_epochs,
                rounds=settings.rounds,
                clipping_norm=settings.clipping_norm,
                epsilon=settings.epsilon,
                delta=settings.delta,
                schema_digest=schema_digest,
            )
        case _:
            assert_never(settings)


def settings_to_dict(settings: RecipeSettings) -> dict[str, object]:
    """Plain values under the settings' own names, with the recipe's name under "name"."""
    plain: dict[str, object] = {"name": settings.name.value, **asdict(settings)}
    if isinstance(settings, OpacusFedAvgSettings):
        plain["hidden"] = list(settings.hidden)
    return plain


def settings_from_dict(raw: Mapping[str, object]) -> RecipeSettings:
    """The settings that `settings_to_dict` wrote, and nothing else. Raises MalformedError, naming keys only."""
    names = {name.value: name for name in RecipeName}
    named = raw.get("name")
    if not isinstance(named, str) or named not in names:
        raise MalformedError(
            f'[recipe] has no lawful "name"; it must be one of {sorted(names)}: the coordinator must correct the plan'
        )
    kind = _SETTINGS[names[named]]
    expected = {field.name for field in fields(kind)} | {"name"}
    if raw.keys() != expected:
        raise MalformedError(
            f"[recipe]: missing {sorted(expected - raw.keys())}, unknown {sorted(raw.keys() - expected)}; the "
            "coordinator must correct the plan"
        )
    values = {key: _value(key, value) for key, value in raw.items() if key != "name"}
    return kind(**values)  # type: ignore[arg-type]  # every value has just been checked by its key


def _whole(key: str, value: object) -> int:
    # bool is an int in Python, and True is no number of rounds.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_WHOLE:
        raise _unlawful(key, "a whole number up to a million")
    return value


def _value(key: str, value: object) -> object:
    if key in _WHOLE:
        return _whole(key, value)
    if key == "hidden":
        if not isinstance(value, list | tuple):
            raise _unlawful(key, "a list of whole numbers")
        return tuple(_whole(key, item) for item in value)
    if key == "epsilon" and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unlawful(key, "a finite number")
    # An int beyond the largest float is compared exactly here, where float() would overflow.
    if not -LARGEST_FLOAT <= value <= LARGEST_FLOAT:
        raise _unlawful(key, "a finite number")
    return float(value)


def _unlawful(key: str, needed: str) -> MalformedError:
    return MalformedError(f"[recipe] {key} must be {needed}; the coordinator must correct the plan")
