"""The node: its own policy has the last word, nothing it says tells more than a code, and a restart changes nothing."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clients.holder import permits
from clients.holder.node import Holder
from experiments.people import Attitude
from experiments.plans import HOUR_S
from experiments.session import DEADLINE_S
from federated.channel import Act
from federated.messages import Instruction, Joined, LedgerMark, Letter, Measurement, Opening, Refused, Update
from federated.model import LinearModel
from federated.plan import TrainingPlan, sign_plan
from federated.scorecard import Scorecard
from privacy.consent.lane import Head, write_checkpoint
from privacy.consent.record import Purpose
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, RefusalCode, TamperingError
from server.coordinator import Coordinator, Outcome
from server.rounds import no_progress
from tests.ready import (
    ASTER,
    AT,
    HOLDERS,
    Ready,
    agreement,
    code_of,
    commitments_of,
    first_instruction,
    joined_by,
)

DAY_S = 86_400


def opening_of(ready: Ready, **changes: Any) -> Opening:
    """The run's opening with its plan changed, signed by the true coordinator."""
    coordinator = Coordinator(ready.federation.coordinator_directory)
    fields = msgspec.structs.asdict(coordinator.plan) | changes
    signed = sign_plan(TrainingPlan(**fields), coordinator.key)
    return Opening(signed.payload, signed.signature, coordinator.checkpoints, {})


def answer(ready: Ready, opening: Opening, *, at: int = AT) -> Letter:
    with ready.holder() as holder:
        return holder.answer(Letter(opening), at=at)


def set_policy(ready: Ready, key: str, value: str) -> None:
    path = ready.home() / "holder.toml"
    text, times = re.subn(rf"^{key} = .*$", f"{key} = {value}", path.read_text(), flags=re.MULTILINE)
    assert times == 1
    path.write_text(text)


def test_a_lawful_opening_is_joined(ready: Ready) -> None:
    header = answer(ready, ready.opening()).header
    assert isinstance(header, Joined)
    assert header.holder == ASTER


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("coordinator", '"somebody-else"', "policy"),
        ("coordinator_keys", f'["{"ab" * 32}"]', "integrity"),
        ("key", f'"{"ab" * 32}"', "integrity"),
        ("recipes", "[]", "policy"),
        ("trust_models", "[]", "policy"),
        ("trust_models", '["holder_noise", "coordinator_noise"]', "policy"),
        ("largest_epsilon", "0.99", "budget"),
        ("largest_delta", "1e-6", "budget"),
        ("fewest_people", "5000", "cohort"),
        ("accept_seeded_noise", "false", "policy"),
    ],
)
def test_the_holders_policy_has_the_last_word(ready: Ready, key: str, value: str, code: str) -> None:
    set_policy(ready, key, value)
    assert code_of(answer(ready, ready.opening())) == code


@pytest.mark.parametrize(
    ("at", "joins"),
    [
        (AT - HOUR_S - 1, False),
        (AT - 121, False),
        (AT - 120, True),
        (AT + 23 * HOUR_S - 1, True),
        (AT + 23 * HOUR_S, False),
        (AT + 10 * DAY_S, False),
    ],
)
def test_a_plan_is_joined_in_its_time_and_over_a_fresh_lane(ready: Ready, at: int, joins: bool) -> None:
    assert isinstance(answer(ready, ready.opening(), at=at).header, Joined) is joins


def test_a_plan_for_others_or_another_schema_is_refused(ready: Ready) -> None:
    plan = Coordinator(ready.federation.coordinator_directory).plan
    others = [entry for entry in plan.roster if entry.holder != ASTER]
    stranger = msgspec.structs.replace(plan.roster[0], identity=SigningKey.from_seed(bytes(32)).public)
    assert code_of(answer(ready, opening_of(ready, roster=others))) == "plan"
    assert code_of(answer(ready, opening_of(ready, roster=[stranger, *others]))) == "plan"
    assert code_of(answer(ready, opening_of(ready, schema_digest="00" * 32))) == "schema"


def test_an_unsigned_or_changed_plan_is_tampering(ready: Ready) -> None:
    opening = ready.opening()
    cheaper = opening.plan.replace(b'"epsilon":1.0', b'"epsilon":0.9')
    assert cheaper != opening.plan
    assert code_of(answer(ready, msgspec.structs.replace(opening, plan=cheaper))) == "integrity"


