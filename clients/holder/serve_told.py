"""`fedcredit holder status`: what runs, what it answered last, what it has, and what to do. No person is in it."""

from pathlib import Path
from typing import Any, Final

from clients.holder.consents import utc
from clients.holder.look import looking
from clients.holder.serve import SERVING, SYNC, holder_in
from clients.holder.serve_status import (
    LOCK,
    STATUS,
    WORDS,
    WORKER,
    LastLetter,
    NodeState,
    ServeStatus,
    WorkerStatus,
    read_status,
)
from federated.lock import is_held
from privacy.errors import FedcreditError, RefusalCode, TamperingError

REFUSED_WORDS: Final = {
    RefusalCode.BUDGET: "somebody's cap, or this data holder's, would have been passed",
    RefusalCode.BUNDLE: "the coordinator's app bundle is not among policy.bundles",
    RefusalCode.COHORT: "the data holders it was to be summed with were not the agreed ones",
    RefusalCode.CONSENT: "too few people have a consent in force",
    RefusalCode.LANE: "the lane is too old or shorter than the run asks for",
    RefusalCode.PLAN: "the plan or the message does not fit the agreed one",
    RefusalCode.POLICY: "this data holder's policy does not allow it",
    RefusalCode.REPLAY: "it was answered before, with something else",
    RefusalCode.SCHEMA: "the run is for another schema",
    RefusalCode.INTEGRITY: "something contradicts a signature or this data holder's own history",
    RefusalCode.INTERNAL: "it could not be computed, or not in time; serving/worker.log says more",
}
"""Each reason for a refusal, in words."""


def tell_status(directory: Path, *, at: int) -> tuple[dict[str, Any], list[str]]:
    """The facts, and lines for people. UsageError if `directory` is no data holder's."""
    name = holder_in(directory)
    place = directory / SERVING
    alive = is_held(place / LOCK)
    status = read_status(place / STATUS, ServeStatus)
    worker = read_status(place / WORKER, WorkerStatus)
    running = _running(alive, status)
    facts: dict[str, Any] = {"holder": name, "serving": running}
    lines = [f"{name}: {_RUNNING_WORDS[running]}"]
    todo: list[str] = []
    if status is not None:
        _tell_node(status, alive, facts, lines, todo)
    if alive:
        _tell_worker(worker, facts, lines, todo)
    if worker is not None and worker.last is not None:
        facts["last"] = _last(worker.last)
        lines.append(f"last      {_last_words(worker.last)}")
    if running == "interrupted":
        todo.append("start `fedcredit holder serve` again; nothing is lost.")
    _tell_own(directory, facts, lines, todo, at=at)
    facts["do"] = list(dict.fromkeys(todo))  # what keeps the worker from beginning may be found here as well
    return facts, [*lines, *(f"To do: {text}" for text in facts["do"])]


_RUNNING_WORDS: Final = {
    "running": "served",
    "interrupted": "not served; the programs were killed or this machine went down",
    "stopped": "not served",
}


def _running(alive: bool, status: ServeStatus | None) -> str:
    if alive:
        return "running"
    return "interrupted" if status is not None and status.programs else "stopped"


def _tell_node(status: ServeStatus, alive: bool, facts: dict[str, Any], lines: list[str], todo: list[str]) -> None:
    facts["coordinator"], facts["address"] = status.coordinator, status.address
    if not alive:
        return
    facts["node"], facts["since"] = status.state.value, status.since
    facts["programs"] = {
        name: {"pid": one.pid, "restarts": one.restarts, "last_exit": one.last_exit}
        for name, one in status.programs.items()
    }
    facts["heard_at"] = status.online_at
    heard = f"last good sign at {utc(status.online_at)}" if status.online_at is not None else "no good sign yet"
    lines.append(f"node      {status.state.value} since {utc(status.since)}, {heard}")
    lines.append(f"          for {status.coordinator} at {status.address}")
    if status.state is not NodeState.ONLINE:
        todo.append(WORDS[status.state])
    restarts = ", ".join(f"{name} {one.restarts}" for name, one in status.programs.items() if one.restarts)
    lines.append(f"programs  served since {utc(status.started)}; restarts: {restarts or 'none'}")
    sync = status.programs.get(SYNC)
    if sync is not None and sync.last_exit == TamperingError.exit_code:
        todo.append(
            "the registry contradicts its signed history or this data holder's copy does: read serving/sync.log, and "
            "ask the registry's operator."
        )


def _tell_worker(worker: WorkerStatus | None, facts: dict[str, Any], lines: list[str], todo: list[str]) -> None:
    facts["ready"] = worker is not None and worker.ready
    if worker is None:
        lines.append("answers   not ready yet")
        return
    if not worker.ready:
        facts["reason"] = worker.reason
        lines.append("answers   nothing is answered")
        todo.append(str(worker.reason))
        return
    facts["answered"], facts["refusals"] = worker.answered, worker.refusals
    lines.append(f"answers   {worker.answered} since {utc(worker.since)}, {worker.refusals} of them refusals")


def _last(letter: LastLetter) -> dict[str, Any]:
    return {
        "kind": letter.kind,
        "run": letter.run,
        "stage": letter.stage,
        "at": letter.at,
        "took_ms": letter.took_ms,
        "refused": letter.refused.value if letter.refused is not None else None,
        "failed": letter.failed,
    }


def _last_words(letter: LastLetter) -> str:
    place = f" of {letter.run}" if letter.run is not None else ""
    stage = f", release {letter.stage}" if letter.stage is not None else ""
    if letter.refused is not None:
        end = f"refused ({letter.refused.value}): {REFUSED_WORDS[letter.refused]}"
    elif letter.failed is not None:
        end = f"no answer ({letter.failed})"
    else:
        end = "answered"
    return f"{letter.kind}{place}{stage} at {utc(letter.at)}, {letter.took_ms / 1000:.1f} s: {end}"


def _tell_own(directory: Path, facts: dict[str, Any], lines: list[str], todo: list[str], *, at: int) -> None:
    try:
        with looking(directory) as look:
            synced, size = look.lane.synced_at > 0, look.ledger.head.size
            age = look.lane.age(at=at) if synced else None
            facts["lane"] = {"size": look.lane.head.size, "age_s": age}
            facts["ledger"] = {"entries": size}
            when = "never synced" if age is None else f"synced {age} s ago"
            lines.append(f"lane      {look.lane.head.size} entries, {when}")

            lines.append(f"ledger    {size} entries, verified")
    except FedcreditError as error:
        facts["fault"] = str(error)
        todo.append(str(error))
