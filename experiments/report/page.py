"""`report.html`: one page for people, complete in itself: no script, no font, no picture from elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from experiments.report import plots, takeaways, wording
from experiments.report.drawing import inline_svg
from experiments.report.figures import report_json
from experiments.report.takeaways import auc_of
from experiments.report.values import DemoResult, Evaluation, Evaluations, ScorecardLine, ScorecardTable
from federated.metrics import Metrics, ScoreHistogram

TEMPLATE: Final = "page.html.j2"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure with its sentence; `svg` is `None` when there was nothing to draw."""

    name: str
    title: str
    svg: Markup | None
    takeaway: str


@dataclass(frozen=True, slots=True)
class EvaluationLine:
    """One line of the table that compares the ways to train."""

    name: str
    explanation: str
    metrics: Metrics
    published: bool


def render_page(result: DemoResult) -> str:
    """The whole page; the same text for the same result."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "figure": wording.figure,
        "count": wording.count,
        "percent": wording.percent,
        "epsilon": wording.epsilon_text,
        "delta": wording.delta_text,
        "short": wording.short,
    }
    evaluations, released = result.evaluations, result.released
    return environment.get_template(TEMPLATE).render(
        result=result,
        headline=takeaways.headline(result),
        pictures=_pictures(result),
        consent_takeaway=takeaways.consent(result.consent),
        withdrawal_takeaway=None if result.withdrawal is None else takeaways.withdrawal(result.withdrawal),
        people_withdraw=None if result.withdrawal is None else takeaways.withdrawing(result.withdrawal),
        comparison_takeaway=takeaways.comparison(evaluations),
        released_takeaway=takeaways.released(evaluations.federated_private, released),
        private=_metrics_of(evaluations.federated_private),
        pooled=_metrics_of(evaluations.pooled),
        lines=_evaluation_lines(evaluations, released),
        characteristics=_characteristics(result.scorecard),
        points_span=_points_span(result.scorecard),
        consent_bar=_consent_bar(result),
    )


def write_report(result: DemoResult, directory: Path) -> None:
    """`report.html` and `report.json` in `directory`, which must exist."""
    (directory / "report.json").write_text(report_json(result), encoding="utf-8")
    (directory / "report.html").write_text(render_page(result), encoding="utf-8")


def _pictures(result: DemoResult) -> dict[str, Picture]:
    private = result.evaluations.federated_private
    histogram = None if private is None else private.histogram

    def drawn(name: str, title: str, takeaway: str, draw: Callable[[], Figure | None]) -> Picture:
        figure = draw()
        svg = None
        if figure is not None:
            svg = Markup(inline_svg(figure, name, f"{title}. {takeaway}", not_private=result.not_private))  # noqa: S704 (our own picture)
        return Picture(name, title, svg, takeaway)

    def of_histogram(draw: Callable[[ScoreHistogram], Figure | None]) -> Callable[[], Figure | None]:
        return lambda: None if histogram is None else draw(histogram)

    all_pictures = (
        drawn(
            "roc",
            "Bads caught against goods flagged (ROC)",
            takeaways.roc(result.evaluations),
            lambda: plots.roc(result.evaluations),
        ),
        drawn(
            "ks",
            "How far goods and bads are kept apart (KS)",
            takeaways.ks(histogram),
            of_histogram(plots.ks),
        ),
        drawn(
            "calibration",
            "Expected against seen",
            takeaways.calibration(private),
            lambda: None if private is None else plots.calibration(private, result.released),
        ),
        drawn(
            "distribution",
            "Scores by what happened",
            takeaways.distribution(histogram),
            of_histogram(plots.distribution),
        ),
        drawn(
            "holders",
            "Each data holder alone, and all together",
            takeaways.holders(result),
            lambda: plots.holders(result.holders, auc_of(private)),
        ),
        drawn(
            "epsilon",
            "Epsilon spent per person",
            takeaways.epsilon(result),
            lambda: plots.epsilon(result.epsilon_spent, result.privacy.epsilon),
        ),
        drawn(
            "fairness",
            "Approved, and bad, by group",
            takeaways.NOT_KNOWN if result.fairness is None else takeaways.fairness(result.fairness),
            lambda: None if result.fairness is None else plots.fairness(result.fairness),
        ),
    )
    return {picture.name: picture for picture in all_pictures}


def _metrics_of(evaluation: Evaluation | None) -> Metrics:
    return Metrics() if evaluation is None else evaluation.metrics


def _evaluation_lines(values: Evaluations, released: Evaluation | None) -> tuple[EvaluationLine, ...]:
    return (
        EvaluationLine(
            "All data in one place",
            "training rows pooled, no privacy: the yardstick",
            _metrics_of(values.pooled),
            published=False,
        ),
        EvaluationLine(
            "Federated, without noise",
            "rows stay where they are, but sums are exact",
            _metrics_of(values.federated),
            published=False,
        ),
        EvaluationLine(
            "Federated and private",
            "the published model, on exact counts",
            _metrics_of(values.federated_private),
            published=True,
        ),
        EvaluationLine(
            "Federated and private, as released",
            "the same model on the noisy, charged counts that left the holders",
            _metrics_of(released),
            published=True,
        ),
        EvaluationLine(
            "Each data holder alone",
            "average over holders, by people; no privacy",
            _metrics_of(values.local_only),
            published=False,
        ),
        EvaluationLine(
            "DP-SGD and plain averaging",
            "Opacus with the settings of its usual examples, averaged; same epsilon",
            _metrics_of(values.opacus_fedavg),
            published=False,
        ),
    )


def _characteristics(table: ScorecardTable | None) -> dict[str, list[ScorecardLine]]:
    """Lines by characteristic, in the order of the scorecard."""
    grouped: dict[str, list[ScorecardLine]] = {}
    for line in () if table is None else table.lines:
        grouped.setdefault(line.characteristic, []).append(line)
    return grouped


def _points_span(table: ScorecardTable | None) -> tuple[int, int]:
    """Fewest and most points of any attribute, and 0: what a bar's place and length are measured against."""
    points = [0] if table is None else [0, *(line.points for line in table.lines)]
    return min(points), max(max(points), min(points) + 1)


def _consent_bar(result: DemoResult) -> list[tuple[str, int, float]]:
    """Permitted rows and refused ones by reason, most frequent first: name, rows, share of rows held."""
    consent = result.consent
    refused = sorted(consent.refusals.items(), key=lambda item: (-item[1], item[0]))
    parts = [("permitted", consent.rows_permitted)]
    parts += [(wording.reason_text(reason), rows) for reason, rows in refused]
    return [(name, rows, rows / consent.rows_held) for name, rows in parts if rows and consent.rows_held]
