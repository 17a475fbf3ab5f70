"""Settings are complete and strict, and naming a recipe costs no heavy import."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from federated.encoder import Encoder
from federated.recipes.base import Recipe, RecipeName
from federated.recipes.fixed_hessian import FixedHessian, FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescent, GradientDescentSettings
from federated.recipes.histogram_scorecard import HistogramScorecardSettings
from federated.recipes.local_sgd import LocalAlgorithm, LocalSgdSettings
from federated.recipes.monotone import directed
from federated.recipes.opacus_fedavg import OpacusFedAvgSettings
from federated.recipes.registry import SETTINGS, RecipeSettings, recipe_from, settings_from_dict, settings_to_dict
from federated.recipes.sufficient_statistics import SufficientStatistics, SufficientStatisticsSettings
from federated.schema_toml import load_schema
from privacy.errors import MalformedError
from tests.federated.schema_samples import sample

ENCODER = Encoder(sample())
SOUTH_GERMAN = Path(__file__).parents[3] / "experiments" / "data" / "south_german" / "schema.toml"
START = tuple(0.25 * place for place in range(ENCODER.width + 1))
HESSIAN = FixedHessianSettings(radius=4.5, centred_radius=2.0, epsilon=1.0, delta=1e-5, steps=8)
WARM = UncentredFixedHessianSettings(radius=2.0, epsilon=1.0, delta=1e-5, steps=8, monotone=True, start=START)
DESCENT = GradientDescentSettings(radius=4.5, centred_radius=2.0, epsilon=0.5, delta=1e-5, steps=50, momentum=0.8)
STATISTICS = SufficientStatisticsSettings(radius=2.0, epsilon=3.0, delta=1e-5, monotone=True)
HISTOGRAM = HistogramScorecardSettings(epsilon=1.0, delta=1e-5, steps=8)
LOCAL = LocalSgdSettings(
    algorithm=LocalAlgorithm.FEDPROX, proximal_strength=0.1, hidden=(16,), learning_rate=0.1, batch_size=64,
    local_epochs=1, rounds=10, clipping_norm=1.0, epsilon=2.0, delta=1e-5,
)  # fmt: skip
OPACUS = OpacusFedAvgSettings(
    hidden=(64, 32), learning_rate=0.1, batch_size=64, local_epochs=1, rounds=10, clipping_norm=1.0, epsilon=None,
    delta=1e-5,
)  # fmt: skip
ALL: list[RecipeSettings] = [HESSIAN, WARM, DESCENT, STATISTICS, HISTOGRAM, LOCAL, OPACUS]


def named(settings: object) -> str:
    return str(getattr(settings, "name", settings))


def test_every_recipe_that_a_plan_may_name_is_here() -> None:
    assert set(SETTINGS) == set(RecipeName) == {settings.name for settings in ALL}
    assert set(SETTINGS.values()) == set(get_args(RecipeSettings))


@pytest.mark.parametrize("settings", ALL, ids=named)
def test_settings_survive_json(settings: RecipeSettings) -> None:
    written = json.loads(json.dumps(settings_to_dict(settings)))
    assert settings_from_dict(written) == settings
    assert settings_to_dict(settings_from_dict(written)) == written
    assert written["name"] == settings.name.value


@pytest.mark.parametrize("settings", ALL, ids=named)
def test_every_recipe_can_be_made_and_keeps_its_name(settings: RecipeSettings) -> None:
    # The sample schema has lines, and a histogram needs tables only.
    encoder = Encoder(load_schema(SOUTH_GERMAN)) if settings is HISTOGRAM else ENCODER
    made = recipe_from(settings, encoder=encoder)
    assert made.name is settings.name
    assert made.is_private == (settings.epsilon is not None)
    assert set(made.instruction(made.start())) >= {"round"}


def test_recipes_keep_their_settings_and_the_schemas_columns() -> None:
    width, digest, middle = ENCODER.width, ENCODER.schema.digest, tuple(ENCODER.middle.tolist())
    ordered = directed(ENCODER.blocks)
    expected: list[Recipe] = [
        FixedHessian(width, 4.5, 2.0, 1.0, 1e-5, 8, schema_digest=digest),
        FixedHessian(
            width, 2.0, None, 1.0, 1e-5, 8, schema_digest=digest, middle=middle, monotone=ordered, public_start=START
        ),
        GradientDescent(width, 4.5, 2.0, 0.5, 1e-5, 50, 0.8, 2.0, schema_digest=digest),
        SufficientStatistics(width, 2.0, 3.0, 1e-5, schema_digest=digest, middle=middle, monotone=ordered),
    ]
    assert [recipe_from(settings, encoder=ENCODER) for settings in ALL[:4]] == expected


def test_a_start_of_another_schema_is_refused() -> None:
    short = UncentredFixedHessianSettings(2.0, 1.0, 1e-5, 8, start=START[:-1])
    with pytest.raises(MalformedError, match="an intercept and"):
        recipe_from(settings_from_dict(settings_to_dict(short)), encoder=ENCODER)


@pytest.mark.parametrize("settings", ALL, ids=named)
def test_missing_and_unknown_keys_are_refused_by_name(settings: RecipeSettings) -> None:
    whole = settings_to_dict(settings)
    assert whole.keys() == {"name", *(field.name for field in fields(settings))}
    for key in whole.keys() - {"name"}:
        with pytest.raises(MalformedError, match=f"missing.*{key}"):
            settings_from_dict({k: v for k, v in whole.items() if k != key})
    with pytest.raises(MalformedError, match=r"unknown.*epsilonn"):
        settings_from_dict({**whole, "epsilonn": 1.0})


@pytest.mark.parametrize("name", [None, 3, "fedprox", ["fixed_hessian"], "", "auto"])
def test_unknown_recipes_are_refused(name: object) -> None:
    with pytest.raises(MalformedError, match="name"):
        settings_from_dict({**settings_to_dict(HESSIAN), "name": name})


def repr_of(value: object) -> str:
    return repr(value)[:12]


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf"), [1.0], {}, 10**400], ids=repr_of)
@pytest.mark.parametrize("settings", ALL, ids=named)
def test_values_of_another_kind_are_refused(settings: RecipeSettings, value: object) -> None:
    numbers = [key for key, kept in settings_to_dict(settings).items() if type(kept) in (int, float)]
    assert numbers
    for key in numbers:
        with pytest.raises(MalformedError, match=key):
            settings_from_dict({**settings_to_dict(settings), key: value})


@pytest.mark.parametrize(
    ("settings", "key", "values"),
    [
        (OPACUS, "hidden", ["64", 64, [64.0], [True], None, [-1], [10**7]]),
        (HESSIAN, "monotone", [0, 1, None, "true", [True]]),
        (HESSIAN, "start", ["0", 0.0, [None], ["1"], [True], [float("nan")], [float("inf")], [[0.0]]]),
        (HESSIAN, "steps", [8.0, -1, None, 1_000_001]),
        (HESSIAN, "radius", [None]),
        (LOCAL, "algorithm", ["fedadam", None, 1, ["fedavg"], ""]),
    ],
)
def test_each_kind_of_setting_is_strict(settings: RecipeSettings, key: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(MalformedError, match=key):
            settings_from_dict({**settings_to_dict(settings), key: value})


def test_naming_recipes_imports_neither_torch_nor_opacus_nor_scipy() -> None:
    code = (
        "import sys, numpy as np, federated.recipes.choice, federated.recipes.registry as r\n"
        "from federated.encoder import Encoder\nfrom federated.schema_toml import parse_schema\n"
        "from pathlib import Path\n"
        "text = Path('experiments/data/south_german/schema.toml').read_text()\n"
        f"made = r.recipe_from(r.settings_from_dict({settings_to_dict(OPACUS)!r}), "
        "encoder=Encoder(parse_schema(text, 's')))\n"
        "made.advance(made.start(), np.zeros(made.length(1)), contributors=2); made.spend(1, 100)\n"
        "print(sorted({'torch', 'opacus', 'scipy', 'sklearn', 'flwr'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
