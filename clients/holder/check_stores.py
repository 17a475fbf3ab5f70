"""What a data holder has of other people's word: its lane copy, links and ledger, and what they allow. In the house."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from clients.holder.consents import counts
from clients.holder.desk import Desk
from clients.holder.doubt import Doubt
from clients.holder.finding import Finding, failure, ok, problem, warning
from clients.holder.gate import Listed, Question, decide_all
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from clients.holder.ledger import PrivacyLedger
from clients.holder.look import book_in, lane_in, ledger_in
from clients.holder.run import Run, decode_opening, run_of
from clients.holder.settings import HolderSettings
from federated.encoder import Encoder
from federated.schema import Schema
from privacy.consent.budget import set_aside
from privacy.consent.gate import GatePolicy
from privacy.consent.lane import Head
from privacy.consent.projection import ALLOW
from privacy.consent.record import Purpose
from privacy.discrete import mu_on_grid
from privacy.errors import FedcreditError


@dataclass(frozen=True, slots=True)
class Table:
    """One of the two tables, as far as its column of customers tells."""

    name: str
    listed: Listed


def stores(
    directory: Path, settings: HolderSettings, schema: Schema, keys: HolderKeys, tables: Sequence[Table], *, at: int
) -> tuple[list[Finding], Head | None]:
    """What is found in them, and the newest head of the lane; None if the copy does not hold."""
    found: list[Finding] = []
    head = None
    try:
        with lane_in(directory, settings, keys) as lane:
            head = lane.head
            found += _lane(lane, settings, at)
            used = _used(settings, tables)
            found.append(_links(lane, tables, used, settings.policy.fewest_people))
            with book_in(directory, keys) as book:
                found += _permitted(Desk(directory, settings, keys, lane, book), used, at)
            with ledger_in(directory, lane) as ledger:
                found += _ledger(lane, ledger, settings, schema, at)
    except FedcreditError as error:
        found.append(failure("lane and ledger", error))
    return found, head


def runs_left(lane: LaneCopy, ledger: PrivacyLedger, run: Run, schema: Schema, *, skew_s: int, at: int) -> list[int]:
    """For everybody who may be trained on now, how many more runs like `run` fit into what they allow; ascending."""
    plan, links = run.plan, lane.links()
    now = msgspec.structs.replace(plan, not_before=at, ends=at + plan.ends - plan.not_before)
    handles = list(links.values())
    spent = ledger.spent_outside("", handles, delta=plan.privacy.delta)
    counted = ledger.counted_mu_squared(handles)
    decisions = decide_all(
        Question(
            views=(lane.projection, partial(lane.projection, direct=True)),
            links=links,
            plan=now,
            purpose=Purpose.TRAIN,
            categories=schema.categories,
            policy=GatePolicy(clock_skew_s=skew_s),
            spent=dict.fromkeys(handles, 0.0),
            counted=dict(zip(handles, counted.tolist(), strict=True)),
        )
    )
    allowed: NDArray[np.bool_] = decisions.codes == ALLOW
    shares, allowances = decisions.shares[allowed], decisions.allowances[allowed]
    costs = (shares * mu_on_grid(plan.privacy.epsilon, plan.privacy.delta)) ** 2
    left = allowances * (1 + 1e-9) - set_aside(allowances, counted[allowed]) - spent[allowed]
    return sorted(np.floor(np.maximum(left, 0.0) / costs).astype(int).tolist())


def _lane(lane: LaneCopy, settings: HolderSettings, at: int) -> Iterator[Finding]:
    entries, longest = f"{lane.head.size:,} entries, verified", settings.policy.longest_lane_age_s
    sync = "fedcredit holder sync (with --watch it goes on by itself)."
    if Doubt(lane).stands():
        yield problem("lane", "the registry has contradicted itself, and no sync has held since", sync)
    if not lane.synced_at:
        yield problem("lane", "it was never synced, so nobody's row can be used", sync)
        return
    age = at - lane.synced_at
    if age < -settings.policy.clock_skew_s:
        yield problem("lane", f"its last sync lies {-age:,} s in the future", "Set the clock that is wrong, then sync.")
    elif age > longest:
        yield warning("lane", f"{entries}; synced {age:,} s ago, and {longest:,} s is the longest that will do", sync)
    else:
        yield ok("lane", f"{entries}; synced {age:,} s ago")


def _used(settings: HolderSettings, tables: Sequence[Table]) -> dict[Purpose, Table]:
    """By purpose, the table that its rows are from, with the customers who count for it."""
    by_name = {table.name: table for table in tables}
    training, held_out = by_name.get(settings.rows), by_name.get(settings.held_out)
    found = {} if training is None else {Purpose.TRAIN: training}
    if training is not None and held_out is not None:  # whoever is trained on is not measured
        measured = held_out.listed.customers - training.listed.customers
        found[Purpose.VALIDATE] = replace(held_out, listed=replace(held_out.listed, customers=measured))
    return found


def _links(lane: LaneCopy, tables: Sequence[Table], used: Mapping[Purpose, Table], fewest: int) -> Finding:
    linked = lane.links().keys()
    listed = ", ".join(f"{len(linked & table.listed.customers):,} in {table.name}" for table in tables)
    found = f"{len(linked):,}; of them {listed or 'none known in a table'}"
    if not linked:
        return problem("linked customers", "nobody is linked", "fedcredit holder link CUSTOMER --out FILE.")
    if any(len(linked & table.listed.customers) < fewest for table in used.values()):
        return warning(
            "linked customers",
            f"{found}; {fewest} are needed in each, and whoever is in both is not measured",
            "Link more of them, and see that links and tables name customers alike; until then every run is sat out.",
        )
    return ok("linked customers", found)


def _permitted(desk: Desk, used: Mapping[Purpose, Table], at: int) -> Iterator[Finding]:
    among = {purpose: table.listed.customers for purpose, table in used.items()}
    for count in counts(desk, None, at=at, among=among):
        what, fewest = f"may {count.purpose.value}", desk.settings.policy.fewest_people
        of = f" of {used[count.purpose].name}" if count.purpose in used else ""
        found = f"{count.allowed:,} linked customers{of}, for {count.to}"
        if count.purpose in (Purpose.TRAIN, Purpose.VALIDATE) and count.allowed < fewest:
            yield warning(what, f"{found}; {fewest} are needed", "Ask people; until then every run is sat out.")
        else:
            yield ok(what, found)


def _ledger(
    lane: LaneCopy, ledger: PrivacyLedger, settings: HolderSettings, schema: Schema, at: int
) -> Iterator[Finding]:
    releases = ledger.releases()
    yield ok("privacy ledger", f"{len(releases):,} releases charged, every entry verified")
    run = _last_run(lane, ledger, settings, schema)
    if run is None:
        yield ok("budget left", "no run was joined yet, so there is none to compare with")
        return
    left = runs_left(lane, ledger, run, schema, skew_s=settings.policy.clock_skew_s, at=at)
    like = f"runs like the last one (epsilon {run.plan.privacy.epsilon:g} at delta {run.plan.privacy.delta:g})"
    if not left or left[-1] == 0:
        yield warning("budget left", f"nobody who agrees can pay for {like}", "People may raise or renew their caps.")
        return
    able = sum(more > 0 for more in left)
    yield ok(
        "budget left",
        f"{like}: {able:,} of the {len(left):,} people who agree can be in one more, half of them in "
        f"{left[len(left) // 2]} or more",
    )


def _last_run(lane: LaneCopy, ledger: PrivacyLedger, settings: HolderSettings, schema: Schema) -> Run | None:
    for release in reversed(list(ledger.releases())):
        kept = lane.kept_run(release.release_id.rpartition("/")[0])
        if kept is None:
            continue
        try:
            return run_of(decode_opening(kept), settings, encoder=Encoder(schema))
        except FedcreditError:  # another schema's, or by a key that is no longer the coordinator's
            continue
    return None
