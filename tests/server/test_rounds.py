"""The coordinator's run with real data holders: whoever fails in any step, the others have a model, and it is said."""

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from clients.audit.run_record import RunRecord, read_run_record
from experiments.federation import Federation
from experiments.session import DEADLINE_S, Session
from federated.channel import Act, Channel
from federated.messages import Letter, Refused, ScoreAnswers
from federated.model import LinearModel
from federated.trust import Aggregation, TrustModel
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.answers import SILENT, Absence, told
from server.coordinator import Coordinator, Outcome
from server.memory import LedgerMarks
from server.relay import relay_scores
from server.rounds import no_progress
from tests.ready import AT, Ready, withdrawal
from tests.server.table import step_of
from tests.small_federation import small_federation

HOLDERS = ("aster-bank", "birch-telecom", "cedar-power", "dahlia-stores")
Change = Callable[[Letter], Letter | None]
STEPS = 5  # releases of the small federation: centre, curvature, two gradients, measurement


class Meddling:
    """A channel on which answers in given steps, by node, are changed or lost on their way."""

    def __init__(self, channel: Channel, changes: Mapping[tuple[str, int], Change]) -> None:
        self.channel, self.changes = channel, changes

    def nodes(self) -> list[int]:
        return self.channel.nodes()

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        answers = self.channel.ask(letters, act=act, deadline_s=deadline_s)
        changed = {
            node: self.changes.get((step_of(letters[node].header, last=STEPS), node), kept)(letter)
            for node, letter in answers.items()
        }
        return {node: letter for node, letter in changed.items() if letter is not None}


def kept(letter: Letter) -> Letter:
    return letter


def silent(letter: Letter) -> None:
    return None


def refusing(name: str, code: RefusalCode) -> Change:
    return lambda _: Letter(Refused(name, code))


def run(session: Session, ready: Ready, changes: Mapping[tuple[str, str], Change]) -> Outcome:
    by_node = {(step, session.nodes[name]): change for (step, name), change in changes.items()}
    channel = Meddling(session.channel, by_node)
    return Coordinator(ready.federation.coordinator_directory).run(channel, no_progress, deadline_s=DEADLINE_S)


ASTER, BIRCH, CEDAR, DAHLIA = HOLDERS


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    federation, registry = small_federation(
        tmp_path_factory.mktemp("rounds") / "federation", holders=4, at=AT, everybody_agrees=True
    )
    registry.close()
    return federation


@pytest.fixture
def four(template: Federation, tmp_path: Path) -> Iterator[Ready]:
    """Four data holders, of whom one may drop out of each step."""
    shutil.copytree(template.directory, tmp_path / "federation")
    federation = copy.copy(template)
    federation.directory = tmp_path / "federation"
    made = Ready(federation, federation.open_registry())
    yield made
    made.registry.close()


def record_of(ready: Ready, outcome: Outcome) -> RunRecord:
    """The run's record as whoever audits it reads it."""
    return read_run_record(ready.federation.coordinator_directory / "runs" / outcome.run / "run.json")


def charges(session: Session) -> dict[str, int]:
    return {name: len(holder.ledger.releases()) for name, holder in session.holders.items()}


def planned(ready: Ready, **terms: object) -> None:
    """The same plan with some other terms."""
    plan = Coordinator(ready.federation.coordinator_directory).plan
    ready.federation.write_plan(msgspec.structs.replace(plan, **terms))


@pytest.mark.parametrize("stage", [1, 3, STEPS])
def test_a_data_holder_whose_update_is_lost_is_left_out_of_that_sum_and_charged_once(four: Ready, stage: int) -> None:
    with four.session() as session:
        outcome = run(session, four, {(f"update {stage}", BIRCH): silent})
        assert charges(session) == dict.fromkeys(HOLDERS, STEPS)
    assert isinstance(outcome.model, LinearModel)
    assert outcome.holders == HOLDERS
    assert list(outcome.left_out.values()) == [
        {BIRCH: SILENT.reason} if number == stage else {} for number in range(1, STEPS + 1)
    ]
    record = record_of(four, outcome)
    assert [release.left_out for release in record.releases] == list(outcome.left_out.values())
    assert record.refused == {}


