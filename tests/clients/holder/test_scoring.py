"""Scoring: who may be scored is, once for each request, and whoever relays it sees equal sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from clients.holder.node import Holder
from experiments import baselines
from experiments.people import Attitude, Membership
from experiments.plans import SCALE
from experiments.wishes import DAY_S, LENDER
from federated.encoder import Encoder
from federated.messages import Letter, Refused, ScoreAnswers, ScoreRequests
from federated.model import LinearModel
from federated.rows import EncodedRows
from federated.schema_toml import load_schema
from federated.score_exchange import (
    REQUEST_LIFE_S,
    ScoreAnswer,
    ScoreRequest,
    open_answer,
    open_request,
    seal_answer,
    seal_request,
)
from federated.score_report import score_report
from federated.scorecard import Scorecard, scorecard_from
from federated.table import read_table
from privacy.consent.canonical import base64url
from privacy.consent.sealing import LaneKey, seal_message
from privacy.consent.signing import SigningKey
from privacy.errors import MalformedError, RefusalCode, TamperingError
from tests.ready import ASTER, AT, BIRCH, Ready, agreement, code_of, withdrawal

LENDER_KEY = LaneKey.from_bytes(b"\x02" + sha256(b"lender").digest() * 3)


def some_card(ready: Ready) -> Scorecard:
    """A card that tells attributes apart: coefficients that no training would give."""
    encoder = Encoder(ready.federation.data.schema)
    coefficients = np.random.default_rng(4).normal(size=encoder.width) / 4
    model = LinearModel(encoder.schema.digest, np.zeros(encoder.width), coefficients, -1.4, encoder.centred_radius)
    return scorecard_from(model, encoder, SCALE)


@dataclass
class Desk:
    """One data holder that is asked for scores."""

    ready: Ready
    holder: Holder
    card: Scorecard
    asked: int = field(default=0)

    def request(self, place: Membership, *, key: SigningKey | None = None, **changes: Any) -> bytes:
        self.asked += 1
        federation = self.ready.federation
        fields: dict[str, Any] = {
            "aud": ASTER,
            "sub": base64url(federation.handles[place]),
            "to": LENDER,
            "to_key": LENDER_KEY.public.to_bytes(),
            "nonce": base64url(sha256(str(self.asked).encode()).digest()),
            "iat": AT,
        }
        signer = key or federation.wallet(place.person).key_for(ASTER)
        return seal_request(ScoreRequest(**(fields | changes)), key=signer, to=federation.address(ASTER).key)

    def sealed(self, requests: Sequence[bytes], at: int = AT) -> list[bytes]:
        answer = self.holder.answer(Letter(ScoreRequests(self.card.to_json(), list(requests))), at=at).header
        assert isinstance(answer, ScoreAnswers), answer
        return answer.sealed

    def points(self, *requests: bytes, at: int = AT) -> list[dict[str, int] | None]:
        return [open_answer(answer, key=LENDER_KEY, holder=ASTER).points for answer in self.sealed(requests, at)]

    def someone(self, attitude: Attitude = Attitude.AGREES) -> Membership:
        both = [*self.ready.with_attitude(attitude), *self.ready.with_attitude(attitude, held_out=True)]
        return both[0]


@pytest.fixture
def desk(ready: Ready) -> Iterator[Desk]:
    with ready.holder() as holder:
        yield Desk(ready, holder, some_card(ready))


def test_the_points_are_those_of_the_persons_own_row(desk: Desk) -> None:
    for held_out, name in ((False, "rows.csv"), (True, "held_out.csv")):
        place = desk.ready.agreeing(held_out=held_out)[3]
        customer = desk.ready.federation.customer(place.person)
        row = read_table(desk.ready.home() / name, desk.ready.federation.data.schema, only={customer})
        (points,) = desk.points(desk.request(place))
        assert points is not None
        names = [characteristic.id for characteristic in desk.card.characteristics]
        assert points == dict(zip(names, desk.card.points(row)[0].tolist(), strict=True))
        assert score_report(desk.card, [points]).score == int(desk.card.score(row)[0])


@pytest.mark.parametrize("attitude", Attitude)
def test_who_may_be_scored(desk: Desk, attitude: Attitude) -> None:
    (points,) = desk.points(desk.request(desk.someone(attitude)))
    assert (points is not None) is (attitude in {Attitude.AGREES, Attitude.SCORE_ONLY})


def test_yes_no_and_nonsense_are_of_one_size_and_cost_the_others_nothing(desk: Desk) -> None:
    yes, frozen = desk.request(desk.someone()), desk.request(desk.someone(Attitude.FROZE))
    stranger = desk.request(desk.someone(), sub=base64url(bytes(32)))
    to_us = desk.ready.federation.address(ASTER).key
    nonsense = seal_message(b"nonsense", to=to_us, context=b"fedcredit/score-request/v1|" + ASTER.encode())
    answers = desk.sealed([frozen, nonsense, b"", stranger, bytes(len(yes)), yes])
    assert len({len(answer) for answer in answers}) == 1
    assert open_answer(answers[5], key=LENDER_KEY, holder=ASTER).points is not None
    for refused in (answers[0], answers[3]):
        opened = open_answer(refused, key=LENDER_KEY, holder=ASTER)
        assert (opened.points, opened.refused) == (None, "consent")


def test_an_answer_of_hundreds_of_points_is_no_longer_than_a_refusal() -> None:
    many = {f"characteristic-{number}": -number for number in range(400)}
    nonce = base64url(bytes(32))
    sizes = {
        len(seal_answer(ScoreAnswer(holder=ASTER, nonce=nonce, points=points, refused=None), to=LENDER_KEY.public))
        for points in (many, {}, None)
    }
    assert len(sizes) == 1


def test_a_request_signed_by_another_key_is_refused(desk: Desk) -> None:
    victim, other = desk.ready.agreeing()[:2]
    wallet = desk.ready.federation.wallet
    elsewhere = wallet(victim.person).key_for(BIRCH)  # the same person's key for another data holder is no good either
    for key in (wallet(other.person).key_for(ASTER), SigningKey.from_seed(bytes(32)), elsewhere):
        assert desk.points(desk.request(victim, key=key)) == [None]
    assert desk.points(desk.request(victim)) != [None]


def test_the_same_request_is_answered_once_also_after_a_restart(desk: Desk) -> None:
    request = desk.request(desk.someone())
    assert [points is None for points in desk.points(request, request)] == [False, True]
    assert desk.points(request) == [None]
    with desk.ready.holder() as restarted:
        assert replace(desk, holder=restarted).points(request) == [None]


def test_consent_to_one_lender_says_nothing_about_another_in_the_same_batch(desk: Desk) -> None:
    place = desk.someone()
    allowed, other = desk.request(place), desk.request(place, to="other-lender")
    assert [points is None for points in desk.points(other, allowed, desk.request(place, to="other-lender"))] == [
        True,
        False,
        True,
    ]


def test_uses_are_limited_and_come_back(desk: Desk) -> None:
    place = desk.someone()
    for chunk in (5, 7):
        assert None not in desk.points(*(desk.request(place) for _ in range(chunk)))
    assert desk.points(desk.request(place)) == [None]
    later = AT + 30 * DAY_S + 120
    desk.holder.lane.sync(desk.ready.registry, at=later - 1)
    assert desk.points(desk.request(place, iat=later - 1), at=later - 1) == [None]
    assert desk.points(desk.request(place, iat=later), at=later) != [None]


def test_an_old_request_or_one_from_the_future_is_not_answered(desk: Desk) -> None:
    place = desk.someone()
    for at in (AT - 120, AT + REQUEST_LIFE_S + 120):
        assert desk.points(desk.request(place), at=at) != [None]
    assert desk.points(desk.request(place), at=AT + REQUEST_LIFE_S + 121) == [None]
    now = AT + REQUEST_LIFE_S + 121
    assert desk.points(desk.request(place, iat=now + 121), at=now) == [None]
    assert desk.points(desk.request(place, iat=now + 120), at=now) != [None]
    desk.holder.lane.sync(desk.ready.registry, at=AT + 200 * DAY_S)
    assert desk.points(desk.request(place), at=AT + 200 * DAY_S) == [None]


def test_nobody_is_scored_by_a_lane_that_was_not_synced_lately(ready: Ready) -> None:
    longest = 86_400
    with ready.holder(source=ready.source(away=True)) as holder:
        desk = Desk(ready, holder, some_card(ready))
        assert desk.points(desk.request(desk.someone(), iat=AT + longest), at=AT + longest) != [None]
        for at in (AT + longest + 1, AT - 121):
            letter = Letter(ScoreRequests(desk.card.to_json(), [desk.request(desk.someone(), iat=at)]))
            refused = desk.holder.answer(letter, at=at).header
            assert isinstance(refused, Refused)
            assert refused.code is RefusalCode.LANE
        desk.holder.lane.sync(desk.ready.registry, at=AT + longest + 1)
        assert desk.points(desk.request(desk.someone(), iat=AT + longest + 1), at=AT + longest + 1) != [None]


def test_somebody_who_withdraws_is_not_scored_from_the_next_sync_on(desk: Desk) -> None:
    place = desk.someone()
    assert desk.points(desk.request(place)) != [None]
    desk.ready.federation.withdraw(desk.ready.registry, place)
    assert desk.points(desk.request(place), at=AT + 14) != [None]
    assert desk.points(desk.request(place), at=AT + 15) == [None]


def test_a_record_through_the_side_door_restricts_at_once_and_grants_only_from_the_lane(desk: Desk) -> None:
    agrees, silent = desk.someone(), desk.someone(Attitude.SILENT)
    assert desk.points(desk.request(agrees)) != [None]
    no, yes = withdrawal(desk.ready, agrees), agreement(desk.ready, silent)
    with desk.ready.holder() as other:  # the side door is another process
        assert other.lane.take(no, at=AT)
        assert other.lane.take(yes, at=AT)
    assert desk.points(desk.request(agrees), desk.request(silent)) == [None, None]
    desk.ready.registry.append(ASTER, [yes])
    assert desk.points(desk.request(silent), at=AT + 15) != [None]


def test_whoever_is_unlinked_by_another_process_is_not_scored(desk: Desk) -> None:
    place = desk.someone()
    assert desk.points(desk.request(place)) != [None]
    with desk.ready.holder() as other:
        other.lane.unlink(desk.ready.federation.customer(place.person))
    assert desk.points(desk.request(place)) == [None]


def test_a_request_sealed_to_an_older_key_is_answered_while_that_key_is_kept(desk: Desk) -> None:
    place = desk.someone()
    old = desk.request(place)
    keys = desk.ready.home() / "keys"
    (keys / "lane-2.key").write_bytes(LaneKey.generate().to_bytes())
    with desk.ready.holder() as holder:
        rotated = replace(desk, holder=holder)
        assert rotated.points(old) != [None]
        content, _, _ = open_request(desk.request(place), key=holder._keys.lane_keys[1], holder=ASTER)
        signer = desk.ready.federation.wallet(place.person).key_for(ASTER)
        assert rotated.points(seal_request(content, key=signer, to=holder._keys.lane_key.public)) != [None]
        assert holder._keys.current == 2


def test_a_request_for_another_holder_is_not_answered(desk: Desk) -> None:
    request = desk.request(desk.someone(), aud=BIRCH)
    with pytest.raises(TamperingError):
        desk.points(request)  # sealed to nobody: the lender cannot open it either


def test_a_card_that_somebody_else_has_cut_is_refused(desk: Desk) -> None:
    first = desk.card.characteristics[0]
    cut = replace(first, attributes=first.attributes[:-1], points=first.points[:-1])
    for card, code in (
        (replace(desk.card, characteristics=(cut, *desk.card.characteristics[1:])), "internal"),
        (replace(desk.card, characteristics=desk.card.characteristics[1:]), "internal"),
        (replace(desk.card, schema_digest="00" * 32), "schema"),
    ):
        request = desk.request(desk.someone())
        assert code_of(desk.holder.answer(Letter(ScoreRequests(card.to_json(), [request])), at=AT)) == code
    assert code_of(desk.holder.answer(Letter(ScoreRequests(b"{}", [])), at=AT)) == "internal"


def test_nobody_reads_an_answer_but_the_lender(desk: Desk) -> None:
    (answer,) = desk.sealed([desk.request(desk.someone())])
    for key in (LaneKey.from_bytes(b"\x02" + bytes(96)), desk.holder._keys.lane_key):
        with pytest.raises(TamperingError):
            open_answer(answer, key=key, holder=ASTER)
    with pytest.raises(TamperingError):
        open_answer(answer, key=LENDER_KEY, holder=BIRCH)


def test_an_answer_off_the_card_is_refused(desk: Desk) -> None:
    first = desk.card.characteristics[0]
    for lie in ({first.id: max(first.points) + 1}, {"nothing-of-ours": 0}, {first.id: 10**9}):
        with pytest.raises(MalformedError, match="does not have"):
            score_report(desk.card, [lie])


def test_leaving_a_characteristic_out_never_lowers_the_expected_score(ready: Ready) -> None:
    schema = load_schema(ready.federation.coordinator_directory / "schema.toml")
    table = read_table(ready.home() / "rows.csv", schema)
    encoder = Encoder(schema)
    assert table.outcome is not None
    rows = EncodedRows(encoder.encode(table), table.outcome, np.ones(len(table.outcome)))
    model = baselines.without_noise([rows], schema, delta=1e-5)
    assert isinstance(model, LinearModel)
    card = scorecard_from(model, encoder, replace(SCALE, minimum=-10_000, maximum=10_000))
    names = [characteristic.id for characteristic in card.characteristics]
    answers = [dict(zip(names, row, strict=True)) for row in card.points(table).tolist()]
    whole = np.array([score_report(card, [answer]).score for answer in answers])
    for name in names:
        without = [{key: points for key, points in answer.items() if key != name} for answer in answers]
        reports = [score_report(card, [answer]) for answer in without]
        gap = np.mean([report.score for report in reports]) - whole.mean()
        # Rounding to whole points, and encoded amounts against their attributes' representatives.
        assert gap > -3.0, name
        assert all(report.low <= score <= report.high for report, score in zip(reports, whole.tolist(), strict=True))
    nothing = score_report(card, [])
    assert (nothing.score, nothing.reasons, nothing.sources) == (card.base_points, (), 0)


def test_what_several_holders_know_is_averaged(desk: Desk) -> None:
    first = desk.card.characteristics[0]
    low, high = min(first.points), max(first.points)
    one, other = ({first.id: points} for points in (low, high))
    expected = desk.card.base_points + round((low + high) / 2)
    assert score_report(desk.card, [one, other]).score == min(max(expected, 300), 850)
    assert score_report(desk.card, [one, other]).sources == 2
