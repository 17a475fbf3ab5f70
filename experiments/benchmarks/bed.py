"""The public data of a benchmark and how its people are spread: all alike, sizes unlike, or outcomes unlike."""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from experiments.people import LAYOUT_SEED, Membership, Population, populate
from federated.encoder import Encoder
from federated.rows import EncodedRows
from federated.schema import Schema
from federated.schema_toml import load_schema
from federated.table import RawTable, read_table
from privacy.errors import MalformedError

TAIWAN = Path(__file__).parent.parent / "data" / "taiwan_default"
DIRICHLET = 0.5

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bed:
    """A data set ready to be spread: encoded, as checked cells, and raw. Every array has one row a person."""

    schema: Schema
    encoder: Encoder
    table: RawTable
    x: Matrix  # (people, width)
    bad: Vector  # (people,), 1 is bad
    raw: Matrix  # (people, all columns of the file but subject and outcome)


@dataclass(frozen=True, slots=True)
class Layout:
    """Who is at which data holder with what share, for training; and who is held out. Each index is a person."""

    people: tuple[NDArray[np.int64], ...]  # one array a data holder
    shares: tuple[Vector, ...]
    held_out: NDArray[np.bool_]  # (people,)

    def parts(self, rows: Matrix, bad: Vector) -> list[EncodedRows]:
        """Each data holder's training rows, out of `rows` (people, columns)."""
        return [
            EncodedRows(rows[people], bad[people], share)
            for people, share in zip(self.people, self.shares, strict=True)
        ]

    @property
    def training(self) -> NDArray[np.int64]:
        """Everybody trained on, each once."""
        return np.flatnonzero(~self.held_out)


@lru_cache(maxsize=2)
def load_bed(people: int | None, directory: Path = TAIWAN) -> Bed:
    """The data set in `directory`; where `people` is given, that many spread evenly over it."""
    schema = load_schema(directory / "schema.toml")
    path = directory / "data.csv.gz"
    table, raw = read_table(path, schema), _raw(path, schema)
    if people is not None:
        kept = np.linspace(0, len(raw) - 1, min(people, len(raw))).astype(np.int64)
        table, raw = table.take(kept), raw[kept]
    if table.outcome is None:
        raise MalformedError("The table has no outcome; a benchmark needs one to measure against.")
    encoder = Encoder(schema)
    return Bed(schema, encoder, table, encoder.encode(table), table.outcome, raw)


def alike(bad: Vector, holders: int, split: int) -> Layout:
    """Data holders of one size whose people are alike, a tenth of them at two data holders."""
    population = populate(bad, holders, everybody_agrees=True, split_seed=split)
    chance = np.random.default_rng([LAYOUT_SEED, split, 2])
    # Dealt out in turn after a shuffle, the held-out people for themselves: sizes differ by one, and by who is at two.
    first = np.empty(len(bad), dtype=np.int64)
    for sample in (population.held_out, ~population.held_out):
        first[chance.permutation(np.flatnonzero(sample))] = np.arange(int(sample.sum())) % holders
    return _layout(population, _moved(population, first, chance))


def by_size(bad: Vector, holders: int, split: int) -> Layout:
    """Data holders of unlike sizes (the k-th has 1/k of the first), a tenth of the people at two of them."""
    population = populate(bad, holders, everybody_agrees=True, split_seed=split)
    return _layout(population, list(population.memberships))


def by_outcome(bad: Vector, holders: int, split: int) -> Layout:
    """As `by_size`, but each outcome is spread by a Dirichlet(0.5) draw of its own: some have hardly any bads."""
    population = populate(bad, holders, everybody_agrees=True, split_seed=split)
    chance = np.random.default_rng([LAYOUT_SEED, split, 1])
    spread = {outcome: chance.dirichlet(np.full(holders, DIRICHLET)) for outcome in (0.0, 1.0)}
    first = np.array([chance.choice(holders, p=spread[outcome]) for outcome in bad.tolist()])
    return _layout(population, _moved(population, first, chance))


SPREADS: Final[Mapping[str, Callable[[Vector, int, int], Layout]]] = {
    "alike": alike,
    "size skew": by_size,
    "label skew": by_outcome,
}
"""Every layout by its name: outcomes (people,), data holders and the number of the split to a layout."""


def everybody_of(bed: Bed, layout: Layout) -> EncodedRows:
    """Everybody whom the layout trains on in one place, each once and with a whole share."""
    people = layout.training
    return EncodedRows(bed.x[people], bed.bad[people], np.ones(len(people)))


def _moved(population: Population, first: NDArray[np.int64], chance: np.random.Generator) -> list[Membership]:
    """The memberships, each person's first one at data holder number `first`, a second one at any of the others."""
    holders, memberships = len(population.holders), list[Membership]()
    for place in population.memberships:
        again = bool(memberships) and memberships[-1].person == place.person
        # Another data holder than the first one, all alike.
        holder = (int(first[place.person]) + again * int(chance.integers(1, holders))) % holders
        memberships.append(Membership(place.person, population.holders[holder], place.share_milli))
    return memberships


def _layout(population: Population, memberships: list[Membership]) -> Layout:
    training = [place for place in memberships if not population.held_out[place.person]]
    people, shares = [], []
    for holder in population.holders:
        theirs = [place for place in training if place.holder == holder]
        people.append(np.array([place.person for place in theirs], dtype=np.int64))
        shares.append(np.array([place.share_milli / 1000 for place in theirs], dtype=np.float64))
    return Layout(tuple(people), tuple(shares), population.held_out)


def _raw(path: Path, schema: Schema) -> Matrix:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        header = file.readline().strip().split(",")
        cells = np.loadtxt(file, delimiter=",", ndmin=2)
    left_out = {schema.outcome.column, schema.subject_column}
    return np.asarray(cells[:, [place for place, name in enumerate(header) if name not in left_out]])
