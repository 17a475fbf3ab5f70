"""Nodes that are on the coordinator's list no more, or never were: a run does without them, and they say why."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from clients.holder.fleet import NODE_KEY, new_node_key
from clients.holder.serve import SERVING
from clients.holder.serve_status import STATUS, WORDS, NodeState, ServeStatus, read_status
from federated.programs import Program, Supervisor
from tests.deployment.conftest import Settle
from tests.deployment.live import FEDCREDIT, Live, status_of

pytestmark = pytest.mark.slow


def test_a_run_does_without_a_node_whose_key_was_revoked_and_never_hears_of_one_not_enrolled(
    live: Live, seen: Settle
) -> None:
    live.used_up = True  # SuperLink never takes a node key twice
    live.setting("coordinator", "nodes_deadline_s", "2.0")  # one of them is not online, and need not be waited for
    *others, revoked = live.names
    live.plan()
    stranger = _stranger(live)
    with Supervisor([_serve(stranger)], pid_file=live.directory / "stranger.json") as supervisor:
        assert live.command("enroll", "--revoke", revoked).returncode == 0
        live.until(lambda: _node(live.holder(revoked)) is not NodeState.ONLINE, f"{revoked} is cut off")
        done = live.command("run")
        assert done.returncode == 0, done.stderr
        supervisor.tend()
        live.until(lambda: _node(stranger) is NodeState.KEY_REFUSED, "the stranger is shut out")
        assert WORDS[NodeState.KEY_REFUSED] in status_of("holder", stranger)[1]["do"]
    status = live.status()
    run = status["last"]["run"]
    live.require_lawful(run)
    record = live.record(run)
    assert record["holders"] == others
    assert live.charges(revoked, run) == {}
    live.kill(revoked, number=signal.SIGTERM)  # else it might be a connection that broke off, for 90 s
    live.until(lambda: _node(live.holder(revoked)) is NodeState.KEY_REFUSED, f"{revoked} says why")
    assert WORDS[NodeState.KEY_REFUSED] in live.holder_status(revoked)["do"]
    model = f"a model from {len(record['holders'])} of {len(live.names)} data holders"
    told = f"{NodeState.KEY_REFUSED.value} at the data holder, with what to do"
    seen("node key revoked", f"{model}, without the one revoked", f"{status['members'][revoked]}; {told}")
    assert stranger.name not in {*status["members"], *status["last"]["holders"]}
    seen("node key that was never enrolled", f"{model}, and the stranger is asked nothing", told)


def _stranger(live: Live) -> Path:
    """A directory like a data holder's own, with a node key that nobody has enrolled."""
    made = live.directory / "stranger"
    shutil.copytree(live.holder(live.names[0]), made, ignore=shutil.ignore_patterns(SERVING, "*.lock"))
    (made / NODE_KEY).unlink()
    new_node_key(made / NODE_KEY)
    return made


def _serve(directory: Path) -> Program:
    command = (FEDCREDIT, "holder", "serve", "--directory", str(directory), "--no-sync")
    return Program(directory.name, command, dict(os.environ), directory, directory / "serve.log")


def _node(directory: Path) -> NodeState | None:
    status = read_status(directory / SERVING / STATUS, ServeStatus)
    return None if status is None else status.state
