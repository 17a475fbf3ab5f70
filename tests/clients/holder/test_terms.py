"""What a coordinator may not ask of a data holder: strangers in the roster, or how many people there are."""

import re
from dataclasses import replace

import msgspec
import pytest

from clients.holder import permits, scoring
from clients.holder.run import check_sums
from clients.holder.sums import Sums
from federated.messages import (
    Delivery,
    Instruction,
    Introduction,
    Joined,
    Letter,
    Measurement,
    Opening,
    ScoreRequests,
    Unmasking,
)
from federated.plan import RosterEntry, sign_plan
from federated.plan_checks import MOST_STAGES
from privacy.consent.signing import SigningKey
from privacy.errors import RefusalCode, RefusalError, TamperingError
from server.coordinator import Coordinator
from tests.ready import ASTER, AT, Ready, code_of


def opening_of(ready: Ready, **changes: object) -> Opening:
    """The federation's opening, its plan changed and signed again by the coordinator itself."""
    coordinator = Coordinator(ready.federation.coordinator_directory)
    signed = sign_plan(msgspec.structs.replace(coordinator.plan, **changes), coordinator.key)
    return Opening(signed.payload, signed.signature, coordinator.checkpoints, {})


def refusal(ready: Ready, opening: Opening) -> RefusalError:
    with ready.session() as session, pytest.raises(RefusalError) as caught:
        session.holders[ASTER].join(opening, at=AT)
    return caught.value


def test_a_roster_with_an_invented_holder_is_refused(ready: Ready) -> None:
    invented = RosterEntry("nobody-bank", SigningKey.generate().public)
    error = refusal(ready, opening_of(ready, roster=[*ready.federation.roster, invented]))
    assert error.code is RefusalCode.POLICY
    assert "peers" in str(error)


def test_a_known_name_with_another_identity_is_refused(ready: Ready) -> None:
    roster = [
        entry if entry.holder == ASTER else msgspec.structs.replace(entry, identity=SigningKey.generate().public)
        for entry in ready.federation.roster
    ]
    assert refusal(ready, opening_of(ready, roster=roster)).code is RefusalCode.POLICY


def test_the_number_of_people_cannot_be_found_by_asking(ready: Ready) -> None:
    told = Coordinator(ready.federation.coordinator_directory).plan.minimum_people
    with ready.session() as session:
        session.holders[ASTER].join(opening_of(ready, minimum_people=1), at=AT)  # less than the holder's own: joins
    error = refusal(ready, opening_of(ready, minimum_people=told + 1))
    assert error.code is RefusalCode.POLICY


def set_policy(ready: Ready, key: str, value: int) -> None:
    path = ready.home() / "holder.toml"
    text = re.sub(rf"^{key} = .*$", f"{key} = {value}", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)


def set_text(ready: Ready, key: str, value: str) -> None:
    path = ready.home() / "holder.toml"
    text, times = re.subn(rf"^{key} = .*$", f"{key} = {value}", path.read_text(), flags=re.MULTILINE)
    assert times == 1
    path.write_text(text)


def test_any_of_the_coordinators_keys_signs_a_plan_and_no_other(ready: Ready) -> None:
    coordinator, new = Coordinator(ready.federation.coordinator_directory), SigningKey.generate()
    old_hex, new_hex = coordinator.key.public.hex(), new.public.hex()
    by_new = sign_plan(msgspec.structs.replace(coordinator.plan, name="by the new key"), new)
    opening = Opening(by_new.payload, by_new.signature, coordinator.checkpoints, {})
    with ready.session() as session, pytest.raises(TamperingError, match="coordinator_keys"):
        session.holders[ASTER].join(opening, at=AT)
    set_text(ready, "coordinator_keys", f'["{old_hex}", "{new_hex}"]')
    with ready.holder() as holder:
        assert isinstance(holder.join(opening, at=AT), Joined)
        assert isinstance(holder.join(ready.opening(), at=AT), Joined)
    set_text(ready, "coordinator_keys", f'["{new_hex}"]')
    with ready.holder() as holder:
        assert code_of(holder.answer(Letter(ready.opening()), at=AT)) == "integrity"
        assert isinstance(holder.answer(Letter(opening), at=AT).header, Joined)


