"""What is measured about accuracy: every recipe, trust model, layout and number of data holders, split by split.

A recipe that sums over people is run once for each amount of noise, because who holds whom should not matter to it;
that it does not is measured as a gap, not assumed.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from experiments import baselines
from experiments.benchmarks.bed import SPREADS, Bed, Layout, load_bed
from experiments.benchmarks.contenders import CONTENDERS, DEFAULT, Contender
from experiments.benchmarks.gaps import COMPARED_AT, gap_to_central
from experiments.benchmarks.jobs import shared_out
from experiments.benchmarks.judge import Judge
from experiments.central import run_centrally, variances_in_the_sum
from experiments.plans import DELTA, tolerated_dropouts
from federated.trust import TrustModel
from privacy.noise import SecureNoise
from server.rounds import Progress

EPSILONS = (0.5, 1.0, 3.0)
HOLDERS = (5, 10, 50)
COMPARED_HOLDERS = 10
ALIKE = "alike"

LINEAR, ADDITIVE = "linear form", "published scorecard"


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """What one figure is of. `trust` None: the noise is inside the updates, whoever sees them."""

    recipe: str
    form: str
    epsilon: float
    trust: TrustModel | None
    layout: str
    holders: int


@dataclass(frozen=True, slots=True)
class Found:
    """The figures of one job: AUC by case, AUC of other ways by name, and gaps to the central result."""

    cases: Mapping[Case, float]
    others: Mapping[str, float]
    gaps: Mapping[tuple[str, str, int], float]  # recipe, layout, data holders


@dataclass(frozen=True, slots=True)
class AccuracyJob:
    """Part of a split's work: of one recipe that sums, of all others, of other ways, or of the usual in one layout."""

    what: str
    split: int
    people: int | None
    layout: str = ""
    holders: int = 0


LOCAL, OTHERS, USUAL = "local recipes", "others", "usual settings"
USUAL_CASES = tuple((layout, COMPARED_HOLDERS) for layout in SPREADS) + tuple(
    (ALIKE, holders) for holders in HOLDERS if holders != COMPARED_HOLDERS
)


def measure(splits: int, people: int | None, *, workers: int, progress: Progress) -> list[list[Found]]:
    """Everything found on each split, in order of the splits."""
    # The longest first, so that no worker is left with one at the end.
    jobs = [AccuracyJob(LOCAL, split, people) for split in range(splits)]
    jobs += [AccuracyJob(USUAL, split, people, *case) for case in USUAL_CASES for split in range(splits)]
    sums = [title for title, contender in CONTENDERS.items() if contender.is_sum]
    jobs += [AccuracyJob(what, split, people) for what in (*sums, OTHERS) for split in range(splits)]
    found: list[list[Found]] = [[] for _ in range(splits)]
    progress("accuracy", 0, len(jobs))
    for done, (job, figures) in enumerate(shared_out(run_job, jobs, workers=workers), start=1):
        found[job.split].append(figures)
        progress("accuracy", done, len(jobs))
    return found


def run_job(job: AccuracyJob) -> Found:
    """The figures of one job."""
    bed = load_bed(job.people)
    if job.what == USUAL:
        return _usual(bed, job)
    if job.what == OTHERS:
        return Found({}, _others(bed, SPREADS[ALIKE](bed.bad, COMPARED_HOLDERS, job.split)), {})
    if job.what == LOCAL:
        return Found(_layouts(bed, job.split), {}, {})
    contender = CONTENDERS[job.what]
    return Found(_noises(bed, contender, job.split), {}, _gaps(bed, contender, job.split))


def _usual(bed: Bed, job: AccuracyJob) -> Found:
    layout = SPREADS[job.layout](bed.bad, job.holders, job.split)
    model = baselines.usual_opacus(
        layout.parts(bed.x, bed.bad), bed.schema, epsilon=COMPARED_AT, delta=DELTA, chance=SecureNoise()
    )
    case = Case(USUAL, LINEAR, COMPARED_AT, None, job.layout, job.holders)
    return Found({case: Judge(bed, layout).linear(model)}, {}, {})


def _others(bed: Bed, layout: Layout) -> dict[str, float]:
    judge, known, held_out = Judge(bed, layout), layout.training, layout.held_out
    bad = bed.bad[known]
    return {
        "pooled": judge.linear(baselines.pooled(bed.x[known], bad, bed.schema.digest)),
        "boosted": judge.of(baselines.boosted(bed.raw[known], bad)(bed.raw[held_out])),
        "boosted as it comes": judge.of(baselines.boosted_as_it_comes(bed.raw[known], bad)(bed.raw[held_out])),
        "without noise": judge.linear(baselines.without_noise(layout.parts(bed.x, bed.bad), bed.schema, delta=DELTA)),
    }


def noises() -> dict[tuple[TrustModel, int], float]:
    """Every trust model with every number of data holders: variances in the sum, one where one is enough."""
    return {
        (trust, holders): variances_in_the_sum(trust, holders=holders, dropouts=tolerated_dropouts(holders))
        for trust in TrustModel
        for holders in HOLDERS
    }


def _noises(bed: Bed, contender: Contender, split: int) -> dict[Case, float]:
    figures: dict[Case, float] = {}
    layouts = {holders: SPREADS[ALIKE](bed.bad, holders, split) for holders in HOLDERS}
    judge = Judge(bed, layouts[COMPARED_HOLDERS])
    for epsilon in EPSILONS:
        recipe = contender.recipe(bed, epsilon)
        for trust, holders in noises():
            if trust is TrustModel.COORDINATOR_NOISE and holders != COMPARED_HOLDERS:
                continue  # one noise, however many data holders there are
            parts = layouts[holders].parts(bed.x, bed.bad)
            dropouts = tolerated_dropouts(holders)
            model = run_centrally(recipe, parts, SecureNoise(), trust=trust, dropouts=dropouts)
            case = (epsilon, trust, ALIKE, holders)
            figures[Case(contender.title, LINEAR, *case)] = judge.linear(model)
            figures[Case(contender.title, ADDITIVE, *case)] = judge.additive(model)
    return figures


def _layouts(bed: Bed, split: int) -> dict[Case, float]:
    figures: dict[Case, float] = {}
    contenders = [contender for contender in CONTENDERS.values() if not contender.is_sum]
    for name, holders in itertools.product(SPREADS, HOLDERS):
        layout = SPREADS[name](bed.bad, holders, split)
        judge, parts = Judge(bed, layout), layout.parts(bed.x, bed.bad)
        # Recipes side by side: the noise that each data holder needs takes longer to find than most of them to train.
        for epsilon, contender in itertools.product(EPSILONS, contenders):
            if contender.is_additive or holders == COMPARED_HOLDERS:  # networks are slow
                model = run_centrally(contender.recipe(bed, epsilon), parts, SecureNoise())
                figures[Case(contender.title, LINEAR, epsilon, None, name, holders)] = judge.linear(model)
    return figures


def _gaps(bed: Bed, contender: Contender, split: int) -> dict[tuple[str, str, int], float]:
    # The default recipe in every layout; for the others one number of data holders shows the same.
    several = HOLDERS if contender is DEFAULT else (COMPARED_HOLDERS,)
    return {
        (contender.title, name, holders): gap_to_central(bed, contender, spread(bed.bad, holders, split), split)
        for name, spread in SPREADS.items()
        for holders in several
    }
