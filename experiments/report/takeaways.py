"""One sentence under each picture, computed from the figures it shows and never claimed in advance."""

import numpy as np

from experiments.report.values import (
    ConsentResult,
    DemoResult,
    Evaluation,
    Evaluations,
    Fairness,
    Withdrawal,
)
from experiments.report.wording import (
    against,
    count,
    epsilon_text,
    figure,
    percent,
    plural,
)
from federated.metrics import ScoreHistogram, Vector

BY_CHANCE = 0.005  # AUC: about what another split of the people, or another draw of the noise, can do
FEWEST_TO_COMPARE = 200  # people; smaller groups differ by chance
NOT_KNOWN = "This run has no figures for this picture."


def auc_of(evaluation: Evaluation | None) -> float | None:
    """The AUC, if the evaluation was run and has one."""
    return None if evaluation is None else evaluation.metrics.auc


def headline(result: DemoResult) -> str:
    """The whole run in one sentence."""
    holders = plural(len(result.holders), "data holder", "data holders")
    private, pooled = auc_of(result.evaluations.federated_private), auc_of(result.evaluations.pooled)
    if private is None:
        return f"{holders} trained one scorecard together; how well it ranks is unknown."
    start = f"{holders} built one scorecard without handing over a row. It ranks unseen people with an AUC of"
    if pooled is None:
        return f"{start} {figure(private)}."
    if abs(private - pooled) < BY_CHANCE:
        other = f"all data in one place and no privacy give {figure(pooled)}"
        return f"{start} {figure(private)}; {other}, no real difference."
    return (
        f"{start} {figure(private)}, {against(private, pooled)} what all data in one place would give without privacy."
    )


def roc(evaluations: Evaluations) -> str:
    """Ranking, private against pooled."""
    private, pooled = auc_of(evaluations.federated_private), auc_of(evaluations.pooled)
    if private is None:
        return NOT_KNOWN
    text = "Of one good and one bad drawn at random, the private model scores the good higher "
    text += f"{percent(private)} of the time"
    return f"{text}." if pooled is None else f"{text}; with pooled data {percent(pooled)}."


def ks(histogram: ScoreHistogram | None) -> str:
    """Where goods and bads stand furthest apart."""
    curve = None if histogram is None else histogram.ks_curve()
    if curve is None:
        return NOT_KNOWN
    widest = int(np.abs(curve.bads_below - curve.goods_below).argmax())
    return (
        f"Goods and bads stand furthest apart at a score of {count(curve.score[widest])}: "
        f"{percent(curve.bads_below[widest])} of the bads are below it, and "
        f"{percent(curve.goods_below[widest])} of the goods."
    )


def calibration(evaluation: Evaluation | None) -> str:
    """How far predictions are from what happened, and which way."""
    table = () if evaluation is None else evaluation.calibration()
    if evaluation is None or not table:
        return NOT_KNOWN
    people = sum(group.people for group in table)
    predicted = sum(group.mean_probability_of_bad * group.people for group in table) / people
    seen = sum(group.bad_rate * group.people for group in table) / people
    worst = max(table, key=lambda group: abs(group.bad_rate - group.mean_probability_of_bad))
    return (
        f"Over everybody the model expects {percent(predicted)} bads and {percent(seen)} came; "
        f"the gap is widest for the group where {percent(worst.mean_probability_of_bad)} were expected "
        f"and {percent(worst.bad_rate)} came."
    )


def distribution(histogram: ScoreHistogram | None) -> str:
    """The typical good against the typical bad."""
    if histogram is None:
        return NOT_KNOWN
    good, bad = _median(histogram.edges, histogram.goods), _median(histogram.edges, histogram.bads)
    if good is None or bad is None:
        return NOT_KNOWN
    gap = round(good) - round(bad)
    side = "between them" if gap >= 0 else "the wrong way round"
    return (
        f"Half of the goods score {count(good)} or more, half of the bads {count(bad)} or more: "
        f"{plural(abs(gap), 'point', 'points')} {side}."
    )


def holders(result: DemoResult) -> str:
    """Who gains by joining."""
    private = auc_of(result.evaluations.federated_private)
    alone = [(holder.people_permitted, holder.auc_alone) for holder in result.holders]
    able = sorted((people, auc) for people, auc in alone if auc is not None)
    if private is None or not able:
        return NOT_KNOWN
    better = sum(private > auc for _, auc in able)
    able_holders = plural(len(able), "data holder", "data holders")
    text = f"Joining ranks better than working alone for {better} of {able_holders}"
    smallest, largest = able[0], able[-1]
    text += f"; for the smallest ({plural(smallest[0], 'person', 'people')}) its AUC is "
    text += f"{against(private, smallest[1])} their own, for the largest ({count(largest[0])}) "
    text += f"{against(private, largest[1])}."
    if missing := len(alone) - len(able):
        text += f" {plural(missing, 'holder', 'holders')} could not train a model alone."
    return text


