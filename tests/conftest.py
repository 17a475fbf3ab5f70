"""Fixtures that more than one room's tests use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ready import Ready, ready_in


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Ready]:
    made = ready_in(tmp_path / "federation")
    yield made
    made.registry.close()
