"""A plan that does not add up is refused with the reason before the first letter; what is possible is told apart."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from federated.plan import TrainingPlan
from federated.trust import Aggregation, TrustModel
from privacy.errors import MalformedError
from server.plan_checks import checked_stages
from tests.server.fakes import LAST, LENGTH, PEOPLE, AddingRecipe, plan_of


@dataclass
class Reaching(AddingRecipe):
    """Sums as large as one likes."""

    largest: float = 1.0

    def reach(self, round_number: int, *, people: int, holders: int) -> float:  # noqa: ARG002 (the interface's)
        return self.largest


def test_every_release_of_a_sound_plan_is_known_before_the_run() -> None:
    stages = checked_stages(AddingRecipe(), plan_of(5))
    assert [stage.number for stage in stages] == list(range(1, LAST + 1))
    assert [stage.shape.length for stage in stages] == [LENGTH] * 3 + [8]
    assert {stage.what for stage in stages} == {"round 1", "round 2", "round 3", "the measurement"}


def test_sums_that_no_grid_holds_are_refused() -> None:
    assert checked_stages(Reaching(largest=2.0**30), plan_of(5))
    with pytest.raises(MalformedError, match=r"can leave the grid.*another plan"):
        checked_stages(Reaching(largest=2.0**60), plan_of(5))


@pytest.mark.parametrize(
    ("terms", "what"), [({"epsilon": 1e-9}, "training rounds"), ({"measurement_epsilon": 1e-9}, "measurement")]
)
@pytest.mark.parametrize("trust", TrustModel)
def test_noise_that_does_not_cover_what_whole_numbers_cost_is_refused(
    terms: dict[str, float], what: str, trust: TrustModel
) -> None:
    plan = plan_of(5, trust=trust)
    tiny = msgspec.structs.replace(plan, privacy=msgspec.structs.replace(plan.privacy, **terms))
    assert checked_stages(AddingRecipe(), plan)
    with pytest.raises(MalformedError, match=f"{what}.*not covered"):
        checked_stages(AddingRecipe(), tiny)


@pytest.mark.parametrize(("minimum", "fits"), [(4, False), (5, True)])
def test_a_trimmed_mean_must_leave_somebody(minimum: int, fits: bool) -> None:
    plan = plan_of(5, trust=TrustModel.HOLDER_NOISE, aggregation=Aggregation.TRIMMED_MEAN, dropouts=2, minimum=minimum)
    if fits:
        checked_stages(AddingRecipe(), plan)
        return
    with pytest.raises(MalformedError, match="nothing would be left"):
        checked_stages(AddingRecipe(), plan)


def test_the_median_has_no_such_need() -> None:
    plan: TrainingPlan = plan_of(
        5, trust=TrustModel.HOLDER_NOISE, aggregation=Aggregation.MEDIAN, dropouts=2, minimum=3
    )
    checked_stages(AddingRecipe(), plan)


def test_what_can_be_is_told_from_what_cannot(tmp_path: Path) -> None:
    stage = checked_stages(AddingRecipe(), plan_of(5))[0]
    deviation = float(stage.shape.variance) ** 0.5 * stage.step
    assert deviation == pytest.approx(2.0, rel=1e-6)  # sensitivity 1, mu 1/2

    def can(value: float) -> bool:
        return stage.can_be(np.array([0.0, value]), holders=3, variance=stage.shape.variance)

    for sign in (1, -1):
        assert can(sign * (PEOPLE + 11.9 * deviation))
        assert not can(sign * (PEOPLE + 12.1 * deviation))
    assert stage.can_be(np.array([float(PEOPLE)]), holders=3, variance=0)
    assert not stage.can_be(np.array([PEOPLE + 0.01]), holders=3, variance=0)
