"""What one run of a plan would send out of this house, what that is made of and what it costs, before anything is sent.

Nothing is asked of anybody, charged or written. Figures about people stay in the house.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from clients.holder.ledger_told import Cost
from clients.holder.letters import Leaving, answer_to_enquiry, letters_of
from clients.holder.look import Look
from clients.holder.run import Run, check_sums, read_signed
from clients.holder.samples import Samples
from clients.holder.terms import Term, terms_of
from federated.coverage import COVERAGE_SPEND
from federated.encoder import Encoder
from federated.plan import SignedPlan, recipe_of, run_id
from federated.releases import measurement_spend, measurement_stage
from federated.trust import TrustModel
from privacy.consent.lane import read_checkpoint
from privacy.consent.record import Purpose
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

_LARGEST_FILE = 1 << 24  # bytes
_NOT_PINNED = "0" * 32
"""Stands for the name of a run that has no checkpoints yet; names of runs are of one length."""

_Content = TypeVar("_Content", SignedPlan, dict[str, str])


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise in one release, as standard deviations in units of the most that one person can add to the sum.

    `own` is what this data holder adds; `whole` is what the sum carries when everybody takes part. None where the
    noise is inside the numbers, or there is none.
    """

    own: float | None
    whole: float | None


@dataclass(frozen=True, slots=True)
class Source:
    """What releases are made of: a table, by consent to a purpose. `people` are permitted at this instant; None if
    that cannot be told, for the reason in `why`."""

    purpose: Purpose
    table: str
    people: int | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """One plan as a data holder sees it before it says yes. `named` is whether the run has its name already."""

    run: Run
    named: bool
    letters: list[Leaving]
    enquiry_size: int  # bytes of the answer to a dry run, should the coordinator make one
    enquiry_cost: Cost
    noise: dict[int, Noise]  # by release
    sources: dict[Purpose, Source]
    costs: dict[Purpose, Cost]
    terms: list[Term]
    made_before: int  # releases of this very run that were made here: they would be sent again as they are


def preview_of(look: Look, signed: SignedPlan, checkpoints: dict[str, str] | None, *, at: int) -> Preview:
    """TamperingError if the plan or a checkpoint is not signed by whom it must be; MalformedError if it cannot be
    read, RefusalError if it is for another schema: of such a plan nothing can be foretold."""
    run = _run_of(look, signed, checkpoints)
    stages = range(1, measurement_stage(run.recipe) + 1)
    holder, entries = look.settings.holder, look.ledger.head.size
    sources = {purpose: _source(look, run, purpose) for purpose in (Purpose.TRAIN, Purpose.VALIDATE)}
    return Preview(
        run=run,
        named=checkpoints is not None,
        letters=letters_of(run, holder, ledger_size=entries),
        enquiry_size=answer_to_enquiry(run, holder, ledger_size=entries),
        enquiry_cost=Cost.of([COVERAGE_SPEND], run.plan.privacy.delta),
        noise={stage: _noise(run, stage) for stage in stages},
        sources=sources,
        costs=_costs(run, sources[Purpose.TRAIN].people or 1),
        terms=[*_plan_terms(look, run, at), *_house_terms(look, sources, at)],
        made_before=sum(release.release_id.startswith(f"{run.name}/") for release in look.ledger.releases()),
    )


def purpose_of(run: Run, stage: int) -> Purpose:
    """What a release uses rows for."""
    return Purpose.VALIDATE if stage == measurement_stage(run.recipe) else Purpose.TRAIN


def read_plan_file(path: Path) -> SignedPlan:
    """A signed plan as its coordinator wrote it. UsageError if there is no such file, MalformedError if it is none."""
    return _read(path, SignedPlan, "a signed training plan (plan.json, or plans/DIGEST.json)")


def read_checkpoints_file(path: Path) -> dict[str, str]:
    """The signed heads of all lanes, by data holder, as the coordinator wrote them; fails as `read_plan_file`."""
    return _read(path, dict[str, str], "the coordinator's checkpoints.json")


