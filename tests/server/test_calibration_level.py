"""Cautious people weigh little and default more often: two unweighted numbers set the level right, if they can."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.plans import SCALE
from federated.metrics import ScoreHistogram
from federated.model import probability_of
from federated.releases import BASE_RATE_SCALE, measurement_weight
from server.calibration import AS_TRAINED, BaseRate, calibration_from

EDGES = np.linspace(300, 851, 45)
NOISE = 3.8  # at epsilon 1


class Population:
    """Scored people of whom three in ten are cautious, weigh 0.2 and default twice as often.

    `by_outcome`: whatever leads to a default makes people cautious. Else caution, whatever the characteristics, leads
    to defaults.
    """

    def __init__(self, people: int, *, by_outcome: bool = True, seed: int = 1) -> None:
        chance = np.random.default_rng(seed)
        x = chance.normal(0, 1.2, people)
        if by_outcome:
            self.bad = chance.random(people) < probability_of(x - 1.8)
            cautious = chance.random(people) < np.where(self.bad, 0.461, 0.26)
        else:
            cautious = chance.random(people) < 0.3
            self.bad = chance.random(people) < probability_of(x - 1.9) * np.where(cautious, 2.0, 1.0)
        self.weight = np.where(cautious, 0.2, 1.0)
        model = LogisticRegression(C=1e9).fit(x[:, None], self.bad, sample_weight=self.weight)
        # What training on weighted people gives.
        self.log_odds = model.decision_function(x[:, None])
        self.score = np.array([SCALE.score_of(value) for value in self.log_odds.tolist()])
        assert self.bad[cautious].mean() == pytest.approx(2 * self.bad[~cautious].mean(), rel=0.1)

    def released(self, chance: np.random.Generator | None = None) -> tuple[ScoreHistogram, BaseRate]:
        counts = [np.histogram(self.score[mask], EDGES, weights=self.weight[mask])[0] for mask in (~self.bad, self.bad)]
        heads, bads = float(len(self.bad)), float(self.bad.sum())
        if chance is None:
            return ScoreHistogram(EDGES, *counts), BaseRate(heads, bads, 0.0)
        goods_by_band, bads_by_band = (count + chance.normal(0, NOISE, len(count)) for count in counts)
        wide = NOISE / BASE_RATE_SCALE
        more = chance.normal(0, wide, 2)
        return ScoreHistogram(EDGES, goods_by_band, bads_by_band), BaseRate(heads + more[0], bads + more[1], wide)


@pytest.mark.parametrize("by_outcome", [True, False])
def test_the_mean_probability_is_the_true_bad_rate_after_it_and_not_before(by_outcome: bool) -> None:
    people = Population(60_000, by_outcome=by_outcome)
    truth = people.bad.mean()
    assert probability_of(people.log_odds).mean() < truth - 0.02
    histogram, base_rate = people.released()
    uncorrected = calibration_from(histogram, SCALE, BaseRate(0.0, 0.0, 0.0), deviation=0.0)
    assert probability_of(uncorrected.intercept + uncorrected.slope * people.log_odds).mean() < truth - 0.02
    found = calibration_from(histogram, SCALE, base_rate, deviation=0.0)
    assert probability_of(found.intercept + found.slope * people.log_odds).mean() == pytest.approx(truth, abs=0.01)
    assert found.slope == uncorrected.slope


def test_it_holds_with_the_noise_of_a_release() -> None:
    people = Population(60_000)
    for seed in range(5):
        histogram, base_rate = people.released(np.random.default_rng(seed))
        found = calibration_from(histogram, SCALE, base_rate, deviation=NOISE)
        mean = probability_of(found.intercept + found.slope * people.log_odds).mean()
        assert mean == pytest.approx(people.bad.mean(), abs=0.01)


def test_where_caution_goes_with_the_outcome_alone_it_is_exact() -> None:
    """Weights by outcome are a case-control sample: only the intercept is wrong, by the difference of log-odds."""
    middles = np.repeat((EDGES[:-1:4] + EDGES[4::4]) / 2, 4)  # one score for each of the bands that are fitted
    people = 1e6 * np.exp(-(((middles - 600) / 90) ** 2) / 2)
    probability = probability_of(SCALE.log_odds_of_bad(middles) + 0.4)
    goods, bads = people * (1 - probability), people * probability
    weighted = ScoreHistogram(EDGES, goods, 0.5 * bads)
    everybody = BaseRate(float(people.sum()), float(bads.sum()), 0.0)
    assert calibration_from(weighted, SCALE, everybody, deviation=0.0).intercept == pytest.approx(0.4, abs=1e-6)
    level = calibration_from(weighted, SCALE, BaseRate(0.0, 0.0, 0.0), deviation=0.0).intercept
    assert level == pytest.approx(0.4 - np.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("base_rate", "deviation"),
    [
        (BaseRate(60_000.0, 12_000.0, 2_000.0), 0.0),  # bads within eight deviations of their noise
        (BaseRate(60_000.0, 12_000.0, 0.0), 500.0),  # the histogram's
        (BaseRate(99.0, 40.0, 0.0), 0.0),
        (BaseRate(60_000.0, 0.0, 0.0), 0.0),
        (BaseRate(60_000.0, 60_000.0, 0.0), 0.0),
        (BaseRate(60_000.0, -5.0, 0.0), 0.0),
        (BaseRate(-60_000.0, 12_000.0, 0.0), 0.0),
    ],
)
def test_a_rate_that_noise_may_be_most_of_changes_nothing(base_rate: BaseRate, deviation: float) -> None:
    histogram, _ = Population(20_000).released()
    unknown = calibration_from(histogram, SCALE, BaseRate(0.0, 0.0, 0.0), deviation=0.0)
    assert unknown != AS_TRAINED
    assert calibration_from(histogram, SCALE, base_rate, deviation=deviation) == unknown


def test_what_says_too_little_stays_as_trained_whatever_the_base_rate() -> None:
    flat = ScoreHistogram(EDGES, np.full(44, 20.0), np.full(44, 20.0))
    assert calibration_from(flat, SCALE, BaseRate(60_000.0, 12_000.0, 1.0), deviation=0.0) == AS_TRAINED


def test_weights_of_a_fifth_leave_room_for_being_counted() -> None:
    """The weight 0.2 above is what a person is given who allows about a quarter of the measurement."""
    assert measurement_weight(np.array([0.2425])) == pytest.approx([0.2], abs=0.001)
