"""Whether it matters who holds whom: the same recipe and noise with everybody in one place."""

from experiments.benchmarks.bed import Bed, Layout, everybody_of
from experiments.benchmarks.contenders import Contender
from experiments.benchmarks.judge import Judge
from experiments.central import run_centrally
from privacy.noise import SeededNoise

COMPARED_AT = 1.0  # the epsilon of comparisons that are made at one only


def gap_to_central(bed: Bed, contender: Contender, layout: Layout, seed: int) -> float:
    """|AUC over the layout's data holders - AUC with everybody in one place|; by seed, the noise is the same."""
    recipe, judge = contender.recipe(bed, COMPARED_AT), Judge(bed, layout)
    spread, central = (
        judge.linear(run_centrally(recipe, parts, SeededNoise(seed, "accuracy benchmark")))
        for parts in (layout.parts(bed.x, bed.bad), [everybody_of(bed, layout)])
    )
    return abs(spread - central)
