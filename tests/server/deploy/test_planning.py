"""Plans from settings: checked before they are signed, told before they are run, and never half there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

import server.deploy.planning
from experiments.recipes_by_name import settings_named
from federated.channel import Act
from federated.files import write_whole
from federated.messages import Letter, encode_header
from federated.plan import SignedPlan, read_plan
from federated.recipes.base import RecipeName
from federated.recipes.choice import choose
from federated.recipes.registry import settings_to_dict
from federated.round_log import Event
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from server.deploy.members import Members
from server.deploy.planning import CLOCKS_APART_S, Told, make_plan, shown, sign
from server.deploy.round_log import RoundLog
from server.deploy.runs import signed_plan
from server.deploy.settings import SETTINGS_FILE, Home
from server.grid_channel import GridChannel
from tests.ready import AT, HOLDERS, Ready, ready_in
from tests.server.deploy.home import Nodes, coordinator_home, enrol_everybody, runs_of


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Ready]:
    made = ready_in(tmp_path / "federation")
    yield made
    made.registry.close()


@pytest.fixture
def home(ready: Ready) -> Home:
    made = coordinator_home(ready)
    enrol_everybody(ready, made)
    return made


def changed(home: Home, line: str, instead: str) -> Home:
    path = home.directory / SETTINGS_FILE
    text = path.read_text()
    assert f"\n{line}\n" in text
    path.write_text(text.replace(f"\n{line}\n", f"\n{instead}\n"))
    return Home.open(home.directory)


def planned(home: Home, **options: Any) -> Told:
    plan, schema = make_plan(home, "autumn", holders=options.pop("holders", None), at=AT, **options)
    return sign(home, plan, schema, at=AT)


def test_a_plan_has_what_the_settings_say_and_who_is_enrolled(ready: Ready, home: Home) -> None:
    told = planned(home)
    plan, terms = told.plan, home.settings.plan
    assert {entry.holder: entry.identity for entry in plan.roster} == {
        entry.holder: entry.identity for entry in ready.federation.roster
    }
    assert (plan.name, plan.coordinator, plan.seed) == ("autumn", "open-scoring", None)
    assert (plan.privacy.epsilon, plan.privacy.delta) == (terms.epsilon, terms.delta)
    assert (plan.not_before, plan.ends) == (AT - CLOCKS_APART_S, AT + 24 * 3600)
    chosen = choose(people=450, epsilon=1.0, delta=1e-5, schema=ready.federation.data.schema)
    assert (plan.recipe, plan.reason) == (settings_to_dict(chosen.settings), chosen.reason)
    assert plan.point_scale["points_to_double_odds"] == 50


def test_it_is_signed_named_by_its_digest_and_the_current_one(home: Home) -> None:
    told = planned(home)
    digest = told.signed.digest
    kept = (home.plans / f"{digest}.json").read_bytes()
    assert kept == home.plan.read_bytes()
    assert read_plan(msgspec.json.decode(kept, type=SignedPlan), home.key().public) == told.plan
    (entry,) = RoundLog(home.round_log, home.key()).entries
    assert (entry.event, entry.detail) == (Event.PLAN_SIGNED, {"plan": digest, "name": "autumn"})
    assert shown(home, signed_plan(home, digest)).to_dict() == told.to_dict()


@pytest.mark.parametrize("name", RecipeName)
def test_every_recipe_can_be_asked_for_by_name(home: Home, name: RecipeName) -> None:
    home = changed(home, 'recipe = "auto"', f'recipe = "{name.value}"')
    plan, schema = make_plan(home, "autumn", holders=None, at=AT)
    assert plan.recipe == settings_to_dict(settings_named(name, schema, epsilon=1.0))
    assert plan.reason == "Asked for by name."


def test_a_data_holder_takes_it(ready: Ready, home: Home) -> None:
    """Judged by the whole way: a run of a plan that was made here, over everybody's own policy."""
    ask = Counting()
    plan, schema = make_plan(home, "autumn", holders=None, at=AT, seed=7)
    told = sign(home, plan, schema, at=AT)
    runs_of(ready, home, Nodes(ready, ask.channel)).run()
    assert ask.questions == told.exchanges
    header = 4096  # names, signatures, public keys; without the keys of a hundred releases
    sent = max(ask.received.values())
    assert told.bytes_sent < sent < told.bytes_sent + header * told.exchanges


