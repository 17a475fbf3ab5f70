"""A dry run over data holders in this process: what everybody says is told as it is, and no run is the worse for it."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from federated.channel import Act
from federated.coverage import DEVIATION, coverage_statement, is_coverage
from federated.flower import size_of
from federated.lock import alone
from federated.messages import Coverage, Enquiry, Joined, Letter, Refused, encode_header
from federated.round_log import Event, split, verify_lines
from federated.trust import TrustModel
from privacy.accounting import epsilon_of, mu_of
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import RefusalCode, RefusalError, UsageError
from server.coordinator import Coordinator
from server.deploy import cli_dry_run, dry_run_told
from server.deploy.cli_dry_run import dry_run
from server.deploy.dry_run import DryRun, DryRuns, Said, Stand, ask_everybody
from server.deploy.refusals import meaning
from server.deploy.round_log import RoundLog
from server.deploy.traffic import traffic_of
from server.grid_channel import GridChannel
from server.memory import LedgerMarks
from server.rounds import no_progress
from tests.ready import ASTER, AT, BIRCH, CEDAR, HOLDERS, Ready, ready_in, state_of
from tests.server.deploy.home import Nodes, coordinator_home

ELSE_KEY = SigningKey.from_seed(bytes(range(32)))


@dataclass
class Ear:
    """A channel that lets answers be changed on their way, and notes what passes."""

    channel: GridChannel
    change: Callable[[dict[int, Letter]], dict[int, Letter]] = lambda answers: answers
    passed: list[tuple[Letter, Letter | None]] = field(default_factory=list)

    def nodes(self) -> list[int]:
        return self.channel.nodes()

    def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
        answers = self.channel.ask(letters, act=act, deadline_s=deadline_s)
        self.passed += [(letter, answers.get(node)) for node, letter in letters.items()]
        return self.change(dict(answers))


def asked(
    ready: Ready, change: Callable[[dict[int, Letter]], dict[int, Letter]] = lambda answers: answers
) -> DryRun:  # fmt: skip
    """A dry run of the small federation's plan; node 1 is Aster's, 2 Birch's, 3 Cedar's."""
    directory = ready.federation.coordinator_directory
    with ready.session() as session:
        assert list(session.nodes) == sorted(HOLDERS)
        return ask_everybody(
            Coordinator(directory),
            LedgerMarks(directory),
            Ear(session.channel, change),
            deadline_s=60,
            clock=iter((100.0, 102.5)).__next__,
        )


def by_holder(found: DryRun) -> dict[str, Said]:
    return {one.holder: one for one in found.said}


def coverage_in(letter: Letter) -> Coverage:
    assert isinstance(letter.header, Coverage), letter.header
    return letter.header


def told(found: DryRun) -> str:
    return " ".join(" ".join(dry_run_told.tell(found)[1]).split())


def test_everybody_says_yes_and_tells_what_the_ledger_holds(ready: Ready) -> None:
    found = asked(ready)
    assert [one.stand for one in found.said] == [Stand.TAKES_PART] * 3
    assert (found.asked, found.strangers, found.whole) == (3, 0, True)
    again = asked(ready)
    assert again.said == found.said
    for name in HOLDERS:
        with ready.holder(name) as holder:
            assert [release.release_id for release in holder.ledger.releases()] == [f"coverage/{found.run}"]
    text = told(found)
    for words in (
        "cedar-power: would take part, with about ",
        "The plan needs 2 data holders and has 3: enough.",
        "so all of those who would take part have as many",
        "Unit: one person; neighbouring relation: add or remove one person; accountant: ",
        "Not covered: ",
        "This exchange took 2.5 s",
        "That is rough: the first exchange",
        "this dry run has begun no run",
    ):
        assert words in text, (words, text)


def test_counts_are_told_within_two_deviations_and_nobody_is_fewer_than_none(ready: Ready) -> None:
    counts = {ASTER: 120, BIRCH: 250, CEDAR: -40}
    found = replace(
        asked(ready), said=tuple(Said(name, Stand.TAKES_PART, count=count) for name, count in counts.items())
    )
    facts, _ = dry_run_told.tell(found)
    people = {one["holder"]: one["people"] for one in facts["holders"]}
    for name, count in counts.items():
        assert people[name] == {"about": max(0, count), "low": max(0, count - 200), "high": max(0, count + 200)}
    # The sum is of the numbers as they came: three deviations add up as squares.
    assert facts["people"] == {"about": 330, "low": 0, "high": 330 + 346}
    assert "cedar-power: would take part, with about 0 people (0 to 160)" in told(found)
    assert "In all about 330 people (0 to 676) at 3 data holders" in told(found)
    assert facts["count_deviation"] == DEVIATION
    assert json.loads(json.dumps(facts)) == facts


def test_what_a_person_would_pay_is_told_by_the_closed_form(ready: Ready) -> None:
    privacy = dry_run_told.tell(asked(ready))[0]["privacy"]
    assert (privacy["epsilon"], privacy["delta"], privacy["runs"]) == (1.0, 1e-5, 2)
    # Gaussian releases add up in mu squared.
    assert privacy["epsilon_of_runs"] == pytest.approx(epsilon_of(mu_of(1.0, 1e-5) * np.sqrt(2), 1e-5), rel=1e-4)
    assert privacy["counted_epsilon"] == pytest.approx(epsilon_of(0.01, 1e-5))
    assert privacy["not_private"] is True
    assert privacy["excludes"]


def test_a_refusal_is_told_by_its_code_and_whose_task_it_is(ready: Ready) -> None:
    path = ready.home(BIRCH) / "holder.toml"
    path.write_text(path.read_text().replace("fewest_people = 5", "fewest_people = 5000"))
    found = asked(ready)
    said = by_holder(found)[BIRCH]
    assert (said.stand, said.code, said.count) == (Stand.REFUSES, RefusalCode.COHORT, None)
    text = told(found)
    assert f"birch-telecom: refuses (cohort): {meaning(RefusalCode.COHORT)}" in text
    assert "A refusal is not signed" in text
    with ready.holder(BIRCH) as holder:
        assert holder.ledger.releases() == ()
    facts, _ = dry_run_told.tell(found)
    assert facts["minimum_holders"] == {"needed": 2, "found": 2, "met": True}
    assert facts["traffic"]["exchanges"] == 3 + 2 * 5


@pytest.mark.parametrize("code", RefusalCode)
def test_every_code_says_what_to_do_next(code: RefusalCode) -> None:
    text = meaning(code)
    assert text.endswith(".")
    assert len(text) > 40


def test_who_is_silent_is_told_apart_from_who_refuses(ready: Ready) -> None:
    def lose(answers: dict[int, Letter]) -> dict[int, Letter]:
        del answers[3]
        return answers

    found = asked(ready, lose)
    assert by_holder(found)[CEDAR] == Said(CEDAR, Stand.SILENT)
    assert not found.whole
    assert "at most 2.5 s" in told(found)
    assert "cedar-power: no answer before the deadline" in told(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": 10_000}, "its signature does not fit"),
        ({"ledger": {"size": 99}}, "its signature does not fit"),
        ({"run": "0" * 32}, "another run"),
        ({"deviation": 1.0}, "noise has another size"),
        ({"ledger": {"size": 0}}, "mark is none"),
        ({"count": -(10**9)}, "more people than any plan"),
        ({"signature": bytes(64)}, "its signature does not fit"),
    ],
    ids=["count", "ledger", "run", "deviation", "mark", "too many", "unsigned"],
)
def test_a_changed_answer_counts_for_nothing(ready: Ready, changes: dict[str, object], reason: str) -> None:
    def tamper(answers: dict[int, Letter]) -> dict[int, Letter]:
        header = coverage_in(answers[1])
        parts = {
            name: msgspec.structs.replace(header.ledger, **value) if isinstance(value, dict) else value
            for name, value in changes.items()
        }
        return answers | {1: Letter(msgspec.structs.replace(header, **parts))}

    found = asked(ready, tamper)
    said = by_holder(found)[ASTER]
    assert (said.stand, said.count) == (Stand.UNUSABLE, None)
    assert reason in said.wrong
    assert len(found.takers) == 2
    assert ASTER not in msgspec.json.decode((ready.federation.coordinator_directory / "ledgers.json").read_bytes())


def test_nobody_answers_for_another_even_with_a_key_of_its_own(ready: Ready) -> None:
    def impersonate(answers: dict[int, Letter]) -> dict[int, Letter]:
        forged = msgspec.structs.replace(coverage_in(answers[1]), holder=BIRCH)
        signature = ELSE_KEY.sign(PayloadType.COVERAGE, coverage_statement(forged))
        return {1: Letter(msgspec.structs.replace(forged, signature=signature)), 3: answers[3]}

    assert by_holder(asked(ready, impersonate))[BIRCH].stand is Stand.UNUSABLE

    def beside(answers: dict[int, Letter]) -> dict[int, Letter]:
        return impersonate(answers) | {2: answers[2]}

    # Beside its own answer, the forged one is nothing; so is a refusal in its name, which nobody signs.
    assert by_holder(asked(ready, beside))[BIRCH].stand is Stand.TAKES_PART
    refused = Letter(Refused(BIRCH, RefusalCode.POLICY))
    assert by_holder(asked(ready, lambda answers: answers | {1: refused}))[BIRCH].stand is Stand.TAKES_PART


def test_two_nodes_that_answer_for_one_data_holder_are_both_left_out(ready: Ready) -> None:
    found = asked(ready, lambda answers: answers | {3: answers[1]})
    assert by_holder(found)[ASTER].stand is Stand.UNUSABLE
    assert "two nodes answer for it" in by_holder(found)[ASTER].wrong
    assert by_holder(found)[CEDAR].stand is Stand.SILENT


def test_answers_of_strangers_and_of_other_kinds_are_told_and_not_believed(ready: Ready) -> None:
    def strange(answers: dict[int, Letter]) -> dict[int, Letter]:
        stranger = msgspec.structs.replace(coverage_in(answers[1]), holder="somebody-else")
        joined = Joined(BIRCH, coverage_in(answers[2]).run, None, coverage_in(answers[2]).ledger, bytes(64))
        with_arrays = Letter(answers[3].header, {"words": np.zeros(2)})
        return {1: Letter(stranger), 2: Letter(joined), 3: with_arrays}

    found = asked(ready, strange)
    assert found.strangers == 1
    assert "1 nodes answered in the name of nobody in the plan's roster" in told(found)
    assert [one.stand for one in found.said] == [Stand.SILENT, Stand.UNUSABLE, Stand.UNUSABLE]
    assert dry_run_told.tell(found)[0]["people"] is None
    assert found.traffic() is None


def test_a_run_after_a_dry_run_is_the_run_there_would_have_been(tmp_path: Path) -> None:
    without, after = (ready_in(tmp_path / name) for name in ("without", "after"))
    try:
        found = asked(after)
        outcomes = [ready.run() for ready in (without, after)]
        assert outcomes[0].run == outcomes[1].run == found.run
        models = [
            (ready.federation.coordinator_directory / "runs" / found.run / "model.json").read_bytes()
            for ready in (without, after)
        ]
        assert models[0] == models[1]
        assert outcomes[0].scorecard == outcomes[1].scorecard
        for name in HOLDERS:
            charges = []
            for ready in (without, after):
                with ready.holder(name) as holder:
                    handles = sorted(ready.federation.handles[place] for place in ready.agreeing(name))
                    handles += sorted(ready.federation.handles[place] for place in ready.measured(name))
                    releases = holder.ledger.releases()
                    counted = [one.release_id for one in releases if is_coverage(one.release_id)]
                    charged = {handle for one in counted for handle in holder.ledger.subjects_of(one)}
                    charges.append(
                        (
                            [release for release in releases if release.release_id not in counted],
                            holder.ledger.spent_mu_squared(handles)
                            - 0.0001 * np.array([handle in charged for handle in handles]),
                            counted,
                        )
                    )
            assert charges[0][0] == charges[1][0]
            assert charges[0][1] == pytest.approx(charges[1][1], abs=1e-15)
            assert charges[0][1].min() > 0
            assert (charges[0][2], charges[1][2]) == ([], [f"coverage/{found.run}"])
    finally:
        without.registry.close()
        after.registry.close()


def test_a_lost_count_is_noticed_by_the_mark_that_a_dry_run_leaves(ready: Ready, tmp_path: Path) -> None:
    with ready.session():  # whoever has never opened its ledger has none that could be older
        pass
    shutil.copytree(ready.home(BIRCH), tmp_path / "backup")
    assert by_holder(asked(ready))[BIRCH].stand is Stand.TAKES_PART
    assert LedgerMarks(ready.federation.coordinator_directory).of(HOLDERS).keys() == set(HOLDERS)
    shutil.rmtree(ready.home(BIRCH))
    shutil.copytree(tmp_path / "backup", ready.home(BIRCH))
    # Restored as a whole, so that its own memory agrees: it would draw other noise and charge nobody for the first.
    said = by_holder(asked(ready))[BIRCH]
    assert (said.stand, said.code) == (Stand.REFUSES, RefusalCode.INTEGRITY)


@pytest.mark.parametrize("trust", [TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE])
def test_bytes_and_exchanges_are_those_of_a_real_run(
    ready: Ready, trust: TrustModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ready.federation.coordinator_directory
    plan = msgspec.structs.replace(Coordinator(directory).plan, trust=trust)
    ready.federation.write_plan(plan)
    coordinator = Coordinator(directory)
    expected = traffic_of(coordinator, HOLDERS)
    with ready.session() as session:
        ear = Ear(session.channel)
        coordinator.run(ear, no_progress, deadline_s=60)
    asked = [size_of(question) for question, _ in ear.passed]
    answered = [size_of(answer) for _, answer in ear.passed if answer is not None]
    assert len(asked) == len(answered) == expected.exchanges * 3
    # Names, marks and the scorecard's digits differ a little in length.
    assert sum(asked) == pytest.approx(expected.sent, rel=0.01)
    assert sum(answered) == pytest.approx(expected.received, rel=0.01)


# --- with the coordinator's settings


def _nobody_listens(what: str) -> None:
    pass


@pytest.fixture
def runs(ready: Ready) -> DryRuns:
    @contextmanager
    def registry(_: object) -> Iterator[object]:
        yield ready.registry

    return DryRuns(
        coordinator_home(ready),
        Nodes(ready),
        iter((0.0, 1.0, 2.0, 3.0)).__next__,
        _nobody_listens,
        lambda: float(AT),
        registry,  # type: ignore[arg-type]
    )


def test_it_asks_over_the_newest_heads_and_writes_marks_and_a_line_of_the_log(ready: Ready, runs: DryRuns) -> None:
    before = state_of(runs.home.directory)
    first = runs.ask()
    ready.federation.withdraw(ready.registry, ready.agreeing()[0])
    second = runs.ask()
    assert first.run != second.run
    after = state_of(runs.home.directory)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"ledgers.json", "ledgers.lock", "run.lock", "rounds.log"}
    assert before.keys() <= after.keys()
    lines, torn = split((runs.home.directory / "rounds.log").read_bytes())
    entries = verify_lines(lines, runs.home.key().public)
    plan = first.coordinator.signed.digest
    assert [(one.event, one.at, one.run, one.detail) for one in entries] == [
        (Event.ASKED, AT, found.run, {"plan": plan}) for found in (first, second)
    ]
    assert torn == b""


def test_nobody_is_asked_before_the_log_says_so(ready: Ready, runs: DryRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RefusalError("rounds.log could not be written", RefusalCode.INTERNAL)

    monkeypatch.setattr(RoundLog, "append", full)
    with pytest.raises(RefusalError, match=r"rounds\.log"):
        runs.ask()
    for name in HOLDERS:
        with ready.holder(name) as holder:
            assert holder.ledger.releases() == ()


def test_it_does_not_come_between_a_run_that_is_under_way(runs: DryRuns) -> None:
    with (
        alone(runs.home.run_lock, "a run"),
        pytest.raises(RefusalError, match="A run or another dry run of this coordinator is under way"),
    ):
        runs.ask()


def test_with_no_node_online_nobody_is_asked(ready: Ready, runs: DryRuns) -> None:
    class Empty(GridChannel):
        def nodes(self) -> list[int]:
            return []

    channels = Nodes(ready, wrap=lambda channel: Empty(channel._grid))
    with pytest.raises(RefusalError, match="No node is online"):
        replace(runs, channels=channels).ask()


def command(runs: DryRuns, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    def told(what: str) -> None:
        click.echo(f"{what} ...", err=True)

    monkeypatch.setattr(cli_dry_run, "_dry_runs", lambda _: replace(runs, tell=told))
    return CliRunner().invoke(dry_run, ["--directory", str(runs.home.directory), *arguments])


def test_the_command_prints_words_or_json(runs: DryRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command(runs, monkeypatch)
    assert words.exit_code == 0, words.output
    assert "aster-bank: would take part" in words.stdout
    assert "asking everybody" in words.stderr
    facts = json.loads(command(runs, monkeypatch, "--json").stdout)
    assert facts["minimum_holders"] == {"needed": 2, "found": 3, "met": True}
    assert facts["seconds"] == {"round_trip": 1.0, "all_answered": True, "expected_without_computing": 13.0}
    unknown = command(runs, monkeypatch, "--plan", "0" * 64)
    assert isinstance(unknown.exception, UsageError)


def test_too_few_data_holders_are_told_and_end_in_a_refusal(
    ready: Ready, runs: DryRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (BIRCH, CEDAR):
        path = ready.home(name) / "holder.toml"
        path.write_text(path.read_text().replace("fewest_people = 5", "fewest_people = 5000"))
    result = command(runs, monkeypatch)
    assert isinstance(result.exception, RefusalError)
    assert result.exception.exit_code == 3
    assert "1 data holders would take part and the plan needs 2" in str(result.exception)
    assert "birch-telecom: refuses (cohort)" in result.stdout


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(dry_run, ["--help"])
    assert "Example: fedcredit coordinator dry-run" in result.output


def test_an_enquiry_says_no_more_than_an_opening(ready: Ready) -> None:
    opening = ready.opening()
    enquiry = Enquiry(opening.plan, opening.plan_signature, opening.checkpoints, opening.ledgers)
    theirs, ours = (msgspec.json.decode(encode_header(header)) for header in (opening, enquiry))
    assert {**theirs, "kind": None} == {**ours, "kind": None}