def test_a_run_pinned_elsewhere_is_refused(ready: Ready) -> None:
    opening = ready.opening()
    without = {name: note for name, note in opening.checkpoints.items() if name != ASTER}
    # A later head is asked for once more: what the registry does not serve then is no head to be pinned to.
    ahead = write_checkpoint(Head(10_000, bytes(32)), f"fedcredit/{ASTER}", ready.federation.registry_key)
    forged = write_checkpoint(Head(10_000, bytes(32)), f"fedcredit/{ASTER}", SigningKey.from_seed(bytes(32)))
    swapped = {**opening.checkpoints, ASTER: opening.checkpoints[HOLDERS[1]]}
    for checkpoints, code in (
        (without, "lane"),
        ({**without, ASTER: ahead}, "lane"),
        ({**without, ASTER: forged}, "integrity"),
        (swapped, "integrity"),
    ):
        assert code_of(answer(ready, msgspec.structs.replace(opening, checkpoints=checkpoints))) == code


def test_a_holder_that_could_not_measure_says_so_before_anything_is_charged(ready: Ready) -> None:
    lines = (ready.home() / "held_out.csv").read_text().splitlines(keepends=True)
    (ready.home() / "held_out.csv").write_text("".join(lines[:4]))
    outcome = ready.run()
    assert outcome.refused == {ASTER: "cohort"}
    assert len(outcome.holders) == 2
    with ready.holder() as holder:
        assert holder.ledger.releases() == ()


def test_letters_that_are_not_for_a_holder_and_runs_it_has_not_joined_are_refused(ready: Ready) -> None:
    with ready.session() as session:
        holder = session.holders[ASTER]
        for header in (Refused("x", RefusalCode.PLAN), Update("x", "y", b"", b"", LedgerMark(0, bytes(32)))):
            assert code_of(holder.answer(Letter(header), at=AT)) == "plan"
        instruction = first_instruction(ready, joined_by(session.holders, ready.opening()))
    assert isinstance(instruction.header, Instruction)
    never = msgspec.structs.replace(instruction.header, run="0" * 32)
    with ready.holder() as holder:
        assert code_of(holder.answer(Letter(never, instruction.arrays), at=AT)) == "plan"


