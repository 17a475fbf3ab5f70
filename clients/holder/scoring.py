"""The data holder's side of scoring: sealed requests in, points of its own characteristics out, sealed again.

Who relays them learns nothing: requests, answers and refusals are opaque, and answers are of one size. What a lender
learns from an answer without points is said at `federated.score_exchange.ScoreAnswer`.
"""

from collections.abc import Mapping, Sequence
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
from privacy.consent.record import ConsentRecord, Purpose, Uses
from privacy.consent.sealing import LaneKey, LanePublicKey
from privacy.consent.signing import PayloadType, verify
from privacy.consent.view import Conflict, LaneView
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError


@dataclass(frozen=True, slots=True)
class _Request:
    content: ScoreRequest
    payload: bytes
    signature: bytes
    recipient: LanePublicKey


@dataclass(frozen=True, slots=True)
class _Permission:
    """What a request is allowed, unless its person's uses are spent when it is answered."""

    handle: bytes
    limit: Uses | None


class ScoringDesk:
    """Answers score requests over one data holder's rows, under the consents in force at the instant of asking."""

    def __init__(
        self, directory: Path, settings: HolderSettings, encoder: Encoder, lane: LaneCopy, keys: Mapping[int, LaneKey]
    ) -> None:
        """`keys` are those of the lane, by epoch: a lender may know an older one than the newest."""
        self._settings, self._encoder, self._lane = settings, encoder, lane
        self._keys = [keys[epoch] for epoch in sorted(keys, reverse=True)]
        self._tables = (directory / settings.rows, directory / settings.held_out)

    def answer(self, scorecard: Scorecard, sealed: Sequence[bytes], *, at: int) -> list[bytes]:
        """One sealed answer for each sealed request, in order, all of one size; by the lane as it was synced last.

        A request that cannot be read is answered too, to nobody, and costs the others nothing. RefusalError for
        another schema's scorecard, MalformedError for one whose attributes are not the schema's.
        """
        if scorecard.schema_digest != self._encoder.schema.digest:
            raise RefusalError("The scorecard is for another schema than this data holder's.", RefusalCode.SCHEMA)
        # Attributes that somebody else has cut could tell the recipient a row's very values.
        scorecard.require_match(self._encoder)
        requests = [self._opened(request) for request in sealed]
        # By request and not by person: somebody may agree to one recipient and not to another.
        allowed = [self._permission(request, at=at) if request else None for request in requests]
        wanted = {permission.handle for permission in allowed if permission}
        customers = {handle: customer for customer, handle in self._lane.links().items() if handle in wanted}
        points = self._points(scorecard, frozenset(customers.values()))
        # Somebody may have been unlinked since: then there is no customer, and no row to find.
        told = [points.get(customers.get(permission.handle, "")) if permission else None for permission in allowed]
        # All are sealed before the first use is entered: whatever fails until here has cost nobody one.
        answers = [self._sealed(request, one) for request, one in zip(requests, told, strict=True)]
        return [
            answer if one is None or self._entered(request, permission, at=at) else self._sealed(request, None)
            for request, permission, one, answer in zip(requests, allowed, told, answers, strict=True)
        ]

    def _points(self, scorecard: Scorecard, customers: frozenset[str]) -> dict[str, dict[str, int]]:
        names = [characteristic.id for characteristic in scorecard.characteristics]
        points: dict[str, dict[str, int]] = {}
        for table in rows_to_score(self._tables, self._encoder.schema, customers) if customers else ():
            for customer, row in zip(table.subjects, scorecard.points(table).tolist(), strict=True):
                points[customer] = dict(zip(names, row, strict=True))
        return points

    def _opened(self, sealed: bytes) -> _Request | None:
        for key in self._keys:
            try:
                content, payload, signature = open_request(sealed, key=key, holder=self._settings.holder)
                recipient = content.recipient_key
                recipient.encrypt(b"", info=b"")  # a key that nothing can be sealed to must not stop everybody's answer
                return _Request(content, payload, signature, recipient)
            except (MalformedError, TamperingError):
                continue
        return None

    def _permission(self, request: _Request, *, at: int) -> _Permission | None:
        content, skew = request.content, self._settings.policy.clock_skew_s
        public = self._lane.public_key_of(content.handle)
        if public is None or not -skew <= at - content.iat <= REQUEST_LIFE_S + skew:
            return None
        try:
            verify(public, PayloadType.SCORE_REQUEST, request.payload, request.signature)
        except TamperingError:
            return None
        # Both must allow: what came in by the side door restricts at once, and grants once it is in the lane.
        standings = [self._lane.standing(content.handle, direct=direct) for direct in (False, True)]
        if not all(self._agrees(standing, content, at=at) for standing in standings):
            return None
        limits = [uses for standing in standings for uses in _limits(standing, content.to)]
        # The fewest uses in the longest time are within both.
        limit = Uses(n=min(one.n for one in limits), per_s=max(one.per_s for one in limits)) if limits else None
        return _Permission(content.handle, limit)

    def _agrees(self, standing: ConsentRecord | Conflict | None, content: ScoreRequest, *, at: int) -> bool:
        decision = decide(
            LaneView(self._lane.head, {} if standing is None else {content.handle: standing}),
            content.handle,
            purpose=Purpose.SCORE,
            recipient=content.to,
            interval=Interval(at, at),
            categories=self._encoder.schema.categories,
            policy=GatePolicy(clock_skew_s=self._settings.policy.clock_skew_s),
            past_uses=self._lane.past_uses(content.handle, content.to),
        )
        return isinstance(decision, Allow)

    def _entered(self, request: _Request | None, permission: _Permission | None, *, at: int) -> bool:
        """Whether the use is in the books, durably, before the answer leaves: a crash may cost one, never grant one."""
        if request is None or permission is None:
            return False
        content = request.content
        # Counted again while nobody else can enter: two nodes, or two requests of one batch, may have been allowed.
        return self._lane.enter_use(content.handle, content.to, content.nonce, at=at, limit=permission.limit)

    def _sealed(self, request: _Request | None, points: dict[str, int] | None) -> bytes:
        nobody = base64url(bytes(HANDLE_BYTES))
        answer = ScoreAnswer(
            holder=self._settings.holder,
            nonce=request.content.nonce if request else nobody,
            points=points,
            refused=RefusalCode.CONSENT if points is None else None,
        )
        return seal_answer(answer, to=request.recipient if request else LaneKey.generate().public)


def _limits(standing: ConsentRecord | Conflict | None, recipient: str) -> list[Uses]:
    """The limit of uses in the grant to be scored for `recipient`, if there is one."""
    if not isinstance(standing, ConsentRecord):
        return []
    grants = [grant for grant in standing.grants if grant.purpose is Purpose.SCORE and grant.to == recipient]
    return [grant.uses for grant in grants if grant.uses is not None]