def epsilon(result: DemoResult) -> str:
    """What people spent against what was promised."""
    promised = result.privacy.epsilon
    spent = [entry for entry in result.epsilon_spent if entry.people > 0]
    if promised is None or not spent:
        return NOT_KNOWN
    # Accounting is exact to far more digits than this; a person who is over is over by more.
    over = sum(entry.people for entry in spent if entry.epsilon > promised * (1 + 1e-9))
    if over:
        people = plural(over, "person", "people")
        return f"This is a fault: {people} spent more than the promised {epsilon_text(promised)}."
    most = max(entry.epsilon for entry in spent)
    if epsilon_text(most) == epsilon_text(promised):
        text = f"In this run nobody spent more than the promised {epsilon_text(promised)}."
    else:
        text = f"The most anybody spent is {epsilon_text(most)}, of {epsilon_text(promised)} promised."
    several = [entry for entry in spent if entry.holders > 1]
    if several:
        people = plural(sum(entry.people for entry in several), "person", "people")
        most = max(entry.epsilon for entry in several)
        text += f" Among the {people} at more than one data holder the most is {epsilon_text(most)}."
    nothing = sum(entry.people for entry in spent if entry.epsilon == 0)
    return f"{text} {plural(nothing, 'person', 'people')} spent nothing."


def consent(values: ConsentResult) -> str:
    """How many rows were permitted, and whether any other was used."""
    share = percent(values.rows_permitted / values.rows_held) if values.rows_held else "none"
    used = values.rows_used_without_consent
    text = f"{share} of the rows held may be used, for training or for measuring"
    if used is None:
        return f"{text}; whether any other row was used is unknown."
    return f"{text}; {_rows(used)} used."


def _rows(without_consent: int) -> str:
    if without_consent == 0:
        return "no row without consent was"
    return f"{plural(without_consent, 'row without consent was', 'rows without consent were')}"


def withdrawing(values: Withdrawal) -> str:
    """Who did what, as a heading."""
    return plural(values.people, "person withdraws", "people withdraw")


def withdrawal(values: Withdrawal) -> str:
    """What changed between the two runs."""
    before, after = values.before, values.after
    fewer = before.people_used - after.people_used
    if fewer >= 0:
        change = f"the next run used {plural(fewer, 'person', 'people')} fewer"
    else:
        change = f"the next run used {plural(-fewer, 'person', 'people')} more"
    return (
        f"{plural(values.people, 'person', 'people')} withdrew and {change}; the record of consent went from "
        f"{plural(before.lane_size, 'entry', 'entries')} to {count(after.lane_size)}."
    )


def fairness(values: Fairness) -> str:
    """The widest difference in approval, and whether risk differs the same way."""
    widest = ("", "", "", -1.0)
    for attribute, groups in values.attributes.items():
        rates = {
            name: group.approval_rate
            for name, group in groups.items()
            if group.approval_rate is not None and group.people >= FEWEST_TO_COMPARE
        }
        if len(rates) > 1:
            low, high = min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])
            if rates[high] - rates[low] > widest[3]:
                widest = (attribute, low, high, rates[high] - rates[low])
    attribute, low, high, gap = widest
    if gap < 0:
        return NOT_KNOWN
    least, most = values.attributes[attribute][low], values.attributes[attribute][high]
    ratio = (least.approval_rate or 0) / most.approval_rate if most.approval_rate else None
    return (
        f"Approval differs most by {attribute.lower()}: {percent(least.approval_rate)} ({low}) against "
        f"{percent(most.approval_rate)} ({high}), a ratio of {figure(ratio, 2)}; the shares of bads in these "
        f"groups are {percent(least.bad_rate)} and {percent(most.bad_rate)}."
    )


def comparison(values: Evaluations) -> str:
    """Where quality is lost or won, step by step."""
    private, federated = auc_of(values.federated_private), auc_of(values.federated)
    steps = []
    if private is not None:
        for name, other in (
            ("the same training without noise", federated),
            ("everything in one place", auc_of(values.pooled)),
            ("working alone", auc_of(values.local_only)),
            ("the usual DP-SGD settings with plain averaging", auc_of(values.opacus_fedavg)),
        ):
            if other is not None:
                steps.append(f"{against(private, other)} {name}")
    if not steps:
        return NOT_KNOWN
    return f"By AUC the private model is {', '.join(steps)}. The fewer people are held out, the more of this is chance."


def released(exact: Evaluation | None, noisy: Evaluation | None) -> str:
    """What may be published, against what only an experiment can know."""
    if noisy is None:
        return "No evaluation was released in this run."
    text = f"The evaluation that left the data holders is noisy and charged: AUC {figure(noisy.metrics.auc)}"
    text += f". The exact counts, known only because the data are public, give {figure(auc_of(exact))}."
    told, true = noisy.metrics.auc, auc_of(exact)
    if told is None or true is None:
        return text
    return f"{text} Noise alone moved the released figure by {figure(abs(told - true))}: do not rank models by it."


def _median(edges: Vector, counts: Vector) -> float | None:
    """Lower edge of the band where half of the (non-negative) counts is reached from above."""
    held = np.maximum(counts, 0.0)
    if held.sum() <= 0:
        return None
    above = np.cumsum(held[::-1])[::-1]
    return float(edges[np.flatnonzero(above >= held.sum() / 2)[-1]])
