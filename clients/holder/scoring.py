"""The data holder's side of scoring: sealed requests in, points of its own characteristics out, sealed again.

Who relays them learns nothing: requests, answers and refusals are opaque, and answers are of one size.
"""

from collections.abc import Sequence
from pathlib import Path

from clients.holder.gate import rows_to_score
from clients.holder.lane import LaneCopy
from clients.holder.settings import HolderSettings
from federated.schema import Schema
from federated.score_exchange import ScoreAnswer, ScoreRequest, open_request, seal_answer
from federated.scorecard import Scorecard
from privacy.consent.gate import Allow, GatePolicy, Interval, decide
from privacy.consent.record import Purpose
from privacy.consent.sealing import LaneKey
from privacy.consent.signing import PayloadType, verify
from privacy.errors import RefusalCode, RefusalError


class ScoringDesk:
    """Answers score requests over one data holder's rows, under the consents in force at the instant of asking."""

    def __init__(self, directory: Path, settings: HolderSettings, schema: Schema, lane: LaneCopy, key: LaneKey) -> None:
        self._settings, self._schema, self._lane, self._key = settings, schema, lane, key
        self._tables = (directory / settings.rows, directory / settings.held_out)

    def answer(self, scorecard: Scorecard, sealed: Sequence[bytes], *, at: int) -> list[bytes]:
        """One sealed answer for each sealed request, in order.

        RefusalError for another schema's scorecard; MalformedError or TamperingError for a request that does not open.
        """
        if scorecard.schema_digest != self._schema.digest:
            raise RefusalError("The scorecard is for another schema than this data holder's.", RefusalCode.SCHEMA)
        requests = [self._opened(request) for request in sealed]
        customers = {handle: customer for customer, handle in self._lane.links().items()}
        allowed = [customers[request.handle] for request in requests if self._allowed(request, at=at)]
        points: dict[str, dict[str, int]] = {}
        if allowed:
            names = [characteristic.id for characteristic in scorecard.characteristics]
            for table in rows_to_score(self._tables, self._schema, frozenset(allowed)):
                for customer, row in zip(table.subjects, scorecard.points(table).tolist(), strict=True):
                    points[customer] = dict(zip(names, row, strict=True))
        return [self._sealed(request, points.get(customers[request.handle])) for request in requests]

    def _opened(self, sealed: bytes) -> ScoreRequest:
        request, payload, signature = open_request(sealed, key=self._key, holder=self._settings.holder)
        public = self._lane.public_key_of(request.handle)
        if public is None:
            raise RefusalError("A score request is about somebody who is not linked here.", RefusalCode.CONSENT)
        verify(public, PayloadType.SCORE_REQUEST, payload, signature)
        return request

    def _allowed(self, request: ScoreRequest, *, at: int) -> bool:
        decision = decide(
            self._lane.view(),
            request.handle,
            purpose=Purpose.SCORE,
            recipient=request.to,
            interval=Interval(at, at),
            categories=self._schema.categories,
            policy=GatePolicy(clock_skew_s=self._settings.policy.clock_skew_s),
            past_uses=self._lane.past_uses(request.handle, request.to),
        )
        if not isinstance(decision, Allow):
            return False
        # The use is entered before the answer exists: a crash may cost the person a use, never grant one more.
        return self._lane.enter_use(request.handle, request.to, request.nonce, at=at)

    def _sealed(self, request: ScoreRequest, points: dict[str, int] | None) -> bytes:
        answer = ScoreAnswer(
            holder=self._settings.holder,
            nonce=request.nonce,
            points=points,
            refused=RefusalCode.CONSENT if points is None else None,
        )
        return seal_answer(answer, to=request.recipient_key)
