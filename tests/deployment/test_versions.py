"""Data holders whose clock, version or node is not what it should be: each is refused, and the others get a model."""

import os
import shutil
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
from tests.deployment.conftest import Settle
from tests.deployment.live import FEDCREDIT, PLANTED, Live

pytestmark = pytest.mark.slow

HOLDERS = 5
NODES_DEADLINE_S = "5"
"""Somebody is not online, and need not be waited for."""
DEADLINE_S = "60"
"""Nobody uses it up."""

AHEAD, OTHER_BUNDLE, EARLIER, TWINS, RIGHT = (
    "aster-bank", "birch-telecom", "cedar-power", "dahlia-stores", "elm-credit-union",
)  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Five data holders, two of which do not serve yet; one has approved another bundle than the coordinator runs."""
    made = Live.make(tmp_path_factory.mktemp("mixed") / "federation", holders=HOLDERS)
    made.plant(AHEAD, (PLANTED / "hour_ahead.py").read_text(encoding="utf-8"))
    made.plant(EARLIER, (PLANTED / "earlier_version.py").read_text(encoding="utf-8"))
    made.switch(EARLIER, "measurement")
    made.setting("coordinator", "nodes_deadline_s", NODES_DEADLINE_S)
    shutil.copytree(made.holder(TWINS), restored(made))
    try:
        made.start(AHEAD, TWINS)
        yield made
    finally:
        made.stop()


def restored(live: Live) -> Path:
    """A data holder's directory as it was at the beginning, put back elsewhere."""
    return live.directory / "restored"


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


def test_another_clock_version_or_node_is_refused_and_the_others_get_a_model(mixed: Live, seen: Settle) -> None:
    digests = mixed.setting(OTHER_BUNDLE, "bundles", f'["{bytes(32).hex()}"]')
    with mixed.only(AHEAD, online=False), mixed.only(TWINS):
        second = subprocess.run(
            [FEDCREDIT, "holder", "serve", "--directory", str(mixed.holder(TWINS))],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert second.returncode == 3
        assert "One node at a time answers for a data holder" in second.stderr
        with serving(mixed, restored(mixed)):
            mixed.until(lambda: node_state(restored(mixed)) is NodeState.KEY_REFUSED, "the copy is not let in")
            mixed.until(lambda: node_state(mixed.holder(AHEAD)) is NodeState.SIGNATURE_REFUSED, "nor is the clock")
            assert mixed.holder_status(AHEAD)["do"] == [WORDS[NodeState.SIGNATURE_REFUSED]]
            mixed.plan(minimum=2)
            done = mixed.command("run", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    told = mixed.status()["last"]["holders"]
    run = mixed.status()["last"]["run"]
    mixed.require_lawful(run)
    record = mixed.record(run)
    refused = {AHEAD: SILENT.reason, OTHER_BUNDLE: RefusalCode.BUNDLE.value}
    assert record["refused"] == refused
    assert [release["left_out"] for release in record["releases"]] == [{}, {EARLIER: SILENT.reason}]
    late = f"left out of release 2: {SILENT.reason}"
    assert told == dict.fromkeys([TWINS, RIGHT], "joined") | {EARLIER: late} | refused
    assert {name: len(mixed.charges(name, run)) for name in mixed.names} == (
        dict.fromkeys([TWINS, RIGHT], 2) | {EARLIER: 1, AHEAD: 0, OTHER_BUNDLE: 0}
    )

    mixed.setting(OTHER_BUNDLE, "bundles", digests)
    mixed.switch(EARLIER, None)
    del mixed.faults[AHEAD]
    with mixed.only(AHEAD), serving(mixed, restored(mixed)):
        mixed.until(lambda: node_state(restored(mixed)) is NodeState.ONLINE, "the copy is online")
        mixed.plan(minimum=2)
        done = mixed.command("run", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    after = mixed.status()["last"]
    mixed.require_lawful(after["run"])
    integrity = RefusalCode.INTEGRITY.value
    assert after["holders"] == dict.fromkeys(mixed.names, "joined") | {TWINS: integrity}
    assert mixed.charges(TWINS, after["run"]) == {}
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
