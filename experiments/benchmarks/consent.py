"""Measurements of consent at work: appends, submits, a data holder's sync, and the gate."""

import hashlib
import resource
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.settings import load_settings
from clients.registry_client import RegistryClient
from experiments.benchmarks.lanes import CATEGORIES, COORDINATOR, HOLDER, Crowd, payload_of
from experiments.benchmarks.load import Load, submit_singly
from privacy.consent.gate import GatePolicy, Interval, decide
from privacy.consent.lane import Head, Stub
from privacy.consent.limits import MAX_SUBMISSIONS
from privacy.consent.merkle import EMPTY_ROOT
from privacy.consent.projection import Projection
from privacy.consent.record import Purpose, parse_record
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission, frame
from privacy.consent.view import LaneView
from server.registry.store import Registry

SEALED_BYTES = 2_673  # of a record in the default suite
CONNECTIONS = 32
ONE_BY_ONE = 20_000  # decisions timed one by one, to compare
REPEATS = 5
CLOCK_SKEW_S = 120


def made_up(count: int) -> list[Submission]:
    """Submissions of the right form and size, with nothing in them: a registry cannot tell."""
    made = []
    for _ in range(count):
        ciphertext = secrets.token_bytes(SEALED_BYTES)
        stub = Stub(secrets.token_bytes(16), 1, secrets.token_bytes(32), hashlib.sha256(ciphertext).digest())
        made.append(Submission(stub, ciphertext))
    return made


def appends_per_second(database: str | Path, submissions: Sequence[Submission], *, at_once: int) -> float:
    """Durable appends a second into an empty lane, `at_once` in one commit."""
    with closing(Registry(database, SigningKey.generate())) as registry:
        registry.append(HOLDER, submissions[:1])  # tables and files are there from now on
        started = time.perf_counter()
        for first in range(1, len(submissions), at_once):
            registry.append(HOLDER, submissions[first : first + at_once])
        return (len(submissions) - 1) / (time.perf_counter() - started)


def submits(url: str, ca: str, lane: str, submissions: Sequence[Submission]) -> Load:
    """Single submissions over TLS, each answered with a signed promise once it is durable."""
    return submit_singly(url, ca, lane, [frame([one]) for one in submissions], connections=CONNECTIONS)


def hand_in(client: RegistryClient, crowd: Crowd, pool: Executor) -> None:
    """Write everybody's records and submit them."""
    for written in crowd.submissions(pool):
        for first in range(0, len(written), MAX_SUBMISSIONS):
            client.submit(HOLDER, written[first : first + MAX_SUBMISSIONS])


@dataclass(frozen=True, slots=True)
class Synced:
    """What a data holder's first sync of a whole lane took."""

    records: int
    seconds: float
    memory_mib: float  # peak of the syncing process beyond what it had before


def first_sync(directory: Path, crowd: Crowd) -> Synced:
    """Link everybody and download, verify and open the lane. For a process of its own: its memory is measured."""
    settings = load_settings(directory / "holder.toml")
    keys = HolderKeys.load(directory / "keys")
    with closing(LaneCopy(directory / "consent.db", settings, keys)) as lane:
        lane.link(crowd.links())
        before = _peak_mib()
        with closing(RegistryClient(settings.registry.url, ca=settings.registry.trust(directory))) as source:
            started = time.perf_counter()
            records = lane.sync(source, at=crowd.at)
            seconds = time.perf_counter() - started
        allowed = lane.projection(purpose=Purpose.TRAIN, recipient=COORDINATOR, categories=frozenset(CATEGORIES))
        if len(allowed.rows) != crowd.people:
            raise AssertionError("a sync that loses people measures nothing")
    return Synced(records, seconds, _peak_mib() - before)


@dataclass(frozen=True, slots=True)
class Decided:
    """The gate over many projected subjects, and one by one."""

    at_once_s: float  # for all of them
    one_by_one_s: float  # for as many, reckoned from fewer


def decisions(subjects: int, crowd: Crowd) -> Decided:
    """Decide `subjects` people at once; the same people one by one for comparison."""
    record = parse_record(payload_of(crowd, 0, 1))
    handles = [k.to_bytes(32, "big") for k in range(subjects)]
    categories, policy = frozenset(CATEGORIES), GatePolicy(clock_skew_s=CLOCK_SKEW_S)
    interval = Interval(crowd.at, crowd.at + 3600)
    projection = Projection.of(
        ((handle, record) for handle in handles), purpose=Purpose.TRAIN, recipient=COORDINATOR, categories=categories
    )
    at_once = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        allowed = int((projection.reasons(interval, policy) == 0).sum())
        at_once.append(time.perf_counter() - started)
        if allowed != subjects:
            raise AssertionError("everybody here agreed")
    some = min(subjects, ONE_BY_ONE)
    view = LaneView(Head(0, EMPTY_ROOT), dict.fromkeys(handles[:some], record))
    started = time.perf_counter()
    for handle in handles[:some]:
        decide(
            view, handle, purpose=Purpose.TRAIN, recipient=COORDINATOR, interval=interval, categories=categories,
            policy=policy,
        )  # fmt: skip
    return Decided(min(at_once), (time.perf_counter() - started) * subjects / some)


def _peak_mib() -> float:
    """The most memory this process and any one of its helpers ever had."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
