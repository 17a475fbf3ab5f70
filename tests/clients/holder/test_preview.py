"""What a preview foretells is what a run does: letter by letter, by size, people, noise and cost. And it only looks."""

import json
import math
import re
import socket
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from clients import app as holder_app
from clients.holder import cli_policy
from clients.holder.letters import Kind
from clients.holder.look import looking
from clients.holder.preview import Preview, preview_of, read_checkpoints_file, read_plan_file
from clients.holder.preview_told import tell
from federated.flower import write_letter
from federated.messages import Coverage, Enquiry, Letter
from federated.plan import sign_plan
from federated.recipes.base import RecipeName
from federated.recipes.by_name import settings_named
from federated.recipes.registry import settings_to_dict
from federated.trust import TrustModel
from privacy.accounting import epsilon_of
from privacy.consent.record import Purpose
from privacy.consent.signing import SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalError, TamperingError, UsageError
from server.coordinator import Coordinator
from tests.clients.holder.test_terms import set_text
from tests.ready import ASTER, AT, Ready


def coordinator_of(ready: Ready) -> Path:
    return ready.federation.coordinator_directory


def previewed(ready: Ready, name: str = ASTER, *, at: int = AT) -> Preview:
    plan, checkpoints = coordinator_of(ready) / "plan.json", coordinator_of(ready) / "checkpoints.json"
    with looking(ready.home(name)) as look:
        return preview_of(look, read_plan_file(plan), read_checkpoints_file(checkpoints), at=at)


def planned(ready: Ready, **changes: object) -> None:
    plan = Coordinator(coordinator_of(ready)).plan
    ready.federation.write_plan(msgspec.structs.replace(plan, **changes))


def carried(records: RecordDict) -> int:
    """The bytes in what Flower is given: the header, and every array with numpy's own description; nonces in each."""
    header, arrays = records["header"], records.get("arrays", ArrayRecord())
    assert isinstance(header, ConfigRecord)
    assert isinstance(arrays, ArrayRecord)
    text, nonce = header["json"], header["nonce"]
    assert isinstance(text, bytes)
    assert isinstance(nonce, bytes)
    return len(text) + len(nonce) + sum(len(array.data) for array in arrays.values())


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    found = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("trust", TrustModel)
def test_every_letter_of_a_run_is_foretold_to_the_byte(
    ready: Ready, trust: TrustModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str, int]] = []

    def recorded(letter: Letter) -> RecordDict:
        records = write_letter(letter)
        sent.append((letter.header.holder, type(letter.header).__name__.lower(), carried(records)))  # type: ignore[union-attr]
        return records

    planned(ready, trust=trust)
    told = {name: previewed(ready, name) for name in ready.federation.population.holders}
    monkeypatch.setattr(holder_app, "write_letter", recorded)
    outcome = ready.run()
    assert outcome.scorecard is not None
    for name, preview in told.items():
        foretold = [(letter.kind.value, letter.size) for letter in preview.letters]
        assert foretold == [(kind, size) for holder, kind, size in sent if holder == name]
        assert preview.run.name == outcome.run
    again = previewed(ready)
    assert again.made_before == again.run.recipe.rounds + 1
    assert f"{again.made_before} of its releases" in "\n".join(tell(again, at=AT)[1])


def test_the_answer_to_a_dry_run_is_foretold_but_for_the_digits_of_its_count(ready: Ready) -> None:
    opening, foretold = ready.opening(), previewed(ready)
    enquiry = Enquiry(opening.plan, opening.plan_signature, opening.checkpoints, {})
    with ready.holder() as holder:
        answer = holder.answer(Letter(enquiry), at=AT)
        assert isinstance(answer.header, Coverage)
        assert abs(carried(write_letter(answer)) - foretold.enquiry_size) <= 2
        ((record, *_),) = [list(holder.ledger.releases())]
    assert foretold.enquiry_cost.mu == pytest.approx(record.spend.mu)  # type: ignore[union-attr]


