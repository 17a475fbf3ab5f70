"""A federation on disk: every party has its own and nothing of another's."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.holder.settings import load_settings
from experiments.federation import PublicData
from experiments.session import Session
from privacy.consent.canonical import base64url
from privacy.errors import FedcreditError, MalformedError, UsageError
from tests.experiments.small_table import SCHEMA, Lines, customer, small_table
from tests.ready import ASTER, AT, HOLDERS, Ready


def files(directory: Path) -> dict[str, bytes]:
    return {path.as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_secrets_lie_with_their_owner_only(ready: Ready) -> None:
    federation = ready.federation
    everything = files(ready.directory)
    assert len(everything) > 20
    secrets = {federation.coordinator_key.seed: "coordinator/", federation.registry_key.seed: "registry/"}
    for name, keys in federation._holder_keys.items():
        secrets |= {keys.identity.seed: f"holders/{name}/keys/", keys.lane_key.to_bytes(): f"holders/{name}/keys/"}
    for secret, home in secrets.items():
        found = [path for path, content in everything.items() if secret in content]
        assert found
        assert all(f"federation/{home}" in path for path in found), found
    wallets = b"".join(everything.values())
    for person in range(0, len(federation.population.attitudes), 37):
        assert federation.wallet(person)._secret not in wallets
        assert federation.wallet(person).key_for(ASTER).seed not in wallets


def test_a_handle_is_known_to_its_holder_only_and_the_registry_knows_nobody(ready: Ready) -> None:
    everything = files(ready.directory)
    for place in ready.federation.population.memberships[::23]:
        handle = ready.federation.handles[place]
        names = (handle, handle.hex().encode(), base64url(handle).encode())
        found = {path for path, content in everything.items() if any(name in content for name in names)}
        assert found
        assert all(f"/holders/{place.holder}/" in path for path in found), found
    registry = b"".join(files(ready.directory / "registry").values())
    for word in (b"train", b"score", b"open-scoring", b"harbour-lending", b"frozen"):
        assert word not in registry


def test_people_at_two_holders_have_two_handles_and_two_keys(ready: Ready) -> None:
    handles = ready.federation.handles
    assert len(set(handles.values())) == len(handles) == len(ready.federation.population.memberships)
    wallet = ready.federation.wallet(0)
    assert len({wallet.key_for(name).public for name in HOLDERS}) == 3


def test_rows_go_to_their_holder_once_and_held_out_people_to_another_table(ready: Ready) -> None:
    for name in HOLDERS:
        assert load_settings(ready.home(name) / "holder.toml").holder == name
        for held_out, table in ((False, "rows.csv"), (True, "held_out.csv")):
            lines = (ready.home(name) / table).read_text().splitlines()[1:]
            expected = [ready.federation.customer(place.person) for place in ready.places(name, held_out=held_out)]
            assert [line.split(",")[0] for line in lines] == expected


def test_two_nodes_of_one_holder_are_refused(ready: Ready) -> None:
    shutil.copytree(ready.home(), ready.home().with_name("copy"))
    with pytest.raises(MalformedError, match=ASTER):
        ready.session()


def test_an_empty_directory_is_no_federation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no federation"):
        Session(tmp_path, lambda: AT)


def test_a_table_without_customer_numbers_gets_them_from_1(tmp_path: Path) -> None:
    text = SCHEMA.read_text()
    text = re.sub(r"(?ms)^\[subject\].*?(?=^\[)", '[subject]\nfrom = "row_number"\n\n', text)
    (tmp_path / "schema.toml").write_text(text)

    def without_numbers(table: Lines) -> None:
        table[:] = [row[1:] for row in table]

    data = PublicData.load(tmp_path / "schema.toml", small_table(tmp_path / "table.csv", 30, without_numbers))
    assert data.header[0] == data.schema.subject_column
    assert [line[0] for line in data.lines] == [str(number) for number in range(1, 31)]


def test_outcomes_are_read_as_numbers(tmp_path: Path) -> None:
    def written_otherwise(table: Lines) -> None:
        for row in table[1::2]:
            row[-1] = f"{row[-1]}.0"

    plain = PublicData.load(SCHEMA, small_table(tmp_path / "plain.csv", 50))
    other = PublicData.load(SCHEMA, small_table(tmp_path / "other.csv", 50, written_otherwise))
    assert np.array_equal(plain.outcome(), other.outcome())
    assert 0 < plain.outcome().sum() < 50


def cell(row: int, column: int, text: str) -> Callable[[Lines], None]:
    def change(table: Lines) -> None:
        table[row][column] = text

    return change


@pytest.mark.parametrize(
    "change",
    [
        cell(0, 3, "surprise"),
        cell(5, 1, "poison"),
        cell(5, 1, "-1"),
        cell(7, 0, customer(1)),
        cell(9, -1, "2"),
        lambda table: table[4].pop(),
        lambda table: [row.pop() for row in table],
        lambda table: table.__delitem__(slice(1, None)),
        lambda table: table.clear(),
    ],
)
def test_a_table_that_does_not_fit_is_told_before_anything_is_written(
    tmp_path: Path, change: Callable[[Lines], None]
) -> None:
    table = small_table(tmp_path / "table.csv", 40, change)
    with pytest.raises(MalformedError) as caught:
        PublicData.load(SCHEMA, table)
    assert "table.csv" in str(caught.value)
    assert "poison" not in str(caught.value)
    assert "KD-" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x1f\x8b broken", b'ID,"LIMIT', b"\n\n\n"])
def test_a_file_that_is_no_table_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(FedcreditError):
        PublicData.load(SCHEMA, tmp_path / "table.csv")
