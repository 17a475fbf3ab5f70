"""Answers without points: one for every reason, no use spent on them, and nobody's request spoils another's."""

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from clients.holder import scoring as scoring_module
from clients.holder.lane import LaneCopy
from experiments.people import Attitude, Membership
from experiments.wishes import JURISDICTION, LENDER, TERMS
from federated.messages import Letter, ScoreRequests
from federated.score_exchange import REQUEST_LIFE_S, open_answer
from privacy.consent.canonical import base64url
from privacy.consent.record import ConsentRecord, Purpose, Uses
from privacy.consent.signing import SigningKey
from privacy.consent.submission import Submission
from tests.clients.holder.test_scoring import LENDER_KEY, Desk, some_card
from tests.ready import ASTER, AT, Ready, code_of

NO_KEYS = {
    "empty": b"",
    "zero": b"\x01" + bytes(32),  # X25519 of small order: parses, and nothing can be sealed to it
    "one": b"\x01" + bytes([1, *[0] * 31]),
    "short": b"\x01" + bytes(31),
    "hybrid of zeros": b"\x02" + bytes(1216),
    "hybrid with a zero half": LENDER_KEY.public.to_bytes()[:-32] + bytes(32),
    "unknown suite": b"\x07" + bytes(32),
}


@pytest.fixture
def desk(ready: Ready) -> Iterator[Desk]:
    with ready.holder() as holder:
        yield Desk(ready, holder, some_card(ready))


def without_row(desk: Desk, place: Membership) -> None:
    """Take a customer out of the table, as if the data holder no longer had it."""
    path, customer = desk.ready.home() / "rows.csv", desk.ready.federation.customer(place.person)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(f"{customer},")))


@pytest.mark.parametrize("to_key", NO_KEYS.values(), ids=NO_KEYS)
def test_a_request_to_which_no_answer_can_be_sealed_costs_nobody_else_the_answer(desk: Desk, to_key: bytes) -> None:
    place, other = desk.ready.agreeing()[:2]
    handles = [desk.ready.federation.handles[one] for one in (place, other)]
    by_anybody = desk.request(place, key=SigningKey.from_seed(bytes(32)), sub=base64url(bytes(32)), to_key=to_key)
    by_a_person = desk.request(other, to_key=to_key)
    answers = desk.sealed([by_anybody, desk.request(place), by_a_person, desk.request(place)])
    assert len({len(answer) for answer in answers}) == 1
    for answer in (answers[1], answers[3]):
        assert open_answer(answer, key=LENDER_KEY, holder=ASTER).points is not None
    # Nor does it cost its own person a use: there was nobody to be answered.
    assert [len(desk.holder.lane.past_uses(handle, LENDER)) for handle in handles] == [2, 0]


