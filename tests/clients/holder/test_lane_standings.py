"""Few signatures are checked, and the result is that of checking every one: `project` is the judge of each prefix."""

import sqlite3
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.holder import lane_standings, lane_sync
from clients.holder.keys import HolderKeys
from clients.holder.lane import LaneCopy
from experiments.wishes import JURISDICTION, TERMS
from privacy.consent.canonical import base64url
from privacy.consent.gate import GatePolicy, Interval
from privacy.consent.lane import Head, Stub
from privacy.consent.merkle import leaf_hash, root_of
from privacy.consent.projection import Projection
from privacy.consent.record import ConsentRecord, Purpose, Signer, encode_record, key_id, parse_record
from privacy.consent.sealing import LaneKey, Suite, seal
from privacy.consent.signing import PayloadType, SigningKey
from privacy.consent.tombstone import TombstoneStatement, tombstone_stub, write_tombstone
from privacy.consent.view import Conflict, Entry, LaneView, Link, check_lane, open_entry, project
from tests.clients.holder.lane_scene import AT, IDENTITY, LANE, SETTINGS, Source

OTHER = SigningKey.from_seed(sha256(b"somebody else").digest())
EPOCHS = {epoch: LaneKey(Suite.X25519, sha256(b"epoch %d" % epoch).digest()) for epoch in (1, 2, 3)}
KEYS = HolderKeys(IDENTITY, {1: EPOCHS[1], 2: EPOCHS[2]})  # an epoch 3 that this data holder has no key of
PEOPLE = range(3)
HANDLES = [sha256(b"handle %d" % person).digest() for person in PEOPLE]
PERSONS = [SigningKey.from_seed(sha256(b"person %d" % person).digest()) for person in PEOPLE]


@dataclass(frozen=True)
class Said:
    """A record in a lane: by whom, under which number, and what is wrong with it."""

    person: int
    seq: int
    variant: int = 0  # another wish under the same number
    epoch: int = 1
    fault: str = ""


FAULTS = ("forged", "another key", "another holder", "another epoch inside", "no record", "garbage")


@cache
def sealed(said: Said, copy: int) -> Entry:
    key = PERSONS[said.person]
    record = ConsentRecord(
        aud="birch-telecom" if said.fault == "another holder" else LANE,
        aud_kid=said.epoch + (said.fault == "another epoch inside"),
        sub=base64url(HANDLES[said.person]),
        kid=key_id(OTHER.public if said.fault == "another key" else key.public),
        seq=said.seq,
        prev=None if said.seq == 1 else base64url(bytes(32)),
        iat=AT + said.variant,
        frozen=False,
        grants=(),
        terms=TERMS,
        jur=JURISDICTION,
        signer=Signer.SELF,
    )
    payload = b"no record" if said.fault == "no record" else encode_record(record)
    signer = OTHER if said.fault in ("forged", "another key") else key
    signature = signer.sign(PayloadType.CONSENT, payload)
    name = sha256(repr((said, copy)).encode()).digest()
    result = seal(payload, signature, to=EPOCHS[said.epoch].public, lane=LANE, epoch=said.epoch, rho=name)
    ciphertext = b"junk" + name if said.fault == "garbage" else result.ciphertext
    return Entry(Stub(name[:16], said.epoch, result.commit, sha256(ciphertext).digest()), ciphertext)


@dataclass(frozen=True)
class Erases:
    """A tombstone for the record `back` entries before it."""

    back: int
    signer: SigningKey = IDENTITY
    delivered: bool = False  # the erased ciphertext is still served
    stated: bool = True  # the statement is served


said = st.builds(
    Said,
    person=st.sampled_from(PEOPLE),
    seq=st.integers(1, 3),
    variant=st.sampled_from((0, 0, 1)),
    epoch=st.sampled_from((1, 1, 1, 2, 2, 3)),
    fault=st.sampled_from((*[""] * 12, *FAULTS)),
)
erases = st.builds(
    Erases,
    back=st.integers(1, 6),
    signer=st.sampled_from((IDENTITY, IDENTITY, OTHER)),
    delivered=st.booleans(),
    stated=st.sampled_from((True, True, False)),
)


