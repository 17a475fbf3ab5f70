"""What was found on FATE's split, as rows."""

from collections.abc import Mapping
from typing import Final

from experiments.baselines import BOOSTED_SETTINGS, USUAL_SETTINGS
from experiments.benchmarks.contenders import DEFAULT
from experiments.benchmarks.fate import DRAWS, EPSILONS
from experiments.benchmarks.rows import BenchRow, Peer
from experiments.plans import DELTA

SPLIT: Final = "FATE's published split of the same people: 3 data holders of 8,000, tested on 6,000"


def rows_of(figures: Mapping[str, float]) -> list[BenchRow]:
    """The rows of `experiments.benchmarks.fate.run_job`."""
    boosted = Peer("LightGBM on pooled raw columns, no privacy", figures["boosted"])
    pooled = Peer("pooled logistic regression, no privacy", figures["pooled"])
    private = f"{SPLIT}; {DEFAULT.title}, one shared noise, delta {DELTA:g}, mean of {DRAWS} draws of the noise"
    rows = [
        BenchRow(
            f"FATE's split, {form}, epsilon {epsilon:g}", figures[f"{kind} {epsilon:g}"], "AUC", private, peer=peer
        )
        for kind, form, peer in (("linear", "linear form", boosted), ("additive", "published scorecard", pooled))
        for epsilon in EPSILONS
    ]
    return [
        *rows,
        BenchRow(f"FATE's split, {boosted.name}", boosted.value, "AUC", f"{SPLIT}; {BOOSTED_SETTINGS}"),
        BenchRow(f"FATE's split, {pooled.name}", pooled.value, "AUC", f"{SPLIT}; our encoding"),
        BenchRow(
            "FATE's split, usual settings of Opacus, epsilon 1",
            figures["usual"], "AUC", f"{SPLIT}; {USUAL_SETTINGS}; our encoding, one draw of the noise",
        ),
    ]  # fmt: skip
