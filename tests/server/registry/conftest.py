"""Registries on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.registry.store import Registry
from tests.server.registry.samples import DATABASES, KEY, LANES, database


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    made = Registry(database_url, KEY, LANES)
    yield made
    made.close()
