"""The coordinator's disk is full, or its directory read-only: refused in words, nothing half-written, gone on with."""

from pathlib import Path
from typing import Any

import pytest

from tests.deployment.conftest import Settle
from tests.deployment.live import PLANTED, Live

pytestmark = pytest.mark.slow

FULL, READ_ONLY = "ENOSPC", "EROFS"
WORDS = {FULL: "No space left on device", READ_ONLY: "Read-only file system"}
FROM = {
    "": READ_ONLY,
    "checkpoints.json": FULL,
    "begun": READ_ONLY,
    "opening": FULL,
    "1.updates": FULL,
    "1.total": READ_ONLY,
    "stage-summed": FULL,
    "runs": READ_ONLY,
    "scorecard.json": FULL,
}
"""Files, entries of the round log and folders, in the order in which a run writes them; "" is from the beginning."""


def test_a_run_ends_in_words_wherever_its_disk_fails_and_goes_on(live: Live, seen: Settle) -> None:
    """One run: its disk fails at one place after the other."""
    live.plan()
    files = _hidden(live.coordinator)
    run, earlier = None, live.status()["state"]
    told: dict[str, set[str]] = {FULL: set(), READ_ONLY: set()}
    for place, code in FROM.items():
        done = live.command("resume" if run else "run", fault=_full(live.coordinator, code, place))
        assert done.returncode == 3, (place, done.stderr)
        assert f"({WORDS[code]})" in done.stderr, (place, done.stderr)
        status: dict[str, Any] = live.status()
        assert (status["run_is_alive"], status["log_holds"], status["unreadable"]) == (False, True, [])
        assert _hidden(live.coordinator) == files, "something half-written was left"
        run = status["unfinished_run"]
        if place:
            told[code].add(status["state"])
        else:
            assert status["state"] == earlier
    assert run is not None
    before = {name: live.charges(name, run) for name in live.names}
    assert live.command("resume").returncode == 0
    live.require_lawful(run)
    record, finished = live.record(run), live.status()["state"]
    assert {name: live.charges(name, run) for name in live.names} == before
    for event, code in (("disk full", FULL), ("read-only directory", READ_ONLY)):
        unchanged = " (what it was, where nothing could begin)" if FROM[""] == code else ""
        seen(
            f"{event} at the coordinator",
            f"refused at each of {list(FROM.values()).count(code)} places, with nothing half-written, and resumed each "
            f"time: a model from {len(record['holders'])} of {len(live.names)} data holders",
            f"{' or '.join(sorted(told[code]))} after each{unchanged}, {finished} at the end",
        )


def _full(directory: Path, code: str, place: str) -> str:
    text = (PLANTED / "full_disk.py").read_text(encoding="utf-8")
    named = {"FULL_DIRECTORY": str(directory), "FULL_FROM": place, "FULL_CODE": code}
    return text.replace("import errno\n", f"import errno\nimport os\n\nos.environ |= {named!r}\n", 1)


def _hidden(directory: Path) -> set[Path]:
    """Files as they are written before they are moved into place, and locks."""
    places = (directory, directory / "begun", directory / "runs")
    return {path for place in places for path in place.glob(".*")} | set(directory.glob("[br]*/*/.*"))
