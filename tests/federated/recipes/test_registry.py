"""Settings are complete and strict, and naming a recipe costs no heavy import."""

import json
import subprocess
import sys

import pytest

from federated.recipes.base import Recipe, RecipeName
from federated.recipes.fixed_hessian import FixedHessian
from federated.recipes.opacus_fedavg import OpacusFedAvg
from federated.recipes.registry import (
    FixedHessianSettings,
    OpacusFedAvgSettings,
    RecipeSettings,
    recipe_from,
    settings_from_dict,
    settings_to_dict,
)
from privacy.errors import MalformedError

HESSIAN = FixedHessianSettings(radius=4.5, centred_radius=2.0, epsilon=1.0, delta=1e-5, steps=8)
OPACUS = OpacusFedAvgSettings(
    hidden=(64, 32),
    learning_rate=0.1,
    batch_size=64,
    local_epochs=1,
    rounds=10,
    clipping_norm=1.0,
    epsilon=None,
    delta=1e-5,
)


@pytest.mark.parametrize("settings", [HESSIAN, OPACUS])
def test_settings_survive_json(settings: RecipeSettings) -> None:
    written = json.loads(json.dumps(settings_to_dict(settings)))
    assert settings_from_dict(written) == settings
    assert written["name"] == settings.name.value


def test_every_recipe_can_be_made_and_keeps_its_settings() -> None:
    made: list[Recipe] = [recipe_from(s, width=7, schema_digest="d") for s in (HESSIAN, OPACUS)]
    assert {recipe.name for recipe in made} == set(RecipeName)
    assert made[0] == FixedHessian(7, 4.5, 2.0, 1.0, 1e-5, 8, schema_digest="d")
    assert made[1] == OpacusFedAvg(7, (64, 32), 0.1, 64, 1, 10, 1.0, None, 1e-5, schema_digest="d")


@pytest.mark.parametrize("settings", [HESSIAN, OPACUS])
def test_missing_and_unknown_keys_are_refused_by_name(settings: RecipeSettings) -> None:
    whole = settings_to_dict(settings)
    for key in whole.keys() - {"name"}:
        with pytest.raises(MalformedError, match=f"missing.*{key}"):
            settings_from_dict({k: v for k, v in whole.items() if k != key})
    with pytest.raises(MalformedError, match=r"unknown.*epsilonn"):
        settings_from_dict({**whole, "epsilonn": 1.0})


@pytest.mark.parametrize("name", [None, 3, "fedprox", ["fixed_hessian"], ""])
def test_unknown_recipes_are_refused(name: object) -> None:
    with pytest.raises(MalformedError, match="name"):
        settings_from_dict({**settings_to_dict(HESSIAN), "name": name})


def repr_of(value: object) -> str:
    return repr(value)[:12]


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf"), [1.0], {}, 10**400], ids=repr_of)
@pytest.mark.parametrize("key", ["radius", "delta", "epsilon", "steps"])
def test_values_of_another_kind_are_refused(key: str, value: object) -> None:
    with pytest.raises(MalformedError, match=key):
        settings_from_dict({**settings_to_dict(HESSIAN), key: value})


@pytest.mark.parametrize("hidden", ["64", 64, [64.0], [True], None])
def test_layers_are_a_list_of_whole_numbers(hidden: object) -> None:
    with pytest.raises(MalformedError, match="hidden"):
        settings_from_dict({**settings_to_dict(OPACUS), "hidden": hidden})


def test_registry_imports_neither_torch_nor_opacus_nor_scipy() -> None:
    code = (
        "import sys, numpy as np, federated.recipes.registry as r\nmade = "
        f"r.recipe_from(r.settings_from_dict({settings_to_dict(OPACUS)!r}), width=3, "
        "schema_digest='d')\nmade.advance(made.start(), np.zeros(made.length(1))); made.spend(1, "
        f"100)\nprint(sorted({{'torch', 'opacus', 'scipy', 'sklearn', 'flwr'}} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
