"""What a data holder knows from a prefix of its lane: each subject's newest verified consent record."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from privacy.consent.lane import AnyStub, Head, Stub, TombstoneStub
from privacy.consent.limits import HANDLE_BYTES, KEY_BYTES
from privacy.consent.merkle import leaf_hash, root_of
from privacy.consent.record import ConsentRecord, key_id, parse_record
from privacy.consent.sealing import LaneKey, Sealed, open_sealed
from privacy.consent.signing import PayloadType, verify
from privacy.consent.tombstone import read_tombstone, tombstone_stub
from privacy.errors import MalformedError, TamperingError


@dataclass(frozen=True, slots=True, repr=False)
class Link:
    """A data holder's tie to a wallet: random `handle`, the person's `public_key`, and which lane entries it is for.

    Those from `linked_at_size`, the lane's size when it began, up to `ended_at_size` (exclusive), the lane's size when
    another key took its place or the person was unlinked; None while it lasts.
    """

    handle: bytes
    public_key: bytes
    linked_at_size: int
    ended_at_size: int | None = None

    def __post_init__(self) -> None:
        ends_first = self.ended_at_size is not None and self.ended_at_size <= self.linked_at_size
        sizes = len(self.handle), len(self.public_key)
        if sizes != (HANDLE_BYTES, KEY_BYTES) or self.linked_at_size < 0 or ends_first:
            raise MalformedError(
                "a link needs a handle of 32 bytes, a key of 32 bytes, a size of at least 0, and an end after it or "
                "none; the data holder must link the person again."
            )


def links_in_force(links: Iterable[Link], size: int) -> dict[bytes, Link]:
    """The one link of each handle whose records count in the first `size` entries of a lane, by handle.

    It is the earliest that had not ended by then, one that ends at `size` included. So a prefix says for ever what it
    said when it was the whole lane and that link was the person's, and in a longer one the key that came next speaks
    alone: nothing that the ended key signed counts any more.
    """
    found: dict[bytes, Link] = {}
    for link in links:
        if link.ended_at_size is not None and link.ended_at_size < size:
            continue
        known = found.get(link.handle)
        if known is None or link.linked_at_size < known.linked_at_size:
            found[link.handle] = link
    return found


def linked_twice(links: Iterable[Link]) -> frozenset[bytes]:
    """The handles that were linked to two keys, or to one twice, for the same entries: nobody could tell which counts.

    No honest data holder has one: a link begins where the one before has ended, or later.
    """
    ordered = sorted(links, key=lambda link: (link.handle, link.linked_at_size))
    return frozenset(
        one.handle
        for one, other in pairwise(ordered)
        if one.handle == other.handle and (one.ended_at_size is None or one.ended_at_size > other.linked_at_size)
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A logged stub and what lies beside the log; None when it was not delivered.

    `beside` is a record's ciphertext, or the envelope of a tombstone's statement.
    """

    stub: AnyStub
    beside: bytes | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A subject whose two newest records contradict each other; nothing is granted until a newer one."""

    seq: int


class LaneView:
    """Every subject's standing at one pinned head; the same prefix gives the same view for ever."""

    __slots__ = ("_standings", "head")

    def __init__(self, head: Head, standings: Mapping[bytes, ConsentRecord | Conflict]) -> None:
        self.head = head
        self._standings = standings

    @classmethod
    def of(cls, head: Head, payloads: Iterable[bytes]) -> "LaneView":
        """The view of payloads that `open_entry` verified for the prefix `head`, in any order.

        Raises MalformedError for one that is not a consent record, which no verified payload is.
        """
        records = map(parse_record, payloads)
        return cls(head, _newest((record.handle, record) for record in records))

    def standing(self, handle: bytes) -> ConsentRecord | Conflict | None:
        """The subject's newest record, a Conflict, or None when there is none."""
        return self._standings.get(handle)

    def __repr__(self) -> str:
        return f"LaneView(size={self.head.size})"


def erasure(entry: Entry, index: int, *, identity: bytes, lane: str) -> tuple[int, bytes] | None:
    """Position and leaf hash of the record that lane entry `index` erases; None when it erases nothing.

    It erases when it is a tombstone whose statement, signed by the data holder `identity` (Ed25519 public key) for
    this lane, names an earlier position. The caller still compares the leaf hash with the record's at that position:
    a tombstone itself is never erased.
    """
    stub = entry.stub
    if not isinstance(stub, TombstoneStub) or entry.beside is None or stub.position >= index:
        return None
    try:
        statement = read_tombstone(entry.beside, identity=identity, lane=lane)
    except (MalformedError, TamperingError):
        return None
    return (stub.position, stub.erased_leaf) if tombstone_stub(entry.beside, statement) == stub else None


