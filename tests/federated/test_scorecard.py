import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federated.attributes import AttributeKind
from federated.encoder import Encoder
from federated.model import LinearModel
from federated.reasons import reason_codes
from federated.schema import Schema
from federated.scorecard import PointScale, Scorecard, scorecard_from
from federated.table import read_table
from privacy.errors import MalformedError
from tests.federated.schema_samples import rows, sample, write
from tests.federated.test_encoder import table_of

ENCODER = Encoder(sample())
SCALE = PointScale(600, 20, 30, 300, 850)
WIDE = PointScale(600, 20, 30, -100_000, 100_000)


def model(seed: int = 0, schema: Schema | None = None) -> LinearModel:
    chance = np.random.default_rng(seed)
    width = ENCODER.width
    digest = (schema or ENCODER.schema).digest
    return LinearModel(digest, chance.uniform(0, 0.4, width), chance.normal(0, 0.7, width), -1.3, 2.0)


CARD = scorecard_from(model(), ENCODER, SCALE)


def test_points_double_the_odds() -> None:
    scores = np.array([540.0, 570.0, 600.0, 630.0])
    probability = CARD.probability_of_bad(scores)
    np.testing.assert_allclose((1 - probability) / probability, [5, 10, 20, 40])
    assert SCALE.score_of(-math.log(20)) == pytest.approx(600)
    assert SCALE.score_of(-math.log(40)) == pytest.approx(630)
    np.testing.assert_allclose(SCALE.log_odds_of_bad(np.array([SCALE.score_of(0.37)])), [0.37])
    assert (CARD.probability_of_bad(np.array([-1e6, 1e6])) == [1.0, 0.0]).all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=rows(), seed=st.integers(0, 50))
def test_a_score_is_the_linear_form_at_the_representatives(tmp_path: Path, lines: list[list[str]], seed: int) -> None:
    """Judged by the model itself: the row of representatives through its additive form, in log-odds."""
    card, table = scorecard_from(model(seed), ENCODER, WIDE), read_table(write(tmp_path / "t.csv", lines), sample())
    stand_ins = np.hstack([coder.representatives()[coder.attribute_of(table.columns)] for coder in ENCODER.coders])
    exact = 600 - 30 / math.log(2) * (model(seed).additive_log_odds(stand_ins) + math.log(20))
    assert np.abs(card.score(table) - exact).max() <= 0.5 * (len(card.characteristics) + 1) + 1e-6
    np.testing.assert_array_equal(card.score(table), card.base_points + card.points(table).sum(axis=1))
    np.testing.assert_array_equal(card.score_of_points(card.points(table)), card.score(table))


def test_where_a_form_is_constant_within_attributes_scoring_is_exact() -> None:
    """Only bins, codes and whole knots differ: the card and the additive model then agree up to rounding."""
    table = table_of(late1=[0, 1, 2, 5, -2, -1], home=[1, 2, 3, 1, 2, 3], late2=[0, 2, 1, 3, 4, 5])
    card = scorecard_from(model(), ENCODER, WIDE)
    for name in ("latest", "home", "times_late", "worst"):
        position = [c.id for c in card.characteristics].index(name)
        columns = ENCODER.slices[position]
        part = ENCODER.encode(table)[:, columns] - model().centre[columns]
        expected = -SCALE.factor * part @ model().coefficients[columns]
        np.testing.assert_allclose(card.points(table)[:, position], expected, atol=0.5)


def test_an_average_person_has_neutral_points() -> None:
    """Centred on the sample's own mean, the points of a characteristic average 0 up to rounding and stand-ins."""
    chance = np.random.default_rng(5)
    table = table_of(
        late1=chance.choice([0, 1, 2, -1, -2], 4000).tolist(), home=chance.choice([1, 2, 3], 4000).tolist()
    )
    encoded = ENCODER.encode(table)
    centred = LinearModel(ENCODER.schema.digest, encoded.mean(axis=0), model().coefficients, -1.3, 2.0)
    card = scorecard_from(centred, ENCODER, WIDE)
    ids = [characteristic.id for characteristic in card.characteristics]
    for name in ("latest", "home"):
        assert abs(card.points(table)[:, ids.index(name)].mean()) <= 0.5


def test_a_score_stays_in_the_published_range() -> None:
    table = table_of(late1=[0, 9])
    narrow = scorecard_from(model(), ENCODER, PointScale(600, 20, 30, 599, 601))
    assert set(narrow.score(table).tolist()) <= {599, 600, 601}
    assert narrow.score(table).dtype == np.int64


def test_a_card_survives_its_document() -> None:
    assert Scorecard.from_json(CARD.to_json()) == CARD
    assert Scorecard.from_dict(CARD.to_dict()) == CARD
    assert json.loads(CARD.to_json()) == CARD.to_dict()
    Scorecard.from_json(CARD.to_json()).require_match(ENCODER)


def test_a_document_in_another_form_is_refused() -> None:
    data = CARD.to_json()
    for other in (data + b" ", data.replace(b":", b": ", 1), data[:-1], b"{}", b"", b"\xff", b"[" * 100_000):
        with pytest.raises(MalformedError):
            Scorecard.from_json(other)


@pytest.mark.parametrize("path", [(), ("scale",), ("characteristics", 0), ("characteristics", 0, "derive"),
                                  ("characteristics", 0, "attributes", 0)])  # fmt: skip
