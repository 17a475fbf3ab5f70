"""Being counted before a run: charged before it is told, told once, and never at the cost of anybody's run."""

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from scipy.stats import kstest, norm  # type: ignore[import-untyped]

from clients.holder.ledger import PrivacyLedger
from clients.holder.node import Holder
from experiments.people import Membership
from experiments.plans import DELTA
from federated.coverage import (
    COVERAGE_SPEND,
    DEVIATION,
    VARIANCE,
    coverage_name,
    coverage_statement,
    is_coverage,
    noisy_count,
)
from federated.messages import Coverage, Enquiry, Joined, Letter, Opening, encode_header
from privacy.accounting import GaussianSpend, SampledSpend, epsilon_of, mu_of, total_epsilon
from privacy.consent.budget import tier_of
from privacy.consent.record import Purpose
from privacy.consent.signing import PayloadType, verify
from privacy.discrete import excess_is_covered
from privacy.errors import TamperingError
from privacy.noise import SeededNoise
from privacy.sampled import noise_multiplier_for
from tests.ready import ASTER, AT, BIRCH, Ready, agreement, code_of, first_instruction, withdrawal


@pytest.fixture
def holder(ready: Ready) -> Iterator[Holder]:
    with ready.holder() as opened:
        yield opened


def enquiry(opening: Opening) -> Letter:
    return Letter(Enquiry(opening.plan, opening.plan_signature, opening.checkpoints, opening.ledgers))


def other_heads(opening: Opening, number: int) -> Opening:
    """The same plan pinned to another head of somebody else's lane: another run, and nothing new about us."""
    return msgspec.structs.replace(opening, checkpoints={**opening.checkpoints, BIRCH: f"head {number}"})


def told(holder: Holder, opening: Opening, *, at: int = AT) -> Coverage:
    answer = holder.answer(enquiry(opening), at=at).header
    assert isinstance(answer, Coverage), answer
    return answer


def times_counted(ready: Ready, place: Membership) -> int:
    """How often one may be counted: a hundredth of (share x mu of the cap) squared, a ten thousandth each time."""
    mu = place.share_milli / 1000 * mu_of(tier_of(ready.federation.population.caps[place.person]) or 0.0, DELTA)
    return math.floor(0.01 * mu**2 / 0.0001 * (1 - 1e-5))


def test_everybody_who_is_counted_is_charged_and_nobody_else(ready: Ready, holder: Holder) -> None:
    answer = told(holder, ready.opening())
    counted = [place for place in ready.agreeing() if times_counted(ready, place) >= 1]
    assert 20 < len(counted) < len(ready.agreeing())  # some allow too little
    (release,) = holder.ledger.releases()
    assert (release.release_id, release.spend) == (f"coverage/{answer.run}", GaussianSpend(0.01))
    handles = {ready.federation.handles[place] for place in counted}
    assert set(holder.ledger.subjects_of(release.release_id)) == handles
    assert holder.ledger.counted_mu_squared(sorted(handles)) == pytest.approx(np.full(len(handles), 0.0001))
    # With the seed of this plan, the noise can be drawn again.
    noise = SeededNoise(7, f"{ASTER}/{answer.run}/coverage")
    assert answer.count == noisy_count(len(counted), noise)


def test_the_noise_is_a_gaussian_of_a_hundred_people_whatever_is_counted() -> None:
    chance = SeededNoise(11, "coverage")
    draws = np.array([noisy_count(300, chance) - 300 for _ in range(4000)])
    # Whole numbers against the normal distribution: moved apart by half a person at most, 0.002 in probability.
    assert kstest(draws + np.random.default_rng(1).uniform(-0.5, 0.5, 4000), norm(0, 100).cdf).pvalue > 0.01
    assert abs(draws.std() / 100 - 1) < 4 / math.sqrt(2 * 4000)
    assert (draws < -300).any()  # nothing is cut off at no people: that would be another distribution


