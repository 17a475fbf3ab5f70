"""The replay of one run at one data holder from records it opened: every decision, taken anew by somebody else.

A data holder shows links, then every entry of the lane's pinned prefix, then whom it used. Steps can only be walked
in that order: `LaneReplay` reads the entries, `LaneReplay.close` gives the `RunReplay` that judges the releases.
What does not add up is collected as findings, never raised, so that one replay tells all of it. Positions and names
of releases are told; handles and keys never are.

No data holder can show that a ciphertext does not open without giving its key away, nor of whom a record was that it
erased. So an entry said to be garbage is believed unless somebody's receipt opens it, and an erased one unless a
receipt shows that its subject is still linked: erasing a withdrawal alone would bring the grant before it back.
Nor can one show that a person did link another wallet: see `privacy.consent.audit_links`.
"""

import hmac
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from privacy.consent.audit_links import ShownLinks
from privacy.consent.commitment import commit_to_subjects
from privacy.consent.gate import Deny, GatePolicy, Interval, Reason, decide
from privacy.consent.lane import Head, Stub, TombstoneStub, parse_leaf
from privacy.consent.limits import RHO_BYTES, SIGNATURE_BYTES
from privacy.consent.merkle import Frontier, leaf_hash, verify_inclusion
from privacy.consent.record import ConsentRecord, Purpose, parse_record
from privacy.consent.sealing import Opened, commitment_of
from privacy.consent.tombstone import read_tombstone, tombstone_stub
from privacy.consent.view import Conflict, Entry, LaneView, Link, Unsealed, erasure
from privacy.errors import FedcreditError, MalformedError, TamperingError

MOST_NAMED: Final = 100
"""Positions that are named for one kind of fault; the rest are counted."""


class Fault(StrEnum):
    """What can be wrong with one entry of a lane, or with one receipt that lies at its position."""

    LEAF = "it cannot be read as a log entry"
    OPENING = "its opening does not match its commitment"
    TOMBSTONE = "it is said to be erased, and no tombstone of this data holder for it is in the log"
    KIND = "it is shown as an entry of another kind than it is"
    UNDEAD = "a tombstone of this data holder names it, and it is not shown as erased by that"
    GARBAGE = "it is said to be garbage, but a receipt opens it"
    SINGLED_OUT = "it was erased, and a receipt shows that its subject is still linked"
    OTHER = "a receipt shows another entry at this position"
    IGNORED = "a receipt opens it, and by the links shown it counts for nothing"
    ENDED = "a receipt opens it, and it is said to be by a key whose link had ended; ask whether the person ended it"


class Aside(StrEnum):
    """Why an entry that was opened counts for nothing: it grants nothing and harms nobody."""

    UNREADABLE = "not a consent record"
    ELSEWHERE = "for another data holder or key epoch"
    UNLINKED = "of a subject who is not linked"
    BEFORE_LINK = "from before its subject was linked"
    ENDED = "by a key whose link had ended"
    SIGNATURE = "not signed by its subject's linked key"


class Flaw(StrEnum):
    """What can be wrong with one release."""

    UNSHOWN = "the data holder does not open it"
    UNRECORDED = "the run's record has no update of this data holder in it"
    SIGNATURE = "the commitment in the run's record is not signed by this data holder with the numbers that it sent"
    COMMITMENT = "the subjects and the salt shown are not those committed to"
    CONSENT = "subjects were used who were not allowed"
    UNLINKED = "subjects were used who are not linked"
    ERASED = "subjects were used whose consent can no longer be shown: entries were erased since"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not add up in a release: `count` of its `of` subjects; `reasons` are the gate's."""

    release: str
    flaw: Flaw
    count: int
    of: int
    reasons: Mapping[Reason, int]


