"""The pictures of the report, one small function each; `None` when there is nothing to draw."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from experiments.report import drawing
from experiments.report.drawing import new_picture, styled
from experiments.report.takeaways import auc_of
from experiments.report.values import EpsilonSpent, Evaluation, Evaluations, Fairness, HolderResult
from experiments.report.wording import count, epsilon_text, figure, plural
from federated.metrics import ScoreHistogram, Vector

PER_CENT: Final = PercentFormatter(xmax=1, decimals=0)
MOST_BARS: Final = 36
MOST_NAMED_HOLDERS: Final = 24
EPSILON_BARS: Final = 20
SHOWN_SHARE: Final = 0.0005
NAME_LENGTH: Final = 22


@styled
def roc(evaluations: Evaluations) -> Figure | None:
    """Share of bads caught against share of goods flagged, for every model with a histogram."""
    picture, axes = new_picture()
    lines = (
        ("all data in one place", evaluations.pooled, drawing.POOLED, (0, (4, 2)), 1.4),
        ("federated, no noise", evaluations.federated, drawing.FEDERATED, (0, (1, 1.2)), 2.0),
        ("DP-SGD + averaging", evaluations.opacus_fedavg, drawing.OPACUS, "-.", 1.4),
        ("federated, private", evaluations.federated_private, drawing.PRIVATE, "-", 2.2),
    )
    drawn = False
    for name, evaluation, colour, style, width in lines:
        curve = None if evaluation is None or evaluation.histogram is None else evaluation.histogram.roc()
        if curve is not None:
            label = f"{name}: {figure(auc_of(evaluation))}"
            axes.plot(
                curve.goods_flagged,
                curve.bads_flagged,
                color=colour,
                ls=style,
                lw=width,
                label=label,
                zorder=3,
            )
            drawn = True
    if not drawn:
        return None
    axes.plot([0, 1], [0, 1], color="#aab4be", lw=1, label="by chance: 0.500")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="goods flagged", ylabel="bads flagged")
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(loc="lower right", title="AUC", alignment="left", title_fontsize=9)
    return picture


@styled
def ks(histogram: ScoreHistogram) -> Figure | None:
    """The score distributions of goods and bads, and their largest gap."""
    curve = histogram.ks_curve()
    if curve is None:
        return None
    picture, axes = new_picture()
    gaps = np.abs(curve.bads_below - curve.goods_below)
    widest = int(gaps.argmax())
    axes.plot(curve.score, curve.bads_below, color=drawing.BAD, label="bads")
    axes.plot(curve.score, curve.goods_below, color=drawing.GOOD, ls=(0, (4, 2)), label="goods")
    where = [curve.score[widest]] * 2
    ends = [curve.goods_below[widest], curve.bads_below[widest]]
    axes.plot(where, ends, color=drawing.INK, lw=1.4, marker="o", ms=4)
    axes.annotate(
        f"KS {gaps[widest]:.3f}",
        (where[0], max(ends)),
        xytext=(-8, 4),
        textcoords="offset points",
        ha="right",
        weight="bold",
    )
    axes.set(xlim=_shown(histogram), ylim=(0, 1.02), xlabel="score", ylabel="share scoring lower")
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(loc="lower right")
    return picture


@styled
def calibration(exact: Evaluation, released: Evaluation | None) -> Figure | None:
    """Expected against seen share of bads, in groups of equal size."""
    table = exact.calibration()
    if not table:
        return None
    picture, axes = new_picture()
    tables = [("exact", table, drawing.PRIVATE, "o", "-")]
    if released is not None and (noisy := released.calibration()):
        tables.append(("as released, with noise", noisy, drawing.OPACUS, "D", ":"))
    top = 0.0
    for label, groups, colour, marker, style in tables:
        expected = [group.mean_probability_of_bad for group in groups]
        seen = [group.bad_rate for group in groups]
        axes.plot(expected, seen, color=colour, marker=marker, ms=4.5, ls=style, lw=1.4, label=label)
        top = max(top, *expected, *seen)
    top = min(1.0, top * 1.08 + 0.01)
    axes.plot([0, 1], [0, 1], color="#8b97a3", lw=1, ls=(0, (4, 2)), label="expected = seen")
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="expected share of bads", ylabel="seen share of bads")
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.legend(loc="upper left")
    return picture


@styled
def distribution(histogram: ScoreHistogram) -> Figure | None:
    """Where goods and where bads score, each as shares of their own."""
    if histogram.goods.sum() <= 0 or histogram.bads.sum() <= 0:
        return None
    low, high = _shown(histogram)
    inside = int(np.sum((histogram.edges[:-1] >= low) & (histogram.edges[1:] <= high)))
    coarse = histogram.coarser(max(1, -(-inside // MOST_BARS)))
    picture, axes = new_picture()
    for name, counts, colour, alpha, style in (
        ("goods", coarse.goods, drawing.GOOD, 0.28, (0, (4, 2))),
        ("bads", coarse.bads, drawing.BAD, 0.22, "-"),
    ):
        # Per point, so that a narrower last band does not look emptier than it is.
        height = counts / counts.sum() / np.diff(coarse.edges)
        axes.stairs(height, coarse.edges, fill=True, color=colour, alpha=alpha)
        axes.stairs(height, coarse.edges, color=colour, lw=1.5, ls=style, label=name)
    axes.set(xlim=(low, high), xlabel="score", ylabel="share of the goods / of the bads")
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper left")
    return picture


@styled
def holders(results: Sequence[HolderResult], private_auc: float | None) -> Figure | None:
    """AUC of each data holder alone, by size, against the one scorecard all share."""
    if not any(holder.auc_alone is not None for holder in results):
        return None
    if len(results) > MOST_NAMED_HOLDERS:
        return _many_holders(results, private_auc)
    ordered = sorted(results, key=lambda holder: (holder.people_permitted, holder.name))
    picture, axes = new_picture(1.3 + 0.3 * len(ordered))
    for place, holder in enumerate(ordered):
        if holder.auc_alone is None:
            axes.annotate(
                "could not train alone",
                (0.03, place),
                xycoords=axes.get_yaxis_transform(),
                color=drawing.MUTED,
                fontsize=8.5,
                va="center",
            )
            continue
        if private_auc is not None:
            colour = drawing.FEDERATED if private_auc >= holder.auc_alone else drawing.BAD
            axes.plot([holder.auc_alone, private_auc], [place] * 2, color=colour, lw=1.6, alpha=0.55, zorder=2)
        axes.plot(holder.auc_alone, place, "o", color=drawing.OPACUS, ms=6, zorder=3)
        better = private_auc is not None and holder.auc_alone > private_auc
        axes.annotate(
            f"{holder.auc_alone:.3f}",
            (holder.auc_alone, place),
            xytext=(6 if better else -6, 0),  # on the side where no line is drawn
            textcoords="offset points",
            ha="left" if better else "right",
            va="center",
            fontsize=8.5,
        )
    if private_auc is not None:
        axes.axvline(private_auc, color=drawing.PRIVATE, lw=2)
        axes.set_title(f"federated, private: {private_auc:.3f}", color=drawing.PRIVATE, fontsize=9.5, loc="right")
    axes.set_yticks(range(len(ordered)), [_sized(holder) for holder in ordered], color=drawing.INK)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    shown = [holder.auc_alone for holder in ordered if holder.auc_alone is not None]
    low, high = min([*shown, private_auc or 1.0]), max([*shown, private_auc or 0.0])
    room = max(high - low, 0.01)
    axes.set_xlim(low - 0.25 * room, high + 0.25 * room)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("AUC on unseen people (dot: the holder alone)")
    return picture


@styled
def epsilon(spent: Sequence[EpsilonSpent], promised: float | None) -> Figure | None:
    """How much of the promised epsilon people spent, by the number of data holders they are at."""
    if not any(entry.people for entry in spent):
        return None
    top = max([entry.epsilon for entry in spent] + ([] if promised is None else [promised])) or 1.0
    width = top / EPSILON_BARS
    kinds = sorted({entry.holders for entry in spent})
    picture, axes = new_picture(3.5)
    bottom = np.zeros(EPSILON_BARS + 1)
    for place, kind in enumerate(kinds):
        counts = np.zeros_like(bottom)
        for entry in spent:
            if entry.holders == kind:
                # Bars end at their largest value: who spent exactly the promise stands left of the line.
                counts[math.ceil(entry.epsilon / width - 1e-9)] += entry.people
        at = plural(kind, "data holder", "data holders")
        axes.bar(
            (np.arange(len(counts)) - 0.5) * width,
            counts,
            width=width * 0.88,
            bottom=bottom,
            color=drawing.SERIES[place % len(drawing.SERIES)],
            label=f"at {at}: {plural(float(counts.sum()), 'person', 'people')}",
        )
        bottom += counts
    if promised is not None:
        label = f"promised at most: {epsilon_text(promised)}"
        axes.axvline(promised, color=drawing.INK, lw=1.4, ls=(0, (4, 2)), label=label)
    axes.set(xlabel="epsilon spent by a person, up to", ylabel="people", ylim=(0, bottom.max() * 1.45))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda people, _: count(people)))
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper left")
    return picture


@styled
def fairness(values: Fairness) -> Figure | None:
    """Approval rate and share of bads of every audited group."""
    rows = [(attribute, *item) for attribute, groups in values.attributes.items() for item in groups.items()]
    if not rows:
        return None
    picture, axes = new_picture(1.2 + 0.3 * len(rows))
    labels: list[str] = []
    named: set[str] = set()
    for place, (_, group, audited) in enumerate(reversed(rows)):
        labels.append(_cut(group))
        for rate, colour, marker, name in (
            (audited.approval_rate, drawing.PRIVATE, "o", "approved"),
            (audited.bad_rate, drawing.BAD, "D", "bad"),
        ):
            if rate is not None:
                axes.plot(rate, place, marker, color=colour, ms=6, label=None if name in named else name)
                named.add(name)
                axes.annotate(
                    f"{100 * rate:.0f} %",
                    (rate, place),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                )
    starts = np.cumsum([len(groups) for groups in values.attributes.values()])[:-1]
    for start in starts:
        axes.axhline(len(rows) - start - 0.5, color="#aab4be", lw=0.8)
    axes.set_yticks(range(len(rows)), labels, color=drawing.INK)
    axes.set(xlim=(0, 1.08), ylim=(-0.6, len(rows) - 0.4), xlabel="share of the group")
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.grid(visible=False, axis="y")
    if named:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return picture


def _many_holders(results: Sequence[HolderResult], private_auc: float | None) -> Figure:
    """Too many to name: AUC alone against size."""
    able = [(h.people_permitted, h.auc_alone) for h in results if h.auc_alone is not None and h.people_permitted > 0]
    picture, axes = new_picture()
    axes.plot([n for n, _ in able], [auc for _, auc in able], "o", color=drawing.OPACUS, ms=4.5, alpha=0.8)
    if private_auc is not None:
        axes.axhline(private_auc, color=drawing.PRIVATE, lw=2)
        axes.set_title(f"federated, private: {private_auc:.3f}", color=drawing.PRIVATE, fontsize=9.5, loc="right")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda people, _: count(people)))
    axes.set(xlabel="people a data holder may train on", ylabel="AUC on unseen people, alone")
    return picture


def _shown(histogram: ScoreHistogram) -> tuple[float, float]:
    """The scores between which anybody worth a pixel lies."""
    counts: Vector = np.maximum(histogram.goods + histogram.bads, 0.0)
    held = np.flatnonzero(counts > min(SHOWN_SHARE, 0.5 / len(counts)) * counts.sum())
    return float(histogram.edges[held[0]]), float(histogram.edges[held[-1] + 1])


def _sized(holder: HolderResult) -> str:
    return f"{_cut(holder.name)} ({count(holder.people_permitted)})"


def _cut(name: str) -> str:
    """A label's beginning; matplotlib would read dollar signs as mathematics."""
    return (name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…").replace("$", r"\$")
