"""The audits of a privacy claim on this installation: each finds how much epsilon a release is shown to cost at least.

A claim is contradicted if more is shown than was claimed. The two exact ones and the one of the noise cover each
other's blind side; the two statistical ones see the whole at once, as an attacker does, and are blunter.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.audit.privacy_harness import (
    DELTA,
    FAR,
    Chances,
    Target,
    canaries,
    chosen,
    instructions,
    made_up_encoder,
    nobody,
    target,
    together,
)
from clients.holder.release import noisy_words
from federated.recipes.base import Arrays
from federated.recipes.fixed_hessian import FixedHessianSettings, UncentredFixedHessianSettings
from federated.recipes.gradient_descent import GradientDescentSettings
from federated.recipes.histogram_scorecard import HistogramScorecardSettings
from federated.recipes.registry import RecipeSettings
from federated.recipes.sufficient_statistics import SufficientStatisticsSettings
from federated.releases import Shape, measurement_noise, shape_of_measurement
from federated.rows import LARGEST_CELL, EncodedRows
from federated.trust import TrustModel
from privacy.accounting import epsilon_of
from privacy.audit import many_runs, one_run
from privacy.audit.noise import correlation_allowed, largest_correlation, variance_below
from privacy.audit.transcript import Step, mu_squared
from privacy.grid import Words
from privacy.noise import NoiseSource, Vector

CONFIDENCE: Final = 0.999
"""Of each statistical audit: an installation that does exactly what it claims is accused once in a thousand times."""

SHARES: Final = (1.0, 0.3)
COLUMNS: Final = 6
CANARIES: Final = 1000
GUESSES: Final = 200
NOISE_COLUMNS: Final = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """What one audit of one recipe found; `shown` is a lower bound on epsilon, None where something else is judged."""

    audit: str
    recipe: str
    claim: float
    shown: float | None
    contradicted: bool
    note: str
    seconds: float = 0.0


def recipes_at(epsilon: float) -> tuple[RecipeSettings, ...]:
    """Every recipe whose noise is added to exact sums, at (`epsilon`, `DELTA`); the default one first.

    Not the two that train locally: their noise is inside what they sum, and sampling is in their claim.
    """
    return (
        FixedHessianSettings(radius=4.5, centred_radius=2.0, epsilon=epsilon, delta=DELTA, steps=8),
        UncentredFixedHessianSettings(radius=4.5, epsilon=epsilon, delta=DELTA, steps=8),
        GradientDescentSettings(radius=4.5, centred_radius=2.0, epsilon=epsilon, delta=DELTA, steps=20),
        SufficientStatisticsSettings(radius=4.5, epsilon=epsilon, delta=DELTA),
        HistogramScorecardSettings(epsilon=epsilon, delta=DELTA, steps=4),
    )


def all_audits(epsilon: float, runs: int, chances: Chances, clock: Callable[[], float]) -> Iterator[Finding]:
    """Every audit of a claim of `epsilon`, one after the other; `clock` gives seconds."""
    settings = recipes_at(epsilon)
    small = [target(one, made_up_encoder(COLUMNS)) for one in settings]
    wide = target(settings[0], made_up_encoder(NOISE_COLUMNS))
    full = target(settings[0], made_up_encoder(CANARIES))
    for audit in (
        *(partial(transcript_audit, one, chances) for one in small),
        partial(noise_audit, wide, chances),
        partial(independence_audit, wide, chances),
        partial(one_run_audit, full, chances),
        partial(many_run_audit, small[0], runs, chances),
    ):
        begun = clock()
        found = audit()
        yield replace(found, seconds=clock() - begun)


def transcript_audit(of: Target, chances: Chances) -> Finding:
    """What the worst of many rows, at two shares, adds up to over all rounds, exactly, per unit of share."""
    crowd, worst = _crowd(of.width), 0.0
    for lying in (False, True):
        # The instructions are those of a run without the person: what is released afterwards is judged given them.
        sent = instructions(of, crowd, chances, lying=lying)
        without = _words(of, sent, crowd, chances)
        for row, share in product(adversarial_rows(of.width), SHARES):
            person = EncodedRows(row.x, row.bad, np.full(1, share))
            with_person = _words(of, sent, together(crowd, person), chances)
            variances = [shape.variance for shape in of.shapes]
            found = mu_squared(map(Step, with_person, without, variances)) / share**2
            # Rounding to the grid, of 2^24 steps a deviation, weighs a little more where the share is small.
            worst = max(worst, found if share == 1 else found / (1 + 1e-5))
    shown = epsilon_of(math.sqrt(worst), DELTA)
    note = f"the worst row uses {worst / of.mu**2:.1%} of the squared mu that the claim allows"
    return Finding("exact transcript", of.recipe.name, of.epsilon, shown, worst > of.mu**2, note)


def noise_audit(of: Target, chances: Chances) -> Finding:
    """How little variance the noise can have, by draws made as data holders make them: of rounds and of measurements.

    Once of a data holder on its own, and once of a secure sum from which the plan's drop-outs have left.
    """
    rounds: list[Vector] = []
    measured: list[Vector] = []
    shape = shape_of_measurement(of.plan)
    needed = measurement_noise(of.plan) * 2.0**-shape.grid.step_log2
    members, dropouts = len(of.plan.roster), of.plan.dropouts_tolerated
    for trust, adding in ((TrustModel.HOLDER_NOISE, 1), (TrustModel.SHARED_NOISE, members - dropouts)):
        for number in of.rounds:
            one = of.shape(number)
            drawn = _added(of, one, trust, adding, chances, f"{trust}/{number}")
            rounds.append(drawn / math.sqrt(one.variance))
        drawn = _added(of, shape, trust, adding, chances, f"{trust}/measurement")
        measured.append(drawn / needed)
    # Two bounds, either of which may be wrong by chance.
    least = min(variance_below(np.concatenate(drawn), confidence=(1 + CONFIDENCE) / 2) for drawn in (rounds, measured))
    shown = epsilon_of(of.mu / math.sqrt(least), DELTA)
    note = f"variance at most {least:.1%} of what is needed, from {sum(map(len, (*rounds, *measured))):,} draws"
    return Finding("noise", of.recipe.name, of.epsilon, shown, least < 1, note)


def independence_audit(of: Target, chances: Chances) -> Finding:
    """Whether any two releases, of different rounds or of different data holders, carry the same noise.

    `chances` must be the installation's own, `own_chance`, or this is about something else. Noise that somebody can
    predict, but that differs from release to release, looks like any other: nobody sees that from draws.
    """
    length = of.shapes[-1].length
    releases = [
        _noise(of.shape(number), of.shape(number).variance, chances(f"{holder}/{number}"))
        for holder in range(len(of.plan.roster))
        for number in of.rounds
        if of.shape(number).length == length
    ]
    found, pairs = largest_correlation(releases), math.comb(len(releases), 2)
    allowed = correlation_allowed(length, pairs, confidence=CONFIDENCE)
    note = f"largest correlation of {pairs:,} pairs of releases {found:.2f}, chance alone reaches {allowed:.2f}"
    return Finding("independent noise", of.recipe.name, of.epsilon, None, found > allowed, note)


def one_run_audit(of: Target, chances: Chances) -> Finding:
    """What an attacker shows who plants one canary a column in a single run, and guesses which were really there."""
    everybody = canaries(of.width)
    took_part = coins(of.width, chances("coins"))
    sent = instructions(of, nobody(of.width), chances, lying=True)
    scores = np.zeros(of.width)
    for number, instruction in zip(of.rounds, sent, strict=True):
        owner, moved = _footprints(of, number, instruction, everybody, chances)
        seen = of.release(number, instruction, chosen(everybody, took_part), chances).view(np.int64)
        mine = owner >= 0
        weights = moved[mine] * seen[mine] / of.shape(number).variance
        scores += np.bincount(owner[mine], weights, minlength=of.width)
    guesses = one_run.guess(scores, took_part, GUESSES)
    shown = epsilon_of(one_run.mu_above(guesses, confidence=CONFIDENCE), DELTA)
    note = f"{guesses.correct} of {guesses.made} guesses right about {guesses.canaries} canaries in one run"
    return Finding("one run", of.recipe.name, of.epsilon, shown, shown > of.epsilon, note)


def many_run_audit(of: Target, runs: int, chances: Chances) -> Finding:
    """What an attacker shows who guesses, in each of 2 x `runs` tiny runs, whether the worst person took part.

    Its rule, the likelihood ratio against the middle, is fixed before the first run.
    """
    crowd = _crowd(of.width)
    person = chosen(canaries(of.width), np.arange(of.width) == 0)
    rows = {False: crowd, True: together(crowd, person)}
    sent = instructions(of, crowd, chances, lying=True)
    without = _words(of, sent, crowd, chances)
    moved = [
        (a - b).view(np.int64).astype(np.float64)
        for a, b in zip(_words(of, sent, rows[True], chances), without, strict=True)
    ]
    middle = sum(float(c @ c) / shape.variance for c, shape in zip(moved, of.shapes, strict=True)) / 2
    took_part = coins(2 * runs, chances("coins"))
    correct = 0
    for there in took_part.tolist():
        score = 0.0
        for number in of.rounds:
            words = of.release(number, sent[number - 1], rows[there], chances) - without[number - 1]
            score += float(moved[number - 1] @ words.view(np.int64)) / of.shape(number).variance
        correct += (score > middle) == there
    shown = epsilon_of(many_runs.mu_above(correct, len(took_part), confidence=CONFIDENCE), DELTA)
    note = f"{correct:,} of {len(took_part):,} runs guessed right"
    return Finding("many runs", of.recipe.name, of.epsilon, shown, shown > of.epsilon, note)


def coins(n: int, chance: NoiseSource) -> NDArray[np.bool_]:
    """`n` fair coins."""
    return (np.frombuffer(chance.random_bytes(n), dtype=np.uint8) & 1).astype(np.bool_)


def adversarial_rows(width: int) -> Iterator[EncodedRows]:
    """Single people with share 1: far out in every way that a sum might not bound, and far in."""
    first = np.eye(width)[0]
    signs = np.where(np.arange(width) % 2, -1.0, 1.0)
    for x in (FAR * first, -FAR * first, np.full(width, FAR), FAR * signs, np.full(width, LARGEST_CELL), 5e-324 * first,
              np.zeros(width)):  # fmt: skip
        for bad in (0.0, 1.0):
            yield EncodedRows(x[None], np.full(1, bad), np.ones(1))


def _crowd(width: int) -> EncodedRows:
    """Forty others, none of them special."""
    spread = np.sin(np.arange(40 * width, dtype=np.float64)).reshape(40, width)
    return EncodedRows(spread, (np.arange(40) % 4 == 0).astype(np.float64), np.ones(40))


def _words(of: Target, sent: Sequence[Arrays], rows: EncodedRows, chances: Chances) -> list[Words]:
    """What `rows` add to each round, on the grid, before noise."""
    return [
        of.shape(number).grid.encode(of.exact(number, instruction, rows, chances))
        for number, instruction in zip(of.rounds, sent, strict=True)
    ]


def _added(of: Target, shape: Shape, trust: TrustModel, adding: int, chances: Chances, label: str) -> NDArray[np.int64]:
    """The noise of a release of `shape` to which so many of the plan's data holders added their parts."""
    plan = of.plan
    each = shape.holder_variance(trust, members=len(plan.roster), dropouts_tolerated=plan.dropouts_tolerated)
    added: NDArray[np.int64] = np.sum(
        [_noise(shape, each, chances(f"{label}/{holder}")) for holder in range(adding)], axis=0
    )
    return added