@dataclass(frozen=True, slots=True)
class LaneFindings:
    """What the entries shown gave.

    `faults` counts entries by what is wrong with them and `places` names the first 100 positions of each. `shown` is
    the head of the entries as they were shown; anything but the pinned one means that entries were left out, added,
    moved or changed.
    """

    pinned: Head
    shown: Head
    counted: int
    aside: Mapping[Aside, int]
    garbage: int
    erased_before: int  # before the run was pinned: their subjects must not have been used
    erased_since: int
    tombstones: int
    conflicts: int
    links: int  # in force in the pinned prefix
    linked_twice: int  # subjects with two links for the same entries; none of theirs counts
    subjects: int  # with a record that counts
    faults: Mapping[Fault, int]
    places: Mapping[Fault, tuple[int, ...]]

    @property
    def adds_up(self) -> bool:
        """Whether every entry of the pinned prefix was shown, each as what it is, and nobody is linked twice."""
        return self.shown == self.pinned and not self.faults and not self.linked_twice


@dataclass(frozen=True, slots=True)
class Terms:
    """What every decision of one run is held against; `identity` is the data holder's Ed25519 public key.

    `later` is a head that extends `pinned`; tombstones of entries erased since the run are shown to be under it.
    """

    holder: str
    identity: bytes
    pinned: Head
    later: Head | None
    recipient: str
    interval: Interval
    categories: frozenset[str]
    policy: GatePolicy


@dataclass(frozen=True, slots=True, repr=False)
class LateTombstone:
    """A tombstone beyond the pinned prefix: the statement's envelope, and the proof that it is in the later log."""

    envelope: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Shown:
    """What somebody's receipt says about one position: the entry logged there, and what opens it."""

    position: int
    leaf: bytes
    opened: Opened


