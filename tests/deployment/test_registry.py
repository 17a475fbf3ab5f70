"""The consent registry is away: nobody is asked, or nobody answers, and nothing is charged until it is back."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.deployment.conftest import Settle
from tests.deployment.in_time import restart
from tests.deployment.live import Live

pytestmark = pytest.mark.slow

REGISTRY_DOWN_AFTER = """
import os, signal

def kill_after(module):
    write = module.BegunRun._write

    def write_and_kill(self, what, kept):
        write(self, what, kept)
        if what == {step!r}:
            os.kill({pid}, signal.SIGKILL)

    module.BegunRun._write = write_and_kill

FAULTS = {{"server.memory": kill_after}}
"""


def test_without_the_registry_nobody_is_asked_or_answers_and_with_it_the_run_goes_on(live: Live, seen: Settle) -> None:
    live.plan()
    live.kill("registry")
    begun = _refused(live, "run")
    assert "nobody was asked anything" in begun.text
    assert begun.status["unfinished_run"] is None
    _back(live)

    middle = _refused(live, "run", down_after="opening")
    run = str(middle.status["unfinished_run"])
    _require_all_say_lane(live, middle)
    assert [live.charges(name, run) for name in live.names] == [{} for _ in live.names]
    _back(live)

    end = _refused(live, "resume", down_after="1.total")
    _require_all_say_lane(live, end)
    assert end.status["unfinished_run"] == run
    charged = [live.charges(name, run) for name in live.names]
    assert [len(releases) for releases in charged] == [1 for _ in live.names]
    _back(live)

    assert live.command("resume").returncode == 0
    live.require_lawful(run)
    record = live.record(run)
    model = f"a model from {len(record['holders'])} of {len(live.names)} data holders"
    finished = live.status()["state"]
    seen(
        "consent registry down at the start",
        "refused, and nobody is asked anything",
        str(begun.status["state"]),
    )
    for when, refused in (("in the middle", middle), ("at the end", end)):
        nothing = "nothing" if when == "in the middle" else "no measurement"
        seen(
            f"consent registry down {when}",
            f"every data holder refuses (lane), {nothing} is charged; resumed: {model}",
            f"{refused.status['state']}, {finished} at the end",
        )


@dataclass(frozen=True)
class _Refused:
    text: str
    status: dict[str, Any]


def _refused(live: Live, command: str, *, down_after: str | None = None) -> _Refused:
    """What a command says that is refused. With `down_after` the registry is killed once that step is kept."""
    assert live.supervisor is not None
    pid = live.supervisor.fates()["registry"].pid
    done = live.command(
        command, fault=None if down_after is None else REGISTRY_DOWN_AFTER.format(step=down_after, pid=pid)
    )
    assert done.returncode == 3, done.stderr
    return _Refused(done.stderr, live.status())


def _require_all_say_lane(live: Live, refused: _Refused) -> None:
    for name in live.names:
        assert f"{name}: lane" in refused.text
        assert live.holder_status(name)["last"]["refused"] == "lane"


def _back(live: Live) -> None:
    port = urlsplit(live.federation.registry_url).port
    assert port is not None
    restart(live, "registry", port)
