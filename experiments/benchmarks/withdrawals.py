"""How long a "no" takes: from the moment a wallet hands it in until the data holder's gate refuses."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import httpx

from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.settings import load_settings
from clients.registry_client import RegistryClient
from experiments.benchmarks.lanes import HOLDER, Crowd, handle_of, sealed_of
from privacy.consent.submission import Submission, frame
from privacy.consent.view import Conflict

POLL_S = 0.02
LONGEST_S = 120.0
_RUN = "from federated.cli import main; main()"


def through_the_registry(directory: Path, crowd: Crowd, people: Sequence[int], *, over_s: float) -> list[float]:
    """Seconds for each of `people`, who withdraw at random instants within `over_s` seconds.

    A `fedcredit holder sync --watch` with default settings does the syncing, as at a real data holder.
    """
    settings = load_settings(directory / "holder.toml")
    command = ["holder", "sync", "--watch", "--directory", str(directory)]
    watch = subprocess.Popen([sys.executable, "-c", _RUN, *command], stdout=subprocess.DEVNULL)
    try:
        with closing(RegistryClient(settings.registry.url, ca=settings.registry.trust(directory))) as registry:
            chance = random.Random(len(people))  # noqa: S311 (when people act, not what they keep secret)
            instants = sorted(chance.uniform(0, over_s) for _ in people)
            return _waits(directory, crowd, people, instants, lambda one: registry.submit(HOLDER, [one]))
    finally:
        watch.terminate()
        watch.wait()


def through_the_side_door(directory: Path, crowd: Crowd, people: Sequence[int], door: str) -> list[float]:
    """Seconds for each of `people`, one after the other, through a side door at work at the URL `door`."""
    with httpx.Client(trust_env=False) as web:

        def hand_in(one: Submission) -> None:
            headers = {"content-type": "application/octet-stream"}
            web.post(f"{door}/records", content=frame([one]), headers=headers).raise_for_status()

        return [_waits(directory, crowd, [person], [0.0], hand_in)[0] for person in people]


def _waits(
    directory: Path,
    crowd: Crowd,
    people: Sequence[int],
    instants: Sequence[float],
    hand_in: Callable[[Submission], object],
) -> list[float]:
    settings = load_settings(directory / "holder.toml")
    keys = HolderKeys.load(directory / "keys")
    records = {person: sealed_of(crowd, person, crowd.records + 1, grants=False) for person in people}
    handed: dict[int, float] = {}
    waits: dict[int, float] = {}
    due = list(zip(instants, people, strict=True))[::-1]
    with closing(LaneCopy(directory / "consent.db", settings, keys)) as lane:
        started = time.monotonic()
        while len(waits) < len(people):
            now = time.monotonic()
            if now - started > instants[-1] + LONGEST_S:
                raise TimeoutError("a withdrawal never reached the data holder")
            if due and now - started >= due[-1][0]:
                person = due.pop()[1]
                handed[person] = time.monotonic()
                hand_in(records[person])
                continue
            lane.refresh()
            for person in handed.keys() - waits.keys():
                standing = lane.standing(handle_of(person))
                if standing is None or isinstance(standing, Conflict) or not standing.grants:
                    waits[person] = time.monotonic() - handed[person]
            if not due or due[-1][0] > time.monotonic() - started + POLL_S:
                time.sleep(POLL_S)
    return [waits[person] for person in people]
