"""Data holders whose clock, version or node is not what it should be: each is refused, and the others get a model."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.holder.serve import SERVING
from clients.holder.serve_status import STATUS, WORDS, NodeState, ServeStatus, read_status
from federated.programs import Program, Supervisor
from privacy.errors import RefusalCode
from server.answers import SILENT
from tests.deployment.conftest import TWIN, Settle, restored
from tests.deployment.live import FEDCREDIT, Live

pytestmark = pytest.mark.slow

NODES_DEADLINE_S = "5"
"""Somebody is not online, and need not be waited for."""
DEADLINE_S = "60"
"""Nobody uses it up."""

AHEAD, OTHER_BUNDLE, EARLIER, RIGHT = "aster-bank", "birch-telecom", "cedar-power", "elm-credit-union"


@contextmanager
def serving(live: Live, directory: Path) -> Iterator[None]:
    """`holder serve` in a directory beside the federation's."""
    command = (FEDCREDIT, "holder", "serve", "--no-sync", "--directory", str(directory))
    log = live.directory / "logs" / f"{directory.name}.log"
    program = Program(directory.name, command, dict(os.environ), log.parent, log)
    with Supervisor([program], pid_file=live.directory / f"{directory.name}.json"):
        yield


def node_state(directory: Path) -> NodeState | None:
    """How a data holder's node stands with the coordinator, by its own words."""
    told = read_status(directory / SERVING / STATUS, ServeStatus)
    return None if told is None else told.state


def test_another_clock_version_or_node_is_refused_and_the_others_get_a_model(five: Live, seen: Settle) -> None:
    five.used_up = True  # one of them is gone at the end
    five.setting("coordinator", "nodes_deadline_s", NODES_DEADLINE_S)
    digests = five.setting(OTHER_BUNDLE, "bundles", f'["{bytes(32).hex()}"]')
    for name in five.names:
        five.switch(name, {AHEAD: "an hour ahead", EARLIER: "earlier"}.get(name))
    second = subprocess.run(
        [FEDCREDIT, "holder", "serve", "--directory", str(five.holder(TWIN))],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert second.returncode == 3
    assert "One node at a time answers for a data holder" in second.stderr
    with serving(five, restored(five)):
        five.until(lambda: node_state(restored(five)) is NodeState.KEY_REFUSED, "the copy is not let in")
        five.until(lambda: node_state(five.holder(AHEAD)) is NodeState.SIGNATURE_REFUSED, "nor is the clock")
        assert five.holder_status(AHEAD)["do"] == [WORDS[NodeState.SIGNATURE_REFUSED]]
        _run(five)
        told = five.status()["last"]
        record = five.record(told["run"])
        refused = {AHEAD: SILENT.reason, OTHER_BUNDLE: RefusalCode.BUNDLE.value}
        assert record["refused"] == refused
        assert [release["left_out"] for release in record["releases"]] == [{}, {EARLIER: SILENT.reason}]
        late = f"left out of release 2: {SILENT.reason}"
        assert told["holders"] == dict.fromkeys([TWIN, RIGHT], "joined") | {EARLIER: late} | refused
        assert {name: len(five.charges(name, told["run"])) for name in five.names} == (
            dict.fromkeys([TWIN, RIGHT], 2) | {EARLIER: 1, AHEAD: 0, OTHER_BUNDLE: 0}
        )

        five.setting(OTHER_BUNDLE, "bundles", digests)
        for name in (AHEAD, EARLIER):
            five.switch(name, None)
        five.leave(TWIN)
        five.until(lambda: node_state(restored(five)) is NodeState.ONLINE, "the copy is online")
        five.until(lambda: node_state(five.holder(AHEAD)) is NodeState.ONLINE, "so is the clock that was mended")
        _run(five)
    after = five.status()["last"]
    integrity = RefusalCode.INTEGRITY.value
    assert after["holders"] == dict.fromkeys(five.names, "joined") | {TWIN: integrity}
    assert five.charges(TWIN, after["run"]) == {}
    again = "in the next run, mended"
    seen(
        "clock of a data holder an hour ahead",
        f"a model from the others, for its node is not let in; {again}",
        f"{refused[AHEAD]}; its own: {NodeState.SIGNATURE_REFUSED.value}",
    )
    seen(
        "one data holder of another version",
        f"a model from the others, nothing charged; one that does not know a message yet is left out there; {again}",
        f"{refused[OTHER_BUNDLE]}; {late}",
    )
    seen(
        "two nodes of one data holder",
        "in one directory the second does not start; from a copy it is not let in beside the first, and alone it is "
        "refused: its ledger is older than what the coordinator has seen",
        f"joined; its copy's own: {NodeState.KEY_REFUSED.value}; alone: {integrity}",
    )


def _run(live: Live) -> None:
    live.plan(minimum=2)
    done = live.command("run", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    live.require_lawful(live.status()["last"]["run"])