def lane_of(things: Sequence[Said | Erases]) -> list[Entry]:
    """The lane as an honest registry serves it, a ciphertext gone only where it may be."""
    entries: list[Entry] = []
    gone: set[int] = set()
    for number, thing in enumerate(things):
        if isinstance(thing, Said):
            entries.append(sealed(thing, number))
            continue
        target = len(entries) - thing.back
        if target < 0:
            continue
        digest = leaf_hash(entries[target].stub.leaf())
        statement = TombstoneStatement(lane=LANE, position=target, leaf=base64url(digest), at=AT)
        envelope = write_tombstone(statement, thing.signer)
        works = thing.signer is IDENTITY and thing.stated and isinstance(entries[target].stub, Stub)
        if works and not thing.delivered:
            gone.add(target)
        entries.append(Entry(tombstone_stub(envelope, statement), envelope if thing.stated else None))
    return [Entry(entry.stub, None) if place in gone else entry for place, entry in enumerate(entries)]


def head_of(entries: list[Entry], size: int) -> Head:
    return Head(size, root_of([leaf_hash(entry.stub.leaf()) for entry in entries[:size]]))


def judged(entries: list[Entry], size: int, links: dict[bytes, Link]) -> LaneView:
    """Every record of the prefix checked; what was erased since stays closed."""
    whole = head_of(entries, len(entries))
    erased = check_lane(entries, whole, identity=IDENTITY.public, lane=LANE)
    if size == len(entries):
        return project(entries, whole, identity=IDENTITY.public, keys=KEYS.lane_keys, lane=LANE, holder=LANE,
                       links=links)  # fmt: skip
    found = [
        open_entry(entry, place, keys=KEYS.lane_keys, lane=LANE, holder=LANE, links=links)
        for place, entry in enumerate(entries[:size])
        if place not in erased
    ]
    return LaneView.of(head_of(entries, size), [payload for payload in found if payload is not None])


def floors(first: list[Entry], entries: list[Entry], links: dict[bytes, Link]) -> dict[bytes, int]:
    """Handle to the highest number that was opened, in the sync of `first` or of all, and is erased in the end."""
    found: dict[bytes, int] = {}
    for place in check_lane(entries, head_of(entries, len(entries)), identity=IDENTITY.public, lane=LANE):
        seen = (first if place < len(first) else entries)[place]
        if seen.beside is None or not isinstance(seen.stub, Stub):
            continue
        payload = open_entry(seen, place, keys=KEYS.lane_keys, lane=LANE, holder=LANE, links=links)
        if payload is not None:
            record = parse_record(payload)
            found[record.handle] = max(record.seq, found.get(record.handle, 0))
    return found