def _noise(shape: Shape, variance: int, chance: NoiseSource) -> NDArray[np.int64]:
    """A release over nobody: nothing but its noise, in whole grid steps."""
    return noisy_words(shape, np.zeros(shape.length), variance, chance).view(np.int64)


def _footprints(
    of: Target, number: int, instruction: Arrays, people: EncodedRows, chances: Chances
) -> tuple[NDArray[np.int64], Vector]:
    """For each number of a release who alone moves it (-1: nobody, or several), and by how much in grid steps.

    Found by giving everybody a share of their own: where one person moves a number, it scales by that share.
    """
    n = len(people)
    full = of.exact(number, instruction, people, chances)
    shares = np.arange(1, n + 1) / (n + 1)
    others = shares**2
    with np.errstate(divide="ignore", invalid="ignore"):
        by_share, by_other = (
            of.exact(number, instruction, EncodedRows(people.x, people.bad, s), chances) / full
            for s in (shares, others)
        )
    guessed = np.nan_to_num(np.rint(by_share * (n + 1)) - 1, nan=-1.0, posinf=-1.0, neginf=-1.0)
    owner = np.clip(guessed, -1, n - 1).astype(np.int64)
    alone = (np.abs(by_share - shares[owner]) < 1e-9) & (np.abs(by_other - others[owner]) < 1e-9)
    step = 2.0 ** -of.shape(number).grid.step_log2
    return np.where(alone & (owner >= 0), owner, -1), full * step
