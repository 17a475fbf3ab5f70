"""What `fedcredit holder check` finds: nothing where all is well, and each thing that is broken by its name."""

import csv
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from clients.holder import check_network, cli_policy
from clients.holder.check import findings
from clients.holder.check_stores import runs_left
from clients.holder.check_told import facts, lines
from clients.holder.finding import Finding, State
from clients.holder.look import looking
from clients.holder.policy import own_bundle
from privacy.accounting import mu_of
from privacy.consent.budget import tier_of
from privacy.consent.lane import Head, write_checkpoint
from privacy.errors import RefusalCode, RefusalError, UsageError
from tests.clients.holder.test_preview import files
from tests.clients.holder.test_terms import set_text
from tests.ready import ASTER, AT, Ready

Break = Callable[[Path], object]


class Registry:
    """Answers with one signed note, or not at all."""

    note: str | None = None

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def checkpoint(self, lane: str) -> str:
        assert lane == ASTER
        if Registry.note is None:
            raise RefusalError("The registry is not there. Ask its operator.", RefusalCode.LANE)
        return Registry.note


@pytest.fixture(autouse=True)
def at_the_registry(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "note", ready.registry.checkpoint(ASTER))
    monkeypatch.setattr(check_network, "RegistryClient", Registry)


def found_in(ready: Ready, *, at: int = AT, ask: bool = True) -> list[Finding]:
    return findings(ready.home(), at=at, ask_registry=ask)


def worst(found: list[Finding], what: str) -> Finding:
    of_it = [finding for finding in found if finding.what == what]
    assert of_it, [finding.what for finding in found]
    return max(of_it, key=lambda finding: list(State).index(finding.state))


def test_where_all_is_well_there_is_no_problem_and_nothing_is_changed(ready: Ready) -> None:
    ready.run()
    before = files(ready.home())
    found = found_in(ready)
    assert [finding for finding in found if finding.state is State.PROBLEM] == []
    # What a data holder of an experiment accepts is worth a word; the rest is in order.
    assert {finding.what for finding in found if finding.state is State.WARNING} == {"policy", "fleet"}
    assert all(bool(finding.do) is (finding.state is not State.OK) for finding in found)
    assert files(ready.home()) == before
    told = "\n".join(lines(found))
    places = ready.places(ASTER), ready.places(ASTER, held_out=True)
    assert f"{len(places[0]):,} in rows.csv, {len(places[1]):,} in held_out.csv" in told
    # Each purpose is about the people of one table alone.
    assert re.search(rf"may train +{len(ready.agreeing()):,} linked customers of rows\.csv", told)
    assert re.search(rf"may validate +{len(ready.agreeing(held_out=True)):,} linked customers of held_out\.csv", told)
    assert facts(found)["ready"] is True


def test_no_key_handle_or_customer_is_shown(ready: Ready) -> None:
    with looking(ready.home()) as look:
        links = look.lane.links()
    told = json.dumps(facts(found_in(ready)))
    assert set(re.findall(r"[0-9a-f]{32,}", told)) == {own_bundle()}
    assert not any(handle.hex() in told for handle in links.values())


def text(name: str, old: str, new: str) -> Break:
    def broken(home: Path) -> None:
        path = home / name
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))

    return broken


def setting(key: str, value: str) -> Break:
    def broken(home: Path) -> None:
        path = home / "holder.toml"
        changed, times = re.subn(rf"^{key} = .*$", f"{key} = {value}", path.read_text(), flags=re.MULTILINE)
        assert times == 1
        path.write_text(changed)

    return broken


def gone(name: str) -> Break:
    return lambda home: (home / name).unlink()