def test_what_fails_before_the_answers_costs_nobody_a_use(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    place = desk.someone()
    request, handle = desk.request(place), desk.ready.federation.handles[place]
    path = desk.ready.home() / "rows.csv"
    table = path.read_text()
    header, *lines = table.splitlines()
    path.write_text("\n".join([header, *(line.split(",")[0] + ",poison" for line in lines)]))
    letter = Letter(ScoreRequests(desk.card.to_json(), [request]))
    assert code_of(desk.holder.answer(letter, at=AT)) == "internal"
    path.write_text(table)

    def broken(*_: object, **__: object) -> bytes:
        raise OSError("no chance left")

    with monkeypatch.context() as patched:
        patched.setattr(scoring_module, "seal_answer", broken)
        assert code_of(desk.holder.answer(letter, at=AT)) == "internal"
    assert desk.holder.lane.past_uses(handle, LENDER) == []
    assert desk.points(request) != [None]
    assert len(desk.holder.lane.past_uses(handle, LENDER)) == 1


def test_a_person_without_a_row_pays_no_use(desk: Desk) -> None:
    place = desk.ready.agreeing()[0]
    without_row(desk, place)
    assert desk.points(desk.request(place)) == [None]
    assert desk.holder.lane.past_uses(desk.ready.federation.handles[place], LENDER) == []


def test_whatever_the_reason_a_lender_reads_the_same_answer(desk: Desk) -> None:
    place, gone, rowless = desk.ready.agreeing()[:3]
    federation = desk.ready.federation
    used = desk.request(place)
    assert desk.points(used) != [None]
    federation.withdraw(desk.ready.registry, gone)
    without_row(desk, rowless)
    unlinked = desk.ready.agreeing()[3]
    desk.holder.lane.unlink(federation.customer(unlinked.person))
    desk.holder.lane.sync(desk.ready.registry, at=AT)
    for _ in range(11):
        assert desk.points(desk.request(place)) != [None]
    refused = {
        "unknown": desk.request(place, sub=base64url(bytes(32))),
        "unlinked": desk.request(unlinked),
        "without a row": desk.request(rowless),
        "withdrawn": desk.request(gone),
        "frozen": desk.request(desk.someone(Attitude.FROZE)),
        "silent": desk.request(desk.someone(Attitude.SILENT)),
        "another lender": desk.request(place, to="other-lender"),
        "uses spent": desk.request(place),
        "repeated": used,
        "old": desk.request(place, iat=AT - REQUEST_LIFE_S - 121),
        "forged": desk.request(place, key=SigningKey.from_seed(bytes(32))),
    }
    answers = desk.sealed(list(refused.values()))
    assert len({len(answer) for answer in answers}) == 1
    opened = [open_answer(answer, key=LENDER_KEY, holder=ASTER) for answer in answers]
    assert {(answer.holder, answer.points, answer.refused) for answer in opened} == {(ASTER, None, "consent")}
    assert len({answer.nonce for answer in opened}) == len(refused)  # the lender's own, by request


def test_two_nodes_do_not_give_one_use_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    place = desk.someone()
    for _ in range(11):  # of 12
        assert desk.points(desk.request(place)) != [None]
    with desk.ready.holder() as other:
        elsewhere = replace(desk, holder=other, asked=100)
        theirs: list[object] = []
        links = LaneCopy.links

        def meanwhile(lane: LaneCopy) -> dict[str, bytes]:
            # Ours has been decided on; the other node answers from beginning to end before ours is entered.
            if lane is desk.holder.lane and not theirs:
                theirs.append(...)
                theirs[:] = elsewhere.points(elsewhere.request(place))
            return links(lane)

        monkeypatch.setattr(LaneCopy, "links", meanwhile)
        ours = desk.points(desk.request(place))
    assert [theirs[0] is None, ours[0] is None] == [False, True]
    assert len(desk.holder.lane.past_uses(desk.ready.federation.handles[place], LENDER)) == 12


def test_a_batch_does_not_give_one_use_twice(desk: Desk) -> None:
    place = desk.someone()
    points = desk.points(*(desk.request(place) for _ in range(14)))
    assert [one is None for one in points] == [False] * 12 + [True] * 2


def test_of_two_limits_the_fewest_uses_in_the_longest_time_hold(desk: Desk) -> None:
    place = desk.someone()
    federation = desk.ready.federation
    lane = desk.holder.lane.standing(federation.handles[place])
    assert isinstance(lane, ConsentRecord)
    (grant,) = (grant for grant in lane.grants if grant.purpose is Purpose.SCORE)
    assert grant.uses is not None
    fewer = msgspec.structs.replace(grant, uses=Uses(n=2, per_s=grant.uses.per_s // 2))
    record = federation.wallet(place.person).write(
        federation.address(ASTER), handle=federation.handles[place], grants=[fewer], frozen=False, terms=TERMS,
        jurisdiction=JURISDICTION, at=AT,
    )  # fmt: skip
    assert desk.holder.lane.take(Submission(record.stub, record.ciphertext), at=AT)
    points = desk.points(*(desk.request(place) for _ in range(4)))
    assert [one is None for one in points] == [False, False, True, True]