def test_the_noise_is_enough_for_what_is_charged_on_its_grid_too() -> None:
    # One person moves the count by 2^20 steps, and by one more for rounding; that over mu, squared.
    assert VARIANCE >= ((2**20 + 1) / 0.01) ** 2
    assert 100 <= DEVIATION < 100.001
    assert COVERAGE_SPEND.mu == 0.01
    # As often as anybody can be counted: by the largest cap, then by the smallest that can be counted at all.
    for epsilon, delta in ((8.0, 1e-4), (0.5, 1e-9)):
        times = math.floor(0.01 * mu_of(epsilon, delta) ** 2 / 0.0001)
        assert excess_is_covered([(1, VARIANCE, 1)] * max(times, 1), epsilon=epsilon, delta=delta)


def test_asked_again_it_is_the_same_bytes_and_one_charge(ready: Ready) -> None:
    opening = ready.opening()
    with ready.holder() as holder:
        first = told(holder, opening)
        entries = holder.ledger.head
        assert encode_header(told(holder, opening, at=AT + 5)) == encode_header(first)
    with ready.holder() as holder:
        assert encode_header(told(holder, opening)) == encode_header(first)
        assert holder.ledger.head == entries
        assert holder.lane.ledger_head() == entries


def test_it_is_signed_whole_by_the_data_holder(ready: Ready, holder: Holder) -> None:
    answer = told(holder, ready.opening())
    identity = next(entry.identity for entry in ready.federation.roster if entry.holder == ASTER)
    verify(identity, PayloadType.COVERAGE, coverage_statement(answer), answer.signature)
    for other in (
        msgspec.structs.replace(answer, count=answer.count + 1),
        msgspec.structs.replace(answer, deviation=1.0),
        msgspec.structs.replace(answer, run="0" * 32),
        msgspec.structs.replace(answer, holder=BIRCH),
        msgspec.structs.replace(answer, ledger=msgspec.structs.replace(answer.ledger, size=1)),
    ):
        with pytest.raises(TamperingError):
            verify(identity, PayloadType.COVERAGE, coverage_statement(other), answer.signature)


class _Killed(BaseException):
    """Stands for the process's end: no handler of ours may catch it."""


def kill_at_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise _Killed

    monkeypatch.setattr(PrivacyLedger, "keep", die)