class LaneReplay:
    """Takes every entry of a lane's prefix in order, from the first; memory grows with subjects, not with entries."""

    def __init__(self, terms: Terms, links: Iterable[Link], receipts: Iterable[Shown] = ()) -> None:
        """`links` are all there are and were. MalformedError if a receipt does not open the entry that it shows."""
        self._terms = terms
        self._links = ShownLinks(links, terms.pinned.size)
        self._receipts: dict[int, list[Shown]] = {}
        for receipt in receipts:
            _require_opens(receipt)
            self._receipts.setdefault(receipt.position, []).append(receipt)
        self._tree = Frontier()
        self._standings: dict[bytes, ConsentRecord | Conflict] = {}
        self._faults: Counter[Fault] = Counter()
        self._places: dict[Fault, list[int]] = {}
        self._aside: Counter[Aside] = Counter()
        # Position and leaf hash of what is said to be erased, by the position of the tombstone that must follow.
        self._claims: dict[int, tuple[int, bytes]] = {}
        self._erased: dict[int, bytes] = {}
        self._counted = self._garbage = self._erased_since = self._tombstones = 0

    @property
    def size(self) -> int:
        """How many entries were shown so far; the next one has this position."""
        return self._tree.size

    def opened(self, leaf: bytes, opened: Opened) -> None:
        """The next entry is a record, and this is what was sealed in it."""
        position, stub = self._next(leaf)
        if not isinstance(stub, Stub):
            self._fault(Fault.KIND, position)
            return
        if not _opens(stub, opened):
            self._fault(Fault.OPENING, position)
            return
        record = self._record(stub, position, opened)
        receipts = self._receipts.get(position, ())
        if isinstance(record, Aside):
            self._aside[record] += 1
            if receipts and record is Aside.ENDED:
                self._links.hear(parse_record(opened.payload).handle, position, counts=False)
            elif receipts:
                self._fault(Fault.IGNORED, position)
            return
        self._counted += 1
        if receipts:
            self._links.hear(record.handle, position, counts=True)
        standing = self._standings.get(record.handle)
        if standing is None or record.seq > standing.seq:
            self._standings[record.handle] = record
        elif record.seq == standing.seq and record != standing:
            self._standings[record.handle] = Conflict(record.seq)

    def garbage(self, leaf: bytes) -> None:
        """The next entry is a record by its form, and the data holder says that it does not open."""
        position, stub = self._next(leaf)
        self._garbage += 1
        if not isinstance(stub, Stub):
            self._fault(Fault.KIND, position)
        elif any(_opens(stub, receipt.opened) for receipt in self._receipts.get(position, ())):
            self._fault(Fault.GARBAGE, position)

    def tombstone(self, leaf: bytes, envelope: bytes | None) -> None:
        """The next entry is a tombstone by its form, and this is the statement that it logs, if there is one.

        One without a statement signed by this data holder erases nothing, whoever logged it, and harms nobody.
        """
        position, stub = self._next(leaf)
        self._tombstones += 1
        claimed = self._claims.pop(position, None)
        if not isinstance(stub, TombstoneStub):
            self._fault(Fault.KIND, position)
            found = None
        else:
            entry = Entry(stub, envelope)
            found = erasure(entry, position, identity=self._terms.identity, lane=self._terms.holder)
        if found is not None and found == claimed:
            self._erased[found[0]] = found[1]
        elif claimed is not None:
            self._fault(Fault.TOMBSTONE, claimed[0])
        elif found is not None and self._erased.get(found[0]) != found[1]:
            self._fault(Fault.UNDEAD, found[0])

    def erased(self, leaf: bytes, tombstone: int, late: LateTombstone | None) -> None:
        """The next entry was erased by the tombstone at that position: in the prefix, or `late` and beyond it."""
        position, stub = self._next(leaf)
        erased = position, leaf_hash(leaf)
        if any(self._is_linked(receipt) for receipt in self._receipts.get(position, ())):
            self._fault(Fault.SINGLED_OUT, position)
        if not isinstance(stub, Stub):
            self._fault(Fault.KIND, position)  # a tombstone itself is never erased
        elif late is None and tombstone not in self._claims:
            self._claims[tombstone] = erased
        elif late is not None and self._erased_later(tombstone, late) == erased:
            self._erased_since += 1
        else:
            self._fault(Fault.TOMBSTONE, position)

    def close(self) -> "RunReplay":
        """All entries were shown: the judge of the run's releases."""
        for position, _ in self._claims.values():
            self._fault(Fault.TOMBSTONE, position)
        for position in self._links.unheard():
            self._fault(Fault.ENDED, position)
        shown = Head(self._tree.size, self._tree.root)
        findings = LaneFindings(
            pinned=self._terms.pinned,
            shown=shown,
            counted=self._counted,
            aside=dict(self._aside),
            garbage=self._garbage,
            erased_before=len(self._erased),
            erased_since=self._erased_since,
            tombstones=self._tombstones,
            conflicts=sum(isinstance(standing, Conflict) for standing in self._standings.values()),
            links=len(self._links.in_force),
            linked_twice=len(self._links.twice),
            subjects=len(self._standings),
            faults=dict(self._faults),
            places={fault: tuple(places) for fault, places in self._places.items()},
        )
        return RunReplay(self._terms, findings, LaneView(shown, self._standings), self._links.in_force)

    def _next(self, leaf: bytes) -> tuple[int, Stub | TombstoneStub | None]:
        position = self._tree.size
        self._tree.append(leaf_hash(leaf))
        if any(receipt.leaf != leaf for receipt in self._receipts.get(position, ())):
            self._fault(Fault.OTHER, position)
        try:
            return position, parse_leaf(leaf)
        except MalformedError:
            self._fault(Fault.LEAF, position)
            return position, None

    def _record(self, stub: Stub, position: int, opened: Opened) -> ConsentRecord | Aside:
        try:
            record = parse_record(opened.payload)
        except MalformedError:
            return Aside.UNREADABLE
        if record.aud != self._terms.holder or record.aud_kid != stub.epoch:
            return Aside.ELSEWHERE
        unsealed = Unsealed(opened.payload, opened.signature, opened.rho, record)
        if self._links.counts(unsealed, position):
            return record
        if self._links.counted(unsealed, position):
            return Aside.ENDED
        link = self._links.in_force.get(record.handle)
        if link is None:
            return Aside.UNLINKED
        return Aside.BEFORE_LINK if position < link.linked_at_size else Aside.SIGNATURE

    def _is_linked(self, receipt: Shown) -> bool:
        try:
            return parse_record(receipt.opened.payload).handle in self._links
        except MalformedError:
            return False

    def _erased_later(self, tombstone: int, late: LateTombstone) -> tuple[int, bytes] | None:
        later = self._terms.later
        if later is None or tombstone < self._terms.pinned.size:
            return None
        try:
            statement = read_tombstone(late.envelope, identity=self._terms.identity, lane=self._terms.holder)
            stub = tombstone_stub(late.envelope, statement)
            verify_inclusion(leaf_hash(stub.leaf()), tombstone, later.size, late.proof, later.root)
        except (MalformedError, TamperingError):
            return None
        return stub.position, stub.erased_leaf

    def _fault(self, fault: Fault, position: int) -> None:
        self._faults[fault] += 1
        places = self._places.setdefault(fault, [])
        if len(places) < MOST_NAMED:
            places.append(position)


