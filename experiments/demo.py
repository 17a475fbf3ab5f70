"""The demo: keys, links, consents, training, scorecard, scores with reasons, a withdrawal and its effect, a report."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from experiments.deployment import DOWN_S, ONLINE_S, deploy
from experiments.federation import ConsentRegistry, Federation, PublicData
from experiments.people import Membership, populate
from experiments.plans import TRAINED_ON, default_plan
from experiments.program import Program
from experiments.recipes_by_name import settings_named
from experiments.registry_at_work import RegistryAtWork
from experiments.registry_place import RegistryPlace
from experiments.report.values import DemoResult, RunState, Withdrawal
from experiments.session import Session
from experiments.telling import Teller
from experiments.workers import replay, workers
from federated.encoder import Encoder
from federated.exclusions import exclusions
from federated.plan import recipe_of
from federated.recipes.base import RecipeName
from federated.trust import TrustModel
from privacy.consent.record import Purpose
from privacy.errors import RefusalCode, RefusalError
from server.bundle import write_bundle
from server.coordinator import Outcome
from server.deploy.flower_run import over_flower
from server.deploy.runs import Runs
from server.deploy.settings import Home
from server.rounds import Progress

# A seeded demo happens at an instant of its own, or it could not be repeated.
SEEDED_AT = 1_793_491_200  # 2026-11-01T00:00:00Z


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demo runs on, and where it writes."""

    out: Path
    schema: Path
    table: Path
    holders: int
    epsilon: float
    recipe: RecipeName | None  # None: chosen from public quantities
    trust: TrustModel
    seed: int | None
    deploy: bool  # as real programs, each party its own, instead of in this process


def run_demo(settings: DemoSettings, progress: Progress) -> DemoResult:
    """Run the whole flow; the federation's files and the bundle are left under `settings.out`."""
    started = time.monotonic()
    data = PublicData.load(settings.schema, settings.table)
    population = populate(data.outcome(), settings.holders, everybody_agrees=False)
    at = int(time.time()) if settings.seed is None else SEEDED_AT
    place = RegistryPlace.on_this_machine(at=int(time.time()))
    federation = Federation(settings.out / "federation", data, population, seed=settings.seed, at=at, registry=place)
    federation.write_parties()
    with workers(len(data.lines)) as pool, _at_work(federation, settings, pool, progress) as registry:
        # Programs of their own live by the clock; in one process it stands still, so that nothing depends on speed.
        with Session(federation.directory, time.time if settings.deploy else lambda: at) as session:
            first = _train(federation, registry, session, "first", settings, progress)
            teller = Teller(federation, session, first, progress)
            usual = teller.usual_opacus(pool)
            result = teller.tell()

            leaver = _who_withdraws(federation, session, first)
            before = _state(federation, session, first, leaver.holder)
            federation.withdraw(registry, leaver)
            second = _train(federation, registry, session, "refresh", settings, progress)
            after = _state(federation, session, second, leaver.holder)
        used = _replayed(federation, pool, (first, second), progress)
        result = teller.with_usual_opacus(result, usual.result())

    bundle = settings.out / "bundle"
    bundle.mkdir()
    encoder = Encoder(data.schema)
    excludes = exclusions(first.plan, recipe_of(first.plan, encoder), holders=len(first.holders))
    write_bundle(first, federation.coordinator_key, bundle, encoder=encoder, excludes=excludes)
    return replace(
        result,
        withdrawal=Withdrawal(1, leaver.holder, before, after),
        consent=replace(result.consent, rows_used_without_consent=used),
        seconds=round(time.monotonic() - started, 1),
    )


