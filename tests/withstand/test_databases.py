"""A database that is full or read-only in the middle of an append or a sync: refused in words, and nothing lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.consent.lane import read_checkpoint
from privacy.consent.submission import frame
from privacy.errors import RefusalError
from server.registry.http import create_app
from server.registry.store import Registry
from tests.privacy.consent.reference_merkle import mth
from tests.privacy.consent.samples import NOW, entry, garbage, grant, record
from tests.server.registry.asgi import AppClient
from tests.server.registry.samples import AT, KEY, LANE, LANES, settings, submission
from tests.withstand.beds import ALICE, BOB, bed

# SQLite itself then answers SQLITE_READONLY or SQLITE_FULL, as it does for a volume that is so.
HINDRANCES = {
    "read-only": ("PRAGMA query_only=ON", "PRAGMA query_only=OFF"),
    "full": ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1073741823"),
}
hindered = pytest.mark.parametrize("hindrance", HINDRANCES)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path / "registry.db", KEY, LANES)
    yield made
    made.close()


def pragma(registry: Registry, statement: str) -> None:
    with registry._database._engine.connect() as connection:
        connection.exec_driver_sql(statement)


@hindered
def test_a_registry_whose_database_is_hindered_refuses_an_append_and_keeps_what_it_promised(
    registry: Registry, hindrance: str
) -> None:
    hinder, release = HINDRANCES[hindrance]
    many = [submission(f"record {number}") for number in range(200)]
    with AppClient(create_app(settings(), registry, lambda: AT)) as http:
        kept = http.post(f"/lanes/{LANE}/records", content=frame([submission("kept")]))
        assert kept.status_code == 200
        before = http.get(f"/lanes/{LANE}/checkpoint").text
        pragma(registry, hinder)
        for _ in range(2):
            refused = http.post(f"/lanes/{LANE}/records", content=frame(many))
            assert (refused.status_code, refused.json()["code"]) == (503, "lane")
            assert int(refused.headers["Retry-After"]) > 0
            assert http.get(f"/lanes/{LANE}/checkpoint").text == before
        pragma(registry, release)
        assert http.post(f"/lanes/{LANE}/records", content=frame([submission("kept")])).json() == kept.json()
        assert http.post(f"/lanes/{LANE}/records", content=frame(many)).status_code == 200
        head = read_checkpoint(http.get(f"/lanes/{LANE}/checkpoint").text, f"fedcredit/{LANE}", KEY.public)
    assert (head.size, head.root) == (201, mth([one.stub.leaf() for one in (submission("kept"), *many)]))


@hindered
def test_a_lane_copy_whose_database_is_hindered_keeps_all_or_nothing_of_a_sync(tmp_path: Path, hindrance: str) -> None:
    hinder, release = HINDRANCES[hindrance]
    with bed(tmp_path) as made:
        made.take(entry(ALICE, record(ALICE, grant()), name="1"), entry(BOB, record(BOB, grant()), name="2"))
        fresh = [entry(ALICE, record(ALICE, seq=2), name="3"), *(garbage(f"junk {number}") for number in range(100))]
        made.lane._base.connection.execute(hinder)
        with pytest.raises(RefusalError):
            made.take(*fresh, at=NOW + 1)
        # What cannot be written is not half there: the old head stands, and its age goes on.
        assert (made.lane.head.size, made.lane.synced_at, made.asks(), made.asks(BOB)) == (2, NOW, "allow", "allow")
        made.lane._base.connection.execute(release)
        made.take(at=NOW + 2)
        for _ in range(2):
            assert (made.lane.head.size, made.asks(), made.asks(BOB)) == (103, "purpose", "allow")
            made.restart()
