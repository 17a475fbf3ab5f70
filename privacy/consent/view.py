"""What a data holder knows from a prefix of its lane: each subject's newest verified consent record."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from privacy.consent.lane import Head, Stub
from privacy.consent.limits import HANDLE_BYTES, KEY_BYTES
from privacy.consent.merkle import leaf_hash, root_of
from privacy.consent.record import ConsentRecord, key_id, parse_record
from privacy.consent.sealing import LaneKey, Sealed, open_sealed
from privacy.consent.signing import PayloadType, verify
from privacy.errors import MalformedError, TamperingError


@dataclass(frozen=True, slots=True, repr=False)
class Link:
    """A data holder's tie to a wallet: random `handle`, the person's `public_key`, the lane's size then."""

    handle: bytes
    public_key: bytes
    linked_at_size: int

    def __post_init__(self) -> None:
        if (len(self.handle), len(self.public_key)) != (HANDLE_BYTES, KEY_BYTES) or self.linked_at_size < 0:
            raise MalformedError(
                "a link needs a handle of 32 bytes, a key of 32 bytes and a size of at least 0; "
                "the data holder must link the person again."
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """A logged stub and what lies beside the log (a ciphertext); None when it was not delivered."""

    stub: Stub
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


def check_lane(entries: Sequence[Entry], head: Head) -> None:
    """Raise TamperingError unless `entries` are the whole lane under `head` and no ciphertext is missing.

    A withheld, substituted, dropped or reordered ciphertext could be a withdrawal, so the whole lane fails.
    """
    if len(entries) != head.size:
        raise TamperingError(
            f"a lane has {len(entries)} entries and its head says {head.size}; "
            "sync the whole lane, or ask for the head again."
        )
    unmatched = 0
    leaves = []
    for entry in entries:
        stub = entry.stub
        ciphertext = entry.beside
        if ciphertext is None or hashlib.sha256(ciphertext).digest() != stub.ciphertext_sha256:
            unmatched += 1
        leaves.append(leaf_hash(stub.leaf()))
    if unmatched:
        raise TamperingError(
            f"{unmatched} of {head.size} ciphertexts of a lane are missing or not those logged; sync again, "
            "and use nobody's rows until the registry delivers them."
        )
    if root_of(leaves) != head.root:
        raise TamperingError(
            f"the root over a lane's {head.size} entries is not its head's; use nobody's rows, keep the "
            "checkpoint, and tell the registry and the auditor."
        )


def open_entry(
    entry: Entry, index: int, *, key: LaneKey, lane: str, holder: str, epoch: int, links: Mapping[bytes, Link]
) -> bytes | None:
    """The verified payload of lane entry `index`, fit to be stored for `LaneView.of`; None for all else.

    None is garbage, another epoch or data holder, an unlinked subject, an entry before the link, or a
    signature not by the linked key: it grants nothing and harms nobody. Call `check_lane` on the whole lane
    as well.
    """
    verified = _verified(entry, index, key=key, lane=lane, holder=holder, epoch=epoch, links=links)
    return verified.payload if verified else None


def project(
    entries: Sequence[Entry],
    head: Head,
    *,
    key: LaneKey,
    lane: str,
    holder: str,
    epoch: int,
    links: Mapping[bytes, Link],
) -> LaneView:
    """The view of a whole lane; `links` is keyed by handle. Raises TamperingError, see `check_lane`."""
    check_lane(entries, head)
    found = (
        _verified(entry, index, key=key, lane=lane, holder=holder, epoch=epoch, links=links)
        for index, entry in enumerate(entries)
    )
    return LaneView(head, _newest((verified.handle, verified.record) for verified in found if verified))


class _Verified(NamedTuple):
    payload: bytes
    handle: bytes
    record: ConsentRecord


def _verified(
    entry: Entry, index: int, *, key: LaneKey, lane: str, holder: str, epoch: int, links: Mapping[bytes, Link]
) -> _Verified | None:
    if entry.beside is None or entry.stub.epoch != epoch:
        return None
    try:
        opened = open_sealed(Sealed(entry.stub.commit, entry.beside), key, lane=lane, epoch=epoch)
        record = parse_record(opened.payload)
        handle = record.handle
        link = links.get(handle)
        if link is None or index < link.linked_at_size:
            return None
        if record.aud != holder or record.aud_kid != epoch or record.kid != key_id(link.public_key):
            return None
        verify(link.public_key, PayloadType.CONSENT, opened.payload, opened.signature)
    except (MalformedError, TamperingError):
        return None
    return _Verified(opened.payload, handle, record)


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
