"""The auditor's side: an opening held against the run's public record, offline, every decision taken anew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from clients.audit.opening import (
    EntryLine,
    ErasedLine,
    GarbageLine,
    Header,
    Line,
    LinkLine,
    OpenedLine,
    ReleaseLine,
    TombstoneLine,
    UsedLine,
    show,
)
from clients.audit.reader import OpeningFile
from clients.audit.report import AuditReport, Judged
from clients.audit.run_record import RecordedRelease, RunRecord
from federated.encoder import Encoder
from federated.messages import LedgerMark
from federated.plan import SignedPlan, TrainingPlan, read_plan, recipe_of, run_id
from federated.releases import measurement_stage, release_name, signed_release
from federated.schema import Schema
from privacy.consent.audit import Finding, Flaw, LaneReplay, RunReplay, Shown, Terms
from privacy.consent.canonical import from_base64url
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.gate import GatePolicy, Interval
from privacy.consent.lane import Head, check_growth, read_checkpoint
from privacy.consent.limits import DIGEST_BYTES, RHO_BYTES
from privacy.consent.merkle import leaf_hash, verify_inclusion
from privacy.consent.receipt import Receipt
from privacy.consent.record import Purpose
from privacy.consent.sealing import Opened
from privacy.consent.signing import PayloadType, verify
from privacy.consent.view import Link
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

Kind = TypeVar("Kind", bound=Line)
Ordered = TypeVar("Ordered", bytes, int, tuple[bytes, int])


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Ed25519 public keys (32 bytes each) that the auditor had from their owners, not from any file of the audit."""

    coordinator: bytes
    registry: bytes
    holder: bytes


