"""Certificates and a clock that do not hold: who is shut out says why and what to do, and is let in again."""

import signal
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clients.holder.fleet import CA_FILE
from clients.holder.serve import SERVING
from clients.holder.serve_status import STATUS, WORDS, NodeState, ServeStatus, read_status
from federated.certificates import certificate_pem, certify, key_pem, read_certificates
from server.deploy.settings import Home
from server.deploy.tls import make_tls
from tests.deployment.conftest import Settle
from tests.deployment.in_time import restart
from tests.deployment.live import Live

pytestmark = pytest.mark.slow

DAY_S = 86_400


def test_nodes_are_shut_out_while_certificate_or_clock_do_not_hold_and_come_back_by_themselves(
    live: Live, seen: Settle, tmp_path: Path
) -> None:
    nodes_deadline_s = live.setting("coordinator", "nodes_deadline_s", "2.0")
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
    live.switch("coordinator", "an hour behind")
    _restart(live)
    behind = _shut_out(live, dict.fromkeys(live.names, NodeState.SIGNATURE_REFUSED), clock=live.faults["coordinator"])

    live.switch("coordinator", None)
    live.setting("coordinator", "nodes_deadline_s", nodes_deadline_s)
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


def _shut_out(live: Live, expected: dict[str, NodeState], *, clock: Path | None = None) -> str:
    """What the coordinator's status says of a run that finds nobody, while the data holders' say what is expected."""
    live.until(lambda: {name: _node(live, name) for name in live.names} == expected, f"they say {expected}")
    for name, state in expected.items():
        assert WORDS[state] in live.holder_status(name)["do"]
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


def _node(live: Live, name: str) -> str:
    status = read_status(live.holder(name) / SERVING / STATUS, ServeStatus)
    assert status is not None
    return status.state
