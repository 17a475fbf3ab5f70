"""The README's walk through consent, run in its order by a shell, and what it shows is what was printed."""

import time
from functools import cache
from pathlib import Path

import pytest

from experiments.registry_place import RegistryPlace
from experiments.session import Session
from server.rounds import no_progress
from tests.readme_walk import Walk
from tests.small_federation import small_federation

# A person at a terminal sees the line; a shell must wait for it.
LISTENING = """
for _ in $(seq 100); do
    if (exec 3<> /dev/tcp/127.0.0.1/$(sed -n 's/^port = //p' {directory}/registry.toml)) 2> /dev/null; then break; fi
    sleep 0.1
done
"""


@cache
def _free_port() -> int:
    return RegistryPlace.on_this_machine(at=0).port


@pytest.mark.slow
def test_the_walk_through_consent_is_what_the_readme_shows(tmp_path: Path) -> None:
    now = int(time.time())
    place = RegistryPlace.on_this_machine(at=now)
    federation, registry = small_federation(tmp_path / "runs" / "demo" / "federation", at=now, place=place, people=300)
    try:
        with Session(federation.directory, lambda: now, registry) as session:
            session.run(no_progress)
    finally:
        registry.close()
    # Another program may have the port that the README names.
    walk = Walk("Say yes, say no, look it up", lambda command: command.replace("8444", str(_free_port())))
    assert len(walk.steps) > 20
    serving = {
        command: LISTENING.format(directory=command.split()[3]) for command, _ in walk.steps if command[-1] == "&"
    }
    walk.run(tmp_path, {**serving, "kill ": "wait"}, timeout_s=200)
    assert sorted(path.name for path in (tmp_path / "my-consents" / "receipts").iterdir())