def test_a_document_with_another_key_is_refused(path: tuple[str | int, ...]) -> None:
    raw = json.loads(CARD.to_json())
    table = raw
    for step in path:
        table = table[step]
    table["extra"] = 1
    with pytest.raises(MalformedError):
        Scorecard.from_dict(raw)
    del table["extra"]
    for key in list(table):
        value = table.pop(key)
        if key not in {"equal", "at_least", "divided_by"} or path[-1:] != ("derive",):
            with pytest.raises(MalformedError):
                Scorecard.from_dict(raw)
        table[key] = value
    assert Scorecard.from_dict(raw) == CARD


def test_attributes_that_overlap_or_leave_gaps_are_refused() -> None:
    changes: list[tuple[int, str, object]] = [
        (0, "below", 2), (1, "at_least", None), (1, "at_least", 0.5), (3, "below", 9), (0, "at_least", 0),
        (4, "codes", [-1]), (4, "codes", []), (0, "codes", [3]), (0, "kind", "missing"), (6, "kind", "interval"),
        (0, "points", 10**9), (0, "points", 1.5),
    ]  # fmt: skip
    for index, key, value in changes:
        raw = json.loads(CARD.to_json())
        raw["characteristics"][0]["attributes"][index][key] = value
        with pytest.raises(MalformedError):
            Scorecard.from_dict(raw)


def test_a_card_for_another_schema_does_not_match() -> None:
    other = replace(CARD, schema_digest="0" * 64)
    with pytest.raises(MalformedError, match="one schema"):
        other.require_match(ENCODER)
    first = CARD.characteristics[0]
    sly = replace(CARD, characteristics=(replace(first, special_of={"late1": (-1,)}), *CARD.characteristics[1:]))
    with pytest.raises(MalformedError, match="one schema"):
        sly.require_match(ENCODER)
    replace(CARD, base_points=7).require_match(ENCODER)
    with pytest.raises(MalformedError):
        scorecard_from(replace(model(), schema_digest="0" * 64), ENCODER, SCALE)


@pytest.mark.parametrize(
    "numbers",
    [(600, 0, 30, 0, 1), (600, 20, 0, 0, 1), (600, 20, 30, 1, 1), (math.nan, 20, 30, 0, 1), (600, math.inf, 30, 0, 1),
     (600, 20, 30, 0.5, 1), (600, -1, 30, 0, 1)],
)  # fmt: skip
def test_a_point_scale_without_sense_is_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(MalformedError):
        PointScale(*numbers)


def test_a_model_past_any_scale_is_refused() -> None:
    with pytest.raises(MalformedError, match="did not converge"):
        scorecard_from(replace(model(), coefficients=np.full(ENCODER.width, 1e12)), ENCODER, SCALE)


def test_reasons_name_what_cost_most() -> None:
    best = [c.best_points for c in CARD.characteristics]
    assert reason_codes(CARD, best) == ()
    lost = [3, 0, 50, 7, 0, 20, 7, 1, 0, 0]
    reasons = reason_codes(CARD, [b - x for b, x in zip(best, lost, strict=True)])
    assert [(reason.characteristic, reason.points_lost) for reason in reasons] == [
        ("times_unused", 50), ("bills", 20), ("worst", 7), ("mean_bill", 7),
    ]  # fmt: skip
    assert reasons[0].text == "Not used"
    assert reasons[0].category == "behaviour"


def test_what_nobody_holds_is_no_reason() -> None:
    row: list[int | None] = [c.best_points - 10 for c in CARD.characteristics]
    row[2] = None
    reasons = reason_codes(CARD, row)
    assert len(reasons) == 4
    assert "times_unused" not in {reason.characteristic for reason in reasons}
    assert reason_codes(CARD, [None] * len(row)) == ()
    assert len(reason_codes(CARD, row, most=1)) == 1


def test_an_unknown_value_says_so() -> None:
    index = [c.id for c in CARD.characteristics].index("home")
    home = CARD.characteristics[index]
    assert [a.kind for a in home.attributes] == [AttributeKind.CODES, AttributeKind.CODES, AttributeKind.MISSING]
    card = replace(
        CARD,
        characteristics=tuple(replace(c, points=(5, 1, -9)) if c is home else c for c in CARD.characteristics),
    )
    row: list[int | None] = [None] * len(CARD.characteristics)
    row[index] = -9
    assert [(reason.text, reason.points_lost) for reason in reason_codes(card, row)] == [("Home: not known", 14)]
    # Not being known is nothing to aim for, even where it has most points.
    lucky = replace(card, characteristics=tuple(replace(c, points=(5, 1, 90)) if c.id == "home" else c
                                                for c in card.characteristics))  # fmt: skip
    row[index] = 1
    assert reason_codes(lucky, row)[0].points_lost == 4
    row[index] = 90
    assert reason_codes(lucky, row) == ()


def test_reasons_refuse_another_cards_points() -> None:
    with pytest.raises(MalformedError):
        reason_codes(CARD, [1, 2])
    with pytest.raises(ValueError, match="most"):
        reason_codes(CARD, [0] * len(CARD.characteristics), most=5)


def test_scoring_is_fast() -> None:
    count = 200_000
    chance = np.random.default_rng(3)
    table = table_of(
        late1=chance.choice([0.0, 1, 2, -1], count).tolist(), bill1=chance.uniform(-5, 5e4, count).tolist()
    )
    start = time.perf_counter()
    CARD.score(table)
    assert time.perf_counter() - start < 2  # 0.06 s on an idle core