def test_a_crash_between_charge_and_answer_costs_nobody_twice(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = ready.opening()
    with monkeypatch.context() as patched, ready.holder() as holder:
        kill_at_keeping(patched)
        with pytest.raises(_Killed):
            holder.answer(enquiry(opening), at=AT)
        charged = holder.ledger.releases()
        assert [is_coverage(release.release_id) for release in charged] == [True]
    with ready.holder() as holder:
        answer = told(holder, opening)
        assert holder.ledger.releases() == charged
        assert encode_header(told(holder, opening)) == encode_header(answer)
    assert answer.count == noisy_count(charged[0].people, SeededNoise(7, f"{ASTER}/{answer.run}/coverage"))


def test_who_left_after_such_a_crash_is_not_in_the_number_and_who_came_was_not_charged(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = ready.opening()
    leaver = next(place for place in ready.agreeing() if times_counted(ready, place) >= 1)
    with monkeypatch.context() as patched, ready.holder() as holder:
        kill_at_keeping(patched)
        with pytest.raises(_Killed):
            holder.answer(enquiry(opening), at=AT)
        (charged,) = holder.ledger.releases()
    ready.federation.withdraw(ready.registry, leaver)
    with ready.holder() as holder:
        answer = told(holder, opening)
        assert holder.ledger.releases() == (charged,)
    assert answer.count == noisy_count(charged.people - 1, SeededNoise(7, f"{ASTER}/{answer.run}/coverage"))


def test_nobody_who_has_withdrawn_is_counted_however_young_the_last_sync_is(ready: Ready, holder: Holder) -> None:
    leaver = next(place for place in ready.agreeing() if times_counted(ready, place) >= 1)
    ready.federation.withdraw(ready.registry, leaver)
    answer = told(holder, ready.opening())
    subjects = holder.ledger.subjects_of(coverage_name(answer.run))
    assert ready.federation.handles[leaver] not in subjects
    assert len(subjects) == sum(times_counted(ready, place) >= 1 for place in ready.agreeing()) - 1


def test_without_the_registry_nothing_new_is_told_and_nobody_is_charged(ready: Ready) -> None:
    source = ready.source()
    opening = ready.opening()
    with ready.holder(source=source) as holder:
        source.away = True
        assert code_of(holder.answer(enquiry(opening), at=AT)) == "lane"
        assert holder.ledger.releases() == ()
        source.away = False
        first = told(holder, opening)
        source.away = True
        assert encode_header(told(holder, opening)) == encode_header(first)


def _unsigned(opening: Opening) -> Opening:
    return msgspec.structs.replace(opening, plan_signature=bytes(64))


def _unpinned(opening: Opening) -> Opening:
    return msgspec.structs.replace(opening, checkpoints={BIRCH: "a head"})


@pytest.mark.parametrize(
    ("change", "settings", "at", "code"),
    [
        (_unsigned, {}, AT, "integrity"),
        (_unpinned, {}, AT, "lane"),
        (None, {}, AT - 86_400, "plan"),
        (None, {"fewest_people = 5": "fewest_people = 5000"}, AT, "cohort"),
        (None, {"most_openings_per_day = 1000": "most_openings_per_day = 1"}, AT, "policy"),
        (None, {"largest_epsilon = ": "largest_epsilon = 0.01 # "}, AT, "budget"),
    ],
    ids=["unsigned", "unpinned", "not due", "too few people", "asked too often", "too large an epsilon"],
)
def test_it_refuses_what_joining_refuses_with_the_same_code_and_charges_nobody(
    ready: Ready, change: Callable[[Opening], Opening] | None, settings: dict[str, str], at: int, code: str
) -> None:
    path = ready.home() / "holder.toml"
    text = path.read_text()
    for old, new in settings.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    opening = ready.opening() if change is None else change(ready.opening())
    with ready.holder() as holder:
        if code == "policy":  # the one opening of the day is another's
            assert isinstance(told(holder, other_heads(opening, 1)), Coverage)
        charged = holder.ledger.releases()
        assert code_of(holder.answer(Letter(opening), at=at)) == code
        assert code_of(holder.answer(enquiry(opening), at=at)) == code
        assert holder.ledger.releases() == charged


def test_an_enquiry_and_the_opening_after_it_are_one_opening_of_the_day(ready: Ready) -> None:
    path = ready.home() / "holder.toml"
    path.write_text(path.read_text().replace("most_openings_per_day = 1000", "most_openings_per_day = 1"))
    opening = ready.opening()
    with ready.holder() as holder:
        run = told(holder, opening).run
        joined = holder.join(opening, at=AT)
        assert joined.run == run


def test_being_asked_is_not_taking_part(ready: Ready, holder: Holder) -> None:
    opening = ready.opening()
    run = told(holder, opening).run
    instruction = first_instruction(ready, {ASTER: Joined(ASTER, run, None, told(holder, opening).ledger, b"")})
    assert code_of(holder.answer(instruction, at=AT)) == "plan"
    with ready.holder() as again:
        assert again.lane.kept_run(run) is None


@pytest.mark.slow
def test_a_hundred_enquiries_cost_nobody_a_run_and_nobody_more_than_a_hundredth(ready: Ready, holder: Holder) -> None:
    opening = ready.opening()
    run = holder.run_named(holder.join(opening, at=AT).run)
    before = {purpose: holder.permitted(run, purpose) for purpose in (Purpose.TRAIN, Purpose.VALIDATE)}
    asked = [told(holder, other_heads(opening, number)) for number in range(100)]
    assert len({answer.run for answer in asked}) == 100
    for purpose, rows in before.items():
        after = holder.permitted(run, purpose)
        assert after.handles == rows.handles
        assert after.shares.tolist() == rows.shares.tolist()
    # Everybody was counted as often as a hundredth allows, and not once more.
    places = ready.agreeing()
    counted = holder.ledger.counted_mu_squared([ready.federation.handles[place] for place in places])
    expected = [min(100, times_counted(ready, place)) for place in places]
    assert np.rint(counted / 0.0001).astype(int).tolist() == expected
    assert 0 in expected
    assert max(expected) > 3
    # The run itself goes through to the last release, measured by what everybody may spend in all.
    for number in range(1, run.recipe.rounds + 1):
        rows = before[Purpose.TRAIN]
        holder.ledger.charge(
            f"{run.name}/{number}",
            run.recipe.spend(number, len(rows.handles)),
            dict(zip(rows.handles, rows.shares.tolist(), strict=True)),
            dict(zip(rows.handles, rows.allowances.tolist(), strict=True)),
        )


def test_who_lowers_the_cap_below_what_was_spent_is_counted_no_more(ready: Ready, holder: Holder) -> None:
    opening = ready.opening()
    person = min(
        (place for place in ready.agreeing() if times_counted(ready, place) >= 2),
        key=lambda place: times_counted(ready, place),
    )
    handle = ready.federation.handles[person]
    told(holder, other_heads(opening, 0))
    spent = holder.ledger.counted_mu_squared([handle])[0]
    assert spent == pytest.approx(0.0001)
    holder.lane.take(agreement(ready, person, cap=0.5, share_milli=100), at=AT)
    answer = told(holder, other_heads(opening, 1000))
    assert holder.ledger.counted_mu_squared([handle])[0] == spent
    assert handle not in holder.ledger.subjects_of(coverage_name(answer.run))


def test_who_has_spent_a_lowered_cap_on_the_run_itself_is_left_out_and_the_count_goes_on(
    ready: Ready, holder: Holder
) -> None:
    """Their hundredth would be enough; what they spent on this very run is more than they allow now."""
    opening = ready.opening()
    run = holder.run_named(holder.join(opening, at=AT).run)
    person = min(ready.agreeing(), key=lambda place: -times_counted(ready, place))
    handle, rows = ready.federation.handles[person], holder.permitted(run, Purpose.TRAIN)
    holder.ledger.charge(
        f"{run.name}/1", GaussianSpend(mu_of(2.0, DELTA)), dict.fromkeys(rows.handles, 1.0),
        dict.fromkeys(rows.handles, 1e9),
    )  # fmt: skip
    holder.lane.take(agreement(ready, person, cap=1.0, share_milli=1000), at=AT)
    allowance = holder._permits.people(run)[handle]
    assert 0.01 * allowance >= 0.0001  # once more would be within the part set aside
    assert mu_of(2.0, DELTA) ** 2 > allowance
    subjects = set(holder.ledger.subjects_of(coverage_name(told(holder, opening).run)))
    assert handle not in subjects
    assert all(holder.ledger.counted_mu_squared(sorted(subjects)) > 0)


def test_who_has_passed_the_cap_by_samples_at_their_own_delta_is_not_counted(
    ready: Ready, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the plan's delta what they spent would fit, with the count on top."""
    opening = ready.opening()
    run = holder.run_named(holder.join(opening, at=AT).run)
    people, own = holder._permits.people(run), 1e-12
    counted = [handle for handle in people if 0.01 * people[handle] >= 0.0001]
    poor = max(counted, key=lambda handle: people[handle])
    # Rare and dear: at the plan's delta it costs nine tenths of the cap, at a small one more than the cap.
    at_plan = epsilon_of(math.sqrt(0.9 * people[poor]), DELTA)
    spend = SampledSpend(noise_multiplier_for(at_plan, DELTA, sampling_rate=0.1, steps=10), 0.1, 10)
    assert total_epsilon([spend], own) > epsilon_of(math.sqrt(people[poor]), own)
    holder.ledger.charge(f"{run.name}/1", spend, {poor: 1.0}, {poor: 1e9}, delta=DELTA)
    monkeypatch.setattr(holder._permits, "own_deltas", lambda *asked: [np.full(len(asked[2]), own)])
    subjects = holder.ledger.subjects_of(coverage_name(told(holder, opening).run))
    assert poor not in subjects
    assert len(subjects) == len(counted) - 1


def test_a_withdrawal_by_the_side_door_counts_at_once(ready: Ready, holder: Holder) -> None:
    leaver = next(place for place in ready.agreeing() if times_counted(ready, place) >= 1)
    holder.lane.take(withdrawal(ready, leaver), at=AT)
    answer = told(holder, ready.opening())
    assert ready.federation.handles[leaver] not in holder.ledger.subjects_of(coverage_name(answer.run))
