"""Runs with five data holders, up to three of them odd: whatever one of them does, the others get their model."""

import pytest

from privacy.errors import RefusalCode
from server.answers import SILENT
from tests.deployment.conftest import Settle
from tests.deployment.live import Live

pytestmark = pytest.mark.slow

DEADLINE_S = "25"
"""Of each exchange, which those who hang or are late use up; whoever is not odd answers within a second or two."""
INTERNAL = RefusalCode.INTERNAL.value
DISKS = {"no room": "disk full", "read-only": "read-only directory"}
JOINS_AS_ANOTHER = "joins as elm-credit-union"
HURTS_NOBODY = "answers twice"

RUNS = (
    {
        "aster-bank": "hangs where no signal ends it",
        "birch-telecom": "begins an answer and does not end it",
        "cedar-power": "answers too late",
        "dahlia-stores": HURTS_NOBODY,
    },
    {
        "aster-bank": "answers with a record nobody asked for",
        "dahlia-stores": "answers NaN",
        "elm-credit-union": "answers in a wrong shape",
    },
    {
        "birch-telecom": "hangs",
        "cedar-power": "answers as elm-credit-union",
        "dahlia-stores": "no room",
    },
    {
        "aster-bank": "read-only",
        "cedar-power": JOINS_AS_ANOTHER,
    },
)
"""One run after the other: who is odd in one is in the next again, and gives the model what it should."""


def test_odd_data_holders_are_named_and_hurt_neither_the_others_nor_the_next_run(five: Live, seen: Settle) -> None:
    before = _restarts(five)
    for odd in RUNS:
        _run(five, seen, odd)
    assert _restarts(five) == before | {"aster-bank": before["aster-bank"] + 1}


def _run(live: Live, seen: Settle, odd: dict[str, str]) -> None:
    for name in live.names:
        live.switch(name, odd.get(name))
    live.plan(minimum=2)
    done = live.command("run", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    status = live.status()
    assert status["state"] == "finished"
    told, run = status["last"]["holders"], status["last"]["run"]
    live.require_lawful(run)
    record = live.record(run)
    refused = {name: SILENT.reason for name, how in odd.items() if how == JOINS_AS_ANOTHER}
    assert record["refused"] == refused
    assert sorted(record["holders"]) == sorted({*live.names} - refused.keys())
    out = {name for name, how in odd.items() if how not in {JOINS_AS_ANOTHER, HURTS_NOBODY}}
    for release in record["releases"]:
        assert sorted([*release["updates"], *release["left_out"]]) == sorted(record["holders"])
    first, last = record["releases"][0], record["releases"][-1]
    assert first["left_out"].keys() == out
    for name in live.names:
        if name not in {*out, *refused}:
            assert told[name] == "joined"
            assert all(name in release["updates"] for release in record["releases"])
    for name, how in odd.items():
        if name in refused:
            assert told[name] == refused[name]
            continue
        charged = live.charges(name, run)
        if how in DISKS:
            assert charged == {}
            assert first["left_out"][name] == last["left_out"][name] == INTERNAL
        _tell(seen, how, told[name], first["left_out"].get(name), charged=first["name"] in charged)


def _tell(seen: Settle, how: str, told: str, reason: str | None, *, charged: bool) -> None:
    if reason is None:
        seen(f"data holder that {how}", "a model, its answer in it once", told)
        return
    assert told.startswith(f"left out of release 1: {reason}")
    event, ends = f"data holder that {how}", "a model from the others; "
    ends += "charged and unused" if charged else "nothing charged"
    if how in DISKS:
        event = f"{DISKS[how]} at a data holder"
    elif how.startswith("answers as "):
        event = "data holder that answers in another's name"
        ends = ends.replace(";", ", with the one whose name it was;") + "; not let in by joining so either"
    else:
        ends += "; in the next run again"
    seen(event, ends, f"left out of release 1: {reason}")


def _restarts(live: Live) -> dict[str, int]:
    return {name: live.holder_status(name)["programs"]["worker"]["restarts"] for name in live.names}