@pytest.mark.parametrize("stage", [1, STEPS])
def test_a_data_holder_that_leaves_before_unmasking_is_in_the_sum(four: Ready, stage: int) -> None:
    with four.session() as session:
        whole = run(session, four, {})
    for kept in ("begun", "runs"):
        shutil.rmtree(four.federation.coordinator_directory / kept)
    with four.session() as session:
        # Repeated to the bit: what was released once is all there is.
        outcome = run(session, four, {(f"unmasking {stage}", CEDAR): silent})
        assert charges(session) == dict.fromkeys(HOLDERS, STEPS)
    assert outcome.left_out == {release.name: {} for release in outcome.releases}
    assert outcome.releases[stage - 1].unhelpful == {CEDAR: SILENT.reason}
    assert [release.unhelpful for release in record_of(four, outcome).releases][stage - 1] == {CEDAR: SILENT.reason}
    assert isinstance(whole.model, LinearModel)
    assert isinstance(outcome.model, LinearModel)
    assert outcome.model.coefficients.tolist() == whole.model.coefficients.tolist()


def test_a_data_holder_that_does_not_deal_is_in_no_sum(four: Ready) -> None:
    with four.session() as session:
        outcome = run(session, four, {("dealing", DAHLIA): silent})
        assert charges(session) == {**dict.fromkeys(HOLDERS, STEPS), DAHLIA: 0}
    assert outcome.holders == (ASTER, BIRCH, CEDAR)
    assert outcome.refused == {DAHLIA: SILENT.reason}
    assert record_of(four, outcome).refused == {DAHLIA: SILENT.reason}


def test_below_the_threshold_there_is_no_model_and_the_same_plan_again_ends_well(four: Ready) -> None:
    changes = {("update 3", ASTER): refusing(ASTER, RefusalCode.LANE), ("update 3", BIRCH): silent}
    with four.session() as session:
        with pytest.raises(RefusalError, match=rf"round 3.*{ASTER}: lane, {BIRCH}: no answer.*stays charged") as caught:
            run(session, four, changes)
        assert caught.value.code is RefusalCode.LANE
        assert not list(four.federation.coordinator_directory.glob("runs/*"))
        assert charges(session) == dict.fromkeys(HOLDERS, 3)
    with four.session() as session:
        outcome = run(session, four, {})
        assert charges(session) == dict.fromkeys(HOLDERS, STEPS)
    assert all(left_out == {} for left_out in outcome.left_out.values())


def test_who_was_left_out_of_a_sum_stays_out_when_the_run_is_repeated(four: Ready) -> None:
    with four.session() as session:
        first = run(session, four, {("update 2", BIRCH): silent})
    with four.session() as session:
        again = run(session, four, {})
    assert again.releases == first.releases
    assert again.left_out[first.releases[1].name] == {BIRCH: SILENT.reason}
    assert isinstance(first.model, LinearModel)
    assert isinstance(again.model, LinearModel)
    assert again.model.coefficients.tolist() == first.model.coefficients.tolist()


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_cut_short_goes_on_though_one_is_gone_or_somebody_has_withdrawn(four: Ready, gone: bool) -> None:
    with four.session() as session, pytest.raises(RefusalError):
        run(session, four, {("update 3", ASTER): silent, ("update 3", BIRCH): silent})
    if not gone:
        with four.session() as session:
            ledger = session.holders[ASTER].ledger
            used = ledger.subjects_of(ledger.releases()[0].release_id)
        person = next(place for place in four.agreeing(ASTER) if four.federation.handles[place] in used)
        four.registry.append(ASTER, [withdrawal(four, person)])
    with four.session(AT + 3600) as session:
        outcome = run(session, four, {("opening", DAHLIA): silent} if gone else {})
    left_out = [{DAHLIA}] * 3 if gone else [set(), set(), set()]
    if not gone:
        left_out[0] = {ASTER}  # its answer of the first try is not sent again, and was never received
    assert [set(names) for names in outcome.left_out.values()] == [set(), set(), *left_out]
    assert isinstance(outcome.model, LinearModel)