@contextmanager
def _at_work(
    federation: Federation, settings: DemoSettings, pool: Executor, progress: Progress
) -> Iterator[RegistryAtWork]:
    """The registry as a program of its own, everybody's consents in it and every data holder's lane synced.

    Deployed, the coordinator's door and every data holder's node are programs too.
    """
    with federation.start_registry() as registry:
        federation.write_consents(registry, progress, pool)
        federation.settle(pool, progress)
        if not settings.deploy:
            yield registry
            return
    deploy(federation, epsilon=settings.epsilon, at=int(time.time()))
    everybody = Program(["up", str(federation.directory)], start_s=ONLINE_S, stop_s=DOWN_S)
    with everybody, federation.connect_registry() as registry:
        yield registry


def _train(
    federation: Federation,
    registry: ConsentRegistry,
    session: Session,
    name: str,
    settings: DemoSettings,
    progress: Progress,
) -> Outcome:
    federation.sync(registry, session.holders, progress, at=int(time.time()) if settings.deploy else None)
    schema = federation.data.schema
    plan = default_plan(
        name,
        schema,
        federation.roster,
        epsilon=settings.epsilon,
        at=federation.at,
        seed=settings.seed,
        people=round(TRAINED_ON * len(federation.data.lines)),
        recipe=None if settings.recipe is None else settings_named(settings.recipe, schema, epsilon=settings.epsilon),
        trust=settings.trust,
    )
    federation.write_plan(plan)
    if settings.deploy:
        home = Home.open(federation.coordinator_directory)
        tell = partial(_count, progress, f"{name} run over Flower")
        Runs(home, over_flower, time.time, tell=tell).run()
    # Of a run that was made over Flower this repeats every release from what each party has kept, and asks nobody
    # for another: the record must come out the same, byte for byte.
    return session.run(lambda what, done, total: progress(f"{what}, {name} run", done, total))


def _count(progress: Progress, title: str, _step: str, done: int, total: int) -> None:
    """One bar for all steps of a run, of which the first are not counted."""
    if total:
        progress(title, done, total)


def _who_withdraws(federation: Federation, session: Session, outcome: Outcome) -> Membership:
    """Somebody who was trained on, at one data holder only."""
    places = Counter(place.person for place in federation.population.memberships)
    used = {name: frozenset(_permitted_handles(session, outcome, name)) for name in outcome.holders}
    for place in federation.population.memberships:
        if places[place.person] == 1 and federation.handles[place] in used.get(place.holder, ()):
            return place
    raise RefusalError("Nobody at one data holder only was trained on. Give the demo more people.", RefusalCode.COHORT)


def _permitted_handles(session: Session, outcome: Outcome, name: str) -> tuple[bytes, ...]:
    holder = session.holders[name]
    return holder.permitted(holder.run_named(outcome.run), Purpose.TRAIN).handles


def _state(federation: Federation, session: Session, outcome: Outcome, name: str) -> RunState:
    """A run and the lane of one data holder that it was pinned to; somebody at two data holders counts once."""
    head = session.holders[name].lane.head
    who = {handle: place.person for place, handle in federation.handles.items()}
    people = {who[handle] for holder in outcome.holders for handle in _permitted_handles(session, outcome, holder)}
    used = {
        who[handle]
        for holder in session.joined(outcome)
        for handle in holder.ledger.subjects_of(outcome.releases[0].name)
    }
    return RunState(
        lane_size=head.size,
        root=head.root.hex(),
        people_permitted=len(people),
        people_used=len(used),
        plan=outcome.plan_digest,
        run=outcome.run,
    )


def _replayed(federation: Federation, pool: Executor, outcomes: Sequence[Outcome], progress: Progress) -> int:
    """Rows used in these runs without consent: a replay at each data holder, against the commitments it sent."""
    replays = []
    for holder in federation.population.holders:
        runs = {
            outcome.run: {
                release.name: release.updates[holder].commitment
                for release in outcome.releases
                if holder in release.updates
            }
            for outcome in outcomes
            if holder in outcome.holders
        }
        replays.append(pool.submit(replay, federation.holder_directory(holder), runs))
    total = 0
    for done, replayed in enumerate(replays, start=1):
        total += replayed.result()
        progress("consents replayed from the log", done, len(replays))
    return total