@pytest.mark.parametrize("family", [ValueError, KeyError, MemoryError, UnicodeDecodeError])
def test_whatever_fails_only_a_code_leaves_and_no_row_reaches_the_log(
    ready: Ready, family: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "row of person 17: 20000,2,2,1,24"
    error = (
        UnicodeDecodeError("utf-8", secret.encode(), 0, 1, secret) if family is UnicodeDecodeError else family(secret)
    )

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(permits, "permitted_rows", broken)
    with caplog.at_level(logging.DEBUG), ready.session() as session:
        letters = dict.fromkeys(session.channel.nodes(), Letter(ready.opening()))
        answers = session.channel.ask(letters, act=Act.QUERY, deadline_s=DEADLINE_S)
    assert [code_of(letter) for letter in answers.values()] == ["internal"] * 3
    assert family.__name__ in caplog.text
    assert "person 17" not in caplog.text


class Restarting:
    """The channel of a session whose nodes are stopped and started before every question."""

    def __init__(self, ready: Ready, between: Mapping[int, Any]) -> None:
        self.ready, self.between, self.asked = ready, between, 0

    def nodes(self) -> list[int]:
        with self.ready.session() as session:
            return session.channel.nodes()

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        self.asked += 1
        if self.asked in self.between:
            self.between[self.asked]()
        with self.ready.session() as session:
            return session.channel.ask(letters, act=act, deadline_s=deadline_s)


def run_restarting(ready: Ready, between: Mapping[int, Any] | None = None) -> Outcome:
    coordinator = Coordinator(ready.federation.coordinator_directory)
    return coordinator.run(Restarting(ready, between or {}), no_progress, deadline_s=DEADLINE_S)


def used(ready: Ready, outcome: Outcome) -> list[set[bytes]]:
    with ready.holder() as holder:
        return [set(holder.ledger.subjects_of(release.name)) for release in outcome.releases]


def test_nodes_restarted_between_all_rounds_give_the_same_model_and_repeat_it(ready: Ready) -> None:
    outcome = run_restarting(ready)
    assert isinstance(outcome.model, LinearModel)
    with ready.holder() as holder:
        charged = holder.ledger.releases()
    # In one go over the same directories: every release is there already, so this also shows that a run repeats.
    again = ready.run()
    assert again.run == outcome.run
    assert isinstance(again.model, LinearModel)
    assert np.array_equal(again.model.coefficients, outcome.model.coefficients)
    assert [release.updates for release in again.releases] == [release.updates for release in outcome.releases]
    with ready.holder() as holder:
        assert holder.ledger.releases() == charged
    assert [len(people) for people in used(ready, outcome)[:4]] == [len(ready.agreeing())] * 4


def test_a_withdrawal_between_two_rounds_takes_the_person_out_of_the_next_one(ready: Ready) -> None:
    leaver, joiner = ready.agreeing()[0], ready.with_attitude(Attitude.SILENT)[0]
    federation = ready.federation

    def news() -> None:
        federation.withdraw(ready.registry, leaver)
        ready.registry.append(ASTER, [agreement(ready, joiner)])
        with ready.holder() as holder:
            holder.lane.sync(ready.registry, at=AT)

    # Opening, introduction and delivery come first; each round is two questions, the second takes the masks off.
    outcome = run_restarting(ready, {8: news})  # before round 3
    everybody = {federation.handles[place] for place in ready.agreeing()}
    rounds = used(ready, outcome)[:4]
    assert rounds == [everybody, everybody, *[everybody - {federation.handles[leaver]}] * 2]
    with ready.holder() as holder:
        assert holder.rows_used_without_consent(outcome.run, commitments_of(outcome, ASTER)) == 0


def test_a_node_that_syncs_in_mid_run_decides_anew(ready: Ready) -> None:
    leaver = ready.agreeing()[0]
    with ready.session() as session:
        holder = session.holders[ASTER]
        run = holder.run_named(joined_by(session.holders, ready.opening())[ASTER].run)
        before = holder.permitted(run, Purpose.TRAIN)
        ready.federation.withdraw(ready.registry, leaver)
        assert holder.permitted(run, Purpose.TRAIN) is before
        holder.lane.sync(ready.registry, at=AT)
        after = holder.permitted(run, Purpose.TRAIN)
    assert set(before.handles) - set(after.handles) == {ready.federation.handles[leaver]}


def test_no_round_is_answered_after_the_plans_end_a_made_release_neither(ready: Ready) -> None:
    end = AT + 23 * HOUR_S
    with ready.session() as session:
        letter = first_instruction(ready, joined_by(session.holders, ready.opening()))
        holder = session.holders[ASTER]
        assert code_of(holder.answer(letter, at=end)) == "plan"
        assert holder.ledger.releases() == ()
        made = holder.answer(letter, at=end - 1)
        assert isinstance(made.header, Update)
        assert holder.answer(letter, at=end - 1).header == made.header
        for late in (end, end + DAY_S, end + 5 * 365 * DAY_S):
            assert code_of(holder.answer(letter, at=late)) == "plan"


def test_a_scorecard_that_was_not_made_by_the_schema_is_not_measured(ready: Ready) -> None:
    with ready.session() as session:
        card = session.run(no_progress).scorecard
    assert card is not None
    fresh = opening_of(ready, name="again")
    first = card.characteristics[0]
    fewer = replace(first, attributes=first.attributes[:-1], points=first.points[:-1])
    with ready.session() as session:
        joined = joined_by(session.holders, fresh)

        def measure(forged: Scorecard) -> Letter:
            header = Measurement(joined[ASTER].run, sorted(joined), forged.to_json())
            return session.holders[ASTER].answer(Letter(header), at=AT)

        assert code_of(measure(replace(card, characteristics=(fewer, *card.characteristics[1:])))) == "internal"
        assert code_of(measure(replace(card, scale=replace(card.scale, minimum=301.0)))) == "plan"
        assert isinstance(measure(card).header, Update)  # and the true one is measured


def test_a_node_that_cannot_open_its_ledger_gives_its_lane_back(ready: Ready) -> None:
    (ready.home() / "ledger.db").write_bytes(b"no ledger " * 1000)
    with pytest.raises(TamperingError):
        Holder(ready.home())


def test_a_missing_directory_is_told_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(FedcreditError):
        Holder(tmp_path)


def test_both_purposes_are_decided_apart(ready: Ready) -> None:
    with ready.session() as session:
        joined = joined_by(session.holders, ready.opening())
        holder = session.holders[ASTER]
        run = holder.run_named(joined[ASTER].run)
        train, validate = (holder.permitted(run, purpose) for purpose in (Purpose.TRAIN, Purpose.VALIDATE))
        assert not set(train.handles) & set(validate.handles)
        assert holder.permitted(run, Purpose.TRAIN) is train


def test_a_recipe_outside_the_policy_is_refused(ready: Ready) -> None:
    set_policy(ready, "recipes", '["opacus_fedavg"]')
    assert code_of(answer(ready, ready.opening())) == "policy"
