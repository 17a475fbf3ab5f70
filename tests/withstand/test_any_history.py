"""Whatever happens in whatever order, the lane copy says what a dictionary says: one stateful property."""

import tempfile
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from privacy.consent.gate import Interval
from privacy.consent.projection import REASON_CODES
from privacy.consent.record import ConsentRecord, Purpose, encode_record
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import PayloadType
from privacy.consent.view import Conflict, Entry
from privacy.errors import RefusalError, TamperingError
from tests.privacy.consent.samples import (
    CATEGORIES,
    COORDINATOR,
    NOW,
    Person,
    digest,
    garbage,
    grant,
    head_of,
    record,
    sealed_entry,
)
from tests.withstand.beds import POLICY, STRANGER, Bed, Source, handed_in, under_its_hash

PEOPLE = tuple(Person(name) for name in ("alice", "bob", "carol"))
WISHES = ("grant", "withdraw", "freeze")
SAYS = {"grant": "allow", "withdraw": "purpose", "freeze": "frozen"}
KEYS = {epoch: LaneKey.from_bytes(b"\x01" + digest(f"epoch {epoch}")) for epoch in (1, 2, 3)}
FORGERIES = ("stranger's signature", "another type", "another holder", "another epoch", "no record", "cut", "flipped")

Said = tuple[str, int]  # the wish, and the epoch in it: another epoch makes another record

people = st.sampled_from(PEOPLE)


@dataclass
class Model:
    """What one person's dictionary knows: by number, the wishes that were said under it, each sealed to an epoch."""

    lane: dict[int, set[Said]] = field(default_factory=dict)
    direct: dict[int, set[Said]] = field(default_factory=dict)

    def newest(self, *, direct: bool) -> tuple[int, set[Said]] | None:
        """The highest number, and all that was said under it."""
        numbers = {*self.lane, *(self.direct if direct else ())}
        if not numbers:
            return None
        top = max(numbers)
        return top, self.lane.get(top, set()) | (self.direct.get(top, set()) if direct else set())

    def answer(self, *, direct: bool) -> str:
        """What the gate must say."""
        found = self.newest(direct=direct)
        if found is None:
            return "none"
        _, said = found
        return "conflict" if len(said) > 1 else SAYS[next(iter(said))[0]]


