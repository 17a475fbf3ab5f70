"""`verify` says exactly what does not hold, on both databases."""

from contextlib import closing
from pathlib import Path

import pytest

from privacy.errors import TamperingError
from server.registry.serve import open_registry
from server.registry.settings import Home
from server.registry.verify import verify_database
from tests.privacy.consent.reference_merkle import mth
from tests.registry_process import make_registry
from tests.server.registry.samples import AT, LANE, LANES, OTHER, key_set, submission, tombstone
from tests.server.registry.test_store import edit

RECORDS = [submission(f"record {k}") for k in range(5)]


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Home:
    made = make_registry(tmp_path / "registry", LANES, database=database_url, tls=False)
    with closing(open_registry(made)) as registry:
        registry.append(LANE, RECORDS)
        registry.append(OTHER, RECORDS[:1])
        registry.erase(LANE, tombstone(2, RECORDS[2]))
        registry.publish_key_set(LANE, key_set(1, 1), at=AT)
    return made


def test_a_sound_registry_holds(home: Home) -> None:
    lanes = verify_database(home)
    assert (lanes[LANE].entries, lanes[LANE].erased) == (6, 1)
    assert (lanes[OTHER].entries, lanes[OTHER].erased) == (1, 0)
    assert lanes[OTHER].root == mth([RECORDS[0].stub.leaf()])


# IN stands for "this lane's position", OTHER for the other lane's name.
EDITS = {
    "DELETE FROM entries IN = 3": "position 3 is missing",
    "UPDATE entries SET leaf = (SELECT leaf FROM entries IN = 0) IN = 1": "beside position 1 is not what was",
    "DELETE FROM entries IN = 5": "its head says 6 entries and 5 are there",
    "DELETE FROM beside IN = 4": "the ciphertext at position 4 is missing without a tombstone",
    "UPDATE beside SET content = (SELECT content FROM beside IN = 0) IN = 1": "beside position 1 is not what was",
    "DELETE FROM beside IN = 5": "the ciphertext at position 5 is missing without a tombstone",
    "INSERT INTO beside SELECT lane, 2, content FROM beside IN = 0": "position 2 was erased by a tombstone and is",
    "INSERT INTO beside SELECT lane, 9, content FROM beside IN = 0": "positions that have no entry",
    "UPDATE heads SET root = (SELECT root FROM heads WHERE lane = OTHER) WHERE lane <> OTHER": "the root over its 6",
    "UPDATE entries SET tag = leaf IN = 1": "another tag than its own",
    "UPDATE key_sets SET lane = OTHER": "its key set is not signed by its data holder",
    "UPDATE entries SET lane = 'nobody' WHERE lane = OTHER": "not in registry.toml",
}


@pytest.mark.parametrize("statement", EDITS)
def test_what_does_not_hold_is_said(home: Home, database_url: str, statement: str) -> None:
    place = f"WHERE lane = '{LANE}' AND position ="
    edit(database_url, statement.replace(" IN =", f" {place}").replace("OTHER", f"'{OTHER}'"))
    with pytest.raises(TamperingError) as caught:
        verify_database(home)
    assert EDITS[statement] in str(caught.value)
    assert not any(record.stub.tag.hex() in str(caught.value) for record in RECORDS)
