"""The federation that the tests of a room share, and the option that writes the table anew."""

from collections.abc import Callable, Iterator

import pytest

from tests.deployment.live import Live
from tests.deployment.matrix import Line, settle

Settle = Callable[[str, str, str], None]


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Settle:
    """Tell what came of an event: how the run ended, and what status said. It must be what the table says."""

    def tell(event: str, ends: str, status: str) -> None:
        settle(Line(event, ends, status), write=request.config.getoption("--write-withstand"))

    return tell


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three data holders online, for one module. Whoever stops or breaks something starts and mends it again."""
    made = Live.make(tmp_path_factory.mktemp("live") / "federation")
    try:
        made.start()
        yield made
    finally:
        made.stop()
