"""The lane that most attacks are made on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.privacy.consent.samples import entry, grant, record
from tests.withstand.beds import ALICE, BOB, Bed, bed


@pytest.fixture
def withdrawn(tmp_path: Path) -> Iterator[Bed]:
    """Alice has granted and withdrawn; Bob has granted."""
    with bed(tmp_path) as made:
        made.take(
            entry(ALICE, record(ALICE, grant()), name="granted"),
            entry(ALICE, record(ALICE, seq=2), name="withdrawn"),
            entry(BOB, record(BOB, grant()), name="bob"),
        )
        yield made
