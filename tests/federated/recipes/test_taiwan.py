"""Every recipe of unit rows on the embedded data, one split: an alarm for lost accuracy, not a measurement of it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from federated.encoder import Encoder
from federated.model import LinearModel
from federated.recipes.choice import choose
from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescentSettings
from federated.recipes.registry import RecipeSettings, recipe_from
from federated.recipes.sufficient_statistics import SufficientStatisticsSettings
from federated.rows import EncodedRows
from federated.schema_toml import load_schema
from federated.table import read_table
from privacy.noise import SeededNoise
from tests.federated.recipes.walks import DELTA, Floats, walk

DATA = Path(__file__).parents[3] / "experiments" / "data"


@cache
def split(name: str) -> tuple[Encoder, EncodedRows, Floats, Floats]:
    schema = load_schema(DATA / name / "schema.toml")
    encoder, table = Encoder(schema), read_table(DATA / name / "data.csv.gz", schema)
    assert table.outcome is not None
    x, bad = encoder.encode(table), table.outcome
    train, test = train_test_split(np.arange(len(x)), test_size=0.25, stratify=bad, random_state=0)
    return encoder, EncodedRows(x[train], bad[train], np.ones(len(train))), x[test], bad[test]


def aucs(name: str, settings: RecipeSettings, *, most: int | None = None, draws: int = 1) -> tuple[float, float]:
    """Mean test AUC of the clipped linear form and of the additive form, after training on `most` people."""
    encoder, rows, x, bad = split(name)
    made = recipe_from(settings, encoder=encoder)
    out = []
    for draw in range(draws):
        chosen = np.random.default_rng(draw).permutation(len(rows))[:most]
        some = EncodedRows(rows.x[chosen], rows.bad[chosen], rows.share[chosen])
        model = made.model(walk(made, [some], SeededNoise(draw, "taiwan"))[-1])
        assert isinstance(model, LinearModel)
        out.append([roc_auc_score(bad, form(x)) for form in (model.log_odds, model.additive_log_odds)])
    linear, additive = np.mean(out, axis=0).tolist()
    return linear, additive


def settings_at(kind: str, epsilon: float, *, monotone: bool = True) -> RecipeSettings:
    schema = split("taiwan_default")[0].schema
    inner = schema.centred_radius
    match kind:
        case "centred":
            return FixedHessianSettings(schema.radius, inner, epsilon, DELTA, 8, monotone)
        case "uncentred":
            return UncentredFixedHessianSettings(inner, epsilon, DELTA, 8, monotone)
        case "descent":
            return GradientDescentSettings(schema.radius, inner, epsilon, DELTA, monotone=monotone)
        case "statistics":
            return SufficientStatisticsSettings(inner, epsilon, DELTA, monotone)
        case _:
            raise AssertionError(kind)


# Split 0 without privacy: scikit-learn's logistic regression has 0.7748.
@pytest.mark.parametrize(
    ("kind", "least"), [("centred", 0.769), ("uncentred", 0.769), ("descent", 0.769), ("statistics", 0.765)]
)
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_taiwan_keeps_its_accuracy_under_privacy(kind: str, least: float, epsilon: float) -> None:
    linear, additive = aucs("taiwan_default", settings_at(kind, epsilon), draws=3)
    slack = 0.006 if epsilon < 1 else 0.0
    assert least - slack < linear < 0.80
    assert least - slack - 0.002 < additive < 0.80


def test_directions_of_the_schema_help_where_people_are_few() -> None:
    free, kept = (
        aucs("taiwan_default", settings_at("centred", 0.5, monotone=flag), most=700, draws=12)[1]
        for flag in (False, True)
    )
    assert kept > free + 0.005


def test_where_people_are_few_the_chosen_recipe_beats_the_centred_one() -> None:
    schema = split("taiwan_default")[0].schema
    chosen = choose(people=700, epsilon=1.0, delta=DELTA, schema=schema).settings
    better, worse = (
        aucs("taiwan_default", settings, most=700, draws=24)[0] for settings in (chosen, settings_at("centred", 1.0))
    )
    assert better > worse + 0.001


def test_south_german_ranks_sensibly_with_750_people() -> None:
    schema = split("south_german")[0].schema
    chosen = choose(people=750, epsilon=1.0, delta=DELTA, schema=schema).settings
    assert min(aucs("south_german", chosen, draws=12)) > 0.72
