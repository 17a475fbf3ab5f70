"""A whole federation of a few hundred people of the embedded Taiwan data, ready to run in about a second."""

from dataclasses import replace
from pathlib import Path

from experiments.federation import Federation, PublicData
from experiments.people import populate
from experiments.plans import DELTA, TRAINED_ON, default_plan
from experiments.registry_place import IN_PROCESS, RegistryPlace
from experiments.session import Session
from federated.recipes.fixed_hessian import FixedHessianSettings
from federated.recipes.registry import RecipeSettings
from federated.schema import Schema
from federated.trust import TrustModel
from server.registry.store import Registry

DATA = Path(__file__).parent.parent / "experiments" / "data" / "taiwan_default"
FEWEST_PEOPLE = 5  # the smallest data holder has a few dozen held-out people only


def small_federation(
    directory: Path,
    *,
    people: int = 600,
    holders: int = 3,
    seed: int | None = 7,
    at: int,
    everybody_agrees: bool = False,
    epsilon: float = 1.0,
    steps: int = 2,
    place: RegistryPlace = IN_PROCESS,
    recipe: RecipeSettings | None = None,
    trust: TrustModel = TrustModel.SHARED_NOISE,
    dropouts_tolerated: int | None = None,
) -> tuple[Federation, Registry]:
    """The federation in `directory`, which must not exist yet, and its open registry; the caller closes that.

    Every party's files are written, everybody is linked and has written consent, lanes are synced at `at`, and a plan
    with 2 + `steps` rounds is signed and pinned: `Session(directory, lambda: at, registry).run(...)` runs it. With a
    seed the noise is NOT PRIVATE and two federations of the same arguments give the same model, byte for byte.
    """
    data = PublicData.load(DATA / "schema.toml", DATA / "data.csv.gz")
    data = replace(data, lines=data.lines[:people])
    population = populate(data.outcome(), holders, everybody_agrees=everybody_agrees)
    federation = Federation(directory, data, population, seed=seed, at=at, fewest_people=FEWEST_PEOPLE, registry=place)
    federation.write_parties()
    registry = federation.open_registry()
    with Session(directory, lambda: at, registry) as session:
        federation.link(session.holders)
        federation.write_consents(registry, _nobody_watches)
        federation.sync(registry, session.holders, _nobody_watches)
    plan = default_plan(
        "small",
        data.schema,
        federation.roster,
        epsilon=epsilon,
        at=at,
        seed=seed,
        people=round(TRAINED_ON * people),
        recipe=recipe or usual_recipe(data.schema, epsilon=epsilon, steps=steps),
        trust=trust,
        dropouts_tolerated=dropouts_tolerated,
        fewest_people=FEWEST_PEOPLE,
    )
    federation.write_plan(plan)
    return federation, registry


def usual_recipe(schema: Schema, *, epsilon: float, steps: int) -> FixedHessianSettings:
    """The centred fixed Hessian in few steps."""
    return FixedHessianSettings(
        radius=schema.radius,
        centred_radius=schema.centred_radius,
        epsilon=epsilon,
        delta=DELTA,
        steps=steps,
        monotone=False,
        start=None,
    )


def _nobody_watches(what: str, done: int, total: int) -> None:
    pass
