"""One door for all tests of a module, as good as new for each."""

from collections.abc import Iterator

import pytest

from tests.server.deploy.door import Door, Upstream


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    upstream_ = Upstream()
    with Door(tmp_path_factory.mktemp("door"), upstream_).open() as door:
        yield door
    upstream_.stop()


@pytest.fixture
def door(opened: Door) -> Door:
    opened.reset()
    return opened


@pytest.fixture
def behind(door: Door) -> Upstream:
    return door.upstream