class AnyHistory(RuleBasedStateMachine):
    """One data holder, three people and anybody; after each sync and restart the copy is held against the model."""

    written: Bundle[tuple[Person, int, str, int, Entry]] = Bundle("written")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.bed = Bed(Path(self.directory.name), *PEOPLE, keys={1: KEYS[1]})
        self.numbers = count()
        self.seqs = dict.fromkeys(PEOPLE, 0)
        self.models = {person: Model() for person in PEOPLE}
        # What lies in the registry and was not synced: whom it is about, if it is anybody's record, and its epoch.
        self.waiting: list[tuple[Person, int, str, int] | None] = []

    def teardown(self) -> None:
        self.bed.lane.close()
        self.directory.cleanup()

    @property
    def epoch(self) -> int:
        return max(self.bed.keys)

    def payload(self, person: Person, seq: int, wish: str, epoch: int, **changes: object) -> bytes:
        grants = () if wish == "withdraw" else (grant(),)
        return encode_record(
            record(person, *grants, seq=seq, frozen=wish == "freeze", **({"aud_kid": epoch} | changes))
        )

    def sealed(self, payload: bytes, signature: bytes, epoch: int) -> Entry:
        name = f"entry {next(self.numbers)}"
        return sealed_entry(payload, signature, name=name, epoch=epoch, key=KEYS[epoch])

    def append(self, entry: Entry, about: tuple[Person, int, str, int] | None) -> None:
        self.bed.source.entries_.append(entry)
        self.waiting.append(about)

    @rule(
        target=written, person=people, wish=st.sampled_from(WISHES), ahead=st.sampled_from((1, 1, 1, 0, 3)),
        old_key=st.booleans(), submitted=st.booleans(),
    )  # fmt: skip
    def says(
        self, person: Person, wish: str, ahead: int, old_key: bool, submitted: bool
    ) -> tuple[Person, int, str, int, Entry]:
        """A person writes the next record, repeats a number by mistake (0), or skips some; it is submitted or waits."""
        seq = self.seqs[person] = max(1, self.seqs[person] + ahead)
        epoch = max(1, self.epoch - old_key)
        payload = self.payload(person, seq, wish, epoch)
        entry = self.sealed(payload, person.key.sign(PayloadType.CONSENT, payload), epoch)
        if submitted:
            self.append(entry, (person, seq, wish, epoch))
        return person, seq, wish, epoch, entry

    @rule(what=written)
    def submits(self, what: tuple[Person, int, str, int, Entry]) -> None:
        """It reaches the registry: late, out of order, or for the second time."""
        *about, entry = what
        self.append(entry, tuple(about))  # type: ignore[arg-type]

    @rule(what=written)
    def hands_in(self, what: tuple[Person, int, str, int, Entry]) -> None:
        """It reaches the data holder itself."""
        person, seq, wish, epoch, entry = what
        model = self.models[person]
        if epoch not in self.bed.keys:
            with pytest.raises(RefusalError):
                self.bed.lane.take(handed_in(entry), at=NOW)
            return
        newest = model.newest(direct=True)
        new = newest is None or newest[0] < seq or (newest[0] == seq and (wish, epoch) not in newest[1])
        # Once two contradict each other a third changes nothing more.
        settled = newest is not None and newest[0] == seq and len(newest[1]) > 1
        assert self.bed.lane.take(handed_in(entry), at=NOW) is (new and not settled)
        if new and not settled:
            model.direct = {number: said for number, said in model.direct.items() if number >= seq}
            model.direct.setdefault(seq, set()).add((wish, epoch))

    @rule(number=st.integers(1, 4))
    def throws_garbage(self, number: int) -> None:
        for _ in range(number):
            self.append(garbage(f"junk {next(self.numbers)}"), None)

    @rule(person=people, fault=st.sampled_from(FORGERIES))
    def forges(self, person: Person, fault: str) -> None:
        """A stranger grants in somebody's name, under a number that nobody has used."""
        seq, epoch = self.seqs[person] + 50, self.epoch
        changes: dict[str, object] = {"aud": "holder-02"} if fault == "another holder" else {}
        changes |= {"aud_kid": epoch + 1} if fault == "another epoch" else {}
        payload = b"{}" if fault == "no record" else self.payload(person, seq, "grant", epoch, **changes)
        signer = STRANGER if fault == "stranger's signature" else person.key
        kind = PayloadType.LINK if fault == "another type" else PayloadType.CONSENT
        entry = self.sealed(payload, signer.sign(kind, payload), epoch)
        if fault in ("cut", "flipped"):
            sealed = entry.beside or b""
            changed = sealed[:-1] if fault == "cut" else sealed[:700] + bytes([sealed[700] ^ 1]) + sealed[701:]
            entry = under_its_hash(entry, changed, f"changed {next(self.numbers)}")
        with pytest.raises(RefusalError):
            self.bed.lane.take(handed_in(entry), at=NOW)
        self.append(entry, None)

    @precondition(lambda self: self.epoch < max(KEYS))
    @rule()
    def rotates(self) -> None:
        self.bed.keys[self.epoch + 1] = KEYS[self.epoch + 1]
        self.bed.restart()

    @precondition(lambda self: len(self.bed.keys) > 1)
    @rule()
    def destroys_the_oldest_key(self) -> None:
        del self.bed.keys[min(self.bed.keys)]
        self.bed.restart()

    @rule()
    def restarts(self) -> None:
        self.bed.restart()

    @precondition(lambda self: self.bed.lane.head.size > 0)
    @rule(drop=st.integers(0, 3))
    def is_lied_to(self, drop: int) -> None:
        """The registry takes back or exchanges what was synced: nothing of it is kept."""
        known, lane = self.bed.lane.head.size, self.bed.source.entries_
        shorter = lane[: max(0, known - 1 - drop)]
        forked = [garbage("fork"), *lane[1:]]
        for lie in (shorter, forked):
            with pytest.raises(TamperingError):
                self.bed.lane.sync(Source(lie), at=NOW)

    @rule()
    def syncs(self) -> None:
        fresh = len(self.waiting)
        assert self.bed.lane.sync(self.bed.source, at=NOW) == fresh
        for about in self.waiting:
            if about is None or about[3] not in self.bed.keys:
                continue
            person, seq, wish, epoch = about
            self.models[person].lane.setdefault(seq, set()).add((wish, epoch))
        self.waiting = []

    @invariant()
    def the_copy_says_what_the_model_says(self) -> None:
        lane = self.bed.lane
        assert lane.head == head_of(self.bed.source.entries_[: lane.head.size])
        for direct in (False, True):
            projection = lane.projection(
                purpose=Purpose.TRAIN, recipient=COORDINATOR, categories=frozenset(CATEGORIES), direct=direct
            )
            codes = projection.reasons(Interval(NOW, NOW + 60), POLICY).tolist()
            for person, model in self.models.items():
                row = projection.rows.get(person.handle)
                said = "none" if row is None else "allow" if codes[row] == 0 else REASON_CODES[codes[row]].value
                assert said == model.answer(direct=direct)
        for person, model in self.models.items():
            standing, newest = lane.standing(person.handle), model.newest(direct=True)
            if newest is None:
                assert standing is None
            elif len(newest[1]) > 1:
                assert standing == Conflict(newest[0])
            else:
                assert isinstance(standing, ConsentRecord)
                assert (standing.seq, standing.frozen) == (newest[0], "freeze" in next(iter(newest[1])))


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=50, stateful_step_count=40, suppress_health_check=list(HealthCheck), deadline=None
)