def denied_below(standing: ConsentRecord | Conflict | None, floor: int) -> ConsentRecord | Conflict | None:
    return standing if standing is None or standing.seq > floor else Conflict(floor)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    things=st.lists(st.integers(0, 5).flatmap(lambda pick: said if pick else erases), min_size=8, max_size=16),
    linked_at=st.lists(st.sampled_from((0, 0, 0, 0, 0, 3, None)), min_size=3, max_size=3),
    late=st.lists(st.booleans(), min_size=3, max_size=3),
    cut=st.integers(0, 16),
    asked=st.permutations(range(17)),
)
def test_the_copy_says_of_every_prefix_what_checking_every_record_says(
    things: list[Said | Erases], linked_at: list[int | None], late: list[bool], cut: int, asked: list[int]
) -> None:
    entries = lane_of(things)
    links = {
        str(person): Link(HANDLES[person], PERSONS[person].public, size)
        for person, size in enumerate(linked_at)
        if size is not None
    }
    by_handle = {link.handle: link for link in links.values()}
    linked = {link.handle: link for name, link in links.items() if not late[int(name)]}
    floor = floors(lane_of(things[:cut]), entries, linked)
    with tempfile.TemporaryDirectory() as directory:
        lane = LaneCopy(Path(directory) / "consent.db", SETTINGS, KEYS)
        try:
            lane.link({name: link for name, link in links.items() if not late[int(name)]})
            lane.sync(Source(lane_of(things[:cut])), at=AT)  # with what was not erased by then
            lane.sync(Source(entries), at=AT)
            lane.link({name: link for name, link in links.items() if late[int(name)]})
            for size in asked:
                if size > len(entries):
                    continue
                head = head_of(entries, size)
                expected = judged(entries, size, by_handle)
                view = lane.view(head)
                assert [view.standing(handle) for handle in HANDLES] == [expected.standing(h) for h in HANDLES]
                assert dict(lane.standings(head)) == {
                    handle: denied_below(standing, floor.get(handle, 0))
                    for handle in HANDLES
                    if (standing := expected.standing(handle)) is not None
                }
        finally:
            lane.close()
        lane = LaneCopy(Path(directory) / "consent.db", SETTINGS, KEYS)
        try:
            expected = judged(entries, len(entries), by_handle)
            for handle in HANDLES:
                assert lane.standing(handle) == denied_below(expected.standing(handle), floor.get(handle, 0))
        finally:
            lane.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    things=st.lists(
        st.builds(
            Said,
            person=st.sampled_from((0, 0, 1)),
            seq=st.integers(1, 4),
            fault=st.sampled_from(("", "", "another key", "another key", "forged")),
        ),
        min_size=6,
        max_size=12,
    ),
    replaced=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.booleans()), max_size=5),
    asked=st.permutations(range(13)),
)
def test_the_copy_says_of_every_prefix_what_the_links_of_that_time_say(
    things: list[Said], replaced: list[tuple[int, int, bool]], asked: list[int]
) -> None:
    entries = lane_of(things)
    links = [Link(HANDLES[person], PERSONS[person].public, 0) for person in (0, 1)]
    with tempfile.TemporaryDirectory() as directory:
        lane = LaneCopy(Path(directory) / "consent.db", SETTINGS, KEYS)
        lane.link({str(person): link for person, link in enumerate(links)})
        ended: list[Link] = []
        for size, person, back in sorted(replaced):
            if size > len(entries):
                continue
            lane.sync(Source(entries[:size]), at=AT)
            key = PERSONS[person] if back else OTHER
            lane.replace_key(str(person), key.public)
            if links[person].linked_at_size < size:
                ended.append(replace(links[person], ended_at_size=size))
            links[person] = Link(HANDLES[person], key.public, size)
            assert lane.standing(HANDLES[person]) is None  # by nobody's key, for now
        lane.sync(Source(entries), at=AT)
        assert set(lane.links_ever()) == {*ended, *links}
        today = {link.handle: link for link in links}
        # Another way to say which link is in force: the one that the prefix's last entry falls under.
        for size in asked:
            if size > len(entries):
                continue
            then = {
                link.handle: link
                for link in (*ended, *links)
                if link.linked_at_size < size <= (size if link.ended_at_size is None else link.ended_at_size)
            }
            head = head_of(entries, size)
            view, expected = lane.view(head), judged(entries, size, then)
            assert [view.standing(handle) for handle in HANDLES] == [expected.standing(h) for h in HANDLES]
            of_today = judged(entries, size, today)  # which is all that the gate asks
            assert dict(lane.standings(head)) == {
                handle: standing for handle in HANDLES if (standing := of_today.standing(handle)) is not None
            }
        newest = judged(entries, len(entries), today)
        assert [lane.view().standing(handle) for handle in HANDLES] == [newest.standing(h) for h in HANDLES]
        lane.close()


@pytest.fixture
def copy(tmp_path: Path) -> "Counting":
    return Counting(tmp_path)


class Counting:
    """A copy that all three are linked in, and that counts how many signatures were looked at."""

    def __init__(self, directory: Path) -> None:
        self.checked = 0
        self.lane = LaneCopy(directory / "consent.db", SETTINGS, KEYS)
        self.lane.link({str(person): Link(HANDLES[person], PERSONS[person].public, 0) for person in PEOPLE})


def verdicts(directory: Path) -> int:
    database = sqlite3.connect(directory / "consent.db")
    try:
        return int(database.execute("SELECT count(*) FROM verdicts").fetchone()[0])
    finally:
        database.close()


