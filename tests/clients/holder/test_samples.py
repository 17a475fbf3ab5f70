"""Who is listed in the two samples stays true while the tables change."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from clients.holder.samples import Samples
from clients.holder.settings import HolderSettings
from privacy.errors import RefusalError
from tests.federated.schema_samples import sample
from tests.federated.tables.stored import as_database, as_query, good_row


def test_rows_that_come_into_a_database_are_seen_without_a_change_of_any_file(tmp_path: Path) -> None:
    """Who is trained on must not be measured: that would be charged twice."""
    as_database(tmp_path / "lending.db", [good_row()])
    as_query(tmp_path / "rows.sql.toml", "sqlite:///lending.db")
    settings = SimpleNamespace(rows="rows.sql.toml", held_out="rows.sql.toml", policy=SimpleNamespace(most_people=2))
    samples = Samples(tmp_path, cast(HolderSettings, settings), sample())
    assert samples.trained_on == {"s1"}
    with closing(sqlite3.connect(tmp_path / "lending.db")) as database, database:
        database.execute("INSERT INTO loans SELECT * FROM loans")
        database.execute("UPDATE loans SET key = 's2' WHERE rowid = 2")
    assert samples.trained_on == {"s1", "s2"}
    samples.require_room()
    with closing(sqlite3.connect(tmp_path / "lending.db")) as database, database:
        database.execute("INSERT INTO loans SELECT * FROM loans")
    with pytest.raises(RefusalError, match="most_people"):
        samples.require_room()
