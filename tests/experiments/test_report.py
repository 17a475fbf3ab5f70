"""The report of a run, on a made-up result: nothing in here was measured."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from experiments.report import plots, takeaways
from experiments.report.drawing import inline_svg
from experiments.report.figures import report_figures, report_json
from experiments.report.page import render_page, write_report
from experiments.report.values import (
    ConsentResult,
    DemoResult,
    EpsilonSpent,
    Evaluation,
    Evaluations,
    HolderResult,
)
from federated.metrics import Metrics, ScoreHistogram
from privacy.errors import MalformedError
from tests.experiments.made_up import made_up_result

FIVE = {"auc", "ks", "gini", "brier", "ece"}


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and whether they are nested properly."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input", "path", "rect", "use"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def emptied(result: DemoResult) -> DemoResult:
    """The same run with everything unknown that can be."""
    return replace(
        result,
        holders=(),
        privacy=replace(result.privacy, epsilon=None, delta=None, excludes=()),
        consent=ConsentResult(0, None, 0, 0, None, {}),
        evaluations=Evaluations(None, None, None, None, None),
        released=None,
        scorecard=None,
        applicants=(),
        epsilon_spent=(),
        withdrawal=None,
        fairness=None,
        versions={},
        digests={},
    )


@pytest.fixture(scope="module")
def result() -> DemoResult:
    return made_up_result()


@pytest.fixture(scope="module")
def html(result: DemoResult) -> str:
    return render_page(result)


def test_the_json_has_exactly_the_contracts_keys(result: DemoResult) -> None:
    figures = json.loads(report_json(result))
    assert set(figures) == {
        "schema_version", "dataset", "rows", "holders", "rounds", "recipe", "privacy", "consent", "metrics",
        "per_holder", "fairness", "seconds", "versions", "not_private",
    }  # fmt: skip
    assert set(figures["privacy"]) == {
        "epsilon",
        "delta",
        "unit",
        "adjacency",
        "accountant",
        "second_accountant",
        "excludes",
    }
    assert set(figures["consent"]) == {
        "subjects", "rows_held", "rows_permitted", "rows_used_without_consent", "refusals",
    }  # fmt: skip
    assert set(figures["metrics"]) == {
        "pooled", "federated", "federated_private", "local_only", "opacus_fedavg",
    }  # fmt: skip
    assert all(set(metrics) == FIVE for metrics in figures["metrics"].values())


def test_the_json_says_what_the_result_says(result: DemoResult) -> None:
    figures = json.loads(report_json(result))
    private = result.evaluations.federated_private
    assert private is not None
    assert figures["metrics"]["federated_private"]["auc"] == private.metrics.auc
    assert figures["privacy"]["delta"] == 1e-5
    assert figures["consent"]["refusals"] == result.consent.refusals
    assert figures["per_holder"][1]["auc_alone"] == 0.772
    assert figures["fairness"]["attributes"]["Sex"]["male"]["approval_rate"] == 0.739


def test_unknown_is_null_and_never_zero(result: DemoResult) -> None:
    figures = json.loads(report_json(emptied(result)))
    assert figures["metrics"] == dict.fromkeys(figures["metrics"], dict.fromkeys(FIVE))
    assert figures["privacy"]["epsilon"] is None
    assert figures["consent"]["rows_used_without_consent"] is None
    assert json.loads(report_json(result))["metrics"]["local_only"]["ece"] is None


def test_numbers_that_json_cannot_say_become_null_and_numpy_ones_plain(result: DemoResult) -> None:
    holder = HolderResult("A", int(np.int64(5)), 5, float("nan"), float(np.float64(0.25)))
    odd = replace(result, holders=(holder,), rows=np.int64(30_000))  # type: ignore[arg-type]
    figures = report_figures(odd)
    assert json.loads(report_json(odd))["per_holder"][0] == {
        "name": "A", "rows": 5, "people_permitted": 5, "auc_alone": None, "bad_rate": 0.25,
    }  # fmt: skip
    assert type(figures["rows"]) is int


def test_the_page_loads_nothing_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert len(page.elements) > 300
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "data", "poster"}:
                assert value is not None
                assert value.startswith("#")
    assert not re.search(r"https?:|url\((?!#)|@import|@font-face", html)


def test_the_page_is_nested_properly_and_identifiers_are_its_own(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = [href[1:] for _, a in page.elements if (href := a.get("href")) is not None]
    assert wanted
    assert set(wanted) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_every_picture_is_described_and_has_its_sentence(result: DemoResult, html: str) -> None:
    pictures = Page(html).all("svg")
    assert len(pictures) == 7
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"] or "") > 60
    assert html.count("<figcaption>") == 7
    assert "unknown" not in html.split("<main")[1].split('id="fairness"')[0].replace('class="unknown"', "")
    assert takeaways.NOT_KNOWN not in html


def test_the_page_says_the_key_figures(result: DemoResult, html: str) -> None:
    head = html.split("<nav")[0]
    private = result.evaluations.federated_private
    assert private is not None
    for text in (f"{private.metrics.auc:.3f}", "ε = 1", "1 in 100,000", "add or remove one person", "3,412"):
        assert text in head
    for text in (
        *result.privacy.excludes,
        result.privacy.trust_model,
        result.privacy.reason,
        result.data.citation,
        result.data.licence,
    ):
        assert text.replace("'", "&#39;") in html


def test_the_same_result_gives_the_same_bytes(result: DemoResult, html: str) -> None:
    assert render_page(made_up_result()) == html
    assert report_json(made_up_result()) == report_json(result)


def test_text_of_the_result_cannot_become_markup(html: str) -> None:
    assert "Tiny &amp; Sons &lt;Ltd&gt;" in html
    assert "<Ltd>" not in html


def test_a_seeded_run_is_stamped_everywhere(result: DemoResult, html: str) -> None:
    assert "NOT PRIVATE" not in html
    seeded = replace(result, not_private=True)
    stamped = render_page(seeded)
    assert 'class="stamp"' in stamped
    assert "<title>NOT PRIVATE" in stamped
    assert len(re.findall(r'aria-label="NOT PRIVATE\.', stamped)) == 7
    assert len(re.findall(r"<text[^>]*>NOT PRIVATE</text>", stamped)) == 7
    assert "ε = 1</div>" not in stamped
    figures = json.loads(report_json(seeded))
    assert figures["not_private"] is True
    assert figures["privacy"]["excludes"][0].startswith("NOT PRIVATE")


def test_a_page_where_everything_is_unknown_says_so(result: DemoResult) -> None:
    page = Page(empty := render_page(emptied(result)))
    assert page.open == []
    assert page.all("svg") == []
    assert empty.count(takeaways.NOT_KNOWN) >= 7
    assert '<div class="value">unknown</div>' in empty
    assert not re.search(r"\b(nan|None|inf)\b", empty.split("</style>")[1])


def test_both_files_are_written(result: DemoResult, tmp_path: Path, html: str) -> None:
    write_report(result, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["schema_version"] == 1


def test_pictures_keep_figures_in_their_text_and_no_date(result: DemoResult) -> None:
    figure = plots.holders(result.holders, 0.779)
    assert figure is not None
    svg = inline_svg(figure, "x", 'says "all" & more', not_private=False)
    assert "federated, private: 0.779" in svg
    assert "aria-label=" in svg
    assert "&amp; more" in svg
    assert not any(re.search(r"\d\.\d{3}", tag) for tag in re.findall(r"<(?!svg)[^>]*>", svg))
    assert not re.search(r"<metadata|<style|DOCTYPE|font-family|xmlns|20\d\d-", svg)


def test_many_data_holders_and_names_like_mathematics_are_drawn() -> None:
    many = tuple(HolderResult(f"Holder {i} $x^", 10 * i, 10 * i, 0.7, None) for i in range(1, 101))
    for holders in (many, many[:3]):
        figure = plots.holders(holders, 0.78)
        assert figure is not None
        assert "<svg" in inline_svg(figure, "x", "d", not_private=False)


@pytest.mark.parametrize(
    ("private", "words"),
    [(0.770, "0.009 below"), (0.777, "no real difference"), (0.782, "no real difference"), (0.789, "0.010 above")],
)
def test_the_headline_follows_the_figures(result: DemoResult, private: float, words: str) -> None:
    evaluations = replace(
        result.evaluations,
        pooled=Evaluation(Metrics(auc=0.7792)),
        federated_private=Evaluation(Metrics(auc=private)),
    )
    assert words in takeaways.headline(replace(result, evaluations=evaluations))


def test_a_person_above_the_promise_is_called_a_fault(result: DemoResult) -> None:
    spent = (*result.epsilon_spent, EpsilonSpent(3, 1.3, 2))
    text = takeaways.epsilon(replace(result, epsilon_spent=spent))
    assert "fault: 2 people" in text
    assert "fault" not in takeaways.epsilon(result)


def test_what_noise_did_to_the_released_figure_is_what_it_did_here() -> None:
    exact = made_up_result().evaluations.federated_private
    assert exact is not None
    assert exact.metrics.auc is not None
    noisy = replace(exact, metrics=replace(exact.metrics, auc=exact.metrics.auc - 0.1234))
    assert "moved the released figure by 0.123" in takeaways.released(exact, noisy)
    assert "moved" not in takeaways.released(None, noisy)


def test_sentences_follow_the_figures_when_they_turn(result: DemoResult) -> None:
    used = replace(result.consent, rows_used_without_consent=3)
    assert "no row without consent was used" in takeaways.consent(result.consent)
    assert "3 rows without consent were used" in takeaways.consent(used)
    assert result.withdrawal is not None
    turned = replace(result.withdrawal, after=replace(result.withdrawal.after, people_used=3_310))
    assert "297 people fewer" in takeaways.withdrawal(result.withdrawal)
    assert "10 people more" in takeaways.withdrawal(turned)
    worse = replace(result.evaluations, federated_private=Evaluation(Metrics(auc=0.70)))
    assert "0.074 below" in takeaways.holders(replace(result, evaluations=worse))
    assert "for 1 of 9" in takeaways.holders(replace(result, evaluations=worse))


def test_fairness_names_the_widest_difference(result: DemoResult) -> None:
    assert result.fairness is not None
    text = takeaways.fairness(result.fairness)
    assert "72.8\N{NO-BREAK SPACE}% (50 and above)" in text
    assert "a ratio of 0.94" in text


def test_the_ks_sentence_names_the_score_scipy_would(result: DemoResult) -> None:
    edges = np.array([0.0, 10, 20, 30])
    histogram = ScoreHistogram(edges, np.array([1.0, 2, 7]), np.array([6.0, 3, 1]))
    assert "score of 20: 90.0\N{NO-BREAK SPACE}% of the bads are below it, and 30.0" in takeaways.ks(histogram)


def test_bars_hold_what_people_spent_and_the_promise_stands_right_of_the_last() -> None:
    figure = plots.epsilon(tuple(EpsilonSpent(1, spent, 1) for spent in (0.0, 0.26, 0.52, 1.0)), 1.0)
    assert figure is not None
    bars = [box.get_bbox() for box in figure.axes[0].patches if isinstance(box, Rectangle) and box.get_height()]
    assert [bar.x0 < spent < bar.x1 for bar, spent in zip(bars[1:3], (0.26, 0.52), strict=True)] == [True, True]
    assert bars[0].x1 <= 0
    assert bars[3].x0 >= 0.95
    assert bars[3].x1 <= 1


def test_extreme_histograms_are_drawn_or_left_out() -> None:
    fine = ScoreHistogram(np.arange(5001.0), np.ones(5000), np.ones(5000))
    one = ScoreHistogram(np.array([0.0, 1]), np.array([5.0]), np.array([4.0]))
    negative = ScoreHistogram(np.array([0.0, 1, 2]), np.array([5.0, -9]), np.array([-4.0, 9]))
    for histogram in (fine, one):
        for draw in (plots.ks, plots.distribution):
            figure = draw(histogram)
            assert figure is not None
            assert len(inline_svg(figure, "x", "d", not_private=False)) < 200_000
    assert plots.ks(negative) is None
    assert plots.distribution(negative) is None
    assert takeaways.ks(negative) == takeaways.NOT_KNOWN


def test_impossible_consent_is_refused(result: DemoResult) -> None:
    with pytest.raises(MalformedError, match="more rows permitted"):
        replace(result, consent=replace(result.consent, rows_permitted=10**6))
