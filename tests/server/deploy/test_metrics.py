"""What Prometheus reads from a coordinator, judged by Prometheus' own parser."""

import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from federated.lock import alone
from privacy.errors import RefusalError
from server.deploy.metrics import Metrics
from server.deploy.proxy import Closed
from server.deploy.run_status import State, StatusBook
from server.deploy.settings import Home, parse_settings
from server.deploy.setup import Start, settings_text

Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    start = Start(
        name="open-scoring", address="127.0.0.1:9443", schema=tmp_path, registry_url="http://127.0.0.1:1",
        registry_key="ab" * 32, registry_ca=None,
    )  # fmt: skip
    return Home(tmp_path, parse_settings(settings_text(start)))


def figures(port: int) -> dict[Sample, float]:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_all_figures_are_told_to_this_machine(home: Home) -> None:
    now = 1000.0
    metrics = Metrics(home, lambda: now)
    with metrics.serve(0) as port:
        before = figures(port)
        assert before["fedcredit_run_alive", ()] == 0
        assert not [name for name, _ in before if name.startswith("fedcredit_run_") and name != "fedcredit_run_alive"]
        assert {labels[0][1] for name, labels in before if name == "fedcredit_fleet_refused_total"} == set(Closed)
        assert ("fedcredit_nodes_online", ()) not in before
        assert before["fedcredit_superlink_up", ()] == 0

        metrics.answered("/v1/fleet/get-run", 200)
        metrics.answered("/v1/fleet/get-run", 200)
        metrics.refused(Closed.KEY)
        metrics.superlink_ended()
        metrics.nodes(enrolled=7, online=5, well=True)
        book = StatusBook(home.status, run="a-run", plan="cd" * 32, pid=1, clock=lambda: now)
        book.change(state=State.RUNNING, stage=3, stages=9, holders={"aster-bank": "joined"})
        now = 1060.0
        with alone(home.run_lock, "taken"):
            after = figures(port)
    assert after["fedcredit_fleet_answered_total", (("path", "/v1/fleet/get-run"), ("status", "200"))] == 2
    assert after["fedcredit_fleet_refused_total", (("reason", "key"),)] == 1
    assert after["fedcredit_fleet_refused_total", (("reason", "path"),)] == 0
    assert after["fedcredit_superlink_ends_total", ()] == 1
    assert after["fedcredit_nodes_enrolled", ()] == 7
    assert after["fedcredit_nodes_online", ()] == 5
    assert after["fedcredit_superlink_up", ()] == 1
    assert after["fedcredit_run_alive", ()] == 1
    states = {labels[0][1]: value for (name, labels), value in after.items() if name == "fedcredit_run_state"}
    assert states == {state.value: float(state is State.RUNNING) for state in State}
    assert (after["fedcredit_run_stage", ()], after["fedcredit_run_stages", ()]) == (3, 9)
    assert after["fedcredit_run_status_age_seconds", ()] == 60
    labels = {label for _, labels in after for label, _ in labels}
    assert labels == {"path", "status", "reason", "state"}
    for word in ("aster-bank", "a-run", "cdcd"):
        assert word not in str(after)


def test_what_is_not_known_is_left_out(home: Home) -> None:
    metrics = Metrics(home, lambda: 0.0)
    metrics.nodes(enrolled=None, online=None, well=True)
    with metrics.serve(0) as port:
        assert not [name for name, _ in figures(port) if name.startswith("fedcredit_nodes")]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"state": "running"}'])
def test_a_status_that_cannot_be_read_leaves_the_other_figures(home: Home, content: bytes) -> None:
    home.status.write_bytes(content)
    with Metrics(home, lambda: 0.0).serve(0) as port:
        told = figures(port)
    assert ("fedcredit_run_stage", ()) not in told
    assert told["fedcredit_superlink_up", ()] == 0


def test_only_this_machine_is_told(home: Home) -> None:
    with Metrics(home, lambda: 0.0).serve(0) as port, pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), 5).close()


def test_a_taken_port_is_one_text(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RefusalError, match=rf"Port {port} .* metrics"), Metrics(home, lambda: 0.0).serve(port):
            pass