def test_fewer_than_the_plan_needs_is_a_refusal_and_nobody_is_charged(four: Ready) -> None:
    changes = {("opening", ASTER): refusing(ASTER, RefusalCode.BUDGET), ("opening", BIRCH): silent}
    with four.session() as session:
        with pytest.raises(RefusalError, match=f"{ASTER}: budget, {BIRCH}: no answer"):
            run(session, four, changes)
        assert charges(session) == dict.fromkeys(HOLDERS, 0)
    assert not list(four.federation.coordinator_directory.glob("runs/*"))


@pytest.mark.parametrize(
    ("trust", "aggregation"),
    [
        (TrustModel.COORDINATOR_NOISE, Aggregation.SUM),
        (TrustModel.HOLDER_NOISE, Aggregation.SUM),
        (TrustModel.HOLDER_NOISE, Aggregation.TRIMMED_MEAN),
        (TrustModel.HOLDER_NOISE, Aggregation.MEDIAN),
    ],
)
def test_every_trust_model_gives_a_model_and_loses_nobody_for_long(
    four: Ready, trust: TrustModel, aggregation: Aggregation
) -> None:
    planned(four, trust=trust, aggregation=aggregation, minimum_holders=4 if trust.is_masked else 3)
    with four.session() as session:
        outcome = run(session, four, {("update 4", CEDAR): silent})
    assert (outcome.trust, outcome.holders) == (trust, HOLDERS)
    assert [set(left_out) for left_out in outcome.left_out.values()] == [set(), set(), set(), {CEDAR}, set()]
    assert isinstance(outcome.model, LinearModel)


def test_a_data_holder_restored_from_a_backup_is_left_out_of_the_next_run(four: Ready, tmp_path: Path) -> None:
    shutil.copytree(four.home(ASTER), tmp_path / "backup")
    with four.session() as session:
        run(session, four, {})
    assert LedgerMarks(four.federation.coordinator_directory).of(HOLDERS).keys() == set(HOLDERS)
    # All that it keeps is as it was: nothing of its own could tell it that it has forgotten a run.
    shutil.rmtree(four.home(ASTER))
    shutil.copytree(tmp_path / "backup", four.home(ASTER))
    planned(four, name="another", dropouts_tolerated=0, minimum_holders=3)
    with four.session() as session:
        outcome = run(session, four, {})
        assert charges(session) == {**dict.fromkeys(HOLDERS, 2 * STEPS), ASTER: 0}
    assert outcome.refused == {ASTER: "integrity"}
    assert outcome.holders == (BIRCH, CEDAR, DAHLIA)


def test_scores_are_relayed_by_who_was_asked(four: Ready) -> None:
    with four.session() as session:
        card = run(session, four, {}).scorecard
        assert card is not None
        sealed = {ASTER: [b"unreadable"], BIRCH: [b"unreadable"] * 2}

        def relay(changes: Mapping[str, Change]) -> dict[str, list[bytes]]:
            by_node = {("scores", session.nodes[name]): change for name, change in changes.items()}
            return relay_scores(Meddling(session.channel, by_node), session.nodes, card, sealed, deadline_s=DEADLINE_S)

        assert {name: len(answers) for name, answers in relay({}).items()} == {ASTER: 1, BIRCH: 2}
        assert relay({ASTER: silent}).keys() == {BIRCH}
        with pytest.raises(RefusalError, match=f"{ASTER}.*policy"):
            relay({ASTER: refusing(BIRCH, RefusalCode.POLICY)})
        for lie in (ScoreAnswers(ASTER, []), ScoreAnswers(BIRCH, [b"x"])):
            with pytest.raises(MalformedError, match=ASTER):
                relay({ASTER: partial(replace, header=lie)})


def test_of_many_absences_the_first_few_are_named() -> None:
    said = told({f"holder-{k:02}": Absence("cohort", RefusalCode.COHORT) for k in range(14)})
    assert said.startswith("holder-00: cohort, holder-01: cohort")
    assert said.endswith("holder-09: cohort and 4 more")
    assert told({}) == "nobody is missing"
