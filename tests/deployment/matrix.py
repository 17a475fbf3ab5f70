"""The failure matrix: what happened to a real deployment, and what came of it, one line for each event that is tested.

A test tells what it has seen, and fails unless the table in the repository says the same. With
`pytest --write-withstand tests/deployment` the table is written anew from the tests that ran.
"""

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parent / "WITHSTAND.md"

_HEAD: Final = """\
# What a deployment withstands

Each line is a test on real processes: consent registry, SuperLink behind its proxy, a node and a worker for every data
holder, TLS between them. Each ends by counting rows used without consent (none, by a replay of every decision), charges
for one release (one), and releases without a charge (none). The table is written by the tests that ran
(`pytest --write-withstand tests/deployment`), and a test fails when it sees something else than its line says.

| what happens | how the run ends | what `status` says |
| --- | --- | --- |
"""

EVENTS: Final = (
    "coordinator killed (SIGKILL) after each step it keeps, and resumed each time",
    "coordinator stopped (`coordinator stop`) in a round, and resumed",
    "data holder killed while it trains",
    "data holder killed after it has charged and before it sends",
    "data holder killed after it has sent",
    "data holder that hangs",
    "data holder that hangs where no signal ends it",
    "data holder that answers twice",
    "data holder that begins an answer and does not end it",
    "data holder that answers too late",
    "data holder that answers NaN",
    "data holder that answers in a wrong shape",
    "data holder that answers with a record nobody asked for",
    "data holder that answers in another's name",
    "consent registry down at the start",
    "consent registry down in the middle",
    "consent registry down at the end",
    "SuperLink restarted in a round",
    "disk full at a data holder",
    "disk full at the coordinator",
    "read-only directory at a data holder",
    "read-only directory at the coordinator",
    "clock of a data holder an hour ahead",
    "clock of the coordinator an hour behind",
    "two runs at once",
    "two nodes of one data holder",
    "fleet's certificate expired",
    "certificate of another authority",
    "node key revoked",
    "node key that was never enrolled",
    "one data holder of another version",
    "20 restarts of a data holder's programs in a row",
)


@dataclass(frozen=True, slots=True)
class Line:
    """What a test has seen."""

    event: str
    ends: str
    status: str

    def __str__(self) -> str:
        for text in (self.event, self.ends, self.status):
            assert text
            assert not {"|", "\n"} & set(text)
        return f"| {self.event} | {self.ends} | {self.status} |"


def lines() -> dict[str, str]:
    """The table's lines by event, as the repository has them."""
    rows = TABLE.read_text(encoding="utf-8").removeprefix(_HEAD).splitlines() if TABLE.exists() else []
    return {row.split("|")[1].strip(): row for row in rows}


def settle(seen: Line, *, write: bool) -> None:
    """Fail unless the table says what was seen; with `write` make it say so."""
    assert seen.event in EVENTS
    if write:
        _write(seen)
    assert lines().get(seen.event) == str(seen)


def _write(seen: Line) -> None:
    with TABLE.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = lines() | {seen.event: str(seen)}
        text = "".join(f"{known[event]}\n" for event in EVENTS if event in known)
        TABLE.write_text(_HEAD + text, encoding="utf-8")
