"""What travels when a person is scored: requests sealed to a data holder, answers sealed to the lender.

Whoever relays them sees equal sizes and no names. A request is signed by the person, so that knowing a handle is not
enough to ask.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from privacy.consent.canonical import CanonicalJson, from_base64url
from privacy.consent.limits import HANDLE_BYTES, Base64Of32, Name, UtcSeconds
from privacy.consent.sealing import LaneKey, LanePublicKey, open_message, seal_message
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError, RefusalCode

REQUEST_LIFE_S = 3600  # how long after a request was signed it is answered, so that nobody can keep it for later
_MOST_BYTES = 16_000
_ANSWER_BYTES = 15_000  # a refusal is padded to the size of an answer, and cannot be told from one


class ScoreRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A person to a data holder: give the points of your characteristics about me to this lender."""

    v: Literal[1] = 1
    typ: Literal["fedcredit.score-request"] = "fedcredit.score-request"
    aud: Name
    sub: Base64Of32
    to: Name
    to_key: Annotated[bytes, Meta(max_length=4096)]  # the lender's sealing key
    nonce: Base64Of32
    iat: UtcSeconds

    @property
    def handle(self) -> bytes:
        """The 32 bytes of `sub`."""
        return from_base64url(self.sub, size=HANDLE_BYTES)

    @property
    def recipient_key(self) -> LanePublicKey:
        """The lender's key. Raises MalformedError."""
        return LanePublicKey.from_bytes(self.to_key)


class ScoreAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A data holder to a lender: points by characteristic, or that there are none.

    Without points, one answer says everything: `refused` is `consent` whether the person is unknown here, was never
    linked, has no row, said no, froze, withdrew, has no uses left, or the request was old, repeated or not signed by
    the person. So a lender learns that there are no points for this request, and nothing about why; asking again
    shows when that changes. Letters that are refused whole, as when the lane is too old, are so for everybody in them.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.score-answer"] = "fedcredit.score-answer"
    holder: Name
    nonce: Base64Of32
    points: dict[str, int] | None
    refused: RefusalCode | None


class _Signed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    payload: bytes
    signature: bytes


_REQUEST = CanonicalJson(ScoreRequest, what="a score request", max_bytes=_MOST_BYTES)
_ANSWER = CanonicalJson(ScoreAnswer, what="a score answer", max_bytes=_MOST_BYTES)
_SIGNED = CanonicalJson(_Signed, what="a signed score request", max_bytes=_MOST_BYTES)


def seal_request(request: ScoreRequest, *, key: SigningKey, to: LanePublicKey) -> bytes:
    """The request, signed by the person's key for this data holder and sealed to the data holder."""
    payload = _REQUEST.encode(request)
    signature = key.sign(PayloadType.SCORE_REQUEST, payload)
    signed = _SIGNED.encode(_Signed(payload=payload, signature=signature))
    return seal_message(signed, to=to, context=_request_context(request.aud))


def open_request(sealed: bytes, *, key: LaneKey, holder: str) -> tuple[ScoreRequest, bytes, bytes]:
    """The request, its payload and its signature, which is still to be verified with the linked key.

    Raises MalformedError or TamperingError.
    """
    signed = _SIGNED.parse(open_message(sealed, key=key, context=_request_context(holder)))
    request = _REQUEST.parse(signed.payload)
    if request.aud != holder:
        raise MalformedError("A score request names another data holder. The wallet should send it there.")
    return request, signed.payload, signed.signature


def seal_answer(answer: ScoreAnswer, *, to: LanePublicKey) -> bytes:
    """The answer sealed to the lender, of one size whether it says yes or no."""
    return seal_message(_ANSWER.encode(answer).ljust(_ANSWER_BYTES), to=to, context=_answer_context(answer.holder))


def open_answer(sealed: bytes, *, key: LaneKey, holder: str) -> ScoreAnswer:
    """The answer of one data holder. Raises MalformedError or TamperingError."""
    return _ANSWER.parse(open_message(sealed, key=key, context=_answer_context(holder)).rstrip(b" "))


def _request_context(holder: str) -> bytes:
    return f"fedcredit/score-request/v1|{holder}".encode()


def _answer_context(holder: str) -> bytes:
    return f"fedcredit/score-answer/v1|{holder}".encode()