def test_only_the_newest_record_is_checked_and_the_rest_when_an_older_prefix_asks(
    copy: Counting, tmp_path: Path
) -> None:
    entries = lane_of([Said(person, seq) for seq in (1, 2, 3, 4) for person in PEOPLE])
    copy.lane.sync(Source(entries), at=AT)
    copy.lane.view()
    assert verdicts(tmp_path) == 3
    copy.lane.view(head_of(entries, 6))
    assert verdicts(tmp_path) == 6
    copy.lane.close()


def test_a_flood_of_forged_newer_records_hides_nothing(copy: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    things = [Said(0, 1), Said(0, 2), *(Said(0, seq, fault="forged") for seq in range(3, 150)), Said(0, 2, variant=1)]
    entries = lane_of(list(things))
    copy.lane.sync(Source(entries), at=AT)
    assert copy.lane.standing(HANDLES[0]) == Conflict(2)
    before = copy.lane.view(head_of(entries, len(entries) - 1)).standing(HANDLES[0])
    assert isinstance(before, ConsentRecord)
    assert before.seq == 2
    copy.lane.close()


@pytest.mark.parametrize("page", [1, 2])
def test_pages_and_batches_of_any_size_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    entries = lane_of([*(Said(person, seq) for seq in (1, 2) for person in PEOPLE), Erases(1), Said(2, 3)])
    monkeypatch.setattr("clients.holder.lane.PAGE", page)
    monkeypatch.setattr(lane_standings, "PAGE", page)
    monkeypatch.setattr(lane_sync, "BATCH", page)
    lane = Counting(tmp_path).lane
    source = Source(entries)
    assert lane.sync(source, at=AT) == len(entries)
    assert source.asked == [(start, min(start + page, 8)) for start in range(0, 8, page)]
    by_handle = lane.links_by_handle()
    for size in range(len(entries) + 1):
        view, expected = lane.view(head_of(entries, size)), judged(entries, size, by_handle)
        assert [view.standing(handle) for handle in HANDLES] == [expected.standing(handle) for handle in HANDLES]
    assert [opening.leaf for opening in lane.openings(8)] == [entry.stub.leaf() for entry in entries]
    lane.close()


@pytest.mark.parametrize("above", [[], [Said(0, 3, fault="forged")]])
def test_another_link_judges_anew(copy: Counting, above: list[Said]) -> None:
    """A verdict says something about one key and one size: linked anew, nothing of it is left."""
    entries = lane_of([Said(0, 1), Said(0, 2), *above])
    lane = copy.lane
    lane.sync(Source(entries), at=AT)

    def seq() -> int | None:
        standing = lane.standing(HANDLES[0])
        return standing.seq if standing else None

    assert seq() == 2
    assert lane.unlink("0") == HANDLES[0]
    assert seq() is None
    lane.link({"0": Link(HANDLES[0], PERSONS[0].public, len(entries))})
    assert seq() is None
    lane.unlink("0")
    lane.link({"0": Link(HANDLES[0], PERSONS[0].public, 0)})
    assert seq() == 2
    lane.replace_key("0", OTHER.public)
    assert seq() is None
    lane.close()


def test_a_projection_is_that_of_the_view_and_follows_the_lane(copy: Counting) -> None:
    first = lane_of([Said(0, 1), Said(1, 1)])
    second = lane_of([Said(0, 1), Said(1, 1), Said(2, 1), Said(1, 1, variant=1)])
    asked = {"purpose": Purpose.TRAIN, "recipient": "open-scoring", "categories": frozenset({"capacity"})}
    lane = copy.lane

    def reasons(projection: Projection) -> dict[bytes, int]:
        codes = projection.reasons(Interval(AT, AT), GatePolicy(120)).tolist()
        return {handle: codes[row] for handle, row in projection.rows.items()}

    lane.sync(Source(first), at=AT)
    old = lane.projection(**asked)  # type: ignore[arg-type]
    assert lane.projection(**asked) is old  # type: ignore[arg-type]
    pinned = lane.head
    lane.sync(Source(second), at=AT)
    new = lane.projection(**asked)  # type: ignore[arg-type]
    expected = Projection.of(lane.standings(), **asked)  # type: ignore[arg-type]
    assert reasons(new) == reasons(expected)
    assert len(new.rows) == 3
    assert reasons(lane.projection(pinned, **asked)) == reasons(old)  # type: ignore[arg-type]
    lane.close()
