"""The coordinator's disk is full, or its directory read-only: refused in words, nothing half-written, gone on with."""

from pathlib import Path
from typing import Any

import pytest

from tests.deployment.conftest import Settle
from tests.deployment.live import PLANTED, Live

pytestmark = pytest.mark.slow

FULL_FROM = ("checkpoints.json", "opening", "1.updates", "stage-summed", "scorecard.json")
READ_ONLY_FROM = ("", "begun", "1.total", "runs")
"""Files, entries of the round log and folders, in the order in which a run writes them; "" is from the beginning."""


@pytest.mark.parametrize(
    ("event", "code", "words", "froms"),
    [
        ("disk full at the coordinator", "ENOSPC", "No space left on device", FULL_FROM),
        ("read-only directory at the coordinator", "EROFS", "Read-only file system", READ_ONLY_FROM),
    ],
)
def test_a_run_ends_in_words_wherever_its_disk_fails_and_goes_on(
    live: Live, seen: Settle, event: str, code: str, words: str, froms: tuple[str, ...]
) -> None:
    live.plan()
    files = _hidden(live.coordinator)
    run, told, earlier = None, set[str](), live.status()["state"]
    for place in froms:
        done = live.command("resume" if run else "run", fault=_full(live.coordinator, code, place))
        assert done.returncode == 3, (place, done.stderr)
        assert f"({words})" in done.stderr, (place, done.stderr)
        status: dict[str, Any] = live.status()
        assert (status["run_is_alive"], status["log_holds"], status["unreadable"]) == (False, True, [])
        assert _hidden(live.coordinator) == files, "something half-written was left"
        run = status["unfinished_run"]
        if place:
            told.add(status["state"])
        else:
            assert status["state"] == earlier
    assert run is not None
    before = {name: live.charges(name, run) for name in live.names}
    assert live.command("resume").returncode == 0
    live.require_lawful(run)
    record = live.record(run)
    assert {name: live.charges(name, run) for name in live.names} == before
    unchanged = " (what it was, where nothing could begin)" if "" in froms else ""
    seen(
        event,
        f"refused at each of {len(froms)} places, with nothing half-written, and resumed each time: a model from "
        f"{len(record['holders'])} of {len(live.names)} data holders",
        f"{' or '.join(sorted(told))} after each{unchanged}, {live.status()['state']} at the end",
    )


def _full(directory: Path, code: str, place: str) -> str:
    text = (PLANTED / "full_disk.py").read_text(encoding="utf-8")
    named = {"FULL_DIRECTORY": str(directory), "FULL_FROM": place, "FULL_CODE": code}
    return text.replace("import errno\n", f"import errno\nimport os\n\nos.environ |= {named!r}\n", 1)


def _hidden(directory: Path) -> set[Path]:
    """Files as they are written before they are moved into place, and locks."""
    places = (directory, directory / "begun", directory / "runs")
    return {path for place in places for path in place.glob(".*")} | set(directory.glob("[br]*/*/.*"))
