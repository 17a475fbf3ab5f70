"""A federation whose data holders keep their rows in Parquet files and databases is the same federation."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as arrow
from pyarrow import parquet

from experiments.federation import PublicData
from tests.experiments.small_table import SCHEMA, small_table
from tests.federated.tables.stored import as_query
from tests.ready import BIRCH, CEDAR, Ready, ready_in


def columns_of(table: Path) -> dict[str, list[str]]:
    with table.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    return dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))


def to_parquet(table: Path) -> str:
    """The customers as text, all else as numbers."""
    columns = columns_of(table)
    key, *others = columns
    arrays = {key: arrow.array(columns[key])} | {name: arrow.array(map(float, columns[name])) for name in others}
    made = table.with_suffix(".parquet")
    parquet.write_table(arrow.table(arrays), made, row_group_size=50)
    table.unlink()
    return made.name


def to_database(table: Path) -> str:
    """The same in a table of SQLite."""
    columns = columns_of(table)
    key, *others = columns
    rows = zip(columns[key], *(map(float, columns[name]) for name in others), strict=True)
    with closing(sqlite3.connect(table.parent / "lending.db")) as database, database:
        database.execute(f"CREATE TABLE {table.stem} ({', '.join(json.dumps(name) for name in columns)})")
        database.executemany(f"INSERT INTO {table.stem} VALUES ({', '.join('?' * len(columns))})", rows)  # noqa: S608
    table.unlink()
    made = table.with_suffix(".sql.toml")
    return as_query(made, "sqlite:///lending.db", f"SELECT * FROM {table.stem}", batch_rows=70).name  # noqa: S608


def restored(ready: Ready) -> None:
    for name, change in ((BIRCH, to_parquet), (CEDAR, to_database)):
        settings = ready.home(name) / "holder.toml"
        text = settings.read_text()
        for table in ("rows.csv", "held_out.csv"):
            text = text.replace(f'"{table}"', f'"{change(ready.home(name) / table)}"')
        settings.write_text(text)


def test_a_run_gives_the_same_model_whatever_the_tables_are_kept_in(tmp_path: Path) -> None:
    models = []
    for name in ("plain", "mixed"):
        ready = ready_in(tmp_path / name)
        try:
            if name == "mixed":
                restored(ready)
                assert not list(ready.home(CEDAR).glob("*.csv"))
            outcome = ready.run()
        finally:
            ready.registry.close()
        assert dict(outcome.refused) == {}
        assert outcome.scorecard is not None
        assert outcome.released is not None
        counts = (outcome.released.goods.tobytes(), outcome.released.bads.tobytes())
        models.append((outcome.scorecard.to_json(), counts))
    assert models[0] == models[1]


def test_public_data_may_come_from_anywhere(tmp_path: Path) -> None:
    plain = PublicData.load(SCHEMA, small_table(tmp_path / "rows.csv", 50))
    packed = PublicData.load(SCHEMA, tmp_path / to_parquet(small_table(tmp_path / "rows.csv", 50)))
    asked = PublicData.load(SCHEMA, tmp_path / to_database(small_table(tmp_path / "rows.csv", 50)))
    for data in (packed, asked):
        assert data.header == plain.header
        assert [line[0] for line in data.lines] == [line[0] for line in plain.lines]
        assert np.array_equal(data.outcome(), plain.outcome())