def _read(path: Path, kind: type[_Content], what: str) -> _Content:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE)
        return msgspec.json.decode(content, type=kind, strict=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened ({error.strerror}); give the path of {what}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise MalformedError(f"{path.name} is not {what}. Ask the coordinator for the file again.") from None


def _run_of(look: Look, signed: SignedPlan, checkpoints: dict[str, str] | None) -> Run:
    settings = look.settings
    plan = read_signed(signed, settings.policy.coordinator_keys)
    name = _NOT_PINNED
    if checkpoints is not None:
        name = run_id(signed, checkpoints)
        if (note := checkpoints.get(settings.holder)) is None:
            raise MalformedError(
                "The checkpoints hold none of this data holder's lane. Ask the coordinator for those of this plan."
            )
        read_checkpoint(note, f"fedcredit/{settings.holder}", settings.registry.public)
    # Whom an older head lets in is checked against the newest too, so these are all who can be permitted.
    return Run(name, plan, signed.digest, recipe_of(plan, Encoder(look.schema)), look.lane.head)


def _source(look: Look, run: Run, purpose: Purpose) -> Source:
    settings = look.settings
    table = settings.held_out if purpose is Purpose.VALIDATE else settings.rows
    try:
        Samples(look.directory, settings, look.schema).require_room()
    except RefusalError as error:
        return Source(purpose, table, None, str(error))
    anybody = msgspec.structs.replace(settings, policy=msgspec.structs.replace(settings.policy, fewest_people=1))
    try:
        return Source(purpose, table, len(look.permits(anybody).rows(run, purpose).handles), None)
    except RefusalError as error:
        if error.code is not RefusalCode.COHORT:
            raise
        return Source(purpose, table, 0, None)


def _noise(run: Run, stage: int) -> Noise:
    shape, plan = run.shape(stage), run.plan
    if not shape.variance:
        return Noise(None, None)
    members = len(plan.roster)
    own = shape.holder_variance(plan.trust, members=members, dropouts_tolerated=plan.dropouts_tolerated)
    whole = own * members if plan.trust is not TrustModel.COORDINATOR_NOISE else shape.variance

    def in_people(variance: int) -> float:
        return math.sqrt(variance) * 2.0**shape.grid.step_log2 / shape.sensitivity

    return Noise(in_people(own) if own else None, in_people(whole))


def _costs(run: Run, people: int) -> dict[Purpose, Cost]:
    """To one person with share 1; a recipe without noise has no cost that could be named."""
    recipe, delta = run.recipe, run.plan.privacy.delta
    training = Cost(None, None, delta)
    if recipe.is_private:
        training = Cost.of([recipe.spend(number, people) for number in range(1, recipe.rounds + 1)], delta)
    return {Purpose.TRAIN: training, Purpose.VALIDATE: Cost.of([measurement_spend(run.plan)], delta)}


def _plan_terms(look: Look, run: Run, at: int) -> list[Term]:
    terms = terms_of(run, look.settings, look.schema, identity=look.keys.identity.public, at=at)
    text, holds = "", True
    try:
        check_sums(run)
    except RefusalError as error:
        text, holds = str(error).removeprefix("The training plan is refused. "), False
    return [*terms, Term("sums", "sums fit their grids, and their noise is enough", holds, text, RefusalCode.PLAN)]


def _house_terms(look: Look, sources: dict[Purpose, Source], at: int) -> list[Term]:
    """What is no term of the plan, and would refuse it all the same."""
    fewest, found = look.settings.policy.fewest_people, []
    for purpose, source in sources.items():
        enough = source.people is not None and source.people >= fewest
        found.append(
            Term(
                f"people to {purpose.value}",
                f"{fewest} permitted people or more in {source.table}",
                enough,
                source.why or f"fewer than {fewest} people in {source.table} are permitted now",
                RefusalCode.COHORT,
            )
        )
    synced, policy = look.lane.synced_at, look.settings.policy
    found.append(
        Term(
            "lane",
            "people's decisions as of a sync that is not from the future",
            not synced or at >= synced - policy.clock_skew_s,
            "the last sync lies in the future, so a clock is or was wrong. The data holder should set its clock",
            RefusalCode.LANE,
        )
    )
    return found
