"""Linking, erasing and taking directly: what a replayed, late, foreign or doubled answer cannot do."""

import json
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clients.holder.ceremony import Linked, link_answer, make_offers
from clients.holder.consents import answers, counts, standings_of
from clients.holder.desk import Desk
from clients.holder.desk_book import DeskBook
from clients.holder.direct import Taken, take_file
from clients.holder.erasure import erase, send_tombstones
from clients.holder.lane import LaneCopy
from clients.holder.lane_links import Links
from privacy.consent.canonical import base64url
from privacy.consent.envelope import peek_envelope, write_envelope
from privacy.consent.gate import GatePolicy, Interval, Reason
from privacy.consent.linking import read_offer, write_answer
from privacy.consent.record import Purpose
from privacy.consent.signing import SMALL_ORDER_ENCODINGS, PayloadType, SigningKey
from privacy.consent.submission import frame
from privacy.consent.tombstone import read_tombstone
from privacy.consent.view import Conflict
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError, UsageError
from tests.clients.holder import desk_scene
from tests.clients.holder.desk_scene import AT, COORDINATOR, DAY_S, LANE, LENDER, Person, Scene, grant


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / LANE)


def offer_to(desk: Desk, person: Person, *, at: int = AT) -> bytes:
    return make_offers(desk, [person.customer], at=at)[0]


def grants_of(desk: Desk, person: Person) -> int | None:
    """How many grants stand; None without a record."""
    standing = desk.lane.standing(person.handle)
    assert not isinstance(standing, Conflict)
    return None if standing is None else len(standing.grants)


def test_a_customer_is_linked_by_an_answer_that_proves_the_key(scene: Scene) -> None:
    person, other = Person("4711"), Person("4712")
    scene.link(other)
    scene.sync(other.says(grant(), to=scene.lane_key), other.says(to=scene.lane_key))
    with scene.desk() as desk:
        answer = person.answer(offer_to(desk, person))
    scene.sync(other.says(grant(), to=scene.lane_key))
    with scene.desk() as desk:  # another process, days later
        assert link_answer(desk, answer, replace=False, at=AT + 20 * DAY_S) is Linked.NEW
        link = desk.lane.links_by_handle()[person.handle]
        assert desk.lane.links() == {"4711": person.handle, "4712": other.handle}
        assert (link.public_key, link.linked_at_size) == (person.key.public, 2)  # the size when the offer was made


def test_an_offer_says_all_that_a_wallet_needs_and_no_customer_number(scene: Scene) -> None:
    person = Person("KD-4711")
    with scene.desk() as desk:
        envelope = offer_to(desk, person)
    offer = read_offer(envelope, at=AT)
    assert b"4711" not in envelope
    assert b"4711" not in json.dumps([str(offer)]).encode()
    assert (offer.holder, offer.registry.url, offer.newest) == (LANE, "https://registry.example", None)
    assert offer.identity == base64url(scene.identity.public)
    assert "Box 1, Aster" in offer.notice.text
    assert (offer.notice.jur, offer.expires) == ("AT", AT + 30 * DAY_S)


def test_handles_are_new_for_everybody_and_every_offer(scene: Scene) -> None:
    people = [Person(str(number)) for number in range(20)]
    with scene.desk() as desk:
        offers = [
            read_offer(envelope, at=AT)
            for _ in range(2)
            for envelope in make_offers(desk, [person.customer for person in people], at=AT)
        ]
    assert len({offer.sub for offer in offers}) == len({offer.nonce for offer in offers}) == 40


def test_an_answer_is_good_once(scene: Scene) -> None:
    person = Person("4711")
    with scene.desk() as desk:
        answer = person.answer(offer_to(desk, person))
        link_answer(desk, answer, replace=False, at=AT)
        for replace_it in (False, True):
            with pytest.raises(RefusalError, match="answered before") as caught:
                link_answer(desk, answer, replace=replace_it, at=AT)
            assert caught.value.code is RefusalCode.REPLAY


def test_a_later_offer_ends_the_one_before(scene: Scene) -> None:
    person = Person("4711")
    with scene.desk() as desk:
        early = person.answer(offer_to(desk, person))
        late = person.answer(offer_to(desk, person))
        with pytest.raises(RefusalError, match="later offer"):
            link_answer(desk, early, replace=False, at=AT)
        assert link_answer(desk, late, replace=False, at=AT) is Linked.NEW


