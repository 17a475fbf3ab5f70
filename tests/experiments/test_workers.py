"""Whose hands do the work of many people, and of few."""

import os

import pytest

from experiments.workers import FEW_PEOPLE, workers


@pytest.mark.parametrize(("people", "here"), [(FEW_PEOPLE, True), (FEW_PEOPLE + 1, False)])
def test_work_of_few_is_done_in_this_process_and_of_many_in_others(people: int, here: bool) -> None:
    with workers(people) as pool:
        assert (pool.submit(os.getpid).result() == os.getpid()) is here
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        failed = pool.submit(int, "one")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result()
