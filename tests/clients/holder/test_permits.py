"""Who may be in a run: nobody whom any of its releases would take past the cap, in the middle of it or at its end."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from clients.holder import permits
from clients.holder.gate import Decisions, Question, decide_all
from clients.holder.node import Holder
from clients.holder.run import Run
from experiments.plans import DELTA
from federated.releases import BASE_RATE_SCALE, measurement_spend, measurement_weight
from privacy.accounting import GaussianSpend, SampledSpend, Spend, at_share, epsilon_of, total_epsilon
from privacy.consent.record import Purpose
from privacy.discrete import mu_on_grid
from privacy.errors import RefusalError
from tests.clients.audit.case import usual
from tests.ready import ASTER, AT, HOLDERS, Ready, withdrawal


@dataclass(frozen=True)
class Sampling:
    """A recipe of so many sampled rounds, as far as its costs go; fewer rows cost each of them more."""

    rounds: int
    noise_multiplier: float

    def length(self, round_number: int) -> int:
        return round_number

    def reach(self, round_number: int, *, people: int, holders: int) -> float:
        return float(round_number * people * holders)

    def sensitivity(self, round_number: int) -> float:
        return float(round_number)

    def mu(self, round_number: int) -> float:
        del round_number
        return math.inf  # its noise is inside

    def spend(self, round_number: int, rows: int) -> Spend:
        del round_number
        return SampledSpend(self.noise_multiplier, min(1.0, 0.07 + 1 / rows), 40)


@pytest.fixture
def holder(ready: Ready) -> Iterator[Holder]:
    with ready.holder() as opened:
        yield opened


def run_of(ready: Ready, holder: Holder) -> Run:
    return holder.run_named(holder.join(ready.opening(), at=AT).run)


def with_recipe(run: Run, recipe: Any) -> Run:
    return replace(run, recipe=recipe)


def test_who_could_pay_for_the_first_rounds_only_is_in_none_of_them(ready: Ready, holder: Holder) -> None:
    run = run_of(ready, holder)
    everybody = holder.permitted(run, Purpose.TRAIN)
    whole = math.fsum(run.recipe.spend(number, 1).mu ** 2 for number in range(1, run.recipe.rounds + 1))  # type: ignore[union-attr]
    last = run.recipe.spend(run.recipe.rounds, 1).mu ** 2  # type: ignore[union-attr]
    poor, rich = everybody.handles[:2]
    # What is left is enough for all rounds but half of the last; and for the other, for exactly all of them.
    for handle, left in ((poor, whole - last / 2), (rich, whole)):
        place = everybody.handles.index(handle)
        spent = 0.99 * everybody.allowances[place] - left * everybody.shares[place] ** 2
        holder.ledger.charge(f"earlier-{place}/1", GaussianSpend(math.sqrt(spent)), {handle: 1.0}, {handle: 1e9})
    after = holder.permitted(run, Purpose.TRAIN)
    assert set(everybody.handles) - set(after.handles) == {poor}
    assert after.refusals["budget"] == everybody.refusals["budget"] + 1
    # A run that goes on sees the same budgets in every round.
    for number in range(1, run.recipe.rounds + 1):
        rows = holder.permitted(run, Purpose.TRAIN)
        assert rows.handles == after.handles
        holder.ledger.charge(
            f"{run.name}/{number}",
            run.recipe.spend(number, len(rows.handles)),
            dict(zip(rows.handles, rows.shares.tolist(), strict=True)),
            dict(zip(rows.handles, rows.allowances.tolist(), strict=True)),
        )
    assert holder.permitted(run, Purpose.TRAIN).handles == after.handles


def test_after_a_run_nobody_has_spent_more_than_the_cap_allows() -> None:
    case = usual()
    with case.ready.holder() as holder:
        run = holder.run_named(case.outcome.run)
        for purpose in (Purpose.TRAIN, Purpose.VALIDATE):
            rows = holder.permitted(run, purpose)
            assert len(rows.handles) > 20
            for handle, allowance in zip(rows.handles, rows.allowances.tolist(), strict=True):
                paid = [spend.mu * share for spend, share in holder.ledger.spends(handle)]  # type: ignore[union-attr]
                assert 0 < math.fsum(mu**2 for mu in paid) <= allowance * (1 + 1e-9) / 2  # the cap covers two runs


def test_the_whole_run_costs_what_the_plan_says_and_the_gate_counts(ready: Ready, holder: Holder) -> None:
    run = run_of(ready, holder)
    rounds = [run.recipe.spend(number, 1) for number in range(1, run.recipe.rounds + 1)]
    total = math.sqrt(math.fsum(spend.mu**2 for spend in rounds))  # type: ignore[union-attr]
    assert total == pytest.approx(mu_on_grid(run.plan.privacy.epsilon, DELTA), rel=1e-12)
    assert measurement_spend(run.plan).mu == mu_on_grid(run.plan.privacy.measurement_epsilon, DELTA)


def test_sampled_rounds_are_composed_for_each_person_before_the_first(ready: Ready, holder: Holder) -> None:
    run = run_of(ready, holder)
    everybody = holder.permitted(run, Purpose.TRAIN)
    sampled = with_recipe(run, Sampling(rounds=3, noise_multiplier=2.0))
    rows = holder.permitted(sampled, Purpose.TRAIN)
    assert 5 < len(rows.handles) < len(everybody.handles)
    spend = sampled.recipe.spend(1, len(rows.handles))

    def epsilon(share: float) -> float:
        return total_epsilon([at_share(spend, share)] * 3, DELTA)

    # With fewer rows each costs more, so who is left must be able to pay for that; who is not could not have paid.
    allowed = {
        handle: (share, epsilon_of(math.sqrt(allowance), DELTA))
        for handle, share, allowance in zip(
            everybody.handles, everybody.shares.tolist(), everybody.allowances.tolist(), strict=True
        )
    }
    assert all(epsilon(allowed[handle][0]) <= allowed[handle][1] * (1 + 1e-9) for handle in rows.handles)
    out = set(everybody.handles) - set(rows.handles)
    assert all(epsilon(allowed[handle][0]) > allowed[handle][1] for handle in out)


def test_sampled_rounds_leave_room_for_being_counted_too(ready: Ready, holder: Holder) -> None:
    @dataclass(frozen=True)
    class Steady(Sampling):
        def spend(self, round_number: int, rows: int) -> Spend:
            del rows
            return super().spend(round_number, 100)

    run = run_of(ready, holder)
    everybody = holder.permitted(run, Purpose.TRAIN)
    # Whom each round costs most of what they allow: where they are out, others are left.
    place = int(np.argmax(everybody.shares**2 / everybody.allowances))
    share, allowance = float(everybody.shares[place]), float(everybody.allowances[place])

    def epsilon(noise_multiplier: float, *, counted: float) -> float:
        spends = [at_share(Steady(3, noise_multiplier).spend(1, 0), share)] * 3
        return total_epsilon([*spends, GaussianSpend(math.sqrt(counted))], DELTA)

    cap, few, many = epsilon_of(math.sqrt(allowance), DELTA), 0.3, 50.0
    for _ in range(50):  # the least noise with which the rounds and a hundredth for being counted fit
        middle = (few + many) / 2
        few, many = (few, middle) if epsilon(middle, counted=allowance / 100) <= cap else (middle, many)
    assert epsilon(0.999 * many, counted=0.0) < cap < epsilon(0.999 * many, counted=allowance / 100)
    for name, factor, is_in in (("fewer", 0.999, False), ("more", 1.001, True)):
        rows = holder.permitted(replace(with_recipe(run, Steady(3, factor * many)), name=name), Purpose.TRAIN)
        assert (everybody.handles[place] in rows.handles) is is_in


def test_the_last_sample_may_be_too_small_for_a_plan(ready: Ready, holder: Holder) -> None:
    run = with_recipe(run_of(ready, holder), Sampling(rounds=50, noise_multiplier=0.3))
    with pytest.raises(RefusalError, match="sits the run out"):
        holder.permitted(run, Purpose.TRAIN)


def in_both(ready: Ready, count: int) -> set[bytes]:
    """Put the first so many people of the training sample into the held-out one, too; their handles."""
    lines = (ready.home() / "rows.csv").read_text().splitlines(keepends=True)[1:]
    with (ready.home() / "held_out.csv").open("a", encoding="utf-8", newline="") as file:
        file.writelines(lines[:count])
    places = ready.places(ASTER)[:count]
    assert [line.split(",")[0] for line in lines[:count]] == [ready.federation.customer(p.person) for p in places]
    return {ready.federation.handles[place] for place in places}


def test_who_is_in_both_samples_is_not_measured_whatever_anybody_allows(ready: Ready) -> None:
    with ready.holder() as holder:
        apart = holder.permitted(run_of(ready, holder), Purpose.VALIDATE)
    both = in_both(ready, 40)
    with ready.holder() as holder:
        run = run_of(ready, holder)
        assert holder.permitted(run, Purpose.VALIDATE).handles == apart.handles
        trained_on = both & set(holder.permitted(run, Purpose.TRAIN).handles)
        assert len(trained_on) > 10
        refused = holder.permitted(run, Purpose.VALIDATE).refusals
        assert refused["in_the_other_sample"] >= len(trained_on)
        # Also who has said no to be trained on, so that the samples do not depend on it.
        leaver = next(place for place in ready.agreeing() if ready.federation.handles[place] in trained_on)
        holder.lane.take(withdrawal(ready, leaver), at=AT)
        assert holder.permitted(run, Purpose.VALIDATE).handles == apart.handles


def test_so_nobody_pays_for_training_and_for_measuring_in_one_run(ready: Ready) -> None:
    for name in HOLDERS:
        rows, held_out = (ready.home(name) / file for file in ("rows.csv", "held_out.csv"))
        held_out.write_text(held_out.read_text() + "".join(rows.read_text().splitlines(keepends=True)[1:20]))
    outcome = ready.run()
    for name in HOLDERS:
        with ready.holder(name) as holder:
            *rounds, measurement = [set(holder.ledger.subjects_of(release.name)) for release in outcome.releases]
        assert len(measurement) >= 5
        assert not any(measurement & trained_on for trained_on in rounds)


def test_a_table_that_changes_is_read_again(ready: Ready, holder: Holder) -> None:
    run = run_of(ready, holder)
    before = holder.permitted(run, Purpose.VALIDATE)
    lines = (ready.home() / "held_out.csv").read_text().splitlines(keepends=True)
    place = ready.measured()[0]
    line = next(line for line in lines if line.startswith(f"{ready.federation.customer(place.person)},"))
    with (ready.home() / "rows.csv").open("a", encoding="utf-8", newline="") as file:
        file.write(line)
    holder.lane.take(withdrawal(ready, ready.measured()[1]), at=AT)  # a decision has changed
    gone = {ready.federation.handles[person] for person in ready.measured()[:2]}
    assert set(before.handles) - set(holder.permitted(run, Purpose.VALIDATE).handles) == gone


def test_who_allows_too_little_to_be_counted_is_not_measured(ready: Ready) -> None:
    name = next(name for name in HOLDERS if ready.measured(name) != ready.agreeing(name, held_out=True))
    with ready.holder(name) as holder:
        rows = holder.permitted(run_of(ready, holder), Purpose.VALIDATE)
    assert set(rows.handles) == {ready.federation.handles[place] for place in ready.measured(name)}
    weights = measurement_weight(rows.shares)
    # By the norm itself: what a person adds, in all numbers that count them, is what they pay for.
    norms = np.sqrt(weights**2 + 2 * BASE_RATE_SCALE**2) / math.sqrt(1 + 2 * BASE_RATE_SCALE**2)
    assert np.all(norms <= rows.shares * (1 + 1e-12))


def test_what_rounding_alone_would_cost_is_kept_back_and_who_has_no_more_is_left_out(
    ready: Ready, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(ready, holder)
    everybody = holder.permitted(run, Purpose.TRAIN)
    # By the norm: a part of w, moved by rounding as far as a whole one, costs the share and no more.
    for stage in range(1, run.recipe.rounds + 1):
        shape = run.shape(stage)
        step, deviation = math.ldexp(1.0, shape.grid.step_log2), math.sqrt(shape.variance)
        moved = shape.weights(everybody.shares) * shape.sensitivity / step
        moved += math.sqrt(shape.length) * (1 + shape.slack / step)
        assert np.all(moved / deviation <= everybody.shares * run.recipe.mu(stage) * (1 + 1e-9))
    tiny = everybody.shares * np.where(np.arange(len(everybody.shares)) == 4, 1e-12, 1.0)

    def decided(question: Question) -> Decisions:
        made = decide_all(question)
        handles = list(question.links.values())
        shares = made.shares.copy()
        shares[handles.index(everybody.handles[4])] = tiny[4]
        return replace(made, shares=shares)

    monkeypatch.setattr(permits, "decide_all", decided)
    assert set(everybody.handles) - set(holder.permitted(run, Purpose.TRAIN).handles) == {everybody.handles[4]}