class RunReplay:
    """Judges the releases of a run by the lane's pinned prefix, once all of its entries were shown."""

    def __init__(self, terms: Terms, lane: LaneFindings, view: LaneView, links: Collection[bytes]) -> None:
        self._terms, self._view, self._links = terms, view, links
        self._decided: dict[tuple[Purpose, bytes], Reason | None] = {}
        self._unlinked: set[bytes] = set()
        self._findings: list[Finding] = []
        self.lane: Final = lane

    def release(self, name: str, purpose: Purpose, *, salt: bytes, commitment: bytes, used: Collection[bytes]) -> None:
        """The data holder used the subjects `used` in this release, and committed to them under `salt`."""
        try:
            holds = hmac.compare_digest(commit_to_subjects(salt, used), commitment)
        except FedcreditError:  # somebody twice, or a salt or handle of another size
            holds = False
        if not holds:
            self._findings.append(Finding(name, Flaw.COMMITMENT, len(used), len(used), {}))
        linked = [handle for handle in used if handle in self._links]
        denied = Counter(reason for handle in linked if (reason := self._denial(purpose, handle)) is not None)
        if denied:
            self._findings.append(Finding(name, Flaw.CONSENT, denied.total(), len(used), dict(denied)))
        if len(linked) < len(used):
            self._unlinked.update(handle for handle in used if handle not in self._links)
            self._findings.append(Finding(name, Flaw.UNLINKED, len(used) - len(linked), len(used), {}))

    def findings(self) -> tuple[Finding, ...]:
        """What does not add up, release by release.

        Erasing a subject takes link and key away, so whom an unlinked handle was cannot be told. As long as no more
        of them were used than entries were erased since, they may be erased subjects, and the finding says that.
        """
        if len(self._unlinked) > self.lane.erased_since:
            return tuple(self._findings)
        erased = {Flaw.UNLINKED: Flaw.ERASED}
        return tuple(
            Finding(found.release, erased.get(found.flaw, found.flaw), found.count, found.of, found.reasons)
            for found in self._findings
        )

    def _denial(self, purpose: Purpose, handle: bytes) -> Reason | None:
        if (purpose, handle) not in self._decided:
            decision = decide(
                self._view,
                handle,
                purpose=purpose,
                recipient=self._terms.recipient,
                interval=self._terms.interval,
                categories=self._terms.categories,
                policy=self._terms.policy,
            )
            self._decided[purpose, handle] = decision.reason if isinstance(decision, Deny) else None
        return self._decided[purpose, handle]


def _opens(stub: Stub, opened: Opened) -> bool:
    # The commitment joins its parts without their lengths: a boundary moved by a byte would turn a withdrawal into
    # something unreadable, which counts for nothing.
    if (len(opened.signature), len(opened.rho)) != (SIGNATURE_BYTES, RHO_BYTES):
        return False
    return hmac.compare_digest(commitment_of(opened.payload, opened.signature, opened.rho), stub.commit)


def _require_opens(receipt: Shown) -> None:
    stub = parse_leaf(receipt.leaf)
    if not isinstance(stub, Stub) or not _opens(stub, receipt.opened):
        raise MalformedError(
            "a receipt does not open the entry that it shows; whoever gave it to the auditor must look for the "
            "right one."
        )
