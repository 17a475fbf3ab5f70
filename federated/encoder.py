"""Rows of raw cells to rows of numbers, by the schema's public constants alone.

No column depends on another row: encoding a table is encoding its rows one by one. A characteristic without a
value (missing, or a special code) is never zero by accident: its own indicator is 1 and the columns of its
form are 0, which for a line is the public centre.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federated.attributes import Attribute, AttributeKind, attribute_index, interval_title
from federated.characteristics import Characteristic, Form, Risk
from federated.derive import Derivation, derived
from federated.schema import CellType, Schema
from federated.table import RawTable

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ColumnBlock:
    """The encoded columns [start, stop) of one characteristic.

    The first `ordered` of them stand in the order of the value: 1 for a line, one per knot or bin, 0 for codes. The
    others are indicators of special codes and of missing values. `risk` is the direction the schema declares.
    """

    id: str
    start: int
    stop: int
    ordered: int
    form: Form
    risk: Risk


@dataclass(frozen=True, slots=True)
class CharacteristicCoder:
    """Columns and attributes of one characteristic; both orders are fixed: form, special codes, missing."""

    characteristic: Characteristic
    special: tuple[tuple[int, str], ...]  # code and meaning, where a special code is an attribute of its own
    may_be_missing: bool
    whole: bool  # whether the derived value is always a whole number
    special_of: Mapping[str, tuple[int, ...]]  # special codes of every raw column the characteristic reads

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns, e.g. `bill_latest:knot 1000`."""
        names: list[str] = []
        numbers = self.characteristic.numbers
        if numbers is None:
            names += [f"codes {'/'.join(str(code) for code in g.codes)}" for g in self.characteristic.groups]
        elif self.characteristic.form is Form.LINE:
            names.append("line")
        elif self.characteristic.form is Form.KNOTS:
            names += [f"knot {knot:g}" for knot in numbers.knots]
        else:
            names += [f"from {edge:g}" for edge in (numbers.minimum, *numbers.edges)]
        names += [f"special {code}" for code, _ in self.special]
        names += ["missing"] if self.may_be_missing else []
        return tuple(f"{self.characteristic.id}:{name}" for name in names)

    @property
    def ordered(self) -> int:
        """How many of the columns, the first ones, stand in the order of the value."""
        if self.characteristic.numbers is None:
            return 0
        return len(self.columns) - len(self.special) - self.may_be_missing

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes in the order that `attribute_of` counts them."""
        numbers = self.characteristic.numbers
        out: list[Attribute] = []
        if numbers is None:
            out += [Attribute(AttributeKind.CODES, g.title, None, None, g.codes) for g in self.characteristic.groups]
        else:
            ends = itertools.pairwise([None, *numbers.edges, None])
            for pair, held in zip(ends, numbers.intervals(whole=self.whole), strict=True):
                title = interval_title(*pair, held, whole=self.whole)
                out.append(Attribute(AttributeKind.INTERVAL, title, *pair, ()))
        out += [Attribute(AttributeKind.SPECIAL, title, None, None, (code,)) for code, title in self.special]
        if self.may_be_missing:
            out.append(Attribute(AttributeKind.MISSING, "not known", None, None, ()))
        return tuple(out)

    def attribute_of(self, cells: Mapping[str, Vector]) -> NDArray[np.int64]:
        """Which attribute every row falls in, shape (n,): exactly one for every in-bounds row."""
        return attribute_index(cells, self.characteristic.derive, self.special_of, self.attributes)

    def encode(self, cells: Mapping[str, Vector]) -> Matrix:
        """Shape (n, len(columns))."""
        first = cells[self.characteristic.derive.of[0]]
        out = np.zeros((first.shape[0], len(self.columns)))
        numbers = self.characteristic.numbers
        if numbers is None or self.characteristic.form is Form.BINS:
            # One-hot over the attributes: columns and attributes have the same order here.
            out[np.arange(first.shape[0]), self.attribute_of(cells)] = 1.0
            return out
        value = derived(self.characteristic.derive, cells, self.special_of)
        known = ~np.isnan(value)
        t = numbers.transformed(value[known])
        if self.characteristic.form is Form.LINE:
            out[known, 0] = (t - numbers.centre) / numbers.spread
        else:
            out[known, : len(numbers.knots)] = hats(t, numbers.transformed(np.asarray(numbers.knots)))
        if self.may_be_missing:
            out[~known, -1] = 1.0
        for position, (code, _) in enumerate(self.special):
            out[first == code, self.ordered :] = 0.0
            out[first == code, self.ordered + position] = 1.0
        return out

    def representatives(self) -> Matrix:
        """The encoding that stands for each attribute in a scorecard, shape (attributes, columns)."""
        attributes = len(self.attributes)
        numbers = self.characteristic.numbers
        if numbers is None or self.characteristic.form is Form.BINS:
            return np.eye(attributes)
        out = np.zeros((attributes, len(self.columns)))
        t = numbers.representatives(whole=self.whole)
        if self.characteristic.form is Form.LINE:
            out[: len(t), 0] = (t - numbers.centre) / numbers.spread
        else:
            out[: len(t), : len(numbers.knots)] = hats(t, numbers.transformed(np.asarray(numbers.knots)))
        others = attributes - len(t)
        if others:
            out[-others:, -others:] = np.eye(others)
        return out


class Encoder:
    """The schema as a function from tables to matrices of shape (n, width)."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.coders = tuple(_coder(schema, characteristic) for characteristic in schema.characteristics)
        self.columns: tuple[str, ...] = tuple(name for coder in self.coders for name in coder.columns)
        stops = np.cumsum([len(coder.columns) for coder in self.coders]).tolist()
        self.slices: tuple[slice, ...] = tuple(
            slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)
        )

    @property
    def blocks(self) -> tuple[ColumnBlock, ...]:
        """Which columns belong together, one block a characteristic, in the order of the columns."""
        return tuple(
            ColumnBlock(
                id=coder.characteristic.id,
                start=columns.start,
                stop=columns.stop,
                ordered=coder.ordered,
                form=coder.characteristic.form,
                risk=coder.characteristic.risk,
            )
            for coder, columns in zip(self.coders, self.slices, strict=True)
        )

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return len(self.columns)

    @property
    def middle(self) -> Vector:
        """A public centre of encoded rows, shape (width,): in a table of k columns 1/k each, and 0 beside a line.

        What a row would be on average if every attribute were as frequent as the others. It costs nothing, and rows
        lie closer to it than to 0.
        """
        out = np.zeros(self.width)
        for block in self.blocks:
            if block.form is not Form.LINE:
                out[block.start : block.stop] = 1 / (block.stop - block.start)
        return out

    @property
    def radius(self) -> float:
        """Public L2 bound of an encoded row that the schema suggests."""
        return self.schema.radius

    @property
    def centred_radius(self) -> float:
        """Public L2 bound of an encoded row after centring that the schema suggests."""
        return self.schema.centred_radius

    def encode(self, table: RawTable) -> Matrix:
        """The encoded rows, shape (n, width), finite for every in-bounds table."""
        if not self.coders:
            return np.zeros((len(table.subjects), 0))
        return np.hstack([coder.encode(table.columns) for coder in self.coders])