def flipped(name: str) -> Break:
    def broken(home: Path) -> None:
        content = bytearray((home / name).read_bytes())
        for place in range(len(content) // 2, len(content), 97):
            content[place] ^= 0x55
        (home / name).write_bytes(bytes(content))

    return broken


BROKEN: dict[str, tuple[Break, str, State, str]] = {
    "settings that miss a key": (setting("hours", '"at night"'), "settings", State.PROBLEM, "hours"),
    "a lost key": (gone("keys/identity.key"), "keys", State.PROBLEM, "restore"),
    "a key that others can read": (
        lambda home: (home / "keys" / "lane-1.key").chmod(0o644), "keys", State.PROBLEM, "chmod 600",
    ),
    "a notice to be finished": (text("notice.txt", "", "FILL IN "), "notice", State.PROBLEM, "FILL IN"),
    "no notice": (gone("notice.txt"), "notice", State.PROBLEM, "notice.txt"),
    "a schema that is none": (text("schema.toml", "=", ":"), "schema", State.PROBLEM, "schema.toml"),
    "no table": (gone("rows.csv"), "tables", State.PROBLEM, "rows.csv"),
    "a table of other columns": (
        lambda home: (home / "held_out.csv").write_text("a,b\n1,2\n"), "tables", State.PROBLEM, "held_out.csv",
    ),
    "people in both tables": (
        lambda home: (home / "held_out.csv").write_bytes((home / "rows.csv").read_bytes()), "tables", State.WARNING,
        "both tables",
    ),
    "more rows than the bound": (setting("most_people", "100"), "tables", State.PROBLEM, "most_people"),
    "fewer rows than ever needed": (setting("fewest_people", "5000"), "tables", State.PROBLEM, "fewest_people"),
    "an edited lane copy": (flipped("consent.db"), "lane and ledger", State.PROBLEM, ""),
    "a lane copy that was restored": (gone("consent.db"), "lane and ledger", State.PROBLEM, ""),
    "another version": (setting("bundles", f'["{"ab" * 32}"]'), "app bundle", State.WARNING, "policy.bundles"),
    "no bundle": (setting("bundles", "[]"), "app bundle", State.WARNING, "nobody is answered"),
    "no purpose": (setting("purposes", '["score"]'), "policy", State.WARNING, "train and validate"),
    "hours that are over": (setting("hours", '"00:01-24:00"'), "policy", State.WARNING, "00:01-24:00 UTC"),
    "a fleet file that is none": (
        lambda home: (home / "fleet.toml").write_text("version = 2"), "fleet", State.PROBLEM, "fleet.toml",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_what_to_do(ready: Ready, name: str) -> None:
    broken, what, state, words = BROKEN[name]
    broken(ready.home())
    before = files(ready.home())
    of_it = [finding for finding in found_in(ready) if (finding.what, finding.state) == (what, state)]
    assert any(words in f"{finding.found} {finding.do}" and finding.do for finding in of_it), of_it
    assert files(ready.home()) == before


@pytest.mark.parametrize("name", ["rows.csv", "held_out.csv"])
def test_a_table_without_outcomes_is_a_problem_unless_nobody_may_train(ready: Ready, name: str) -> None:
    path = ready.home() / name
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    with looking(ready.home()) as look:
        place = rows[0].index(look.schema.outcome.column)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([cell for k, cell in enumerate(row) if k != place] for row in rows)
    finding = next(one for one in found_in(ready) if one.what == "tables" and one.state is State.PROBLEM)
    assert f"{name} has no column of outcomes" in finding.found
    setting("purposes", '["score"]')(ready.home())
    assert not any(one.what == "tables" and one.state is State.PROBLEM for one in found_in(ready))


def test_too_few_linked_customers_in_a_table_are_told_before_they_are_asked(ready: Ready) -> None:
    """Rows enough, customers linked enough; but those of one table are not the linked ones."""
    path = ready.home() / "rows.csv"
    path.write_text(re.sub(r"^(?=\S)", "other-", path.read_text(), flags=re.MULTILINE).removeprefix("other-"))
    found = found_in(ready)
    linked = worst(found, "linked customers")
    assert linked.state is State.WARNING
    assert "0 in rows.csv" in linked.found
    assert "5 are needed" in linked.found
    training = next(one for one in found if one.what == "may train")
    assert training.state is State.WARNING
    assert training.found.startswith("0 linked customers of rows.csv")
    assert next(one for one in found if one.what == "may validate").state is State.OK


def test_who_is_in_both_tables_is_not_counted_as_measured(ready: Ready) -> None:
    (ready.home() / "held_out.csv").write_bytes((ready.home() / "rows.csv").read_bytes())
    found = next(one for one in found_in(ready) if one.what == "may validate")
    assert found.found.startswith("0 linked customers of held_out.csv")


def test_a_ledger_that_is_gone_is_a_problem_once_something_was_charged(ready: Ready) -> None:
    ready.run()
    (ready.home() / "ledger.db").unlink()
    (ready.home() / "ledger.db.head").unlink()
    assert worst(found_in(ready), "lane and ledger").state is State.PROBLEM


def test_a_lane_that_is_old_or_from_the_future_or_was_never_synced_is_told(ready: Ready) -> None:
    set_text(ready, "longest_lane_age_s", "60")
    assert worst(found_in(ready, at=AT + 60), "lane").state is State.OK
    assert worst(found_in(ready, at=AT + 61), "lane").state is State.WARNING
    early = worst(found_in(ready, at=AT - 3600), "lane")
    assert early.state is State.PROBLEM
    assert "clock" in early.do
    for name in ("consent.db", "consent.head"):
        (ready.home() / name).unlink()
    never = found_in(ready)
    assert worst(never, "lane").state is State.PROBLEM
    assert worst(never, "linked customers").state is State.PROBLEM
    assert not (ready.home() / "consent.db").exists()


@pytest.mark.parametrize(
    ("note", "state", "words"),
    [
        (None, State.PROBLEM, "not there"),
        ("nonsense", State.PROBLEM, ""),
        (-1, State.PROBLEM, "another lane"),
        (0, State.PROBLEM, "another lane"),
        (5, State.OK, "5 entries are new"),
    ],
)
def test_what_the_registry_says_is_held_against_the_lane_copy(
    ready: Ready, note: str | int | None, state: State, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with looking(ready.home()) as look:
        size = look.lane.head.size
    if isinstance(note, int):
        head = Head(size + note, bytes(32))
        note = write_checkpoint(head, f"fedcredit/{ASTER}", ready.federation.registry_key)
    monkeypatch.setattr(Registry, "note", note)
    finding = worst(found_in(ready), "registry")
    assert finding.state is state
    assert words in finding.found
    assert worst(found_in(ready, ask=False), "registry").found == "not asked"


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0])
def test_how_many_more_runs_fit_is_what_paying_run_by_run_says(ready: Ready, epsilon: float) -> None:
    ready.run()
    with looking(ready.home()) as look, ready.holder() as holder:
        run = holder.run_named(holder.join(ready.opening(), at=AT).run)
        spent = look.ledger.spent_mu_squared(list(look.lane.links().values()), delta=run.plan.privacy.delta)
        privacy = msgspec.structs.replace(run.plan.privacy, epsilon=epsilon)
        like = replace(run, plan=msgspec.structs.replace(run.plan, privacy=privacy))
        left = runs_left(look.lane, look.ledger, like, look.schema, skew_s=120, at=AT)
        spent_by = dict(zip(look.lane.links(), spent.tolist(), strict=True))
    population, plan_mu, expected = ready.federation.population, mu_of(epsilon, privacy.delta), []
    for place in (*ready.agreeing(), *ready.agreeing(held_out=True)):
        # Their own cap, of which one part in a hundred is kept; each run has their share of it at most.
        cap = place.share_milli / 1000 * mu_of(tier_of(population.caps[place.person]) or 0.0, privacy.delta)
        run_mu = min(place.share_milli / 1000 * plan_mu, cap * math.sqrt(0.99 / privacy.releases_per_window))
        paid, runs = spent_by[ready.federation.customer(place.person)], 0
        while paid + run_mu**2 <= 0.99 * cap**2 * (1 + 1e-6):
            paid, runs = paid + run_mu**2, runs + 1
        expected.append(runs)
    assert left == sorted(expected)
    assert min(left) < max(left)


def command(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli_policy.check, ["--directory", str(home), *arguments], standalone_mode=False)


def test_a_problem_makes_the_exit_code_of_a_refusal_and_a_warning_does_not(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: float(AT))
    told = command(ready.home(), "--json")
    assert told.exception is None
    assert json.loads(told.output)["ready"] is True
    assert "warning" in command(ready.home(), "--offline").output
    (ready.home() / "notice.txt").unlink()
    told = command(ready.home())
    assert isinstance(told.exception, RefusalError)
    assert re.search(r"^PROBLEM +notice ", told.output, re.MULTILINE)
    assert "1 of" in str(told.exception)
    assert isinstance(command(tmp_path / "nowhere").exception, UsageError)
