"""Whoever leaves, returns or sends nonsense at any step is named, and the sum is that of the others: to the bit."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from federated.channel import Act
from federated.messages import Letter
from federated.trust import TrustModel
from privacy.accounting import mu_of
from privacy.errors import RefusalCode, RefusalError
from privacy.grid import Words
from server.answers import SILENT
from server.rounds import Run, no_progress
from tests.server.fakes import LAST, FakeHolder
from tests.server.table import EVERYBODY, Change, check_sums, five, late, silent, unreachable, without

A, B, C, D, E = EVERYBODY
STAGES = (1, 2, LAST)


@pytest.mark.parametrize("trust", [TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE])
@pytest.mark.parametrize("how", [silent, late])
@pytest.mark.parametrize("stage", STAGES)
def test_who_leaves_in_a_stage_is_left_out_of_it_and_back_in_the_next(
    tmp_path: Path, trust: TrustModel, how: Change, stage: int
) -> None:
    made = five(tmp_path, trust)
    run, releases = made.run({(f"update {stage}", B): how})
    missing = {stage: (B,)}
    if how is late and trust is TrustModel.HOLDER_NOISE and stage < LAST:
        # It comes where the next update should. In the secure sum it comes when others are asked to unmask.
        missing[stage + 1] = (B,)
        assert releases[stage].left_out == {B: "its update is for another release, or commits to nothing"}
    check_sums(made, releases, missing)
    assert releases[stage - 1].left_out == {B: SILENT.reason}
    assert all(release.left_out == {} for number, release in enumerate(releases, 1) if number not in missing)
    assert run.cohort.members == EVERYBODY


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", [silent, late, unreachable])
def test_who_leaves_before_unmasking_is_in_the_sum_all_the_same(tmp_path: Path, how: Change, stage: int) -> None:
    made = five(tmp_path)
    _, releases = made.run({(f"unmasking {stage}", D): how})
    missing: dict[int, tuple[str, ...]] = {}
    if how is late and stage < LAST:
        # Its shares of this stage come where its next update should.
        missing = {stage + 1: (D,)}
        assert releases[stage].left_out == {D: "it answered with Revealed where Update was due"}
    check_sums(made, releases, missing)
    assert releases[stage - 1].unhelpful == {D: SILENT.reason}


@pytest.mark.parametrize("how", [silent, late, unreachable])
def test_who_leaves_before_dealing_is_no_member_and_the_run_goes_on(tmp_path: Path, how: Change) -> None:
    made = five(tmp_path)
    run, releases = made.run({("dealing", A): how})
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (A,)))
    assert run.cohort.members == without(A)
    assert {name: absence.reason for name, absence in run.cohort.absent.items()} == {A: SILENT.reason}
    assert "update 1" not in {step for step, _ in made.channel.acts if A in step}
    assert run.cohort.threshold == 4


@pytest.mark.parametrize("trust", [TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE])
def test_who_leaves_at_the_opening_is_not_asked_again(tmp_path: Path, trust: TrustModel) -> None:
    made = five(tmp_path, trust)
    run, releases = made.run({("opening", E): unreachable})
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (E,)))
    assert run.cohort.members == without(E)
    assert made.holders[E].asked == []


def test_who_has_its_shares_and_did_not_say_so_is_still_a_member(tmp_path: Path) -> None:
    made = five(tmp_path)
    _, releases = made.run({("delivery", C): silent})
    check_sums(made, releases, {})


def test_who_never_got_its_shares_is_left_out_of_every_stage_with_its_own_reason(tmp_path: Path) -> None:
    made = five(tmp_path)
    run, releases = made.run({("delivery", C): unreachable})
    check_sums(made, releases, dict.fromkeys(range(1, LAST + 1), (C,)))
    assert all(release.left_out == {C: "plan"} for release in releases)
    assert run.cohort.members == EVERYBODY


def test_a_different_one_may_leave_in_each_stage(tmp_path: Path) -> None:
    made = five(tmp_path)
    changes: dict[tuple[str, str], Change] = {
        (f"update {stage}", name): silent for stage, name in enumerate((A, B, C, D), 1)
    }
    _, releases = made.run(changes)
    check_sums(made, releases, {1: (A,), 2: (B,), 3: (C,), 4: (D,)})


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (("opening", "opening"), r"3 data holders joined the run and the plan needs 4 \(holder-0: no answer"),
        (("dealing", "dealing"), "3 data holders dealt"),
        (("delivery", "delivery"), "3 data holders received"),
        (("update 2", "update 2"), "3 data holders are left in round 2 and 4 are needed"),
        (("update 4", "update 4"), "3 data holders are left in the measurement"),
        (("update 2", "unmasking 2"), "masks of release 2 cannot be taken off.*3 helped"),
        (("unmasking 1", "unmasking 1"), "masks of release 1 cannot be taken off.*3 helped"),
    ],
)
def test_below_the_threshold_the_run_is_refused_and_says_what_to_do(
    tmp_path: Path, steps: tuple[str, str], said: str
) -> None:
    made = five(tmp_path)
    with pytest.raises(RefusalError, match=said) as caught:
        made.run({(steps[0], A): silent, (steps[1], B): silent})
    assert caught.value.code is RefusalCode.COHORT
    text = str(caught.value)
    assert A in text or steps[0] != steps[1]
    assert B in text
    assert "coordinator should" in text
    charged = any(step.startswith("update") for step in steps) or "unmasking" in steps[0]
    assert ("what was charged stays charged" in text) is charged
    assert "again" in text


def test_a_plan_without_masks_needs_its_fewest_data_holders_in_every_stage(tmp_path: Path) -> None:
    made = five(tmp_path, TrustModel.HOLDER_NOISE)
    with pytest.raises(RefusalError, match="3 data holders are left in round 3 and 4 are needed"):
        made.run({("update 3", A): silent, ("update 3", B): silent})


def test_the_coordinators_noise_is_added_once_and_has_the_plans_variance(tmp_path: Path) -> None:
    errors = []
    for number in range(60):
        made = five(tmp_path / str(number), TrustModel.COORDINATOR_NOISE)
        made.noise = partial(made.noise_of, number)
        run = made.open()
        run.train(lambda *_: None)
        step = made.stages[0].step
        for stage in (1, 2, 3):
            exact = made.plain_sum(stage, EVERYBODY)
            assert exact == pytest.approx(sum(holder.values[stage] for holder in made.holders.values()), abs=5 * step)
            errors.append((made.recipe.seen[stage - 1][0] - exact) / step)
    drawn, variance = np.concatenate(errors), made.stages[0].shape.variance
    # 720 normal draws: their mean square is within 6 of its own deviations of the variance with chance 1 - 2e-9.
    assert np.mean(drawn**2) / variance == pytest.approx(1, abs=6 * np.sqrt(2 / len(drawn)))
    assert len(set(drawn.tolist())) == len(drawn)


@pytest.mark.parametrize(
    ("trust", "left", "noises"),
    [
        (TrustModel.SHARED_NOISE, 5, 5 / 4),  # a quarter of the variance each, for one may leave
        (TrustModel.SHARED_NOISE, 4, 1.0),
        (TrustModel.HOLDER_NOISE, 5, 5.0),
        (TrustModel.COORDINATOR_NOISE, 5, 1.0),
    ],
)
def test_the_noise_of_a_measurement_is_told(tmp_path: Path, trust: TrustModel, left: int, noises: float) -> None:
    made = five(tmp_path, trust)
    run = made.open({} if left == 5 else {("update 4", E): silent})
    run.train(no_progress)
    measured = run.measure(b"a scorecard")
    needed = math.sqrt(1.02) / mu_of(4.0, 1e-5)
    assert measured.deviation == pytest.approx(needed * math.sqrt(noises), rel=1e-5)
    assert measured.base_rate.deviation == pytest.approx(10 * measured.deviation)


def test_a_run_begun_again_repeats_the_coordinators_noise(tmp_path: Path) -> None:
    made = five(tmp_path, TrustModel.COORDINATOR_NOISE)
    made.run()
    first = [total.tolist() for total, _ in made.recipe.seen]
    made.noise = lambda _: pytest.fail("a second draw is a second release")
    made.run()
    assert [total.tolist() for total, _ in made.recipe.seen] == first


def test_nobodys_update_can_be_told_from_what_the_coordinator_sees(tmp_path: Path) -> None:
    """Masked words look uniform, whoever sends them: half the bits are set."""
    made = five(tmp_path)
    seen: list[Words] = []

    def look(holder: FakeHolder, letter: Letter) -> Letter:
        seen.append(np.array(letter.arrays["words"]))
        return letter

    made.run({(f"update {stage}", name): look for stage in range(1, LAST + 1) for name in EVERYBODY})
    bits = np.unpackbits(np.concatenate(seen).view(np.uint8))
    assert len(bits) == 64 * 5 * (3 * 4 + 8)
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))


def _huge(holder: FakeHolder, factor: float) -> None:
    holder.values[2] = np.full(4, factor * 1000.0)


@pytest.mark.parametrize(("factor", "refused"), [(0.9, False), (2.0, True), (-2.0, True)])
def test_a_sum_larger_than_the_plans_people_can_make_is_refused(tmp_path: Path, factor: float, refused: bool) -> None:
    made = five(tmp_path)
    _huge(made.holders[C], factor)
    if not refused:
        made.run()
        return
    with pytest.raises(RefusalError, match=r"sum of round 2 is larger.*does not show whose") as caught:
        made.run()
    assert caught.value.code is RefusalCode.INTEGRITY
    assert not any(name in str(caught.value) for name in EVERYBODY)


def test_a_visible_update_that_is_too_large_is_left_out_by_name(tmp_path: Path) -> None:
    made = five(tmp_path, TrustModel.HOLDER_NOISE)
    _huge(made.holders[C], 2.0)
    _, releases = made.run()
    check_sums(made, releases, {2: (C,)})
    assert "larger than any people" in releases[1].left_out[C]


def test_every_question_goes_out_under_its_act_and_with_the_deadline(tmp_path: Path) -> None:
    made = five(tmp_path)
    made.run()
    assert set(made.channel.deadlines) == {7.5}
    acts = dict(made.channel.acts)
    assert len(acts) == 3 + 2 * LAST
    assert {step for step, act in acts.items() if act is Act.TRAIN} == {"update 1", "update 2", "update 3"}
    assert {step for step, act in acts.items() if act is Act.EVALUATE} == {"update 4"}


def test_a_node_that_is_offline_is_not_waited_for(tmp_path: Path) -> None:
    made = five(tmp_path)

    def ends(holder: FakeHolder, letter: Letter) -> None:
        nodes = made.channel.holders
        assert isinstance(nodes, dict)
        del nodes[made.node_of[B]]  # asking it would be a KeyError

    _, releases = made.run({("update 2", B): ends})
    check_sums(made, releases, {2: (B,), 3: (B,), 4: (B,)})
    assert releases[3].left_out == {B: SILENT.reason}


def test_a_restarted_node_is_found_again(tmp_path: Path) -> None:
    made = five(tmp_path)
    run: Run | None = None

    def moves(holder: FakeHolder, letter: Letter) -> None:
        nodes = made.channel.holders
        assert isinstance(nodes, dict)
        del nodes[made.node_of[B]]
        nodes[777] = holder
        # One that lacks its keys of this run, and one in the name of a data holder who is there.
        for node, name in ((776, B), (778, C)):
            nodes[node] = other = FakeHolder(name, made.plan, made.stages, signed=made.signed)
            other.ledger = 10
        nodes[776].secret = bytes(32)

    run, releases = made.run({("update 1", B): moves})
    check_sums(made, releases, {1: (B,)})
    assert run.cohort.members == EVERYBODY
    for node in (776, 778):
        assert [type(header).__name__ for header in made.channel.holders[node].asked] == ["Opening"]


class Parrot(FakeHolder):
    """A node of somebody who has heard another's joining, and can say nothing else in its name."""

    heard: Letter | None = None

    def answer(self, letter: Letter) -> Letter:
        self.asked.append(letter.header)
        assert self.heard is not None
        return self.heard


