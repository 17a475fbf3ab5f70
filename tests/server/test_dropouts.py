"""Whoever drops out of whichever steps: the run ends well if and only if enough are left in each, to the bit."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.trust import TrustModel
from privacy.errors import RefusalError
from tests.server.fakes import LAST, names, plan_of
from tests.server.table import Change, Table, silent, unreachable

HOLDERS = names(7)
THRESHOLD = 5  # two of seven may be missing
STEPS = ("dealing", *(f"{what} {stage}" for stage in range(1, LAST + 1) for what in ("update", "unmasking")))
ONE = st.dictionaries(st.sampled_from(HOLDERS), st.sampled_from([silent, unreachable]), max_size=1)
SOME = st.dictionaries(st.sampled_from(HOLDERS), st.sampled_from([silent, unreachable]), min_size=2, max_size=3)
SCHEDULES = st.tuples(
    st.fixed_dictionaries(dict.fromkeys(STEPS, ONE)), st.sampled_from(STEPS), st.one_of(ONE, SOME)
).map(lambda drawn: {**drawn[0], "dealing": {}, drawn[1]: drawn[2]})


@settings(max_examples=24)
@given(leaving=SCHEDULES)
def test_a_run_ends_well_exactly_if_enough_are_left_in_every_step(leaving: dict[str, dict[str, Change]]) -> None:
    changes = {(step, name): how for step, who in leaving.items() for name, how in who.items()}
    members = [name for name in HOLDERS if name not in leaving["dealing"]]
    sums = [[name for name in members if name not in leaving[f"update {k}"]] for k in range(1, LAST + 1)]
    helpers = [[name for name in there if name not in leaving[f"unmasking {k}"]] for k, there in enumerate(sums, 1)]
    enough = min(len(names) for names in (members, *sums, *helpers)) >= THRESHOLD
    with tempfile.TemporaryDirectory() as directory:
        made = Table(plan_of(7, trust=TrustModel.SHARED_NOISE, dropouts=2), Path(directory))
        if not enough:
            with pytest.raises(RefusalError, match="coordinator should"):
                made.run(changes)
            return
        run, releases = made.run(changes)
        assert run.cohort.members == tuple(members)
        for stage, (release, there) in enumerate(zip(releases, sums, strict=True), 1):
            assert list(release.updates) == there
            assert release.left_out.keys() == set(members) - set(there)
            assert release.unhelpful.keys() == set(there) - set(helpers[stage - 1])
            if stage < LAST:
                assert made.recipe.seen[stage - 1][0].tolist() == made.plain_sum(stage, there).tolist()
