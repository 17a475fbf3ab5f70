"""What a data holder can show of one run: the lines of an opening, from its own lane copy, ledger and keys."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final

import msgspec

from clients.audit.opening import (
    EntryLine,
    ErasedLine,
    GarbageLine,
    LateLine,
    Line,
    LinkLine,
    OpenedLine,
    ReleaseLine,
    TombstoneLine,
    UsedLine,
)
from clients.holder.keys import HolderKeys
from clients.holder.lane import Kind, LaneCopy, LaneOpening, LaneSource
from clients.holder.ledger import PrivacyLedger
from clients.holder.run import Run
from federated.releases import release_name
from privacy.consent.lane import Stub, parse_leaf
from privacy.consent.merkle import TreeHead, inclusion_proof, leaf_hash
from privacy.consent.sealing import Opened, Sealed, open_sealed
from privacy.consent.view import Entry
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

_FETCHED: Final = 256  # entries at a time


class _Sent(msgspec.Struct):
    """Of the bytes that were kept of a release, what the audit reads."""

    words: bytes


@dataclass(frozen=True)
class Disclosure:
    """One run of one data holder. `source` is asked only for entries that this copy could not open, to try again.

    A record that an edited or damaged copy no longer opens could be a withdrawal; without a source it is believed to
    be garbage.
    """

    holder: str
    run: Run
    keys: HolderKeys
    lane: LaneCopy
    ledger: PrivacyLedger
    source: Callable[[], LaneSource] | None

    def lines(self) -> Iterator[Line]:
        """All of the body in order, entries read a few at a time."""
        return chain(self.links(), self.releases(), self.entries(), self.used())

    def links(self) -> list[LinkLine]:
        """Every link, ended ones too, ascending by handle: the order of the customers is nobody's business."""
        return [
            LinkLine(link.handle, link.public_key, link.linked_at_size, link.ended_at_size)
            for link in self.lane.links_ever()
        ]

    def releases(self) -> list[ReleaseLine]:
        """Every release of the run that was made, ascending by stage."""
        found = []
        for stage in self._stages:
            name = release_name(self.run.name, stage)
            kept = self.ledger.kept(name)
            if kept is None:
                raise RefusalError(
                    f"Release {name} was charged, and its bytes were never made. The data holder should have the run "
                    "finished first: the coordinator runs the same plan again.",
                    RefusalCode.PLAN,
                )
            words = msgspec.msgpack.decode(kept, type=_Sent).words
            found.append(ReleaseLine(stage, self.keys.round_salt(name), hashlib.sha256(words).digest()))
        return found

    def used(self) -> list[UsedLine]:
        """Every subject who was charged in a release of the run, ascending by handle."""
        stages: dict[bytes, list[int]] = {}
        for stage in self._stages:
            for handle in self.ledger.subjects_of(release_name(self.run.name, stage)):
                stages.setdefault(handle, []).append(stage)
        return [UsedLine(handle, tuple(stages[handle])) for handle in sorted(stages)]

    def entries(self) -> Iterator[EntryLine]:
        """Every entry of the pinned prefix, in order. RefusalError for one that waits for its tombstone."""
        waiting: list[LaneOpening] = []
        for opening in self.lane.openings(self.run.pinned.size):
            if opening.state is Kind.GARBAGE and self.source is not None:
                waiting.append(opening)
            else:
                yield from self._tried(waiting)
                waiting = []
                yield self._line(opening)
            if len(waiting) == _FETCHED:
                yield from self._tried(waiting)
                waiting = []
        yield from self._tried(waiting)

    @property
    def needs_later(self) -> bool:
        """Whether an entry of the prefix was erased by a tombstone beyond it: showing that takes a later checkpoint."""
        size = self.run.pinned.size
        return any(
            opening.state is Kind.FORGOTTEN or (opening.tombstone or 0) >= size for opening in self.lane.openings(size)
        )

    @cached_property
    def tree(self) -> TreeHead:
        """The lane as far as it was synced."""
        return TreeHead(leaf_hash(opening.leaf) for opening in self.lane.openings(self.lane.head.size))

    @cached_property
    def _stages(self) -> list[int]:
        prefix = f"{self.run.name}/"
        names = [release.release_id for release in self.ledger.releases()]
        return sorted(int(name.removeprefix(prefix)) for name in names if name.startswith(prefix))

    def _line(self, opening: LaneOpening) -> EntryLine:
        match opening:
            case LaneOpening(
                state=Kind.OPENED,
                payload=bytes() as payload,
                signature=bytes() as signature,
                rho=bytes() as rho,
            ):
                return OpenedLine(opening.leaf, payload, signature, rho)
            case LaneOpening(state=Kind.TOMBSTONE):
                return TombstoneLine(opening.leaf, opening.payload)
            case LaneOpening(state=Kind.ERASED, tombstone=int() as tombstone):
                return ErasedLine(opening.leaf, tombstone, self._late(tombstone))
            case LaneOpening(state=Kind.GARBAGE):
                return GarbageLine(opening.leaf)
            case _:
                raise RefusalError(
                    f"Entry {opening.position} was erased here and its tombstone is not in the lane yet, so nothing "
                    "can be shown of it. The data holder should send the tombstones and sync, then open the run again.",
                    RefusalCode.LANE,
                )

    def _late(self, tombstone: int) -> LateLine | None:
        if tombstone < self.run.pinned.size:
            return None
        envelope = self.lane.opening(tombstone).payload
        if envelope is None:
            raise TamperingError(
                f"Entry {tombstone} is the tombstone of an earlier one and its statement is gone from this lane copy. "
                "The data holder should move the copy away, link its customers again and sync anew."
            )
        return LateLine(envelope, tuple(inclusion_proof(self.tree, tombstone, self.tree.size)))

    def _tried(self, openings: list[LaneOpening]) -> Iterator[EntryLine]:
        """These consecutive entries that this copy could not open, each opened from the registry's bytes if it does."""
        if not openings or self.source is None:
            return
        first, stop = openings[0].position, openings[-1].position + 1
        entries: list[Entry] = []
        while first + len(entries) < stop:
            fetched = self.source().entries(self.holder, first + len(entries), stop)
            if not fetched:
                break
            entries.extend(fetched)
        if [entry.stub.leaf() for entry in entries] != [opening.leaf for opening in openings]:
            raise TamperingError(
                "The registry serves other entries than those synced before: two histories exist. Keep this lane "
                "copy, use nobody's rows, and tell the registry's operator and the auditor."
            )
        for opening, entry in zip(openings, entries, strict=True):
            digest = None if entry.beside is None else hashlib.sha256(entry.beside).digest()
            if digest != parse_leaf(opening.leaf).beside_sha256:
                raise TamperingError(
                    f"The registry withholds or replaces what lies beside entry {opening.position}, which could be a "
                    "withdrawal. Keep this lane copy, use nobody's rows, and tell the registry's operator and the "
                    "auditor."
                )
            found = self._opened(entry)
            if found is None:
                yield GarbageLine(opening.leaf)
            else:
                yield OpenedLine(opening.leaf, found.payload, found.signature, found.rho)

    def _opened(self, entry: Entry) -> Opened | None:
        stub = entry.stub
        if not isinstance(stub, Stub) or entry.beside is None or stub.epoch not in self.keys.lane_keys:
            return None
        key = self.keys.lane_keys[stub.epoch]
        try:
            return open_sealed(Sealed(stub.commit, entry.beside), key, lane=self.holder, epoch=stub.epoch)
        except (MalformedError, TamperingError):
            return None
