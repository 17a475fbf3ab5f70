"""A data holder's lane copy before a lane that anybody may have written, and the gate's answer over it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from privacy.consent.gate import Allow, GatePolicy, Interval, decide
from privacy.consent.lane import Head, Stub, write_checkpoint
from privacy.consent.projection import REASON_CODES
from privacy.consent.record import ConsentRecord, Purpose
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.submission import Submission
from privacy.consent.view import Entry
from privacy.errors import RefusalError
from tests.clients.holder import lane_scene
from tests.privacy.consent.samples import (
    CATEGORIES,
    COORDINATOR,
    EPOCH,
    HOLDER,
    IDENTITY,
    LANE,
    LANE_KEY,
    NOW,
    REGISTRY,
    Person,
    digest,
    grant,
    head_of,
    record,
    sealed_entry,
)

SKEW_S = 120
POLICY = GatePolicy(clock_skew_s=SKEW_S)
SETTINGS = structs.replace(lane_scene.SETTINGS, holder=HOLDER)
ALICE, BOB = Person("alice"), Person("bob")
STRANGER = SigningKey.from_seed(digest("a stranger"))


@dataclass
class Source:
    """A registry in memory that signs the head of whatever it has, or a head that it is told."""

    entries_: list[Entry] = field(default_factory=list)
    key: SigningKey = REGISTRY
    head: Head | None = None

    def checkpoint(self, lane: str) -> str:
        assert lane == LANE
        return write_checkpoint(self.head or head_of(self.entries_), f"fedcredit/{lane}", self.key)

    def entries(self, lane: str, start: int, stop: int) -> Sequence[Entry]:
        assert lane == LANE
        return self.entries_[start:stop]


class Bed:
    """One data holder: its lane copy with `people` linked, and the lane in memory that it syncs from."""

    def __init__(
        self,
        directory: Path,
        *people: Person,
        keys: Mapping[int, LaneKey] | None = None,
        registry: bytes = REGISTRY.public,
    ) -> None:
        self.path, self.keys = directory / "consent.db", dict(keys or {EPOCH: LANE_KEY})
        address = structs.replace(SETTINGS.registry, key=registry.hex())
        self._settings = structs.replace(SETTINGS, registry=address)
        self.source = Source()
        self.lane = self._open()
        self.lane.link({person.name: person.link() for person in people})

    def _open(self) -> LaneCopy:
        return LaneCopy(self.path, self._settings, HolderKeys(IDENTITY, dict(self.keys)))

    def restart(self) -> None:
        """As after the node was stopped and started, with the keys that it has now."""
        self.lane.close()
        self.lane = self._open()

    def take(self, *entries: Entry, at: int = NOW) -> None:
        """Append to the lane, and sync."""
        self.source.entries_ += entries
        self.lane.sync(self.source, at=at)

    def asks(
        self,
        person: Person = ALICE,
        *,
        purpose: Purpose = Purpose.TRAIN,
        to: str = COORDINATOR,
        data: Sequence[str] = CATEGORIES,
        start: int = NOW,
        end: int = NOW + 60,
        past_uses: Sequence[int] | None = None,
    ) -> str:
        """What the gate says of a person: `allow`, or the reason to deny. Both forms of the gate must say the same."""
        interval, categories = Interval(start, end), frozenset(data)
        one = decide(
            self.lane.view(), person.handle, purpose=purpose, recipient=to, interval=interval, categories=categories,
            policy=POLICY, past_uses=past_uses,
        )  # fmt: skip
        said = "allow" if isinstance(one, Allow) else one.reason.value
        projection = self.lane.projection(purpose=purpose, recipient=to, categories=categories)
        row = projection.rows.get(person.handle)
        code = None if row is None else int(projection.reasons(interval, POLICY)[row])
        at_once = "none" if code is None else "allow" if code == 0 else REASON_CODES[code].value
        # The columns know no uses: they deny where a limit would have to be looked at.
        assert at_once == said or (at_once == "uses" and past_uses is not None)
        return said

    def seq(self, person: Person = ALICE) -> int | None:
        """The number of the record that stands; None without one."""
        standing = self.lane.standing(person.handle)
        assert standing is None or isinstance(standing, ConsentRecord)
        return None if standing is None else standing.seq


@contextmanager
def bed(
    directory: Path, *people: Person, keys: Mapping[int, LaneKey] | None = None, registry: bytes = REGISTRY.public
) -> Iterator[Bed]:
    """A bed whose lane copy is closed afterwards."""
    made = Bed(directory, *(people or (ALICE, BOB)), keys=keys, registry=registry)
    try:
        yield made
    finally:
        made.lane.close()


def says(
    payload: bytes, name: str, *, by: SigningKey = ALICE.key, epoch: int = EPOCH, key: LaneKey = LANE_KEY
) -> Entry:
    """Any bytes at all, signed as a consent record and sealed to the data holder."""
    return sealed_entry(payload, by.sign(PayloadType.CONSENT, payload), name=name, epoch=epoch, key=key)


def under_its_hash(entry: Entry, beside: bytes, name: str) -> Entry:
    """Other bytes under the same commitment, with a stub that is theirs: what a stranger may hand in."""
    assert isinstance(entry.stub, Stub)
    stub = Stub(digest(f"tag {name}")[:16], entry.stub.epoch, entry.stub.commit, sha256(beside).digest())
    return Entry(stub, beside)


def handed_in(entry: Entry) -> Submission:
    """The entry as it comes in through the side door."""
    assert isinstance(entry.stub, Stub)
    assert entry.beside is not None
    return Submission(entry.stub, entry.beside)


NEWER = 3  # the number of the first record after the withdrawal that the attacks come after


def wanted(seq: int = NEWER, **changes: Any) -> ConsentRecord:
    """The grant that an attacker would like to count."""
    return record(ALICE, grant(), seq=seq, **changes)


def assert_harmless(bed: Bed, *attacks: Entry) -> None:
    """None of them changes anything, in the lane, by the side door, or after a restart."""
    assert attacks
    for attack in attacks:
        with pytest.raises(RefusalError) as caught:
            bed.lane.take(handed_in(attack), at=NOW)
        assert "not a consent record" in str(caught.value)
    bed.take(*attacks)
    for _ in range(2):
        assert (bed.seq(), bed.asks(), bed.asks(BOB)) == (2, "purpose", "allow")
        bed.restart()
