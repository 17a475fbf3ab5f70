"""The data holder's side of scoring: sealed requests in, points of its own characteristics out, sealed again.

Who relays them learns nothing: requests, answers and refusals are opaque, and answers are of one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.holder.gate import rows_to_score
from clients.holder.lane import LaneCopy
from clients.holder.settings import HolderSettings
from federated.encoder import Encoder
from federated.score_exchange import REQUEST_LIFE_S, ScoreAnswer, ScoreRequest, open_request, seal_answer
from federated.scorecard import Scorecard
from privacy.consent.canonical import base64url
from privacy.consent.gate import Allow, GatePolicy, Interval, decide
from privacy.consent.limits import HANDLE_BYTES
from privacy.consent.record import Purpose
from privacy.consent.sealing import LaneKey, LanePublicKey
from privacy.consent.signing import PayloadType, verify
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError


@dataclass(frozen=True, slots=True)
class _Request:
    content: ScoreRequest
    payload: bytes
    signature: bytes
    recipient: LanePublicKey


class ScoringDesk:
    """Answers score requests over one data holder's rows, under the consents in force at the instant of asking."""

    def __init__(
        self, directory: Path, settings: HolderSettings, encoder: Encoder, lane: LaneCopy, key: LaneKey
    ) -> None:
        self._settings, self._encoder, self._lane, self._key = settings, encoder, lane, key
        self._tables = (directory / settings.rows, directory / settings.held_out)

    def answer(self, scorecard: Scorecard, sealed: Sequence[bytes], *, at: int) -> list[bytes]:
        """One sealed answer for each sealed request, in order, all of one size. RefusalError if the lane is stale.

        A request that cannot be read is answered too, to nobody, and costs the others nothing. RefusalError for
        another schema's scorecard, MalformedError for one whose attributes are not the schema's.
        """
        policy = self._settings.policy
        if not -policy.clock_skew_s <= at - self._lane.synced_at <= policy.longest_lane_age_s:
            raise RefusalError(
                "The lane of consent records was not synced lately enough to score anybody by it. "
                "The data holder should sync.",
                RefusalCode.LANE,
            )
        if scorecard.schema_digest != self._encoder.schema.digest:
            raise RefusalError("The scorecard is for another schema than this data holder's.", RefusalCode.SCHEMA)
        # Attributes that somebody else has cut could tell the recipient a row's very values.
        scorecard.require_match(self._encoder)
        customers = {handle: customer for customer, handle in self._lane.links().items()}
        requests = [self._opened(request) for request in sealed]
        # By request and not by person: somebody may agree to one recipient and not to another.
        allowed = [
            customers[request.content.handle] if request and self._allowed(request, at=at) else None
            for request in requests
        ]
        points = self._points(scorecard, frozenset(customer for customer in allowed if customer is not None))
        return [
            self._sealed(request, None if customer is None else points.get(customer))
            for request, customer in zip(requests, allowed, strict=True)
        ]

    def _points(self, scorecard: Scorecard, customers: frozenset[str]) -> dict[str, dict[str, int]]:
        names = [characteristic.id for characteristic in scorecard.characteristics]
        points: dict[str, dict[str, int]] = {}
        for table in rows_to_score(self._tables, self._encoder.schema, customers) if customers else ():
            for customer, row in zip(table.subjects, scorecard.points(table).tolist(), strict=True):
                points[customer] = dict(zip(names, row, strict=True))
        return points

    def _opened(self, sealed: bytes) -> _Request | None:
        try:
            content, payload, signature = open_request(sealed, key=self._key, holder=self._settings.holder)
            return _Request(content, payload, signature, content.recipient_key)
        except (MalformedError, TamperingError):
            return None

    def _allowed(self, request: _Request, *, at: int) -> bool:
        content, skew = request.content, self._settings.policy.clock_skew_s
        public = self._lane.public_key_of(content.handle)
        if public is None or not -skew <= at - content.iat <= REQUEST_LIFE_S + skew:
            return False
        try:
            verify(public, PayloadType.SCORE_REQUEST, request.payload, request.signature)
        except TamperingError:
            return False
        decision = decide(
            self._lane.view(),
            content.handle,
            purpose=Purpose.SCORE,
            recipient=content.to,
            interval=Interval(at, at),
            categories=self._encoder.schema.categories,
            policy=GatePolicy(clock_skew_s=skew),
            past_uses=self._lane.past_uses(content.handle, content.to),
        )
        if not isinstance(decision, Allow):
            return False
        # The use is entered before the answer exists: a crash may cost the person a use, never grant one more.
        return self._lane.enter_use(content.handle, content.to, content.nonce, at=at)

    def _sealed(self, request: _Request | None, points: dict[str, int] | None) -> bytes:
        nobody = base64url(bytes(HANDLE_BYTES))
        answer = ScoreAnswer(
            holder=self._settings.holder,
            nonce=request.content.nonce if request else nobody,
            points=points,
            refused=RefusalCode.CONSENT if points is None else None,
        )
        return seal_answer(answer, to=request.recipient if request else LaneKey.generate().public)
