"""Trimmed mean and median against scipy and numpy, and how far a few bad updates can move them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import trim_mean  # type: ignore[import-untyped]

from federated.trust import Aggregation
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Grid, Words, add_words
from server.visible_sums import aggregated
from tests.server.fakes import names

GRID = Grid(-8, 40)
MATRICES = st.tuples(st.integers(1, 9), st.integers(1, 4)).flatmap(
    lambda shape: npst.arrays(np.int64, shape, elements=st.integers(-(2**35), 2**35))
)


def words_of(steps: np.ndarray) -> dict[str, Words]:
    return {name: GRID.from_steps(row) for name, row in zip(names(len(steps)), steps, strict=True)}


@given(steps=MATRICES, trimmed=st.integers(0, 4))
def test_they_are_the_textbooks_times_the_number_of_data_holders(steps: np.ndarray, trimmed: int) -> None:
    values, count = steps * 2.0**-8, len(steps)
    found = aggregated(words_of(steps), GRID, Aggregation.MEDIAN, trimmed=trimmed)
    assert found == pytest.approx(np.median(values, axis=0) * count)
    found = aggregated(words_of(steps), GRID, Aggregation.SUM, trimmed=trimmed)
    assert found.tolist() == GRID.decode(add_words(words_of(steps).values())).tolist()
    if count <= 2 * trimmed:
        with pytest.raises(RefusalError, match="too few") as caught:
            aggregated(words_of(steps), GRID, Aggregation.TRIMMED_MEAN, trimmed=trimmed)
        assert caught.value.code is RefusalCode.COHORT
        return
    found = aggregated(words_of(steps), GRID, Aggregation.TRIMMED_MEAN, trimmed=trimmed)
    # A hair more than the share, for scipy rounds what it cuts down.
    assert found == pytest.approx(trim_mean(values, (trimmed + 1e-9) / count, axis=0) * count)


@pytest.mark.parametrize("aggregation", [Aggregation.TRIMMED_MEAN, Aggregation.MEDIAN])
@given(honest=npst.arrays(np.int64, (8, 3), elements=st.integers(-1000, 1000)), bad=st.integers(-(2**39), 2**39 - 1))
def test_two_bad_ones_cannot_move_them_beyond_the_honest(
    aggregation: Aggregation, honest: np.ndarray, bad: int
) -> None:
    steps = np.vstack([honest, np.full((2, 3), bad)])
    found = aggregated(words_of(steps), GRID, aggregation, trimmed=2) / len(steps)
    assert (found >= honest.min(axis=0) * 2.0**-8 - 1e-9).all()
    assert (found <= honest.max(axis=0) * 2.0**-8 + 1e-9).all()