@pytest.mark.parametrize("late", [30 * DAY_S, 300 * DAY_S])
def test_an_offer_expires(scene: Scene, late: int) -> None:
    person = Person("4711")
    with scene.desk() as desk:
        answer = person.answer(offer_to(desk, person))
        with pytest.raises(RefusalError):
            link_answer(desk, answer, replace=False, at=AT + late)
        assert desk.lane.links() == {}
        offer_to(desk, Person("other"), at=AT + late)  # and is forgotten when it has
        with pytest.raises(RefusalError, match="has expired"):
            link_answer(desk, answer, replace=False, at=AT)


def with_field(person: Person, name: str, value: str) -> bytes:
    """An answer to the person's offer with one field changed, signed by the person."""
    assert person.offer is not None
    honest = write_answer(person.offer, person.key, at=AT)
    fields = msgspec.json.decode(peek_envelope(honest, PayloadType.LINK, what="an answer"))
    assert fields[name] != value
    return write_envelope(PayloadType.LINK, msgspec.json.encode(fields | {name: value}, order="sorted"), person.key)


def cut(person: Person, _: Person) -> bytes:
    assert person.offer is not None
    return write_answer(person.offer, person.key, at=AT)[:-1]


def nonce_of(person: Person) -> str:
    assert person.offer is not None
    return person.offer.nonce


