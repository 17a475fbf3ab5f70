"""How things stand at a coordinator, and what to do next: from what lies in its directory, and what is alive."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from federated.lock import is_held
from federated.round_log import Event, LogEntry
from privacy.consent.linking import fingerprint
from privacy.errors import FedcreditError
from server.deploy import unfinished
from server.deploy.members import Members
from server.deploy.round_log import RoundLog
from server.deploy.run_status import RunStatus, State, read_status
from server.deploy.settings import Home
from server.deploy.stopping import is_running
from server.deploy.tls import SOON_DAYS, validities

INTERRUPTED: Final = "interrupted"
NEVER: Final = "never"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `status` says. `state` is "never", "interrupted", or what the last run wrote.

    `unreadable` are the errors of what could not be read; then what depends on it is missing.
    """

    name: str
    key: str
    fingerprint: str
    state: str
    run_is_alive: bool
    dry_run_is_alive: bool  # or a run that has only just begun
    last: dict[str, Any] | None
    unfinished_run: str | None
    serving: bool
    members: dict[str, str]  # by data holder: "enrolled" or "revoked"
    certificates: tuple[dict[str, Any], ...]
    plan: str | None
    published: dict[str, Any] | None
    log_entries: int
    log_head: str
    log_holds: bool
    unreadable: tuple[str, ...]
    next: str


class _Reading:
    """Reads one thing after another; what cannot be read is told, and does not keep the rest from being."""

    def __init__(self) -> None:
        self.errors: list[FedcreditError] = []

    def of(self, read: Any, instead: Any) -> Any:
        try:
            return read()
        except FedcreditError as error:
            self.errors.append(error)
            return instead


def report(home: Home, *, at: int) -> tuple[Report, FedcreditError | None]:
    """How things stand at the instant `at` (UTC seconds), and the gravest of what could not be read, or None."""
    key, reading = home.key(), _Reading()
    status: RunStatus | None = reading.of(lambda: read_status(home.status), None)
    alive = is_running(home, status)
    asking = not alive and is_held(home.run_lock)
    if not alive and status is not None:  # it may have ended since it was read: its last words are there by now
        status = reading.of(lambda: read_status(home.status), None)
        alive = is_running(home, status)
        asking = asking and not alive
    left = reading.of(lambda: unfinished.kept(home.directory), None)
    log: RoundLog | None = reading.of(lambda: RoundLog(home.round_log, key), None)
    entries: Sequence[LogEntry] = () if log is None else log.entries
    members = reading.of(lambda: Members(home.directory).load(), {})
    certificates = reading.of(lambda: validities(home.directory, at), [])
    plan = _last(entries, Event.PLAN_SIGNED)
    published = _last(entries, Event.PUBLISHED)
    state = _state(status, alive=alive)
    serving = is_held(home.serve_lock)
    told = Report(
        name=home.settings.name,
        key=key.public.hex(),
        fingerprint=fingerprint(key.public),
        state=state,
        run_is_alive=alive,
        dry_run_is_alive=asking,
        last=None if status is None else _plain(status),
        unfinished_run=None if left is None else left.run,
        serving=serving,
        members={holder: "enrolled" if one.revoked is None else "revoked" for holder, one in sorted(members.items())},
        certificates=tuple(asdict(one) for one in certificates),
        plan=None if plan is None else str(plan.detail.get("plan")),
        published=None if published is None else {"run": published.run, "at": published.at, **published.detail},
        log_entries=0 if log is None else log.head.size,
        log_head="" if log is None else log.head.digest,
        log_holds=log is not None,
        unreadable=tuple(str(error) for error in reading.errors),
        next=_next(
            state, left is not None, asking=asking, serving=serving, members=len(members), has_plan=home.plan.exists(),
            expiring=any(one.days_left < SOON_DAYS for one in certificates),
        ),
    )  # fmt: skip
    gravest = max(reading.errors, key=lambda error: error.exit_code, default=None)
    return told, gravest


def lines(told: Report) -> list[str]:
    """The same for people."""
    found = [f"coordinator {told.name}, fingerprint {told.fingerprint}"]
    found.append(f"serving: {'yes' if told.serving else 'no'}")
    enrolled = [holder for holder, state in told.members.items() if state == "enrolled"]
    found.append(f"data holders enrolled: {', '.join(enrolled) or 'none'}")
    found += [f"revoked: {holder}" for holder, state in told.members.items() if state != "enrolled"]
    found += [f"certificate {one['file']} ({one['role']}): {one['days_left']} days left" for one in told.certificates]
    found.append(f"last plan signed: {told.plan or 'none'}")
    found.append(_run_line(told))
    if told.dry_run_is_alive:
        found.append("under way: a dry run (or a run that has only just begun)")
    if told.last is not None:
        found += [f"  {holder}: {how}" for holder, how in sorted(told.last["holders"].items())]
        if told.last["message"]:
            found.append(f"  it said: {told.last['message']}")
    if told.unfinished_run is not None and not told.run_is_alive:
        found.append(f"begun and not finished: run {told.unfinished_run}")
    if told.published is not None:
        found.append(f"last published: run {told.published['run']}")
    holds = f"{told.log_entries} entries hold, head {told.log_head}" if told.log_holds else "DOES NOT HOLD"
    found.append(f"round log: {holds}")
    found += [f"cannot be relied on: {text}" for text in told.unreadable]
    return [*found, f"next: {told.next}"]


def _run_line(told: Report) -> str:
    if told.last is None:
        return "run: there was none"
    where = f", stage {told.last['stage']} of {told.last['stages']}" if told.last["stages"] else ""
    named = f" {told.last['run']}" if told.last["run"] else ""
    began, wrote = (datetime.fromtimestamp(told.last[when], UTC) for when in ("started", "updated"))
    times = f"begun {began:%Y-%m-%d %H:%M:%S}, last heard of {wrote:%Y-%m-%d %H:%M:%S} UTC"
    return f"run{named}: {told.state}{where} ({told.last['what']}); {times}"


def _state(status: RunStatus | None, *, alive: bool) -> str:
    if status is None:
        return NEVER
    if status.state.is_over or alive:
        return status.state.value
    return INTERRUPTED


def _last(entries: Sequence[LogEntry], event: Event) -> LogEntry | None:
    return next((entry for entry in reversed(entries) if entry.event is event), None)


def _plain(status: RunStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in status.__struct_fields__} | {"state": status.state.value}


def _next(
    state: str, is_left: bool, *, asking: bool, serving: bool, members: int, has_plan: bool, expiring: bool
) -> str:
    if state in {State.WAITING, State.OPENING, State.RUNNING}:
        return "wait, or `fedcredit coordinator stop`"
    if asking:
        return "wait until the dry run has ended, or end it with Ctrl-C where it was started"
    if expiring:
        return "a certificate runs out soon: `fedcredit coordinator certificates --renew`"
    if not members:
        return "take data holders in: `fedcredit coordinator enroll`"
    if not serving:
        return "let data holders dial in: `fedcredit coordinator serve`"
    if is_left:
        return "`fedcredit coordinator resume` goes on with the run that was begun"
    if not has_plan:
        return "`fedcredit coordinator plan`"
    if state == State.FINISHED:
        return "`fedcredit coordinator publish --out DIR`, or plan the next run"
    return "`fedcredit coordinator run`"
