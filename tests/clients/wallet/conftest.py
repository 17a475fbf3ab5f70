"""A person, a registry and two data holders, quickly."""

from functools import partial
from pathlib import Path

import pytest

from clients.wallet import book
from clients.wallet.vault import Cost, Vault
from tests.clients.wallet.parties import DataHolder, FakeRegistry, Person


@pytest.fixture(autouse=True)
def _cheap_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    # New files are made quick to open; what is opened follows the figures in the file.
    monkeypatch.setattr(book, "Vault", partial(Vault, cost=Cost(memory_kib=8192, passes=1, lanes=1)))


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def aster(registry: FakeRegistry) -> DataHolder:
    return DataHolder("aster", registry)


@pytest.fixture
def birch(registry: FakeRegistry) -> DataHolder:
    return DataHolder("birch", registry, side_door="https://birch.example:8450")


@pytest.fixture
def person(tmp_path: Path, registry: FakeRegistry) -> Person:
    """Somebody with a new wallet, linked to nobody."""
    someone = Person(tmp_path / "person", registry)
    someone.ok("init")
    return someone


@pytest.fixture
def linked(person: Person, aster: DataHolder, birch: DataHolder) -> Person:
    """The same, linked to both data holders."""
    assert person.link(aster).exit_code == 0
    assert person.link(birch).exit_code == 0
    return person
