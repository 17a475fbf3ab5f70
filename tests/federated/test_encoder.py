import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from federated.attributes import AttributeKind
from federated.characteristics import Form, Risk
from federated.encoder import Encoder, hats
from federated.schema_toml import parse_schema
from federated.table import RawTable, read_table
from tests.federated.schema_samples import COLUMNS, TEXT, rows, sample, write

ENCODER = Encoder(sample())
on_disk = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read(tmp_path: Path, lines: list[list[str]]) -> RawTable:
    return read_table(write(tmp_path / "t.csv", lines), ENCODER.schema)


def interpolated(value: float, knots: list[float]) -> list[float]:
    """numpy's interpolation of the unit vectors: hat functions by another road."""
    return [float(np.interp(value, knots, np.eye(len(knots))[index])) for index in range(len(knots))]


def by_hand(line: list[str]) -> dict[str, list[float]]:
    """The sample schema's encoding of one row of texts, written out characteristic by characteristic."""
    cell = dict(zip(COLUMNS, line, strict=True))
    late1 = None if cell["late1"] in ("", "NA") else int(cell["late1"])
    late2, late3 = int(cell["late2"]), int(cell["late3"])
    bill1 = None if cell["bill1"] == "" else float(cell["bill1"])
    bill2 = float(cell["bill2"])
    limit = None if cell["limit"] == "-9" else float(cell["limit"])
    home = None if cell["home"] == "?" else int(cell["home"])
    out: dict[str, list[float]] = {}

    out["latest"] = [0.0] * 7  # 0, 1, 2, 3+, -2, -1, missing
    out["latest"][6 if late1 is None else {-2: 4, -1: 5}.get(late1, min(late1, 3))] = 1.0

    out["times_late"] = [0.0, 0.0, 0.0]
    out["times_late"][(late2 >= 2) + (late3 >= 2)] = 1.0

    if late1 is None:
        out["times_unused"] = [0.0, 1.0]
    else:
        out["times_unused"] = [(((late1 == -2) + (late2 == -2)) / 2 - 0.2) / 0.5, 0.0]

    amounts = [late for late in (late1, late2, late3) if late is not None and late >= 0]
    worst = max(amounts)
    out["worst"] = [float(worst < 1), float(1 <= worst < 4), float(worst >= 4), 0.0]

    amounts = [late for late in (late1, late2) if late is not None and late >= 0]
    out["least"] = [(math.log1p(min(amounts) / 2) - 0.5) / 0.7, 0.0] if amounts else [0.0, 1.0]

    def signed_log(value: float) -> float:
        return math.copysign(math.log1p(abs(value) / 100), value)

    if bill1 is None:
        out["bills"] = [0.0, 0.0, 0.0, 0.0, 1.0]
    else:
        out["bills"] = [*interpolated(signed_log(bill1 + bill2), [signed_log(k) for k in (-1000, 0, 1000, 50000)]), 0.0]

    if limit is None:
        out["mean_bill"] = [0.0, 0.0, 0.0, 1.0]
    else:
        held = [bill for bill in (bill1, bill2) if bill is not None]
        out["mean_bill"] = [*interpolated(sum(held) / len(held) / limit, [0, 0.5, 1]), 0.0]

    if bill1 is None:
        out["change"] = [0.0, 1.0]
    else:
        out["change"] = [min(1.0, max(-1.0, (bill1 - bill2) / max(bill1 + bill2, 100))), 0.0]

    out["limit"] = [0.0, 1.0] if limit is None else [(math.log1p(limit) - 7) / 2, 0.0]

    out["home"] = [float(home == 1), float(home in (2, 3)), float(home is None)]
    return out