def check_lane(entries: Sequence[Entry], head: Head, *, identity: bytes, lane: str) -> frozenset[int]:
    """The erased positions, once `entries` are the whole lane under `head` and no other ciphertext is missing.

    Raises TamperingError otherwise: a withheld, substituted, dropped or reordered ciphertext could be a withdrawal,
    so the whole lane fails. Only a tombstone by the data holder `identity` among `entries` excuses a missing one.
    """
    if len(entries) != head.size:
        raise TamperingError(
            f"a lane has {len(entries)} entries and its head says {head.size}; "
            "sync the whole lane, or ask for the head again."
        )
    leaves = [leaf_hash(entry.stub.leaf()) for entry in entries]
    if root_of(leaves) != head.root:
        raise TamperingError(
            f"the root over a lane's {head.size} entries is not its head's; use nobody's rows, keep the "
            "checkpoint, and tell the registry and the auditor."
        )
    erased: set[int] = set()
    for index, entry in enumerate(entries):
        found = erasure(entry, index, identity=identity, lane=lane)
        if found and leaves[found[0]] == found[1] and isinstance(entries[found[0]].stub, Stub):
            erased.add(found[0])
    unmatched = 0
    for index, entry in enumerate(entries):
        if entry.beside is None:
            # Nothing hangs on a tombstone's own statement: without it the tombstone erases nothing.
            unmatched += isinstance(entry.stub, Stub) and index not in erased
        elif isinstance(entry.stub, Stub):
            unmatched += hashlib.sha256(entry.beside).digest() != entry.stub.ciphertext_sha256
    if unmatched:
        raise TamperingError(
            f"{unmatched} of {head.size} ciphertexts of a lane are missing or not those logged; sync again, "
            "and use nobody's rows until the registry delivers them."
        )
    return frozenset(erased)


@dataclass(frozen=True, slots=True, repr=False)
class Unsealed:
    """A record that opened and is for this data holder and epoch; who signed it is still to be checked."""

    payload: bytes
    signature: bytes
    rho: bytes
    record: ConsentRecord


def unseal(entry: Entry, *, keys: Mapping[int, LaneKey], lane: str, holder: str) -> Unsealed | None:
    """What the entry's ciphertext holds, with the commitment checked; `keys` are this data holder's by epoch.

    None for a tombstone, an epoch without a key, another data holder or epoch inside, and garbage.
    """
    stub = entry.stub
    if entry.beside is None or not isinstance(stub, Stub) or stub.epoch not in keys:
        return None
    try:
        opened = open_sealed(Sealed(stub.commit, entry.beside), keys[stub.epoch], lane=lane, epoch=stub.epoch)
        record = parse_record(opened.payload)
    except (MalformedError, TamperingError):
        return None
    if record.aud != holder or record.aud_kid != stub.epoch:
        return None
    return Unsealed(opened.payload, opened.signature, opened.rho, record)


def is_from(unsealed: Unsealed, link: Link, index: int) -> bool:
    """Whether the record of lane entry `index` is of `link`'s subject, signed by the linked key while it was linked."""
    record, end = unsealed.record, link.ended_at_size
    if index < link.linked_at_size or (end is not None and index >= end):
        return False
    if record.handle != link.handle or record.kid != key_id(link.public_key):
        return False
    try:
        verify(link.public_key, PayloadType.CONSENT, unsealed.payload, unsealed.signature)
    except TamperingError:
        return False
    return True


def open_entry(
    entry: Entry, index: int, *, keys: Mapping[int, LaneKey], lane: str, holder: str, links: Mapping[bytes, Link]
) -> bytes | None:
    """The verified payload of lane entry `index`, fit to be stored for `LaneView.of`; None for all else.

    None is garbage, another epoch or data holder, an unlinked subject, an entry before the link, or a
    signature not by the linked key: it grants nothing and harms nobody. `links` is keyed by handle. Call
    `check_lane` on the whole lane as well, and open nothing that it says is erased.
    """
    unsealed = _verified(entry, index, keys=keys, lane=lane, holder=holder, links=links)
    return unsealed.payload if unsealed else None


def project(
    entries: Sequence[Entry],
    head: Head,
    *,
    identity: bytes,
    keys: Mapping[int, LaneKey],
    lane: str,
    holder: str,
    links: Mapping[bytes, Link],
) -> LaneView:
    """The view of a whole lane; `links` is keyed by handle, see `links_in_force`. TamperingError, see `check_lane`."""
    erased = check_lane(entries, head, identity=identity, lane=lane)
    # An erased entry stays closed wherever a copy of its ciphertext is left: every copy gives the same view.
    found = (
        _verified(entry, index, keys=keys, lane=lane, holder=holder, links=links)
        for index, entry in enumerate(entries)
        if index not in erased
    )
    return LaneView(head, _newest((unsealed.record.handle, unsealed.record) for unsealed in found if unsealed))


def _verified(
    entry: Entry, index: int, *, keys: Mapping[int, LaneKey], lane: str, holder: str, links: Mapping[bytes, Link]
) -> Unsealed | None:
    unsealed = unseal(entry, keys=keys, lane=lane, holder=holder)
    link = links.get(unsealed.record.handle) if unsealed else None
    return unsealed if unsealed and link and is_from(unsealed, link, index) else None


def _newest(verified: Iterable[tuple[bytes, ConsentRecord]]) -> Mapping[bytes, ConsentRecord | Conflict]:
    """Each handle's standing; the order of arrival makes no difference."""
    standings: dict[bytes, ConsentRecord | Conflict] = {}
    for handle, record in verified:
        standing = standings.get(handle)
        if standing is None or record.seq > standing.seq:
            standings[handle] = record
        elif record.seq == standing.seq and record != standing:
            # Canonical encoding makes equal records and equal payloads the same thing.
            standings[handle] = Conflict(record.seq)
    return standings
