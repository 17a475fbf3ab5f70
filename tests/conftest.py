"""Fixtures that more than one room's tests use."""

import os
from collections.abc import Iterator
from pathlib import Path

# As `federated.cli` does, and before anything loads a matrix library: beside other tests a second thread only waits.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.ready import Ready, ready_in

# The same examples on every machine, every time: a red run can be looked at, and a slow one is not a failure.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The table of what a deployment withstands is written by its own tests."""
    parser.addoption("--write-withstand", action="store_true", help="write tests/deployment/WITHSTAND.md anew")


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Ready]:
    made = ready_in(tmp_path / "federation")
    yield made
    made.registry.close()