@on_disk
@given(lines=rows())
def test_the_encoding_is_the_one_written_out_by_hand(tmp_path: Path, lines: list[list[str]]) -> None:
    encoded = ENCODER.encode(read(tmp_path, lines))
    assert encoded.shape == (len(lines), ENCODER.width) == (len(lines), len(ENCODER.columns))
    assert np.isfinite(encoded).all()
    for row, line in zip(encoded, lines, strict=True):
        for (name, expected), columns in zip(by_hand(line).items(), ENCODER.slices, strict=True):
            np.testing.assert_allclose(row[columns], expected, atol=1e-9, err_msg=name)


@on_disk
@given(lines=rows(6))
def test_one_more_row_never_changes_another(tmp_path: Path, lines: list[list[str]]) -> None:
    together = ENCODER.encode(read(tmp_path, lines))
    for index, line in enumerate(lines):
        np.testing.assert_array_equal(ENCODER.encode(read(tmp_path, [line]))[0], together[index])


@on_disk
@given(lines=rows())
def test_every_row_falls_in_exactly_one_attribute(tmp_path: Path, lines: list[list[str]]) -> None:
    table = read(tmp_path, lines)
    for coder, columns in zip(ENCODER.coders, ENCODER.slices, strict=True):
        attributes = coder.attributes
        position = coder.attribute_of(table.columns)
        assert ((position >= 0) & (position < len(attributes))).all()
        encoded = ENCODER.encode(table)[:, columns]
        for index, attribute in enumerate(attributes):
            # Missing and special are each their own indicator, and nothing else of the characteristic is on then.
            if attribute.kind in (AttributeKind.MISSING, AttributeKind.SPECIAL):
                own = encoded[position == index]
                assert ((own == 1).sum(axis=1) == 1).all()
                assert ((own == 0).sum(axis=1) == own.shape[1] - 1).all()


def table_of(**cells: list[float]) -> RawTable:
    """One table straight from numbers; columns not given get a plain value."""
    plain = {"limit": 1000.0, "late1": 0.0, "late2": 0.0, "late3": 0.0, "bill1": 10.0, "bill2": 10.0, "home": 1.0}
    count = len(next(iter(cells.values())))
    columns = {name: np.array(cells.get(name, [value] * count), dtype=np.float64) for name, value in plain.items()}
    return RawTable(tuple(str(i) for i in range(count)), columns, None, {})


@pytest.mark.parametrize(
    ("identifier", "column", "values", "titles"),
    [
        ("latest", "late1", [0, 1, 2, 3, 9, -2, -1, math.nan],
         ["0", "1", "2", "3 or more", "3 or more", "not used", "paid in full", "not known"]),
        ("home", "home", [1, 2, 3, math.nan], ["own", "rented or free", "rented or free", "not known"]),
        ("limit", "limit", [1, 999.99, 1000, 1e6, -9],
         ["below 1,000", "below 1,000", "1,000 or more", "1,000 or more", "no limit agreed"]),
        ("bills", "bill1", [-510.01, -510, -10.01, -10, 490, math.nan],
         ["below -500", "-500 to below 0", "-500 to below 0", "0 to below 500", "500 to below 10,000", "not known"]),
        ("times_late", "late2", [1, 2, -2], ["0", "1", "0"]),
    ],
)  # fmt: skip
def test_attributes_have_titles_and_closed_lower_ends(
    identifier: str, column: str, values: list[float], titles: list[str]
) -> None:
    coder = next(coder for coder in ENCODER.coders if coder.characteristic.id == identifier)
    attributes = coder.attributes
    found = [attributes[index].title for index in coder.attribute_of(table_of(**{column: values}).columns)]
    assert found == titles


def test_a_representative_encodes_like_a_row_in_the_middle_of_its_attribute() -> None:
    coder = next(coder for coder in ENCODER.coders if coder.characteristic.id == "mean_bill")
    middle = [0.125, 0.5, 1.375]  # of 0 to 0.25, 0.25 to 0.75, 0.75 to 2
    cells = table_of(bill1=[m * 1000 for m in middle], bill2=[m * 1000 for m in middle]).columns
    np.testing.assert_allclose(coder.representatives()[:3], coder.encode(cells))
    counted = next(coder for coder in ENCODER.coders if coder.characteristic.id == "times_late")
    np.testing.assert_allclose(counted.representatives(), np.eye(3))