def test_people_noise_and_cost_are_those_of_the_run(ready: Ready) -> None:
    preview = previewed(ready)
    with ready.holder() as holder:
        run = holder.run_named(holder.join(ready.opening(), at=AT).run)
        people = {purpose: len(holder.permitted(run, purpose).handles) for purpose in preview.sources}
    assert {purpose: source.people for purpose, source in preview.sources.items()} == people
    assert people[Purpose.TRAIN] == len(ready.agreeing()) > 0
    assert people[Purpose.VALIDATE] == len(ready.measured()) > 0
    # The sum of three parts is the sensitivity over mu, and what rounding to the grid costs is little.
    for stage in range(1, run.recipe.rounds + 1):
        noise = preview.noise[stage]
        assert noise.whole == pytest.approx(1 / run.recipe.mu(stage), rel=0.02)
        assert noise.own == pytest.approx(1 / run.recipe.mu(stage) / math.sqrt(3), rel=0.02)
    privacy = run.plan.privacy
    mu = math.sqrt(sum(run.recipe.mu(stage) ** 2 for stage in range(1, run.recipe.rounds + 1)))
    assert preview.costs[Purpose.TRAIN].epsilon == pytest.approx(epsilon_of(mu, privacy.delta))
    assert 0.99 * privacy.epsilon < preview.costs[Purpose.TRAIN].epsilon <= privacy.epsilon * (1 + 1e-9)  # type: ignore[operator]
    assert preview.costs[Purpose.VALIDATE].epsilon == pytest.approx(privacy.measurement_epsilon, rel=0.01)


@pytest.mark.parametrize(
    ("trust", "own", "words"),
    [
        (TrustModel.HOLDER_NOISE, True, "the coordinator reads them"),
        (TrustModel.COORDINATOR_NOISE, False, "WITHOUT NOISE"),
    ],
)
def test_whom_one_has_to_trust_is_said(ready: Ready, trust: TrustModel, own: bool, words: str) -> None:
    planned(ready, trust=trust)
    preview = previewed(ready)
    assert all((noise.own is not None) is own for noise in preview.noise.values())
    assert words in "\n".join(tell(preview, at=AT)[1])
    sealed = [letter for letter in preview.letters if letter.kind is Kind.DEALT]
    assert len(sealed) == trust.is_masked


def test_every_term_that_stands_against_the_plan_is_told_and_not_only_the_first(ready: Ready) -> None:
    for key, value in (
        ("coordinator", '"somebody-else"'), ("fewest_holders", "3"), ("purposes", '["train"]'), ("recipes", "[]"),
        ("largest_epsilon", "0.5"), ("trust_models", "[]"), ("accept_seeded_noise", "false"),
        ("hours", '"00:01-24:00"'), ("most_people", "10_000"), ("fewest_people", "1_000"),
    ):  # fmt: skip
        set_text(ready, key, value)
    planned(ready, minimum_people=2_000)
    preview = previewed(ready)
    refused = {term.name: term.code.value for term in preview.terms if not term.holds}
    assert refused == {
        "coordinator": "policy", "fewest data holders": "policy", "fewest people": "policy", "most people": "policy",
        "purposes": "policy", "recipe": "policy", "trust model": "policy", "cost": "budget", "secret noise": "policy",
        "hours": "policy", "people to train": "cohort", "people to validate": "cohort",
    }  # fmt: skip
    found = {source.table: source.people for source in preview.sources.values()}  # told here, whoever may not know
    assert found == {"rows.csv": len(ready.agreeing()), "held_out.csv": len(ready.measured())}
    facts, lines = tell(preview, at=AT)
    assert facts["allowed"] is False
    assert sum(line.startswith("  REFUSED") for line in lines) == len(refused)
    with ready.holder() as holder, pytest.raises(RefusalError, match="another coordinator"):
        holder.join(ready.opening(), at=AT)


def test_a_plan_that_policy_allows_is_said_to_be_and_is_joined(ready: Ready) -> None:
    facts, lines = tell(previewed(ready), at=AT)
    assert facts["allowed"] is True
    assert not any("REFUSED" in line for line in lines)
    with ready.holder() as holder:
        holder.join(ready.opening(), at=AT)


