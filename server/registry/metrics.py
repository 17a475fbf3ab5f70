"""What an operator may watch: counts and durations, with no tag, address or body in any label."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry's own figures, in Prometheus' text format."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self._accepted = Counter(
            "fedcredit_registry_accepted", "Records and tombstones stored and promised, repeated ones too",
            registry=self._all,
        )  # fmt: skip
        self._refused = Counter(
            "fedcredit_registry_refused", "Requests that were answered with an error, by its code", ["code"],
            registry=self._all,
        )  # fmt: skip
        self._commit_records = Histogram(
            "fedcredit_registry_commit_records", "Records that one commit took", buckets=_RECORDS, registry=self._all
        )
        self._commit_seconds = Histogram(
            "fedcredit_registry_commit_seconds", "Seconds that one commit took", buckets=_SECONDS, registry=self._all
        )
        self._request_seconds = Histogram(
            "fedcredit_registry_request_seconds", "Seconds until a request was answered", ["route", "status"],
            buckets=_SECONDS, registry=self._all,
        )  # fmt: skip
        self._entries = Gauge("fedcredit_registry_lane_entries", "Entries in a lane", ["lane"], registry=self._all)

    def accepted(self, records: int) -> None:
        """Records were stored and promised."""
        self._accepted.inc(records)

    def refused(self, code: str) -> None:
        """A request was answered with an error."""
        self._refused.labels(code).inc()

    def committed(self, records: int, seconds: float) -> None:
        """One transaction reached the disk."""
        self._commit_records.observe(records)
        self._commit_seconds.observe(seconds)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request to `route`, its template and not its path, was answered."""
        self._request_seconds.labels(route, str(status)).observe(seconds)

    def sized(self, lane: str, entries: int) -> None:
        """A lane of the registry's settings has so many entries."""
        self._entries.labels(lane).set(entries)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._all)