def test_a_count_is_whole_whatever_it_counts() -> None:
    text = TEXT.replace('title = "Months late, two months before"\ntype = "integer"', 'title = "x"\ntype = "number"')
    assert text != TEXT
    coder = next(c for c in Encoder(parse_schema(text, "x")).coders if c.characteristic.id == "times_late")
    assert [attribute.title for attribute in coder.attributes] == ["0", "1", "2 or more"]
    np.testing.assert_allclose(coder.representatives(), np.eye(3))


def test_every_edge_of_the_bounds_is_finite() -> None:
    bounds = {
        name: [column.minimum, column.maximum, *column.special_codes, *([math.nan] if column.missing else [])]
        for column in ENCODER.schema.columns
        if (name := column.name) in ENCODER.schema.input_columns
    }
    chance = np.random.default_rng(0)
    drawn = {name: chance.choice(values, 500).tolist() for name, values in bounds.items()}
    encoded = ENCODER.encode(table_of(**drawn))
    assert np.isfinite(encoded).all()
    assert len(np.unique(encoded, axis=0)) > 100


def test_hats_are_linear_between_knots() -> None:
    knots = np.array([-2.0, 0.0, 0.5, 4.0])
    values = np.linspace(-3, 5, 1001)
    found: NDArray[np.float64] = hats(values, knots)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found, np.array([interpolated(value, knots.tolist()) for value in values]), atol=1e-12)
    np.testing.assert_allclose(found @ knots, np.clip(values, -2, 4), atol=1e-12)


def test_the_suggested_radii_come_from_the_schema() -> None:
    assert (ENCODER.radius, ENCODER.centred_radius) == (3.5, 2.0)
    assert len(set(ENCODER.columns)) == ENCODER.width


def test_blocks_say_which_columns_belong_together_and_which_are_ordered() -> None:
    blocks = {block.id: block for block in ENCODER.blocks}
    assert [block.start for block in ENCODER.blocks] == [0, *(block.stop for block in ENCODER.blocks)][:-1]
    assert ENCODER.blocks[-1].stop == ENCODER.width
    for block, columns in zip(ENCODER.blocks, ENCODER.slices, strict=True):
        assert (block.start, block.stop) == (columns.start, columns.stop)
        ordered = [name.split(":")[1].split()[0] for name in ENCODER.columns[columns][: block.ordered]]
        others = [name.split(":")[1].split()[0] for name in ENCODER.columns[columns][block.ordered :]]
        assert set(ordered) <= {"line", "knot", "from"}
        assert set(others) <= {"codes", "special", "missing"}
    assert (blocks["latest"].ordered, blocks["latest"].form, blocks["latest"].risk) == (4, Form.BINS, Risk.INCREASING)
    assert (blocks["bills"].ordered, blocks["bills"].form) == (4, Form.KNOTS)
    assert (blocks["limit"].ordered, blocks["limit"].form, blocks["limit"].risk) == (1, Form.LINE, Risk.DECREASING)
    assert (blocks["home"].ordered, blocks["home"].form, blocks["home"].risk) == (0, Form.CODES, Risk.NONE)


@on_disk
@given(lines=rows(6))
def test_what_lies_along_the_middle_is_the_same_for_everybody(tmp_path: Path, lines: list[list[str]]) -> None:
    encoded = ENCODER.encode(read(tmp_path, lines))
    for block in ENCODER.blocks:
        own, middle = encoded[:, block.start : block.stop], ENCODER.middle[block.start : block.stop]
        if block.form is Form.LINE:
            assert not middle.any()
        else:
            assert middle.sum() == pytest.approx(1)
            assert len(set(middle)) == 1
            # The cells of a row in a table add up to 1.
            np.testing.assert_allclose(own @ middle, middle @ middle)