def hats(values: Vector, knots: Vector) -> Matrix:
    """Hat functions: column k is 1 at knot k, 0 at the others, straight in between, constant past the ends.

    Shape (n, knots); rows add up to 1.
    """
    held = np.clip(values, knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, held, side="right") - 1, 0, len(knots) - 2)
    share = (held - knots[left]) / (knots[left + 1] - knots[left])
    out = np.zeros((len(values), len(knots)))
    rows = np.arange(len(values))
    out[rows, left] = 1 - share
    out[rows, left + 1] = share
    return out


def _coder(schema: Schema, characteristic: Characteristic) -> CharacteristicCoder:
    columns = {name: schema.column(name) for name in characteristic.inputs}
    special: tuple[tuple[int, str], ...] = ()
    derive = characteristic.derive
    undivided = not derive.divided_by and derive.divisor == 1
    whole_columns = all(column.type is not CellType.NUMBER for column in columns.values())
    if derive.by is Derivation.VALUE:
        special = tuple((code.code, code.meaning) for code in columns[derive.of[0]].special)
    return CharacteristicCoder(
        characteristic=characteristic,
        special=special,
        may_be_missing=schema.may_be_missing(characteristic),
        whole=undivided and (derive.by is Derivation.COUNT or (derive.by is not Derivation.MEAN and whole_columns)),
        special_of={name: column.special_codes for name, column in columns.items()},
    )