def test_a_plan_over_fewer_data_holders_than_we_want_is_refused(ready: Ready) -> None:
    fewest = Coordinator(ready.federation.coordinator_directory).plan.minimum_holders
    set_policy(ready, "fewest_holders", fewest)
    with ready.holder() as holder:
        assert isinstance(holder.join(ready.opening(), at=AT), Joined)
    set_policy(ready, "fewest_holders", fewest + 1)
    error = refusal(ready, ready.opening())
    assert error.code is RefusalCode.POLICY
    assert f"at least {fewest + 1}" in str(error)


@pytest.mark.parametrize(
    ("purposes", "missing"), [('["train", "score"]', "validate"), ('["validate", "score"]', "train"), ("[]", "train")]
)
def test_a_purpose_that_policy_lacks_is_refused_before_a_row_is_read(
    ready: Ready, purposes: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready.holder() as holder:
        run = holder.join(ready.opening(), at=AT).run
    set_text(ready, "purposes", purposes)
    monkeypatch.setattr(permits, "permitted_rows", never)
    error = refusal(ready, ready.opening())
    assert error.code is RefusalCode.POLICY
    assert missing in str(error)
    with ready.holder() as holder:  # also in a run that was joined before
        for header in (Instruction(run, 1, [ASTER]), Measurement(run, [ASTER], b""), Unmasking(run, 1, [ASTER])):
            assert code_of(holder.answer(Letter(header), at=AT)) == "policy"


def test_nobody_is_scored_where_policy_lacks_that_purpose(ready: Ready) -> None:
    requests = ScoreRequests(b"no scorecard", [])
    with ready.holder() as holder:
        assert code_of(holder.answer(Letter(requests), at=AT)) == "internal"  # the scorecard is looked at
    set_text(ready, "purposes", '["train", "validate"]')
    with ready.holder() as holder:
        assert code_of(holder.answer(Letter(requests), at=AT)) == "policy"
        assert isinstance(holder.answer(Letter(ready.opening()), at=AT).header, Joined)


def test_outside_the_hours_no_letter_is_answered_and_no_row_read(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    with ready.holder() as holder:
        run = holder.join(ready.opening(), at=AT).run
    monkeypatch.setattr(permits, "permitted_rows", never)
    monkeypatch.setattr(scoring, "rows_to_score", never)
    assert AT % 86_400 == 0
    set_text(ready, "hours", '"00:01-24:00"')
    with ready.holder() as holder:
        for header in (
            ready.opening(), Introduction(run, {}), Delivery(run, [], {}), Instruction(run, 1, [ASTER]),
            Measurement(run, [ASTER], b""), Unmasking(run, 1, [ASTER]), ScoreRequests(b"", []),
        ):  # fmt: skip
            assert code_of(holder.answer(Letter(header), at=AT)) == "policy", header
    error = refusal(ready, ready.opening())
    assert "00:01-24:00 UTC" in str(error)
    assert "clock" in str(error)


def test_a_clock_that_is_an_hour_off_is_named_as_a_cause(ready: Ready) -> None:
    begins = Coordinator(ready.federation.coordinator_directory).plan.not_before
    with ready.session() as session, pytest.raises(RefusalError, match="clock") as caught:
        session.holders[ASTER].join(ready.opening(), at=begins - 1)
    assert caught.value.code is RefusalCode.PLAN
    assert "2026-10-31 22:59 UTC" in str(caught.value)
    far = opening_of(ready, not_before=2**60, ends=2**61)  # no calendar has it
    assert refusal(ready, far).code is RefusalCode.PLAN


def never(*_: object, **__: object) -> None:
    raise AssertionError("rows were read")


def rows_in(ready: Ready, table: str) -> int:
    return len((ready.home() / table).read_text().splitlines()) - 1


def test_a_sum_that_could_run_over_is_refused_by_public_numbers_alone(ready: Ready) -> None:
    most = Coordinator(ready.federation.coordinator_directory).plan.most_people
    set_policy(ready, "most_people", most)
    assert refusal(ready, opening_of(ready, most_people=most - 1)).code is RefusalCode.POLICY
    with ready.holder() as holder:
        assert isinstance(holder.join(ready.opening(), at=AT), Joined)


@pytest.mark.parametrize("table", ["rows.csv", "held_out.csv"])
def test_a_table_with_more_rows_than_the_bound_is_refused_whoever_has_said_yes(
    ready: Ready, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all rows and before any is read: the permitted ones are far fewer."""
    rows = rows_in(ready, table)
    other = {"rows.csv": "held_out.csv", "held_out.csv": "rows.csv"}[table]
    if rows_in(ready, other) >= rows:
        lines = (ready.home() / other).read_text().splitlines(keepends=True)
        (ready.home() / other).write_text("".join(lines[: rows - 1]))
    set_policy(ready, "most_people", rows)
    with ready.holder() as holder:
        assert isinstance(holder.join(ready.opening(), at=AT), Joined)
    set_policy(ready, "most_people", rows - 1)
    monkeypatch.setattr(permits, "permitted_rows", never)
    error = refusal(ready, ready.opening())
    assert error.code is RefusalCode.COHORT
    assert str(rows) not in str(error)


def test_only_so_many_runs_are_opened_in_a_day_and_the_same_run_again_is_free(ready: Ready) -> None:
    set_policy(ready, "most_openings_per_day", 3)
    openings = [opening_of(ready, name=f"plan {number}") for number in range(4)]
    for opening in openings[:3]:
        with ready.holder() as holder:  # a restart forgets none
            assert isinstance(holder.join(opening, at=AT), Joined)
    with ready.holder() as holder:
        assert code_of(holder.answer(Letter(openings[3]), at=AT)) == "policy"
        assert all(isinstance(holder.answer(Letter(again), at=AT).header, Joined) for again in openings[:3])
        day = 86_400 + 120
        assert not holder.lane.enter_opening("another", at=AT + day - 1, most=3)
        assert holder.lane.enter_opening("another", at=AT + day, most=3)
        assert holder.lane.kept_run("another") is None  # counted is not joined


def test_an_opening_that_is_refused_for_too_few_people_counts(ready: Ready) -> None:
    set_policy(ready, "most_openings_per_day", 2)
    fewest = Coordinator(ready.federation.coordinator_directory).plan.minimum_people
    set_policy(ready, "fewest_people", 5000)
    openings = [opening_of(ready, name=f"plan {number}") for number in range(3)]
    with ready.holder() as holder:
        codes = [code_of(holder.answer(Letter(opening), at=AT)) for opening in (*openings, openings[0])]
    assert codes == ["cohort", "cohort", "policy", "cohort"]
    # One that our policy refuses says nothing about people, and is not counted.
    set_policy(ready, "fewest_people", fewest)
    set_policy(ready, "most_openings_per_day", 3)
    with ready.holder() as holder:
        assert code_of(holder.answer(Letter(opening_of(ready, minimum_people=fewest + 1)), at=AT)) == "policy"
        assert isinstance(holder.answer(Letter(openings[2]), at=AT).header, Joined)


def test_a_plan_whose_noise_its_grid_cannot_carry_is_refused(ready: Ready) -> None:
    coordinator = Coordinator(ready.federation.coordinator_directory)
    privacy = msgspec.structs.replace(coordinator.plan.privacy, measurement_epsilon=1e-14)
    error = refusal(ready, opening_of(ready, privacy=privacy))
    assert error.code is RefusalCode.PLAN
    assert "too coarse" in str(error)


def test_a_plan_of_too_many_rounds_is_refused_before_a_key_is_made(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready.holder() as holder:
        run = holder.run_named(holder.join(ready.opening(), at=AT).run)
    endless = replace(run, recipe=replace(run.recipe, steps=MOST_STAGES))  # type: ignore[type-var]
    with pytest.raises(RefusalError, match="releases") as caught:
        check_sums(endless)
    assert caught.value.code is RefusalCode.PLAN
    asked = []
    monkeypatch.setattr(Sums, "keys", lambda *_: asked.append("keys"))
    recipe = {**Coordinator(ready.federation.coordinator_directory).plan.recipe, "steps": MOST_STAGES}
    assert refusal(ready, opening_of(ready, recipe=recipe)).code is RefusalCode.PLAN
    assert asked == []
