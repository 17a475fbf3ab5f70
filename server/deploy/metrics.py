"""What a coordinator's operator may watch: counts, and how far the run has come. No holder, node or key in a label."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federated.lock import is_held
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.deploy.proxy import Closed
from server.deploy.run_status import State, read_status
from server.deploy.settings import Home

HOST: Final = "127.0.0.1"


class Metrics:
    """One coordinator's figures, in Prometheus' text format; `clock` gives UTC seconds."""

    def __init__(self, home: Home, clock: Callable[[], float]) -> None:
        self.all = CollectorRegistry()
        self._answered = Counter(
            "fedcredit_fleet_answered", "Requests of nodes that were answered, by path and status", ["path", "status"],
            registry=self.all,
        )  # fmt: skip
        self._refused = Counter(
            "fedcredit_fleet_refused", "Requests that were not passed on, by reason", ["reason"], registry=self.all
        )
        for reason in Closed:  # so that all of them are there from the start, at zero
            self._refused.labels(reason.value)
        self._restarts = Counter("fedcredit_superlink_ends", "Times that SuperLink ended by itself", registry=self.all)
        self._nodes = _Nodes()
        self.all.register(self._nodes)
        self.all.register(_Run(home, clock))

    def answered(self, path: str, status: int) -> None:
        """A request to one of the proxy's paths was answered."""
        self._answered.labels(path, str(status)).inc()

    def refused(self, reason: Closed) -> None:
        """A request was not passed on."""
        self._refused.labels(reason.value).inc()

    def superlink_ended(self) -> None:
        """SuperLink ended although nobody had told it to."""
        self._restarts.inc()

    def nodes(self, *, enrolled: int | None, online: int | None, well: bool) -> None:
        """So many data holders are enrolled and connected (None: not known), and SuperLink answers or does not."""
        self._nodes.enrolled, self._nodes.online, self._nodes.well = enrolled, online, well

    @contextmanager
    def serve(self, port: int) -> Iterator[int]:
        """Serve the figures to this machine for as long as the block runs; gives the port, a free one for 0.

        RefusalError if it cannot be listened on.
        """
        try:
            server, thread = start_http_server(port, HOST, self.all)
        except OSError as error:
            raise RefusalError(
                f"Port {port} of {HOST} cannot be listened on for metrics ({error.strerror}). The coordinator should "
                "stop the program that has it, or name another fleet.metrics_port in coordinator.toml.",
                RefusalCode.INTERNAL,
            ) from None
        try:
            yield int(server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Nodes(Collector):
    def __init__(self) -> None:
        self.enrolled: int | None = 0
        self.online: int | None = None
        self.well = False

    def collect(self) -> Iterator[Metric]:
        """The counts as they were last seen; what is not known is left out."""
        if self.enrolled is not None:
            yield GaugeMetricFamily("fedcredit_nodes_enrolled", "Data holders enrolled and not revoked", self.enrolled)
        if self.online is not None:
            yield GaugeMetricFamily("fedcredit_nodes_online", "Nodes that SuperLink hears from", self.online)
        yield GaugeMetricFamily("fedcredit_superlink_up", "Whether SuperLink answers", float(self.well))


class _Run(Collector):
    """Read at each scrape: the run is another process, and may have been killed."""

    def __init__(self, home: Home, clock: Callable[[], float]) -> None:
        self._home, self._clock = home, clock

    def collect(self) -> Iterator[Metric]:
        """The last run as it wrote of itself; nothing if there was none, or if it cannot be read."""
        alive = float(is_held(self._home.run_lock))
        yield GaugeMetricFamily("fedcredit_run_alive", "Whether the program of a run runs now", alive)
        try:
            told = read_status(self._home.status)
        except MalformedError:
            return
        if told is None:
            return
        states = GaugeMetricFamily("fedcredit_run_state", "1 for the state that the last run wrote", labels=["state"])
        for state in State:
            states.add_metric([state.value], float(state is told.state))
        yield states
        yield GaugeMetricFamily("fedcredit_run_stage", "The stage that the last run wrote", told.stage)
        yield GaugeMetricFamily("fedcredit_run_stages", "Of so many; 0 before the plan is read", told.stages)
        ago = max(0.0, self._clock() - told.updated)
        yield GaugeMetricFamily("fedcredit_run_status_age_seconds", "Seconds since the last run wrote", ago)
