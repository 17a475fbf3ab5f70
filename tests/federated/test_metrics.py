"""Metrics from bands, judged by scikit-learn, scipy and slow loops over single people."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp  # type: ignore[import-untyped]
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from federated.metrics import Metrics, ScoreHistogram
from privacy.errors import MalformedError

LOW, HIGH = 300, 340
EVERY_SCORE = np.arange(LOW - 0.5, HIGH + 1)  # one band per integer score
BANDS = np.array([300.0, 310, 325, 330, 341])

Sample = tuple[NDArray[np.int64], NDArray[np.int64]]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Integer scores and outcomes of 2 to 60 people with at least one good and one bad."""
    people = draw(st.lists(st.tuples(st.integers(LOW, HIGH), st.integers(0, 1)), max_size=58))
    people += [(draw(st.integers(LOW, HIGH)), 0), (draw(st.integers(LOW, HIGH)), 1)]
    scores, bad = np.array(people).T
    return scores, bad


@st.composite
def noisy(draw: st.DrawFn) -> ScoreHistogram:
    count = st.floats(-50, 200, allow_nan=False)
    size = draw(st.integers(1, 12))
    return ScoreHistogram(
        np.arange(size + 1, dtype=np.float64),
        np.array(draw(st.lists(count, min_size=size, max_size=size))),
        np.array(draw(st.lists(count, min_size=size, max_size=size))),
    )


def realistic(people: int = 4000) -> Sample:
    random = np.random.default_rng(5)
    bad = random.binomial(1, 0.22, people)
    return np.clip(np.round(random.normal(322 - 6 * bad, 7)), LOW, HIGH).astype(np.int64), bad


@given(samples())
def test_auc_equals_scikit_learns_with_ties_counted_half(sample: Sample) -> None:
    scores, bad = sample
    histogram = ScoreHistogram.of(scores, bad, EVERY_SCORE)
    assert histogram.auc == pytest.approx(roc_auc_score(bad, -scores), abs=1e-12)
    assert histogram.gini == pytest.approx(2 * roc_auc_score(bad, -scores) - 1, abs=1e-12)


@given(samples())
def test_auc_of_wide_bands_is_that_of_scores_rounded_to_their_band(sample: Sample) -> None:
    scores, bad = sample
    band = np.digitize(scores, BANDS)
    assert ScoreHistogram.of(scores, bad, BANDS).auc == pytest.approx(roc_auc_score(bad, -band), abs=1e-12)


@given(samples())
def test_ks_equals_scipys(sample: Sample) -> None:
    scores, bad = sample
    with np.errstate(all="ignore"):  # its p-value, unused here, overflows on tiny samples
        expected = ks_2samp(scores[bad == 0], scores[bad == 1], method="asymp").statistic
    assert ScoreHistogram.of(scores, bad, EVERY_SCORE).ks == pytest.approx(expected, abs=1e-12)


@given(samples())
def test_roc_passes_through_scikit_learns_points(sample: Sample) -> None:
    scores, bad = sample
    goods_flagged, bads_flagged, _ = roc_curve(bad, -scores, drop_intermediate=False)
    roc = ScoreHistogram.of(scores, bad, EVERY_SCORE).roc()
    assert roc is not None
    ours = set(zip(roc.goods_flagged.round(9), roc.bads_flagged.round(9), strict=True))
    assert ours == set(zip(goods_flagged.round(9), bads_flagged.round(9), strict=True))
    area = np.trapezoid(roc.bads_flagged, roc.goods_flagged)
    assert area == pytest.approx(roc_auc_score(bad, -scores), abs=1e-12)


@given(samples())
def test_ks_curve_counts_who_scores_below_each_edge(sample: Sample) -> None:
    scores, bad = sample
    curve = ScoreHistogram.of(scores, bad, BANDS).ks_curve()
    assert curve is not None
    for edge, goods, bads in zip(BANDS, curve.goods_below, curve.bads_below, strict=True):
        assert goods == pytest.approx(np.mean(scores[bad == 0] < edge))
        assert bads == pytest.approx(np.mean(scores[bad == 1] < edge))