def test_who_repeats_anothers_joining_takes_its_place_for_one_step_at_most(tmp_path: Path) -> None:
    made = five(tmp_path)
    parrot = Parrot(C, made.plan, made.stages, signed=made.signed)

    def hear(holder: FakeHolder, letter: Letter) -> Letter:
        parrot.heard = letter
        return letter

    def appears(holder: FakeHolder, letter: Letter) -> None:
        made.channel.holders = {**made.channel.holders, 777: parrot}

    _, releases = made.run({("opening", B): hear, ("update 1", B): appears})
    check_sums(made, releases, {1: (B,), 2: (B,)})
    assert "Joined where Update was due" in releases[1].left_out[B]
    assert [type(header).__name__ for header in parrot.asked] == ["Opening", "Instruction"]


def test_a_node_that_appeared_and_was_slow_is_asked_again(tmp_path: Path) -> None:
    made = five(tmp_path)

    openings: list[Letter] = []

    def moves(holder: FakeHolder, letter: Letter) -> None:
        nodes = dict(made.channel.holders)
        nodes[777] = nodes.pop(made.node_of[B])
        made.channel.holders = nodes

    def second_is_lost(holder: FakeHolder, letter: Letter) -> Letter | None:
        openings.append(letter)
        return None if len(openings) == 2 else letter

    _, releases = made.run({("update 1", B): moves, ("opening", B): second_is_lost})
    check_sums(made, releases, {1: (B,), 2: (B,)})


def test_where_nothing_is_masked_nobody_joins_in_anothers_name(tmp_path: Path) -> None:
    made = five(tmp_path, TrustModel.HOLDER_NOISE)
    thief = FakeHolder(B, made.plan, made.stages, signed=made.signed)
    thief.identity = made.holders[C].identity
    assert made.open(extra=[thief]).cohort.members == EVERYBODY
