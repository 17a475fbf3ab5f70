"""What malicious data holders do to accuracy, as rows: what is lost, and how often a run ends instead."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from experiments.benchmarks.poisoning import (
    EPSILON,
    HOLDERS,
    MALICIOUS,
    PEOPLE_ALLOWED,
    SCHEMES,
    Attack,
    Poisoned,
    Scheme,
)
from experiments.benchmarks.rows import BenchRow, Peer
from experiments.plans import tolerated_dropouts
from federated.trust import Aggregation, TrustModel

LOSS_TARGET: Final = 0.01
TOLD: Final = (
    "attacks: bads as goods and goods as bads; every whole number it sends x 10 or x -100; everybody there with the "
    "row of its most ordinary good person, and bad"
)
Figures = Mapping[Poisoned, float | None]


def poisoning_rows(figures: Sequence[Figures], people: int | None) -> list[BenchRow]:
    """The rows of the figures of each split (at least one), all schemes of a split together."""
    who = "" if people is None else f", {people:,} people only"
    over = f"mean of {len(figures)} splits{who}, the noise seeded, the same with and without the attack"
    rows = []
    for scheme in SCHEMES:
        setting = f"{_told(scheme)}; {HOLDERS} data holders of one size, epsilon {EPSILON:g}; {over}; {TOLD}"
        rows += _rows_of(scheme, figures, setting)
    return rows


def _rows_of(scheme: Scheme, figures: Sequence[Figures], setting: str) -> list[BenchRow]:
    clean = Poisoned(scheme.title, None, 0)
    rows = [_row(f"{scheme.title}, nobody malicious", _mean(figures, clean), "AUC", setting, in_table=True)]
    for malicious in MALICIOUS:
        losses: dict[Attack, float] = {}
        for attack in Attack:
            case = Poisoned(scheme.title, attack, malicious)
            finished = [split for split in figures if split[case] is not None]
            name = f"{scheme.title}, {attack.value}, {malicious} of {HOLDERS} malicious"
            if finished:
                losses[attack] = _mean(finished, clean) - _mean(finished, case)
                rows.append(_loss(name, losses[attack], setting, in_table=scheme is SCHEMES[0]))
            if len(finished) < len(figures):
                refused = 1 - len(finished) / len(figures)
                rows.append(
                    _row(f"{name}: ended without a model", refused, "of runs", setting, in_table=scheme is SCHEMES[0])
                )
        worst = max(losses, key=lambda attack: losses[attack])
        rows.append(
            BenchRow(
                f"{scheme.title}, the worst attack that gives a model, {malicious} of {HOLDERS} malicious",
                losses[worst], "AUC lost", setting, LOSS_TARGET if scheme.is_sound else None, higher_is_better=False,
                peer=Peer(f"AUC with nobody malicious; the worst: {worst.value}", _mean(figures, clean)),
            )
        )  # fmt: skip
    return rows


def _told(scheme: Scheme) -> str:
    bound = (
        f"the plan allows {PEOPLE_ALLOWED:g} times the people there are"
        if scheme.tight
        else "the plan allows a million people"
    )
    if scheme.trust is TrustModel.SHARED_NOISE:
        return f"{scheme.contender.title}, masked sums on the plan's grid; {bound}, and a sum beyond is refused"
    how = {
        Aggregation.SUM: "added up",
        Aggregation.TRIMMED_MEAN: f"trimmed of {tolerated_dropouts(HOLDERS)} at either end of each number",
        Aggregation.MEDIAN: "the median of each number",
    }[scheme.aggregation]
    return (
        f"{scheme.contender.title}, every data holder with all of its own noise; the coordinator sees single updates, "
        f"{how}; {bound}, and an update beyond is left out"
    )


def _mean(figures: Sequence[Figures], case: Poisoned) -> float:
    values = [value for split in figures if (value := split[case]) is not None]
    return float(np.mean(values))


def _loss(name: str, value: float, setting: str, *, in_table: bool) -> BenchRow:
    return BenchRow(name, value, "AUC lost", setting, higher_is_better=False, in_table=in_table)


def _row(name: str, value: float, unit: str, setting: str, *, in_table: bool) -> BenchRow:
    return BenchRow(name, value, unit, setting, in_table=in_table)
