"""From what was found about accuracy to rows: every case is written, the table for people is a summary."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from experiments.baselines import BOOSTED_SETTINGS, USUAL_EPOCHS, USUAL_SETTINGS
from experiments.benchmarks.bed import DIRICHLET, SPREADS
from experiments.benchmarks.contenders import CONTENDERS, DEFAULT, LOCAL_SETTINGS
from experiments.benchmarks.gaps import COMPARED_AT
from experiments.benchmarks.rows import BenchRow, Peer
from experiments.benchmarks.training_accuracy import (
    ADDITIVE,
    ALIKE,
    COMPARED_HOLDERS,
    LINEAR,
    USUAL,
    Case,
    Found,
)
from experiments.plans import DELTA, tolerated_dropouts
from federated.trust import TrustModel

LINEAR_TARGETS: Final = {0.5: 0.775, 1.0: 0.777, 3.0: 0.778}
ADDITIVE_TARGETS: Final = {1.0: 0.772}
GAP_TARGET: Final = 0.001
LAYOUTS: Final = {
    ALIKE: "data holders of one size whose people are alike",
    "size skew": "the k-th data holder has 1/k the size of the first",
    "label skew": f"each outcome spread over the data holders by Dirichlet({DIRICHLET:g})",
}
PUBLISHED: Final = (
    "for comparison only, published by others and not measured here: federated private boosted trees on this data set "
    "0.764 at epsilon 1 and about 0.74 at 0.5, 0.780 without privacy (Maddock et al., CCS 2022)"
)
_POOLED: Final = "pooled logistic regression, no privacy"
_BOOSTED: Final = "LightGBM on pooled raw columns, no privacy"


def accuracy_rows(found: Sequence[Sequence[Found]], people: int | None) -> list[BenchRow]:
    """The rows of what was found on each split (at least one)."""
    told = _Teller(found, people)
    return [*told.cases(), *told.worst_layouts(), *told.gaps(), *told.others()]


class _Teller:
    def __init__(self, found: Sequence[Sequence[Found]], people: int | None) -> None:
        every = [each for split in found for each in split]
        self._cases: dict[Case, list[float]] = {}
        self._others: dict[str, list[float]] = {}
        self._gaps: dict[tuple[str, str], list[float]] = {}
        for each in every:
            for case, value in each.cases.items():
                self._cases.setdefault(case, []).append(value)
            for name, value in each.others.items():
                self._others.setdefault(name, []).append(value)
            for (recipe, layout, _), value in each.gaps.items():
                self._gaps.setdefault((recipe, layout), []).append(value)
        who = "everybody" if people is None else f"{people:,} people only"
        splits = "1 stratified 75/25 split" if len(found) == 1 else f"{len(found)} stratified 75/25 splits"
        self._over = f"mean of {splits}, {who}"

    def cases(self) -> list[BenchRow]:
        """Every recipe, trust model, layout, number of data holders and epsilon; the promised figures first."""
        order = {recipe: place for place, recipe in enumerate((*CONTENDERS, USUAL))}
        ordered = sorted(
            self._cases,
            key=lambda case: (
                self._target(case) is None, not self._is_in_table(case), case.form, order[case.recipe], case,
            ),
        )  # fmt: skip
        return [self._case(case) for case in ordered]

    def _case(self, case: Case) -> BenchRow:
        peer = None
        if self._is_in_table(case):
            usual = Case(USUAL, LINEAR, COMPARED_AT, None, ALIKE, case.holders)
            if case.epsilon == COMPARED_AT and case.recipe != USUAL and usual in self._cases:
                peer = Peer(f"{USUAL} of Opacus", self._mean(usual))
            else:
                peer = Peer(_POOLED, self._other("pooled"))
        setting = f"{_told(case)}; delta {DELTA:g}; {self._over}"
        return BenchRow(
            _name(case), self._mean(case), "AUC", setting, self._target(case), peer=peer,
            in_table=self._is_in_table(case),
        )  # fmt: skip

    def _target(self, case: Case) -> float | None:
        shared = (DEFAULT.title, TrustModel.SHARED_NOISE, COMPARED_HOLDERS)
        if (case.recipe, case.trust, case.holders) != shared:
            return None
        return {LINEAR: LINEAR_TARGETS, ADDITIVE: ADDITIVE_TARGETS}[case.form].get(case.epsilon)

    def _is_in_table(self, case: Case) -> bool:
        if case.layout != ALIKE:
            return False
        if case.recipe == DEFAULT.title and case.form == LINEAR and case.epsilon == COMPARED_AT:
            return True  # every trust model and number of data holders
        if case.holders != COMPARED_HOLDERS or case.trust not in {None, TrustModel.SHARED_NOISE}:
            return False
        return case.form == LINEAR or (case.recipe == DEFAULT.title and case.epsilon in ADDITIVE_TARGETS)

    def worst_layouts(self) -> list[BenchRow]:
        """Of each recipe whose noise is inside the updates, the layout that suits it least."""
        rows = []
        inside = {case.recipe for case in self._cases if case.trust is None}
        for recipe in (name for name in (*CONTENDERS, USUAL) if name in inside):
            found = {
                layout: self._mean(case)
                for layout in SPREADS
                if (case := Case(recipe, LINEAR, COMPARED_AT, None, layout, COMPARED_HOLDERS)) in self._cases
            }
            worst = min(found, key=lambda layout: found[layout])
            peer = None if recipe == USUAL else self._peer("label skew", f"{USUAL} under label skew")
            rows.append(
                BenchRow(
                    f"{recipe}, the layout that suits it least, epsilon {COMPARED_AT:g}, {COMPARED_HOLDERS} holders",
                    found[worst], "AUC", f"{worst}: {LAYOUTS[worst]}; {self._over}", peer=peer,
                )
            )  # fmt: skip
        return rows

    def _peer(self, layout: str, title: str) -> Peer | None:
        case = Case(USUAL, LINEAR, COMPARED_AT, None, layout, COMPARED_HOLDERS)
        return Peer(title, self._mean(case)) if case in self._cases else None

    def gaps(self) -> list[BenchRow]:
        """Whether it matters to a sum who holds whom; the worst split and number of data holders counts."""
        compared = (
            f"largest difference of AUC over the splits and numbers of data holders, epsilon {COMPARED_AT:g}, to the "
            "recipe run with each person once in one place; the noise in the sums is seeded for this, the same in both"
        )
        usual = {
            layout: self._mean(Case(USUAL, LINEAR, COMPARED_AT, None, layout, COMPARED_HOLDERS)) for layout in SPREADS
        }
        rows = []
        for layout in SPREADS:
            for recipe in dict.fromkeys(recipe for recipe, _ in self._gaps):
                rows.append(
                    BenchRow(
                        f"{recipe}, {layout}, gap to the central result", max(self._gaps[recipe, layout]), "AUC",
                        f"{compared}; {LAYOUTS[layout]}", GAP_TARGET, higher_is_better=False,
                        peer=None if layout == ALIKE else Peer(
                            f"what the {USUAL} lose against data holders alike", usual[ALIKE] - usual[layout]
                        ),
                        in_table=recipe == DEFAULT.title and layout != ALIKE,
                    )
                )  # fmt: skip
        worst = max(value for values in self._gaps.values() for value in values)
        rows.append(
            BenchRow(
                "every recipe that sums, every layout, largest gap to the central result", worst, "AUC", compared,
                GAP_TARGET, higher_is_better=False,
            )
        )  # fmt: skip
        return rows

    def others(self) -> list[BenchRow]:
        """The same work without privacy."""
        raw = "all raw columns of the file, those that the scorecard leaves out for fairness too"
        return [
            self._row(_BOOSTED, "boosted", f"{raw}; {BOOSTED_SETTINGS}; {PUBLISHED}"),
            self._row("LightGBM with its own defaults, no privacy", "boosted as it comes", raw),
            self._row(_POOLED, "pooled", "our encoding, each person once, L2 penalty C = 1"),
            self._row(f"{DEFAULT.title} without noise", "without noise", "our encoding, NOT PRIVATE"),
        ]

    def _row(self, name: str, figure: str, setting: str) -> BenchRow:
        return BenchRow(name, self._other(figure), "AUC", f"{setting}; {self._over}")

    def _mean(self, case: Case) -> float:
        return float(np.mean(self._cases[case]))

    def _other(self, name: str) -> float:
        return float(np.mean(self._others[name]))


def _name(case: Case) -> str:
    where = "" if case.layout == ALIKE else f", {case.layout}"
    trust = "" if case.trust is None else f", {case.trust.value.replace('_', ' ')}"
    return f"{case.recipe}, {case.form}, epsilon {case.epsilon:g}, {case.holders} holders{trust}{where}"


def _told(case: Case) -> str:
    if case.recipe == USUAL:
        return (
            f"Opacus with the settings of its tutorials ({USUAL_SETTINGS}) on our encoding at each data holder, "
            f"{USUAL_EPOCHS} rounds of FedAvg by rows; {LAYOUTS[case.layout]}; a person at two spends epsilon twice"
        )
    if case.trust is None:
        return f"{LOCAL_SETTINGS}; {LAYOUTS[case.layout]}; noise inside the updates, so every trust model alike"
    return {
        TrustModel.SHARED_NOISE: "one noise shared in a secure sum, with what up to "
        f"{tolerated_dropouts(case.holders)} of {case.holders} drop-outs would take away added",
        TrustModel.HOLDER_NOISE: "every data holder adds all the noise",
        TrustModel.COORDINATOR_NOISE: "the coordinator adds the noise, however many data holders there are",
    }[case.trust] + "; a tenth of the people at two of them; who holds whom makes no difference (see the gaps)"