@dataclass(frozen=True)
class Audit:
    """One data holder's part in one run: everything that was checked before a line of the body is read."""

    opening: OpeningFile
    record: RunRecord
    schema: Schema
    keys: TrustedKeys
    receipts: Sequence[Receipt] = ()

    def replay(self) -> AuditReport:
        """What adds up and what does not.

        RefusalError if the files belong to different runs, data holders or schemas; TamperingError if one contradicts
        a signature or a hash; MalformedError if one cannot be read. What is wrong inside is in the report.
        """
        self._check_run()
        terms = self._terms()
        lines = _InOrder(self.opening.lines())
        links = [
            Link(line.handle, line.public_key, line.linked_at_size, line.ended_at_size) for line in lines.of(LinkLine)
        ]
        _require_ascending([(link.handle, link.linked_at_size) for link in links])
        made = list(lines.of(ReleaseLine))
        _require_ascending([line.stage for line in made])
        lane = LaneReplay(terms, links, map(self._witnessed, self.receipts))
        for entry in lines.entries():
            show(entry, lane)
        judge = lane.close()
        used: dict[int, list[bytes]] = {line.stage: [] for line in made}
        before = b""
        for line in lines.of(UsedLine):
            _require_ascending([before, line.handle])
            _require_ascending(line.stages)
            before = line.handle
            for stage in line.stages:
                if stage not in used:
                    raise _unreadable("it names subjects of a release that it does not open")
                used[stage].append(line.handle)
        lines.require_end()
        return self._report(judge, {line.stage: line for line in made}, used)

    @property
    def _header(self) -> Header:
        return self.opening.header

    @cached_property
    def _signed(self) -> SignedPlan:
        return SignedPlan(self._header.plan, self._header.plan_signature)

    @cached_property
    def _plan(self) -> TrainingPlan:
        return read_plan(self._signed, self.keys.coordinator)

    def _check_run(self) -> None:
        header, record = self._header, self.record
        if header.run != record.run:
            raise RefusalError(
                "The opening is of another run than run.json. Ask the data holder to open this run, or the coordinator "
                "for the other run's record.",
                RefusalCode.PLAN,
            )
        if header.holder not in record.holders:
            raise RefusalError(
                f"By run.json, {header.holder} did not take part in this run, and it opens it. Ask the coordinator for "
                "the record of the run that it did take part in.",
                RefusalCode.PLAN,
            )
        plan = self._plan
        if self._signed.digest != record.plan or run_id(self._signed, record.checkpoints) != record.run:
            raise TamperingError(
                "The opening's plan and run.json's checkpoints do not give the run's name: one of them was replaced. "
                "Ask the coordinator for run.json again, and the data holder to open the run again."
            )
        identities = {entry.holder: entry.identity for entry in plan.roster}
        if identities.get(header.holder) != self.keys.holder:
            raise TamperingError(
                f"The plan knows {header.holder} by another key than the one given with --holder-key. Compare both "
                "with the data holder itself."
            )
        if record.checkpoints.get(header.holder) != header.checkpoint:
            raise TamperingError(
                "The opening is pinned to another checkpoint than run.json. Ask the data holder to open the run again, "
                "and keep both files."
            )
        if self.schema.digest != plan.schema_digest:
            raise RefusalError(
                "The schema is not the plan's, so nobody knows what the run read. Ask the coordinator for the schema "
                "that the plan was written for.",
                RefusalCode.SCHEMA,
            )

    def _terms(self) -> Terms:
        header, plan = self._header, self._plan
        pinned = read_checkpoint(header.checkpoint, self._origin, self.keys.registry)
        later: Head | None = None
        if header.later is not None:
            later = read_checkpoint(header.later.checkpoint, self._origin, self.keys.registry)
            check_growth(pinned, later, header.later.consistency)
        return Terms(
            holder=header.holder,
            identity=self.keys.holder,
            pinned=pinned,
            later=later,
            recipient=plan.coordinator,
            interval=Interval(plan.not_before, plan.ends),
            categories=self.schema.categories,
            policy=GatePolicy(clock_skew_s=header.clock_skew_s),
        )

    @property
    def _origin(self) -> str:
        return f"fedcredit/{self._header.holder}"

    def _witnessed(self, receipt: Receipt) -> Shown:
        """What a receipt shows, once the registry's signature puts it into this lane.

        Whose key signed the record is not asked: the receipt counts because it opens the entry.
        """
        if receipt.lane != self._header.holder:
            raise RefusalError(
                "A receipt is for another data holder's lane; give it to that audit.",
                RefusalCode.LANE,
            )
        head = read_checkpoint(receipt.checkpoint, self._origin, self.keys.registry)
        leaf = receipt.stub.leaf()
        proof = [from_base64url(node, size=DIGEST_BYTES) for node in receipt.proof]
        verify_inclusion(leaf_hash(leaf), receipt.position, head.size, proof, head.root)
        rho = from_base64url(receipt.rho, size=RHO_BYTES)
        return Shown(receipt.position, leaf, Opened(receipt.payload_bytes, receipt.signature_bytes, rho))

    def _report(self, judge: RunReplay, made: dict[int, ReleaseLine], used: dict[int, list[bytes]]) -> AuditReport:
        recipe = recipe_of(self._plan, Encoder(self.schema))
        last = measurement_stage(recipe)
        stages = {release_name(self.record.run, stage): stage for stage in range(1, last + 1)}
        judged, about = [], list[Finding]()
        for release in self.record.releases:
            if release.name not in stages:
                raise MalformedError(
                    "run.json names a release that the plan does not have; ask the coordinator for the run's record."
                )
            stage = stages[release.name]
            purpose = Purpose.VALIDATE if stage == last else Purpose.TRAIN
            people = used.pop(stage, [])
            left_out = release.left_out.get(self._header.holder)
            judged.append(Judged(release.name, purpose, len(people), left_out))
            flaw = self._against_record(release, made.get(stage)) if left_out is None else None
            if flaw is not None:
                about.append(Finding(release.name, flaw, 0, len(people), {}))
            commitment = self._committed(release, made.get(stage), people)
            if commitment is not None:
                judge.release(release.name, purpose, salt=made[stage].salt, commitment=commitment, used=people)
        for stage, people in used.items():
            name = release_name(self.record.run, stage)
            about.append(Finding(name, Flaw.UNRECORDED, len(people), len(people), {}))
        return AuditReport(
            run=self.record.run,
            plan=self._plan.name,
            holder=self._header.holder,
            clock_skew_s=self._header.clock_skew_s,
            lane=judge.lane,
            receipts=sum(receipt.position < judge.lane.pinned.size for receipt in self.receipts),
            releases=tuple(judged),
            findings=(*about, *judge.findings()),
        )

    def _committed(self, release: RecordedRelease, made: ReleaseLine | None, people: list[bytes]) -> bytes | None:
        """What the record says was committed to; None where there is nothing to hold the subjects against."""
        holder = self._header.holder
        if made is None:
            return None
        if holder in release.left_out:
            # Charged, and in no sum: no commitment of it was recorded, but all who were charged must have agreed.
            return commit_to_subjects(made.salt, people)
        return bytes.fromhex(release.updates[holder].commitment) if holder in release.updates else None

    def _against_record(self, release: RecordedRelease, made: ReleaseLine | None) -> Flaw | None:
        update = release.updates.get(self._header.holder)
        if made is None or update is None:
            return Flaw.UNSHOWN if made is None else Flaw.UNRECORDED
        ledger = LedgerMark(update.ledger_size, bytes.fromhex(update.ledger))
        statement = signed_release(release.name, bytes.fromhex(update.commitment), made.words_sha256, ledger)
        try:
            verify(self.keys.holder, PayloadType.UPDATE, statement, bytes.fromhex(update.signature))
        except TamperingError:
            return Flaw.SIGNATURE
        return None


class _InOrder:
    """The lines of a body, kind by kind; a line out of its place is refused."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._next: Line | None = next(lines, None)

    def of(self, kind: type[Kind]) -> Iterator[Kind]:
        """The next lines as long as they are of that kind."""
        while isinstance(line := self._next, kind):
            yield line
            self._next = next(self._lines, None)

    def entries(self) -> Iterator[EntryLine]:
        """The next lines as long as they show an entry of the lane."""
        while isinstance(line := self._next, OpenedLine | ErasedLine | TombstoneLine | GarbageLine):
            yield line
            self._next = next(self._lines, None)

    def require_end(self) -> None:
        """Raise MalformedError if there are lines left."""
        if self._next is not None:
            raise _unreadable("its lines are not in their order")


def _require_ascending(values: Sequence[Ordered]) -> None:
    if any(not before < after for before, after in pairwise(values)):
        raise _unreadable("its lines are not ascending, or one stands twice")


def _unreadable(found: str) -> MalformedError:
    return MalformedError(
        f"The opening is signed and cannot be read as one: {found}. The data holder must open the run again with a "
        "current version of this program."
    )
