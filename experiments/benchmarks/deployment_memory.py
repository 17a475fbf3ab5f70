"""Memory of the programs of a federation on this machine, by program."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from clients.holder.serve import SERVING
from clients.holder.serve_status import STATUS, ServeStatus, read_status
from experiments.deployment import SUPERVISED, Deployment

REGISTRY, COORDINATOR, SUPERLINK, SUPERVISOR = "registry", "coordinator serve", "SuperLink", "holder serve"
PROGRAMS: Final = {
    REGISTRY: "registry serve",
    COORDINATOR: "coordinator serve, with the door",
    SUPERLINK: "Flower's SuperLink",
    SUPERVISOR: "holder serve, the supervisor",
    "supernode": "Flower's SuperNode",
    "worker": "a data holder's worker",
    "sync": "a data holder's sync",
}
"""Every program that stands there while nothing runs, and how a row names it."""

_PROC: Final = Path("/proc")


def is_shared_out() -> bool:
    """Whether this system tells memory with shared pages shared out among their processes (PSS), or plain (RSS)."""
    return (_PROC / "self" / "smaps_rollup").exists()


def memory_of(pid: int) -> int | None:
    """Bytes of a process: PSS where the system tells it, RSS elsewhere; None if it is gone."""
    if is_shared_out():
        try:
            return pss_in((_PROC / str(pid) / "smaps_rollup").read_text())
        except OSError:
            return None
    told = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return 1024 * int(told.stdout) if told.stdout.strip() else None


def pss_in(rollup: str) -> int | None:
    """The bytes that `smaps_rollup` tells as PSS."""
    for line in rollup.splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return 1024 * int(value.split()[0])
    return None


def pids(deployment: Deployment) -> dict[str, list[int]]:
    """The processes of each program, the data holders' in the order of their names."""
    parties = _remembered(deployment.directory / SUPERVISED)
    found = {
        REGISTRY: [parties[REGISTRY]],
        COORDINATOR: [parties["coordinator"]],
        SUPERLINK: list(_remembered(deployment.coordinator / "superlink" / "supervised.json").values()),
    }
    for name, path in deployment.holders.items():
        found.setdefault(SUPERVISOR, []).append(parties[name])
        status = read_status(path / SERVING / STATUS, ServeStatus)
        for program, told in (status.programs if status is not None else {}).items():
            if told.pid is not None:
                found.setdefault(program, []).append(told.pid)
    return found


def memory_by_program(deployment: Deployment) -> dict[str, list[int]]:
    """Bytes of every process of each program that runs."""
    return {
        program: [size for pid in numbers if (size := memory_of(pid)) is not None]
        for program, numbers in pids(deployment).items()
    }


def mean_by_program(sizes: Mapping[str, list[int]]) -> dict[str, float]:
    """The mean process of each program; a program without a process is left out."""
    return {program: sum(some) / len(some) for program, some in sizes.items() if some}


def per_holder(sizes: Mapping[str, list[int]]) -> float | None:
    """Bytes of all programs of one data holder, on average; None unless every program of every one was seen."""
    own = [sizes.get(program, []) for program in (SUPERVISOR, "supernode", "worker", "sync")]
    if not own[0] or any(len(some) != len(own[0]) for some in own):
        return None
    return sum(map(sum, own)) / len(own[0])


def _remembered(path: Path) -> dict[str, int]:
    kept = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[int, str]])
    return {name: pid for name, (pid, _) in kept.items()}
