"""Recipes over rows in memory: each trust model's noise is what a federation's would be, and nothing else differs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks.bed import by_size, load_bed
from experiments.benchmarks.contenders import DEFAULT
from experiments.central import run_centrally, variances_in_the_sum, weighted
from federated.releases import Shape
from federated.rows import EncodedRows
from federated.trust import TrustModel
from privacy.grid import Grid
from privacy.noise import SeededNoise, Vector

HOLDERS, DROPOUTS, LENGTH = 7, 2, 40_000


@dataclass
class OneRound:
    """A recipe of one round, in which each data holder sends its number of rows, many times over."""

    mu_of_it: float = 0.5
    seen: tuple[Vector, int] | None = None
    rounds = 1

    def start(self) -> dict[str, Vector]:
        return {"round": np.ones(1)}

    def instruction(self, state: dict[str, Vector]) -> dict[str, Vector]:
        return state

    def sensitivity(self, _number: int) -> float:
        return 2.0

    def mu(self, _number: int) -> float:
        return self.mu_of_it

    def contribution(self, _number: int, _instruction: object, rows: EncodedRows, **_: object) -> Vector:
        return np.full(LENGTH, float(len(rows)))

    def advance(self, _state: object, total: Vector, *, contributors: int) -> dict[str, Vector]:
        self.seen = (total, contributors)
        return {"round": np.full(1, 2.0)}

    def model(self, _state: object) -> None:
        return None


def parts_of(*sizes: int) -> list[EncodedRows]:
    return [EncodedRows(np.zeros((size, 1)), np.zeros(size), np.ones(size)) for size in sizes]


def run(recipe: Any, sizes: tuple[int, ...] = (3,) * HOLDERS, **how: Any) -> tuple[Vector, int]:
    run_centrally(recipe, parts_of(*sizes), SeededNoise(1, "central"), **how)
    assert recipe.seen is not None
    total, contributors = recipe.seen
    return total, contributors


@pytest.mark.parametrize(
    ("trust", "times"),
    [
        (TrustModel.SHARED_NOISE, HOLDERS / (HOLDERS - DROPOUTS)),
        (TrustModel.HOLDER_NOISE, HOLDERS),
        (TrustModel.COORDINATOR_NOISE, 1),
    ],
)
def test_each_trust_model_adds_its_noise(trust: TrustModel, times: float) -> None:
    total, contributors = run(OneRound(), trust=trust, dropouts=DROPOUTS)
    assert contributors == HOLDERS
    assert total.mean() == pytest.approx(3 * HOLDERS, abs=0.3)
    assert total.var() == pytest.approx(times * (2.0 / 0.5) ** 2, rel=0.03)


@pytest.mark.parametrize("trust", [TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE])
@pytest.mark.parametrize(("holders", "dropouts"), [(3, 0), (10, 2), (50, 2)])
def test_the_noise_is_that_of_a_release(trust: TrustModel, holders: int, dropouts: int) -> None:
    shape = Shape(1, Grid(0, 64), 10**12, 1.0, 0.0)
    each = shape.holder_variance(trust, members=holders, dropouts_tolerated=dropouts)
    ours = variances_in_the_sum(trust, holders=holders, dropouts=dropouts)
    assert holders * each / shape.variance == pytest.approx(ours, rel=1e-9)


@pytest.mark.parametrize("trust", list(TrustModel))
def test_no_noise_is_added_where_it_is_inside(trust: TrustModel) -> None:
    total, _ = run(OneRound(mu_of_it=np.inf), sizes=(1, 2, 4), trust=trust)
    assert set(total.tolist()) == {7.0}


def test_an_average_by_weights_is_one() -> None:
    total, contributors = run(OneRound(mu_of_it=np.inf), sizes=(1, 2, 4), combine=weighted([0.5, 0.25, 0.25]))
    assert total[0] / contributors == pytest.approx(0.5 * 1 + 0.25 * 2 + 0.25 * 4)


def test_a_seeded_run_repeats_itself_and_an_unknown_number_of_dropouts_is_refused() -> None:
    bed = load_bed(1500)
    parts = by_size(bed.bad, 4, 0).parts(bed.x, bed.bad)
    recipe = DEFAULT.recipe(bed, 1.0)
    first, again = (run_centrally(recipe, parts, SeededNoise(5, "a")).log_odds(bed.x) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, run_centrally(recipe, parts, SeededNoise(6, "a")).log_odds(bed.x))
    with pytest.raises(ValueError, match="dropouts"):
        run_centrally(recipe, parts, SeededNoise(5, "a"), dropouts=4)