SMALL_ORDER_KEY = base64url(sorted(SMALL_ORDER_ENCODINGS)[3])
FORGED: dict[str, Callable[[Person, Person], bytes]] = {
    "with another offer's nonce": lambda person, other: with_field(person, "nonce", nonce_of(other)),
    "with a small-order key": lambda person, _: with_field(person, "key", SMALL_ORDER_KEY),
    "with a key it does not hold": lambda person, other: with_field(person, "key", base64url(other.key.public)),
    "of another type": lambda person, _: write_envelope(PayloadType.CONSENT, b"{}", person.key),
    "without a nonce": lambda person, _: write_envelope(PayloadType.LINK, b"{}", person.key),
    "deep": lambda person, _: write_envelope(PayloadType.LINK, b"[" * 900, person.key),
    "cut": cut,
    "empty": lambda *_: b"",
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_answer_links_nobody(scene: Scene, forgery: str) -> None:
    person, other = Person("4711"), Person("4712")
    with scene.desk() as desk:
        for one in (person, other):
            one.answer(offer_to(desk, one))
        data = FORGED[forgery](person, other)
        with pytest.raises((MalformedError, TamperingError)) as caught:
            link_answer(desk, data, replace=True, at=AT)
        assert desk.lane.links() == {}
        for one in (person, other):
            assert one.key.public.hex() not in str(caught.value)
            assert base64url(one.handle) not in str(caught.value)


def test_an_answer_to_another_data_holder_finds_no_offer(scene: Scene, tmp_path: Path) -> None:
    person, elsewhere = Person("4711"), Scene(tmp_path / "elsewhere")
    with elsewhere.desk() as desk:
        answer = person.answer(offer_to(desk, person))
    with scene.desk() as desk:
        offer_to(desk, person)
        with pytest.raises(RefusalError, match="another data holder"):
            link_answer(desk, answer, replace=False, at=AT)


def test_a_recovered_wallet_goes_on_with_the_same_key(scene: Scene) -> None:
    person = Person("4711")
    scene.link(person)
    scene.sync(person.says(grant(), to=scene.lane_key))
    recovered = Person("4711")
    with scene.desk() as desk:
        answer = recovered.answer(offer_to(desk, recovered))
        assert (recovered.handle, recovered.seq, recovered.previous) == (person.handle, 1, person.previous)
        assert link_answer(desk, answer, replace=False, at=AT) is Linked.SAME
        assert grants_of(desk, person) == 1
    scene.sync(recovered.says(to=scene.lane_key))
    with scene.desk() as desk:
        assert grants_of(desk, person) == 0


def test_another_key_needs_the_person_at_the_desk_and_ends_the_old_one(scene: Scene) -> None:
    person, new = Person("4711"), Person("4711", wallet="new")
    scene.link(person)
    scene.sync(person.says(grant(), to=scene.lane_key))
    with scene.desk() as desk:
        answer = new.answer(offer_to(desk, new))
        with pytest.raises(RefusalError, match="--replace") as caught:
            link_answer(desk, answer, replace=False, at=AT)
        assert caught.value.code is RefusalCode.CONSENT
        assert desk.lane.public_key_of(person.handle) == person.key.public
        assert grants_of(desk, person) == 1
        assert link_answer(desk, answer, replace=True, at=AT) is Linked.REPLACED
        assert grants_of(desk, new) is None
        assert desk.lane.links_by_handle()[new.handle].linked_at_size == 1
    scene.sync(person.says(grant(), to=scene.lane_key))  # whoever found the old wallet
    with scene.desk() as desk:
        assert grants_of(desk, new) is None
    new.seq = 1
    scene.sync(new.says(grant(), grant(Purpose.VALIDATE), to=scene.lane_key))
    with scene.desk() as desk:
        assert grants_of(desk, new) == 2


def test_a_replacement_that_breaks_off_changes_nothing_and_is_finished_by_the_same_answer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, new = Person("4711"), Person("4711", wallet="new")
    scene.link(person)
    scene.sync(person.says(grant(), to=scene.lane_key))
    with scene.desk() as desk:
        answer = new.answer(offer_to(desk, new))
        with monkeypatch.context() as patch:
            patch.setattr(Links, "tie", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # the old link has ended
            with pytest.raises(KeyboardInterrupt):
                link_answer(desk, answer, replace=True, at=AT)
    with scene.desk() as desk:
        assert desk.lane.public_key_of(new.handle) == person.key.public
        assert link_answer(desk, answer, replace=True, at=AT) is Linked.REPLACED
        assert desk.lane.public_key_of(new.handle) == new.key.public


def test_the_desks_notes_are_their_owners_only_and_an_edit_is_noticed(scene: Scene) -> None:
    one, other = Person("4711"), Person("4712")
    with scene.desk() as desk:
        answers_ = [person.answer(offer_to(desk, person)) for person in (one, other)]
    path = scene.directory / "desk.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as database:  # so that the answer would be tied to another customer
        database.execute("UPDATE offers SET customer = 'x' WHERE customer = '4711'")
        database.execute("UPDATE offers SET customer = '4711' WHERE customer = '4712'")
    database.close()
    with scene.desk() as desk:
        for answer in answers_:
            with pytest.raises(TamperingError, match=r"desk\.db"):
                link_answer(desk, answer, replace=False, at=AT)
        assert desk.lane.links() == {}
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(TamperingError, match=r"desk\.db"):
        scene.desk()


def test_a_finished_offer_leaves_nothing_in_the_notes(scene: Scene) -> None:
    person = Person("customer-number-4711")
    scene.link(person)
    data = (scene.directory / "desk.db").read_bytes()
    assert b"customer-number-4711" not in data
    assert person.handle not in data
    assert person.offer is not None
    assert person.offer.sub.encode() not in data


@pytest.mark.parametrize("customer", ["", "a\nb", "a\x1b[2Jb", "x" * 129])
def test_what_cannot_be_a_customer_number_gets_no_offer(scene: Scene, customer: str) -> None:
    with scene.desk() as desk, pytest.raises(UsageError):
        make_offers(desk, ["4711", customer], at=AT)


def test_a_notice_that_is_not_finished_is_offered_to_nobody(scene: Scene) -> None:
    notice = scene.directory / "notice.txt"
    notice.write_text(notice.read_text(encoding="utf-8").replace("Box 1", "FILL IN"), encoding="utf-8")
    with scene.desk() as desk, pytest.raises(MalformedError, match="FILL IN"):
        make_offers(desk, ["4711"], at=AT)


def erased_scene(scene: Scene) -> tuple[Person, Person]:
    person, other = Person("4711"), Person("4712")
    scene.link(person, other)
    key = scene.lane_key
    scene.sync(person.says(grant(), to=key), other.says(grant(), to=key), person.says(to=key))
    return person, other


def test_erasing_leaves_stubs_and_nothing_else(scene: Scene) -> None:
    person, other = erased_scene(scene)
    with scene.desk() as desk:
        done = erase(desk, "4711", scene.registry, at=AT)
        assert (done.forgotten, done.tombstones, done.waiting) == (True, 2, 0)
        assert desk.lane.links() == {"4712": other.handle}
        assert desk.lane.standing(person.handle) is None
        statements = [
            read_tombstone(envelope, identity=scene.identity.public, lane=LANE) for envelope in scene.registry.erased
        ]
        assert [statement.position for statement in statements] == [0, 2]
        assert desk.lane.forgotten() == []
        assert grants_of(desk, other) == 1
        with pytest.raises(UsageError, match="nothing to erase"):
            erase(desk, "4711", scene.registry, at=AT + 1)
    with scene.desk() as desk:
        assert desk.lane.head.size == 5
    for path in scene.directory.rglob("*"):
        if path.is_file():
            assert person.handle not in path.read_bytes(), path.name
            assert person.key.public not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("where", "shown", "sent"), [("erase", None, 2), ("erase answer", None, 1), ("erase answer", 3, 2)]
)
@pytest.mark.parametrize("later", [0, 5])
def test_an_erasure_that_breaks_off_is_finished_by_the_same_command(
    scene: Scene, where: str, shown: int | None, sent: int, later: int
) -> None:
    person, other = erased_scene(scene)
    scene.registry.fails = [where]
    with scene.desk() as desk, pytest.raises(RefusalError, match="reached"):
        erase(desk, "4711", scene.registry, at=AT)
    scene.registry.shown = shown  # whether the signed head covers the first tombstone already
    with scene.desk() as desk:  # a new process
        assert desk.lane.links() == {"4712": other.handle}
        assert desk.lane.standing(person.handle) is None
        done = erase(desk, "4711", scene.registry, at=AT + later)
        assert (done.forgotten, done.tombstones, done.waiting) == (False, sent, 0 if shown is None else 2)
        scene.registry.shown = None
        desk.lane.sync(scene.registry, at=AT + later)
        assert desk.lane.forgotten() == []
        scene.registry.fails = ["erase"]  # nothing is sent any more, and nothing is noted
        assert send_tombstones(desk, scene.registry, at=AT + later) == 0
        assert desk.book.tombstones() == {}
    assert len(scene.registry.erased) == 2
    assert sum(entry.beside is None for entry in scene.registry.entries_) == 2


def test_an_erasure_that_crashes_right_after_forgetting_is_finished(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased_scene(scene)
    with monkeypatch.context() as patch:
        patch.setattr(DeskBook, "tombstones", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with scene.desk() as desk, pytest.raises(KeyboardInterrupt):
            erase(desk, "4711", scene.registry, at=AT)
    with scene.desk() as desk:
        assert "4711" not in desk.lane.links()
        assert erase(desk, "4711", scene.registry, at=AT + 9).tombstones == 2
        assert desk.lane.forgotten() == []


@pytest.mark.parametrize("fails", ["checkpoint", "a lie", "forget"])
def test_whoever_is_to_be_erased_is_used_for_nothing_whatever_the_registry_does(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    person, other = erased_scene(scene)
    with scene.desk() as desk, monkeypatch.context() as patch:
        assert grants_of(desk, other)
        if fails == "a lie":
            patch.setattr(scene.registry, "shown", 0)
        elif fails == "forget":
            patch.setattr(LaneCopy, "forget", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            scene.registry.fails = ["checkpoint"]
        with pytest.raises((RefusalError, TamperingError, KeyboardInterrupt)):
            erase(desk, "4711", scene.registry, at=AT)
    with scene.desk() as desk:  # after a restart, too
        assert "4711" not in desk.lane.links()
        assert desk.lane.standing(person.handle) is None
        assert grants_of(desk, other)
        done = erase(desk, "4711", scene.registry, at=AT + 9)
        assert (done.forgotten, done.tombstones, done.waiting) == (True, 2, 0)
        with pytest.raises(UsageError, match="nothing to erase"):
            erase(desk, "4711", scene.registry, at=AT + 10)
    assert person.handle not in b"".join(path.read_bytes() for path in scene.directory.glob("consent.*"))


def test_an_erasure_whose_notes_were_lost_sends_no_second_tombstone(scene: Scene) -> None:
    erased_scene(scene)
    scene.registry.fails = ["erase answer"]
    with scene.desk() as desk, pytest.raises(RefusalError):
        erase(desk, "4711", scene.registry, at=AT)
    (scene.directory / "desk.db").unlink()
    with scene.desk() as desk:
        scene.registry.shown = 3  # the signed head does not cover the first tombstone yet
        assert erase(desk, "4711", scene.registry, at=AT + 9).waiting == 2
        scene.registry.shown = None
        desk.lane.sync(scene.registry, at=AT + 9)
        assert desk.lane.forgotten() == []
    assert len(scene.registry.erased) == 2


def test_an_erasure_whose_last_answer_was_lost_is_finished_and_not_called_a_mistake(scene: Scene) -> None:
    person = Person("4711")
    scene.link(person)
    scene.sync(person.says(to=scene.lane_key))
    scene.registry.fails = ["erase answer"]
    with scene.desk() as desk:
        with pytest.raises(RefusalError):
            erase(desk, "4711", scene.registry, at=AT)
        done = erase(desk, "4711", scene.registry, at=AT)
        assert (done.forgotten, done.tombstones, done.waiting) == (False, 0, 0)


def test_whoever_was_erased_can_be_linked_again_under_another_handle(scene: Scene) -> None:
    person, _ = erased_scene(scene)
    with scene.desk() as desk:
        erase(desk, "4711", scene.registry, at=AT)
        desk.lane.sync(scene.registry, at=AT)
    again = Person("4711")
    scene.link(again)
    assert again.handle != person.handle
    assert again.seq == 0


def test_a_record_on_a_file_restricts_at_once_and_never_permits(scene: Scene, tmp_path: Path) -> None:
    person, key, file = Person("4711"), scene.lane_key, tmp_path / "direct.bin"
    scene.link(person)
    scene.sync(person.says(grant(), to=key))
    withdrawal, new_grant = person.says(to=key), person.says(grant(), grant(Purpose.VALIDATE), to=key)
    with scene.desk() as desk:
        file.write_bytes(frame([withdrawal]))
        assert take_file(desk, file, at=AT) == Taken(new=1, known=0, refused=0)
        assert grants_of(desk, person) == 0
        assert allowed(desk) == {}
        assert take_file(desk, file, at=AT) == Taken(new=0, known=1, refused=0)
        file.write_bytes(frame([new_grant]))
        assert take_file(desk, file, at=AT) == Taken(new=1, known=0, refused=0)
        # The newest wish grants two purposes and the lane knows of one: no more than that is allowed.
        assert allowed(desk) == {Purpose.TRAIN: 1}
        counted = {count.purpose: (count.allowed, dict(count.refused)) for count in counts(desk, None, at=AT)}
        assert counted == {Purpose.TRAIN: (1, {}), Purpose.VALIDATE: (0, {"purpose": 1})}
    scene.sync(withdrawal, new_grant)
    with scene.desk() as desk:
        assert allowed(desk) == {Purpose.TRAIN: 1, Purpose.VALIDATE: 1}


def allowed(desk: Desk) -> dict[Purpose, int]:
    """How many may be used, by what the gate asks: the projection with direct records."""
    found = {}
    for purpose in (Purpose.TRAIN, Purpose.VALIDATE):
        projections = [
            desk.lane.projection(purpose=purpose, recipient=COORDINATOR, categories=desk.categories, direct=direct)
            for direct in (False, True)
        ]
        passes = [
            {handle for handle, row in one.rows.items() if not one.reasons(Interval(AT, AT), GatePolicy(120))[row]}
            for one in projections
        ]
        if both := passes[0] & passes[1]:
            found[purpose] = len(both)
    return found


def test_strangers_records_are_not_taken(scene: Scene, tmp_path: Path) -> None:
    person, stranger, file = Person("4711"), Person("4712"), tmp_path / "direct.bin"
    scene.link(person)
    old = person.says(grant(), to=scene.lane_key)
    scene.sync(old)
    stranger.offer = person.offer
    stranger.seq, stranger.previous = 1, person.previous
    with scene.desk() as desk:
        forged = stranger.says(to=scene.lane_key)
        file.write_bytes(frame([forged]))
        with pytest.raises(RefusalError, match="Nothing was taken"):
            take_file(desk, file, at=AT)
        file.write_bytes(frame([forged, old, forged]))
        assert take_file(desk, file, at=AT) == Taken(new=0, known=1, refused=2)
        assert grants_of(desk, person) == 1
        file.write_bytes(frame([old])[:-1])
        with pytest.raises(MalformedError):
            take_file(desk, file, at=AT)


def test_consents_are_counted_by_reason_and_told_one_by_one(scene: Scene) -> None:
    people = {name: Person(name) for name in ("yes", "no", "frozen", "silent", "late", "scored")}
    scene.link(*people.values())
    key = scene.lane_key
    scene.sync(
        people["yes"].says(grant(), to=key),
        people["no"].says(grant(), to=key),
        people["no"].says(to=key),
        people["frozen"].says(grant(), frozen=True, to=key),
        people["late"].says(grant(until=AT + 100), to=key),
        people["scored"].says(grant(Purpose.SCORE), to=key),
    )
    with scene.desk() as desk:
        found = {(count.purpose, count.to): count for count in counts(desk, None, at=AT)}
        assert set(found) == {(Purpose.TRAIN, COORDINATOR), (Purpose.VALIDATE, COORDINATOR), (Purpose.SCORE, LENDER)}
        train = found[Purpose.TRAIN, COORDINATOR]
        assert (train.allowed, dict(train.refused)) == (1, {"none": 1, "frozen": 1, "purpose": 2, "time": 1})
        score = found[Purpose.SCORE, LENDER]
        assert (score.allowed, dict(score.refused)) == (1, {"none": 1, "frozen": 1, "purpose": 3})
        assert all(count.allowed + sum(count.refused.values()) == 6 for count in found.values())

        handle, newest, in_lane = standings_of(desk, "yes")
        (answer,) = answers(desk, handle, (newest, in_lane), None, at=AT)
        assert (answer.reason, answer.until) == (None, AT + 100 * DAY_S - 120)
        for at, reason in ((AT + 100 * DAY_S - 121, None), (AT + 100 * DAY_S - 120, Reason.TIME)):
            assert answers(desk, handle, (newest, in_lane), None, at=at)[0].reason is reason
        assert desk.lane.enter_use(people["scored"].handle, LENDER, "nonce", at=AT)
        assert dict(counts(desk, [(Purpose.SCORE, LENDER)], at=AT)[0].refused)["uses"] == 1
        with pytest.raises(RefusalError, match="not linked"):
            standings_of(desk, "nobody")


def test_no_error_of_the_desk_names_a_person(scene: Scene, tmp_path: Path) -> None:
    person = Person("KD-4711")
    said: list[str] = []
    with scene.desk() as desk:
        answer = person.answer(offer_to(desk, person))
        link_answer(desk, answer, replace=False, at=AT)
        for failing in (
            lambda: link_answer(desk, answer, replace=False, at=AT),
            lambda: link_answer(desk, b"{}", replace=False, at=AT),
            lambda: make_offers(desk, ["KD-4711", "KD-4711"], at=AT),
            lambda: standings_of(desk, "KD-4712"),
            lambda: erase(desk, "KD-4712", scene.registry, at=AT),
            lambda: take_file(desk, tmp_path, at=AT),
        ):
            with pytest.raises(FedcreditError) as caught:
                failing()
            said.append(str(caught.value))
    for text in said:
        for secret in ("KD-47", person.handle.hex(), base64url(person.handle), person.key.public.hex()):
            assert secret not in text


def test_two_desks_at_once_do_not_lose_an_offer(scene: Scene) -> None:
    one, other = Person("4711"), Person("4712")
    with scene.desk() as first, scene.desk() as second:
        answers_ = one.answer(offer_to(first, one)), other.answer(offer_to(second, other))
        assert link_answer(second, answers_[0], replace=False, at=AT) is Linked.NEW
        assert link_answer(first, answers_[1], replace=False, at=AT) is Linked.NEW


def test_a_registry_that_promises_for_another_key_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    erased_scene(scene)
    monkeypatch.setattr(desk_scene, "REGISTRY_KEY", SigningKey.from_seed(os.urandom(32)))
    with scene.desk() as desk, pytest.raises(TamperingError):
        erase(desk, "4711", scene.registry, at=AT)
