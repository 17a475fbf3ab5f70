"""The gate: exactly the rows whose people agreed, and no cell of anybody else's."""

import csv
from collections import Counter
from dataclasses import replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.holder.gate import PermittedRows, Question, decide_all, permitted_rows
from experiments.people import Attitude
from experiments.wishes import DAY_S
from federated.schema_toml import load_schema
from federated.table import read_table
from privacy.consent.gate import GatePolicy
from privacy.consent.projection import ALLOW, Projection
from privacy.consent.record import Purpose
from privacy.discrete import mu_on_grid as mu_of
from privacy.errors import MalformedError, RefusalCode, RefusalError
from server.coordinator import Coordinator
from tests.ready import ASTER, AT, Ready, agreement

TIERS = (0.25, 0.5, 1, 2, 4, 8)


def question(ready: Ready, **changes: Any) -> Question:
    plan = Coordinator(ready.federation.coordinator_directory).plan
    with ready.holder() as holder:
        links = holder.lane.links()
        # A list, because the lane is closed by the time that the gate looks.
        asked = Question(
            views=(partial(Projection.of, list(holder.lane.standings())),),
            links=links,
            plan=plan,
            purpose=Purpose.TRAIN,
            categories=ready.federation.data.schema.categories,
            policy=GatePolicy(clock_skew_s=120),
            spent=dict.fromkeys(links.values(), 0.0),
            counted=dict.fromkeys(links.values(), 0.0),
        )
    return replace(asked, **changes)


def permitted(ready: Ready, asked: Question, *, fewest: int = 1, table: str = "rows.csv") -> PermittedRows:
    schema = load_schema(ready.home() / "schema.toml")
    return permitted_rows(ready.home() / table, schema, decide_all(asked), fewest=fewest)