def test_people_in_a_table_that_is_too_large_are_not_counted(ready: Ready) -> None:
    set_text(ready, "most_people", "10")
    preview = previewed(ready)
    assert [source.people for source in preview.sources.values()] == [None, None]
    assert "policy.most_people" in "\n".join(tell(preview, at=AT)[1])


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can be reached, and whoever tries fails the test."""

    def never(*_: object) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket.socket, "connect", never)


def command(ready: Ready, *arguments: object, home: Path | None = None) -> Result:
    return CliRunner().invoke(
        cli_policy.preview, [*map(str, arguments), "--directory", str(home or ready.home())], standalone_mode=False
    )


@pytest.mark.parametrize("began", [False, True])
@pytest.mark.usefixtures("alone")
def test_it_only_looks(ready: Ready, began: bool) -> None:
    if began:
        ready.run()
    else:  # a data holder that has never synced has no lane copy and no ledger, and gets none
        for name in ("consent.db", "consent.head", "ledger.db", "ledger.db.head"):
            (ready.home() / name).unlink(missing_ok=True)
    before = files(ready.home())
    for more in ([], ["--checkpoints", coordinator_of(ready) / "checkpoints.json"], ["--json"]):
        told = command(ready, coordinator_of(ready) / "plan.json", *more)
        assert told.exception is None, told.output
    assert files(ready.home()) == before
    facts = json.loads(told.output)
    assert facts["run"] is None
    assert len(facts["letters"]) == 13
    people = [source["people_permitted"] for source in facts["sources"]]
    assert all(found > 0 for found in people) if began else people == [0, 0]
    # No handle, key or signature: the one long word is the plan's own name.
    assert set(re.findall(r"[0-9a-f]{32,}", told.output)) == {facts["plan"]["digest"]}


def test_a_file_that_is_no_plan_of_our_coordinator_is_told_as_what_it_is(ready: Ready, tmp_path: Path) -> None:
    plan = coordinator_of(ready) / "plan.json"
    other = sign_plan(Coordinator(coordinator_of(ready)).plan, SigningKey.generate())
    forged, junk = tmp_path / "forged.json", tmp_path / "junk.json"
    forged.write_bytes(msgspec.json.encode(other))
    junk.write_bytes(b"[" * 100_000)
    lacking = tmp_path / "checkpoints.json"
    lacking.write_text("{}")
    cases: list[tuple[list[object], type[FedcreditError]]] = [
        ([forged], TamperingError), ([junk], MalformedError), ([tmp_path / "none.json"], UsageError),
        ([plan, "--checkpoints", junk], MalformedError), ([plan, "--checkpoints", lacking], MalformedError),
    ]  # fmt: skip
    for arguments, kind in cases:
        assert type(command(ready, *arguments).exception) is kind, arguments
    assert type(command(ready, plan, home=tmp_path / "nowhere").exception) is UsageError
    planned(ready, schema_digest="00" * 32)
    error = command(ready, plan).exception
    assert isinstance(error, RefusalError)
    assert error.code.value == "schema"


def test_a_checkpoint_that_the_registry_did_not_sign_is_tampering(ready: Ready, tmp_path: Path) -> None:
    checkpoints = json.loads((coordinator_of(ready) / "checkpoints.json").read_text())
    swapped = tmp_path / "checkpoints.json"
    swapped.write_text(json.dumps(dict.fromkeys(checkpoints, checkpoints["birch-telecom"])))
    told = command(ready, coordinator_of(ready) / "plan.json", "--checkpoints", swapped)
    assert type(told.exception) is TamperingError


@pytest.mark.parametrize("trust", [TrustModel.SHARED_NOISE, TrustModel.HOLDER_NOISE])
def test_noise_that_a_recipe_puts_inside_its_numbers_is_said_to_be_there(ready: Ready, trust: TrustModel) -> None:
    schema, privacy = ready.federation.data.schema, Coordinator(coordinator_of(ready)).plan.privacy
    recipe = settings_named(RecipeName.LOCAL_SGD, schema, epsilon=privacy.epsilon, delta=privacy.delta)
    planned(ready, recipe=settings_to_dict(recipe), trust=trust)
    preview = previewed(ready)
    assert preview.noise[1].whole is None
    assert preview.noise[preview.run.recipe.rounds + 1].whole is not None
    spent = preview.costs[Purpose.TRAIN].epsilon
    assert spent is not None
    assert 0.5 * privacy.epsilon < spent <= privacy.epsilon
    text = "\n".join(tell(preview, at=AT)[1])
    assert "noise inside the numbers" in text
    assert ("the coordinator reads them" in text) is (trust is TrustModel.HOLDER_NOISE)
    assert len(re.findall("^ .*update in", text, re.MULTILINE)) == 2  # rounds that are alike are one line


def test_that_being_asked_costs_each_time_is_told(ready: Ready) -> None:
    told = " ".join(tell(previewed(ready), at=AT)[1])
    assert "ask once" not in told
    assert "charged each time" in told
    assert "until the hundredth of their budget" in told


def test_a_plan_cannot_speak_for_us(ready: Ready) -> None:
    """A line of its own in a plan's name or reason would pass for a line of ours."""
    for field in ("name", "reason", "coordinator"):
        with pytest.raises(MalformedError, match="printable"):
            planned(ready, **{field: "first\nSo this data holder would take part."})
