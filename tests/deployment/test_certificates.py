"""Certificates, keys and a clock that do not hold: who is shut out says why and what to do, and is let in again."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clients.holder.fleet import CA_FILE, NODE_KEY, new_node_key
from clients.holder.serve import SERVING
from clients.holder.serve_status import STATUS, WORDS, NodeState, ServeStatus, read_status
from federated.certificates import certificate_pem, certify, key_pem, read_certificates
from federated.programs import Program, Supervisor
from server.deploy.settings import Home
from server.deploy.tls import make_tls
from tests.deployment.conftest import Settle
from tests.deployment.in_time import restart
from tests.deployment.live import FEDCREDIT, Live

pytestmark = pytest.mark.slow

DAY_S = 86_400
RIGHT = "FAULTS = {}"
BEHIND = """
import datetime, time

real = time.time
time.time = lambda: real() - 3600

def behind(module):
    now = module.now
    module.now = lambda: now() - datetime.timedelta(hours=1)

FAULTS = {"flwr.supercore.date": behind}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Three data holders online; the coordinator's programs can be given another clock."""
    made = Live.make(tmp_path_factory.mktemp("live") / "federation")
    made.plant("coordinator", RIGHT)
    made.setting("coordinator", "nodes_deadline_s", "2.0")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_nodes_are_shut_out_while_certificate_or_clock_do_not_hold_and_come_back_by_themselves(
    live: Live, seen: Settle, tmp_path: Path
) -> None:
    live.plan()
    *others, deceived = live.names
    tls, trusted = Home.open(live.coordinator).tls, live.holder(deceived) / CA_FILE
    right = trusted.read_bytes()
    trusted.write_bytes((make_tls(tmp_path, "127.0.0.1", int(time.time())) / "ca.pem").read_bytes())
    for name, content in zip(("fleet.pem", "fleet.key"), _expired(tls), strict=True):
        (tls / name).write_bytes(content)
    _restart(live)
    expired = _shut_out(live, dict.fromkeys(others, NodeState.CERTIFICATE_EXPIRED) | {deceived: NodeState.CERTIFICATE})
    assert live.command("certificates").returncode == 3
    assert [one["file"] for one in live.status()["certificates"] if not one["in_force"]] == ["fleet.pem"]

    assert live.command("certificates", "--renew").returncode == 0
    trusted.write_bytes(right)
    live.plant("coordinator", BEHIND)
    _restart(live)
    behind = _shut_out(live, dict.fromkeys(live.names, NodeState.SIGNATURE_REFUSED), clock=BEHIND)

    live.plant("coordinator", RIGHT)
    _restart(live)
    live.until(lambda: {_node(live, name) for name in live.names} == {NodeState.ONLINE}, "everybody is online again")
    done = live.command("run")
    assert done.returncode == 0, done.stderr
    run = live.status()["last"]["run"]
    live.require_lawful(run)
    model = f"a model from {len(live.record(run)['holders'])} of {len(live.names)} data holders"
    shut = "refused, for nobody joins"
    at_all = "at every data holder, with what to do"
    seen(
        "fleet's certificate expired",
        f"{shut}; renewed, with nothing to do at the data holders: {model}",
        f"{expired}, and which one it is; {NodeState.CERTIFICATE_EXPIRED.value} {at_all}",
    )
    seen(
        "certificate of another authority",
        f"the data holder does not connect; with the right one: {model}",
        f"{NodeState.CERTIFICATE.value} at the data holder, with what to do",
    )
    seen(
        "clock of the coordinator an hour behind",
        f"{shut}; set right, with nothing to do at the data holders: {model}",
        f"{behind}; {NodeState.SIGNATURE_REFUSED.value} {at_all}",
    )


def test_a_run_does_without_a_node_whose_key_was_revoked_and_never_hears_of_one_not_enrolled(
    live: Live, seen: Settle
) -> None:
    *others, revoked = live.names
    live.plan()
    stranger = _stranger(live)
    with Supervisor([_serve(stranger)], pid_file=live.directory / "stranger.json") as supervisor:
        assert live.command("enroll", "--revoke", revoked).returncode == 0
        live.until(lambda: _node(live, revoked) is NodeState.KEY_REFUSED, f"{revoked} is shut out")
        done = live.command("run")
        assert done.returncode == 0, done.stderr
        supervisor.tend()
        live.until(lambda: _told(stranger)["node"] == NodeState.KEY_REFUSED, "the stranger is shut out")
        assert WORDS[NodeState.KEY_REFUSED] in _told(stranger)["do"]
    status = live.status()
    run = status["last"]["run"]
    live.require_lawful(run)
    record = live.record(run)
    assert record["holders"] == others
    assert live.charges(revoked, run) == {}
    assert WORDS[NodeState.KEY_REFUSED] in live.holder_status(revoked)["do"]
    model = f"a model from {len(record['holders'])} of {len(live.names)} data holders"
    told = f"{NodeState.KEY_REFUSED.value} at the data holder, with what to do"
    seen("node key revoked", f"{model}, without the one revoked", f"{status['members'][revoked]}; {told}")
    assert stranger.name not in {*status["members"], *status["last"]["holders"]}
    seen("node key that was never enrolled", f"{model}, and the stranger is asked nothing", told)


def _shut_out(live: Live, expected: dict[str, NodeState], *, clock: str | None = None) -> str:
    """What the coordinator's status says of a run that finds nobody, while the data holders' say what is expected."""
    live.until(lambda: {name: _node(live, name) for name in live.names} == expected, f"they say {expected}")
    for name, state in expected.items():
        assert WORDS[state] in _told(live.holder(name))["do"]
    done = live.command("run", "--deadline", "2", fault=clock)
    assert done.returncode == 3, done.stderr
    status = live.status()
    assert status["unfinished_run"] is None
    assert status["log_holds"]
    return str(status["state"])


def _restart(live: Live) -> None:
    live.kill("coordinator", number=signal.SIGTERM)
    restart(live, "coordinator", Home.open(live.coordinator).settings.fleet.port)


def _expired(tls: Path) -> tuple[bytes, bytes]:
    """A certificate of the federation's own authority that was good until yesterday, and its key."""
    authority = read_certificates((tls / "ca.pem").read_bytes(), what="ca.pem")[0]
    issuer = load_pem_private_key((tls / "ca.key").read_bytes(), password=None)
    assert isinstance(issuer, ec.EllipticCurvePrivateKey)
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = certify(
        own.public_key(), name="fedcredit fleet", hosts=("127.0.0.1",), signs_others=False, key=issuer,
        issuer=authority, at=int(time.time()) - 91 * DAY_S, days=90,
    )  # fmt: skip
    return certificate_pem(certificate), key_pem(own)


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


def _node(live: Live, name: str) -> str:
    status = read_status(live.holder(name) / SERVING / STATUS, ServeStatus)
    assert status is not None
    return status.state


def _told(directory: Path) -> dict[str, Any]:
    """What `holder status` says."""
    done = subprocess.run(
        [FEDCREDIT, "holder", "status", "--json", "--directory", str(directory)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
