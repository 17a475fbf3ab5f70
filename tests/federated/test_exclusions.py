"""What epsilon and delta leave out is told whole: what happens beside a run, too."""

import re

from experiments.plans import default_plan
from federated.coverage import COVERAGE_SPEND, DEVIATION
from federated.encoder import Encoder
from federated.exclusions import exclusions
from federated.plan import recipe_of
from privacy.consent.budget import COUNTED_PART
from tests.federated.test_plan import AT, ROSTER, SCHEMA


def test_being_counted_before_runs_is_told_with_its_price() -> None:
    plan = default_plan("first", SCHEMA, ROSTER, epsilon=1.0, at=AT, seed=None, people=20_000)
    (told,) = (text for text in exclusions(plan, recipe_of(plan, Encoder(SCHEMA)), holders=2) if "counted" in text)
    mu, people = re.search(r"mu ([0-9.]+) with noise of (\d+)", told).groups()  # type: ignore[union-attr]
    assert (float(mu), int(people)) == (COVERAGE_SPEND.mu, round(DEVIATION))
    assert COUNTED_PART == 0.01
    assert "a hundredth" in told