@given(samples(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_brier_equals_scikit_learns(sample: Sample, probabilities: list[float]) -> None:
    scores, bad = sample
    p = np.array(probabilities)
    each = p[np.digitize(scores, BANDS) - 1]
    assert ScoreHistogram.of(scores, bad, BANDS).brier(p) == pytest.approx(brier_score_loss(bad, each), abs=1e-12)


@given(samples(), st.integers(1, 12))
def test_ece_equals_a_slow_sum_over_people(sample: Sample, groups: int) -> None:
    scores, bad = sample
    histogram = ScoreHistogram.of(scores, bad, EVERY_SCORE)
    p = 1 / (1 + np.exp((histogram.midpoints - 318) / 5))
    table = histogram.calibration(p, groups)
    assert 1 <= len(table) <= groups
    expected = 0.0
    for group in table:
        inside = [i for i in range(len(scores)) if group.score_from <= scores[i] < group.score_to]
        predicted = sum(1 / (1 + math.exp((scores[i] - 318) / 5)) for i in inside) / len(inside)
        seen = sum(int(bad[i]) for i in inside) / len(inside)
        assert group.people == len(inside)
        assert group.bad_rate == pytest.approx(seen)
        assert group.mean_probability_of_bad == pytest.approx(predicted)
        expected += len(inside) / len(scores) * abs(predicted - seen)
    assert sum(group.people for group in table) == len(scores)
    assert histogram.ece(p, groups) == pytest.approx(expected, abs=1e-12)


def test_calibration_groups_hold_about_equal_numbers_of_people() -> None:
    scores, bad = realistic()
    histogram = ScoreHistogram.of(scores, bad, EVERY_SCORE)
    people = [group.people for group in histogram.calibration(np.full(len(histogram.goods), 0.2))]
    largest_band = (histogram.goods + histogram.bads).max()
    assert len(people) == 10
    assert max(abs(count - len(scores) / 10) for count in people) <= largest_band


def test_true_probabilities_have_an_ece_near_zero_and_false_ones_do_not() -> None:
    random = np.random.default_rng(6)
    scores = random.integers(LOW, HIGH + 1, 40_000)
    histogram = ScoreHistogram.of(scores, random.random(40_000) < 1 / (1 + np.exp((scores - 310) / 8)), EVERY_SCORE)
    honest = 1 / (1 + np.exp((histogram.midpoints - 310) / 8))
    good, doubled = histogram.ece(honest), histogram.ece(np.minimum(1, honest * 2))
    assert good is not None
    assert doubled is not None
    assert good < 0.01
    assert doubled > 0.1


@given(samples(), samples())
def test_adding_histograms_is_counting_everybody_at_once(one: Sample, other: Sample) -> None:
    both = ScoreHistogram.of(np.append(one[0], other[0]), np.append(one[1], other[1]), BANDS)
    added = ScoreHistogram.of(*one, BANDS) + ScoreHistogram.of(*other, BANDS)
    assert np.array_equal(added.goods, both.goods)
    assert np.array_equal(added.bads, both.bads)
    assert added.auc == both.auc


@given(samples(), st.integers(1, 50))
def test_coarser_bands_keep_everybody_and_the_outer_edges(sample: Sample, bands: int) -> None:
    histogram = ScoreHistogram.of(*sample, EVERY_SCORE)
    coarse = histogram.coarser(bands)
    assert (coarse.goods.sum(), coarse.bads.sum()) == (histogram.goods.sum(), histogram.bads.sum())
    assert (coarse.edges[0], coarse.edges[-1]) == (histogram.edges[0], histogram.edges[-1])
    assert set(coarse.edges) <= set(histogram.edges)


def test_scores_beyond_the_outer_edges_count_in_the_outermost_bands() -> None:
    histogram = ScoreHistogram.of([-5, 300, 341, 900], [1, 0, 1, 0], BANDS)
    assert histogram.goods.tolist() == [1, 0, 0, 1]
    assert histogram.bads.tolist() == [1, 0, 0, 1]


@given(noisy(), st.integers(1, 5))
def test_noisy_counts_give_a_figure_in_range_or_none(histogram: ScoreHistogram, groups: int) -> None:
    p = np.linspace(1, 0, len(histogram.goods))
    metrics = histogram.metrics(p)
    for name, value in [*metrics.to_dict().items(), ("bad_rate", histogram.bad_rate)]:
        assert value is None or (-1 if name == "gini" else 0) <= value <= 1, name
    table = histogram.calibration(p, groups)
    assert len(table) <= groups
    assert sum(group.people for group in table) == pytest.approx(histogram.people if table else 0, abs=1e-6)
    assert all(group.people > 0 and 0 <= group.bad_rate <= 1 for group in table)
    for left, right in pairwise(table):
        assert left.score_to == right.score_from


def test_noisy_auc_is_centred_on_the_exact_one() -> None:
    scores, bad = realistic()
    exact = ScoreHistogram.of(scores, bad, EVERY_SCORE)
    random = np.random.default_rng(7)
    shape = exact.goods.shape
    found = [
        ScoreHistogram(
            EVERY_SCORE, exact.goods + random.normal(0, 10, shape), exact.bads + random.normal(0, 10, shape)
        ).auc
        for _ in range(200)
    ]
    values = np.array([auc for auc in found if auc is not None])
    assert len(values) == 200
    assert exact.auc is not None
    assert abs(values.mean() - exact.auc) < 4 * values.std() / math.sqrt(200)


@pytest.mark.parametrize(("goods", "bads"), [([0, 0], [0, 0]), ([3, 4], [0, 0]), ([0, 0], [5, 1]), ([-9, 2], [3, 1])])
def test_ranking_without_goods_or_without_bads_is_unknown_and_never_zero(goods: list[float], bads: list[float]) -> None:
    histogram = ScoreHistogram(np.array([0.0, 1, 2]), np.array(goods), np.array(bads))
    assert (histogram.auc, histogram.ks, histogram.gini) == (None, None, None)
    assert histogram.roc() is None


def test_a_noisy_auc_above_one_is_unknown_and_does_not_pass_for_perfect() -> None:
    assert ScoreHistogram(np.array([0.0, 1, 2]), np.array([-5.0, 10]), np.array([20.0, -1])).auc is None


def test_nobody_counted_is_unknown() -> None:
    histogram = ScoreHistogram.of([], [], BANDS)
    assert histogram.metrics(np.full(4, 0.5)) == Metrics()
    assert histogram.bad_rate is None


def test_no_probabilities_leave_brier_and_ece_unknown() -> None:
    metrics = ScoreHistogram.of(*realistic(), BANDS).metrics(None)
    assert (metrics.brier, metrics.ece) == (None, None)
    assert metrics.auc is not None


@pytest.mark.parametrize(
    ("edges", "goods", "bads"),
    [
        ([0.0], [], []),
        ([0.0, 0.0, 1.0], [1, 1], [1, 1]),
        ([0.0, 2.0, 1.0], [1, 1], [1, 1]),
        ([0.0, 1.0], [1, 1], [1]),
        ([0.0, 1.0], [1], [1, 1]),
        ([0.0, math.inf], [1], [1]),
        ([0.0, 1.0], [math.nan], [1]),
        ([[0.0, 1.0]], [1], [1]),
    ],
)
def test_a_histogram_that_is_none_is_refused(edges: object, goods: object, bads: object) -> None:
    with pytest.raises(MalformedError, match="score histogram"):
        ScoreHistogram(np.array(edges), np.array(goods), np.array(bads))


@pytest.mark.parametrize(
    ("scores", "bad"),
    [([math.nan], [0]), ([310], [2]), ([310], [math.nan]), ([310, 311], [0]), ([[310]], [[0]])],
)
def test_scores_and_outcomes_that_are_none_are_refused_without_their_values(scores: object, bad: object) -> None:
    with pytest.raises(MalformedError) as error:
        ScoreHistogram.of(np.array(scores), np.array(bad), BANDS)
    assert "31" not in str(error.value)


def test_different_bands_do_not_add() -> None:
    one = ScoreHistogram.of([310], [0], BANDS)
    with pytest.raises(MalformedError, match="bands"):
        one + ScoreHistogram.of([310], [0], EVERY_SCORE)


@pytest.mark.parametrize("p", [[0.1, 0.2], [0.1, 0.2, 0.3, 1.1], [0.1, math.nan, 0.2, 0.3], [-0.1, 0, 0, 0]])
def test_probabilities_that_are_none_are_refused(p: list[float]) -> None:
    with pytest.raises(MalformedError, match="probabilities"):
        ScoreHistogram.of([310, 305], [0, 1], BANDS).brier(p)


def test_counts_cannot_be_changed_from_outside() -> None:
    goods = np.array([1.0, 2.0])
    histogram = ScoreHistogram(np.array([0.0, 1, 2]), goods, np.array([1.0, 1.0]))
    goods[0] = 99
    assert histogram.goods[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        histogram.goods[0] = 5
