"""The federations that the tests of this room share, and the option that writes the table anew."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployment.live import Live
from tests.deployment.matrix import Line, settle

Settle = Callable[[str, str, str], None]
Lend = Callable[[str], Live]

THREE, FIVE = "three", "five"
TWIN = "dahlia-stores"


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Settle:
    """Tell what came of an event: how the run ended, and what status said. It must be what the table says."""

    def tell(event: str, ends: str, status: str) -> None:
        settle(Line(event, ends, status), write=request.config.getoption("--write-withstand"))

    return tell


@pytest.fixture(scope="package")
def lend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lend]:
    """One federation at a time is online, and the tests that follow one another use the same one.

    Starting one costs as much as two runs. Whoever stops or breaks something starts and mends it again, or says that
    the federation is used up. One that a test has failed with is used up too.
    """
    made: dict[str, Live] = {}

    def lent(kind: str) -> Live:
        if kind not in made or made[kind].used_up:
            end()
            directory = tmp_path_factory.mktemp(kind) / "federation"
            made[kind] = _three(directory) if kind == THREE else _five(directory)
            made[kind].used_up = True  # until it is there
            if kind == THREE:
                made[kind].start()
            else:
                made[kind].start(TWIN)
                made[kind].join(TWIN)
            made[kind].used_up = False
        return made[kind]

    def end() -> None:
        while made:
            made.popitem()[1].stop()

    try:
        yield lent
    finally:
        end()


@pytest.fixture
def live(lend: Lend, request: pytest.FixtureRequest) -> Iterator[Live]:
    """Three data holders online, each of which can be killed; the coordinator's clock can be set back."""
    yield from _in_use(lend(THREE), request)


@pytest.fixture
def five(lend: Lend, request: pytest.FixtureRequest) -> Iterator[Live]:
    """Five data holders online, each of which can be odd, spoiled, of an earlier version, or an hour ahead."""
    yield from _in_use(lend(FIVE), request)


def restored(live: Live) -> Path:
    """The directory of one of five data holders (`TWIN`) as it was at the beginning, put back elsewhere."""
    return live.directory / "restored"


def _in_use(live: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    failed = request.session.testsfailed
    yield live
    live.used_up = live.used_up or request.session.testsfailed != failed


def _three(directory: Path) -> Live:
    made = Live.make(directory)
    for name in made.names:
        made.plant_files(name, "spoiled.py")
    made.plant_files("coordinator", "clock.py")
    return made


def _five(directory: Path) -> Live:
    made = Live.make(directory, holders=5)
    for name in made.names:
        made.plant_files(name, "odd_answers.py", "spoiled.py", "earlier_version.py", "clock.py")
    for name in ("aster-bank", "birch-telecom"):
        made.setting(name, "answer_within_s", "10")
    shutil.copytree(made.holder(TWIN), restored(made))
    return made
