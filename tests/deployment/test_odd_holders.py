"""One run with ten data holders, nine of them odd: whatever one of them does, the others get their model."""

from collections.abc import Iterator

import pytest

from server.answers import SILENT
from tests.deployment.conftest import Settle
from tests.deployment.live import PLANTED, Live

pytestmark = pytest.mark.slow

HOLDERS = 10
ANSWER_WITHIN_S = "10"
DEADLINE_S = "25"
"""Of each exchange, which those who hang or are late use up; whoever is not odd answers within a second or two."""

ODD = {
    "aster-bank": "hangs",
    "birch-telecom": "hangs where no signal ends it",
    "cedar-power": "answers twice",
    "dahlia-stores": "answers too late",
    "elm-credit-union": "answers NaN",
    "fern-water": "answers in a wrong shape",
    "ginkgo-mobile": "answers with a record nobody asked for",
    "hazel-insurance": "answers as iris-rentals",
    "juniper-books": "begins an answer and does not end it",
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Ten data holders online, each of which can be told to be odd."""
    made = Live.make(tmp_path_factory.mktemp("many") / "federation", holders=HOLDERS)
    for name in made.names:
        made.plant(name, (PLANTED / "odd_answers.py").read_text(encoding="utf-8"))
    for name in ("aster-bank", "birch-telecom"):
        made.setting(name, "answer_within_s", ANSWER_WITHIN_S)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_odd_data_holders_are_named_and_hurt_neither_the_others_nor_the_next_run(many: Live, seen: Settle) -> None:
    for name, how in ODD.items():
        many.switch(name, how)
    many.plan(minimum=2)
    done = many.command("run", "--deadline", DEADLINE_S)
    assert done.returncode == 0, done.stderr
    status = many.status()
    assert status["state"] == "finished"
    told, run = status["last"]["holders"], status["last"]["run"]
    many.require_lawful(run)
    record = many.record(run)
    first = record["releases"][0]
    left_out, charged = first["left_out"], {name: first["name"] in many.charges(name, run) for name in ODD}
    assert sorted({*first["updates"], *left_out}) == sorted(record["holders"]) == sorted(many.names)
    assert left_out.keys() == ODD.keys() - {"cedar-power"}

    for name in ODD:
        many.switch(name, None)
    many.switch("hazel-insurance", "joins as iris-rentals")
    many.plan(minimum=2)
    assert many.command("run", "--deadline", DEADLINE_S).returncode == 0
    after = many.status()["last"]
    many.require_lawful(after["run"])
    second = many.record(after["run"])
    assert second["refused"] == {"hazel-insurance": SILENT.reason}
    assert (
        after["holders"] == dict.fromkeys(sorted(set(many.names) - {"hazel-insurance"}), "joined") | second["refused"]
    )
    assert all(release["left_out"] == {} for release in second["releases"])

    for name, how in ODD.items():
        event = "data holder that " + ("answers in another's name" if "answers as" in how else how)
        paid = "charged and unused" if charged[name] else "nothing charged"
        if name == "cedar-power":
            assert told[name] == "joined"
            seen(event, "a model, its answer in it once", told[name])
            continue
        reason = left_out[name]
        assert told[name].startswith(f"left out of release 1: {reason}")
        ends = f"a model from the others; {paid}; in the next run again"
        if name == "hazel-insurance":
            ends = f"a model from the others, with the one whose name it was; {paid}; not let in by joining so either"
        seen(event, ends, f"left out of release 1: {reason}")
    restarts = {name: many.holder_status(name)["programs"]["worker"]["restarts"] for name in many.names}
    assert restarts == dict.fromkeys(many.names, 0) | {"birch-telecom": 1}