@dataclass
class Counting:
    """Counts what goes over a channel: questions, and the bytes of each node's answers."""

    questions: int = 0
    received: dict[int, int] = field(default_factory=dict)

    def channel(self, inner: GridChannel) -> GridChannel:
        counting = self

        class Counted(GridChannel):
            def ask(self, letters: Mapping[int, Letter], *, act: Act, deadline_s: float) -> dict[int, Letter]:
                answers = super().ask(letters, act=act, deadline_s=deadline_s)
                counting.questions += 1
                for node, answer in answers.items():
                    size = len(encode_header(answer.header)) + sum(one.nbytes for one in answer.arrays.values())
                    counting.received[node] = counting.received.get(node, 0) + size
                return answers

        return Counted(inner._grid)


def test_some_of_the_data_holders_can_be_named(home: Home) -> None:
    assert [entry.holder for entry in planned(home, holders=[HOLDERS[2], HOLDERS[0]]).plan.roster] == [
        HOLDERS[0],
        HOLDERS[2],
    ]
    with pytest.raises(UsageError, match="not enrolled"):
        planned(home, holders=[HOLDERS[0], "dune-mutual"])


def test_who_was_revoked_is_in_no_plan(home: Home) -> None:
    Members(home.directory).revoke(HOLDERS[1], at=AT)
    assert HOLDERS[1] not in [entry.holder for entry in planned(home).plan.roster]
    with pytest.raises(UsageError, match="not enrolled"):
        planned(home, holders=HOLDERS)


def test_too_few_are_enrolled_for_a_plan(home: Home) -> None:
    with pytest.raises(RefusalError, match="1 data holders are enrolled") as caught:
        planned(home, holders=HOLDERS[:1])
    assert caught.value.code is RefusalCode.COHORT


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ('aggregation = "sum"', 'aggregation = "median"'),  # single updates are hidden by the masks
        ("dropouts_tolerated = 0", "dropouts_tolerated = 1"),
        ("maximum = 850", "maximum = 200"),
    ],
)
def test_a_plan_that_does_not_add_up_is_not_signed(home: Home, line: str, instead: str) -> None:
    before = planned(home).signed
    home = changed(home, line, instead)
    with pytest.raises(MalformedError):
        planned(home)
    assert signed_plan(home, None) == before
    assert len(list(home.plans.iterdir())) == 1
    assert len(RoundLog(home.round_log, home.key()).entries) == 1


def test_a_full_disk_leaves_the_earlier_plan(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(home).signed
    for writes in range(2):
        left = writes

        def full(path: Path, content: bytes, *, secret: bool = False) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise RefusalError(f"{path.name} could not be written", RefusalCode.INTERNAL)
            write_whole(path, content, secret=secret)

        with monkeypatch.context() as patch:
            patch.setattr(server.deploy.planning, "write_whole", full)
            plan, schema = make_plan(home, "winter", holders=None, at=AT)
            with pytest.raises(RefusalError):
                sign(home, plan, schema, at=AT)
        assert signed_plan(home, None) == before


def test_a_plan_file_that_was_swapped_is_noticed(home: Home) -> None:
    first = planned(home)
    home = changed(home, "valid_hours = 24.0", "valid_hours = 2.0")
    second = planned(home)
    path = home.plans / f"{first.signed.digest}.json"
    path.write_bytes((home.plans / f"{second.signed.digest}.json").read_bytes())
    with pytest.raises(MalformedError, match="another plan"):
        signed_plan(home, first.signed.digest)
    forged = SignedPlan(second.signed.payload, bytes(64))
    with pytest.raises(TamperingError):
        shown(home, forged)
    for digest in ("../coordinator", "0" * 64):
        with pytest.raises(UsageError, match="no plan of that digest"):
            signed_plan(home, digest)


def test_without_a_plan_there_is_none_to_run(home: Home) -> None:
    home.plan.unlink()
    with pytest.raises(UsageError, match="coordinator plan"):
        signed_plan(home, None)