def rewrite(path: Path, change: dict[str, str], *, only: set[str]) -> int:
    """Overwrite cells of the rows whose first cell is in `only`; how many rows that was."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    changed = [row for row in rows if row[0] in only]
    for row in changed:
        for name, cell in change.items():
            row[header.index(name)] = cell
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return len(changed)


@pytest.mark.parametrize(("purpose", "held_out"), [(Purpose.TRAIN, False), (Purpose.VALIDATE, True)])
def test_those_who_agreed_pass_and_nobody_else(ready: Ready, purpose: Purpose, held_out: bool) -> None:
    rows = permitted(ready, question(ready, purpose=purpose), table="held_out.csv" if held_out else "rows.csv")
    expected = ready.agreeing(held_out=held_out)
    assert len(expected) > 30
    assert rows.table.subjects == tuple(ready.federation.customer(place.person) for place in expected)
    assert rows.handles == tuple(ready.federation.handles[place] for place in expected)


def test_the_rest_is_counted_by_what_they_said(ready: Ready) -> None:
    reasons = {
        Attitude.SILENT: "none",
        Attitude.SCORE_ONLY: "purpose",
        Attitude.WITHDREW: "purpose",
        Attitude.EXPIRED: "time",
        Attitude.FROZE: "frozen",
        Attitude.PARTIAL: "data",
        Attitude.AGREES: "budget",  # those who agreed with a cap that is too small
    }
    agreed = set(ready.agreeing())
    left_out = [place for place in ready.places(ASTER) if place not in agreed]
    expected = Counter(reasons[ready.federation.population.attitudes[place.person]] for place in left_out)
    assert len(expected) >= 5
    assert permitted(ready, question(ready)).refusals == dict(expected)


def test_consent_to_the_other_purpose_or_recipient_is_none(ready: Ready) -> None:
    with pytest.raises(RefusalError) as caught:
        permitted(ready, question(ready, purpose=Purpose.MONITOR))
    assert caught.value.code is RefusalCode.COHORT
    other = replace_plan(question(ready), coordinator="somebody-else")
    with pytest.raises(RefusalError):
        permitted(ready, other)


def replace_plan(asked: Question, **changes: Any) -> Question:
    return replace(asked, plan=msgspec.structs.replace(asked.plan, **changes))


def test_a_consent_that_ends_within_the_plan_does_not_cover_it(ready: Ready) -> None:
    longer = replace_plan(question(ready), ends=AT + 300 * DAY_S - 120)
    with pytest.raises(RefusalError):
        permitted(ready, longer)
    assert len(permitted(ready, replace_plan(question(ready), ends=AT + 300 * DAY_S - 121)).handles) > 30


def test_shares_are_the_persons_own_and_held_down_by_the_cap(ready: Ready) -> None:
    rows = permitted(ready, question(ready))
    plan_mu = mu_of(1.0, 1e-5)
    for place, share, allowance in zip(ready.agreeing(), rows.shares, rows.allowances, strict=True):
        tier = max(tier for tier in TIERS if tier <= ready.federation.population.caps[place.person])
        full = place.share_milli / 1000
        assert share == pytest.approx(full * min(1.0, mu_of(tier, 1e-5) * sqrt(0.99 / 2) / plan_mu))
        assert allowance == pytest.approx((full * mu_of(tier, 1e-5)) ** 2)
        assert 2 * (share * plan_mu) ** 2 <= allowance * (1 + 1e-9)


def test_no_cell_of_a_row_without_consent_is_read(ready: Ready) -> None:
    before = permitted(ready, question(ready))
    agreed = {ready.federation.customer(place.person) for place in ready.agreeing()}
    everybody = {ready.federation.customer(place.person) for place in ready.places(ASTER)}
    poison = dict.fromkeys(("LIMIT_BAL", "PAY_0", "AGE", "default"), "poison")
    assert rewrite(ready.home() / "rows.csv", poison, only=everybody - agreed) > 10
    after = permitted(ready, question(ready))
    assert after.table.subjects == before.table.subjects
    assert after.outcome.tolist() == before.outcome.tolist()
    for name, cells in before.table.columns.items():
        assert after.table.columns[name].tolist() == cells.tolist()
    # The same poison in one row that is read must be noticed: the check above can fail.
    victim = min(agreed)
    assert rewrite(ready.home() / "rows.csv", poison, only={victim}) == 1
    with pytest.raises(MalformedError) as caught:
        permitted(ready, question(ready))
    assert "poison" not in str(caught.value)


def test_a_ragged_row_without_consent_harms_nobody(ready: Ready) -> None:
    before = permitted(ready, question(ready))
    agreed = {ready.federation.customer(place.person) for place in ready.agreeing()}
    path = ready.home() / "rows.csv"
    lines = path.read_text().splitlines(keepends=True)
    refused = next(at for at, line in enumerate(lines[1:], start=1) if line.split(",")[0] not in agreed)
    lines[refused] = lines[refused].split(",")[0] + ",poison\n"
    path.write_text("".join(lines))
    assert permitted(ready, question(ready)).handles == before.handles


def test_whoever_is_not_linked_is_left_out(ready: Ready) -> None:
    asked = question(ready)
    victim = ready.agreeing()[0]
    links = {customer: handle for customer, handle in asked.links.items() if handle != ready.federation.handles[victim]}
    rows = permitted(ready, replace(asked, links=links))
    assert len(rows.handles) == len(ready.agreeing()) - 1
    assert rows.refusals["unlinked"] == 1


def test_whoever_would_pass_the_cap_in_this_run_is_left_out_of_all_of_it(ready: Ready) -> None:
    asked = question(ready)
    rows = permitted(ready, asked)
    room = 0.99 * rows.allowances[0] - (rows.shares[0] * mu_of(1.0, 1e-5)) ** 2
    just = permitted(ready, replace(asked, spent={**asked.spent, rows.handles[0]: room}))
    assert just.handles == rows.handles
    over = permitted(ready, replace(asked, spent={**asked.spent, rows.handles[0]: room * 1.0001 + 1e-6}))
    assert over.handles == rows.handles[1:]
    assert over.refusals["budget"] == rows.refusals.get("budget", 0) + 1


def test_fewer_than_the_fewest_sit_the_run_out(ready: Ready) -> None:
    people = len(ready.agreeing())
    assert len(permitted(ready, question(ready), fewest=people).handles) == people
    with pytest.raises(RefusalError, match="sits the run out") as caught:
        permitted(ready, question(ready), fewest=people + 1)
    assert caught.value.code is RefusalCode.COHORT
    assert f" {people} " not in str(caught.value)


def test_a_withdrawal_applies_at_once_and_a_new_grant_with_the_next_run(ready: Ready) -> None:
    pinned = question(ready)
    leaver, joiner = ready.agreeing()[0], ready.with_attitude(Attitude.SILENT)[0]
    federation = ready.federation
    federation.withdraw(ready.registry, leaver)
    ready.registry.append(ASTER, [agreement(ready, joiner)])
    ready.sync()
    newest = question(ready)
    both = permitted(ready, replace(pinned, views=(*pinned.views, *newest.views)))
    assert federation.handles[leaver] not in both.handles
    assert federation.handles[joiner] not in both.handles
    assert len(both.handles) == len(ready.agreeing()) - 1
    assert federation.handles[leaver] in permitted(ready, pinned).handles
    assert federation.handles[joiner] in permitted(ready, newest).handles


def test_a_smaller_budget_applies_at_once(ready: Ready) -> None:
    pinned = question(ready)
    person = max(ready.agreeing(), key=lambda place: ready.federation.population.caps[place.person])
    ready.registry.append(ASTER, [agreement(ready, person, cap=0.25, share_milli=1)])
    ready.sync()
    rows = permitted(ready, replace(pinned, views=(*pinned.views, *question(ready).views)))
    at = rows.handles.index(ready.federation.handles[person])
    assert rows.shares[at] <= 0.001
    assert rows.allowances[at] == pytest.approx((0.001 * mu_of(0.25, 1e-5)) ** 2)


def test_a_table_without_outcomes_has_nothing_to_learn(ready: Ready) -> None:
    path = ready.home() / "rows.csv"
    column = ready.federation.data.schema.outcome.column
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    at = header.index(column)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*row[:at], *row[at + 1 :]] for row in (header, *rows)])
    assert read_table(path, load_schema(ready.home() / "schema.toml")).outcome is None
    with pytest.raises(MalformedError, match="outcome"):
        permitted(ready, question(ready))


def test_who_asks_no_view_is_allowed_nobody(ready: Ready) -> None:
    assert not (decide_all(replace(question(ready), views=())).codes == ALLOW).any()
    with pytest.raises(RefusalError):
        permitted(ready, replace(question(ready), views=()))


def test_decisions_are_the_same_only_if_everybodys_are(ready: Ready) -> None:
    asked = question(ready)
    decisions = decide_all(asked)
    assert decisions.same_as(decide_all(asked))
    customer, handle = next(iter(asked.links.items()))
    fewer = {name: subject for name, subject in asked.links.items() if name != customer}
    turned = {**fewer, customer: handle}
    allowed = ready.federation.handles[ready.agreeing()[0]]
    for other in (
        replace(asked, links=fewer),
        replace(
            asked,
            links={**asked.links, customer: bytes(32)},
            spent={**asked.spent, bytes(32): 0.0},
            counted={**asked.counted, bytes(32): 0.0},
        ),
        replace(asked, spent={**asked.spent, allowed: 1e9}),
        replace(asked, purpose=Purpose.SCORE),
        replace_plan(asked, privacy=msgspec.structs.replace(asked.plan.privacy, epsilon=0.9)),
    ):
        assert not decisions.same_as(decide_all(other))
    assert turned == asked.links
    assert not replace(decisions, links=turned).same_as(decisions)  # the same codes for others
