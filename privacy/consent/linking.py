"""Linking: a data holder's signed offer of a handle, and a person's answer that proves the key to it."""

import hashlib
import re
from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Meta, Struct

from privacy.consent.canonical import CanonicalJson, base64url, from_base64url
from privacy.consent.envelope import open_envelope, peek_envelope, write_envelope
from privacy.consent.limits import (
    DAY_S,
    KEY_BYTES,
    MAX_CATEGORIES,
    MAX_NOTICE_CHARS,
    MAX_OFFER_S,
    Base64Of32,
    CategoryName,
    Count,
    Name,
    ServiceUrl,
    UtcSeconds,
)
from privacy.consent.record import Terms
from privacy.consent.signing import SMALL_ORDER_ENCODINGS, PayloadType, SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError

MAX_OFFER_BYTES: Final = 65_536
MAX_ANSWER_BYTES: Final = 4096
MAX_CA_CHARS: Final = 16_384
CLOCK_ERROR_S: Final = 3600
"""How far the two ends' clocks may differ at linking, in seconds."""

# The envelope writes the payload in base64 (4 characters for 3 bytes) and adds less than 1,024 bytes.
_MAX_OFFER_PAYLOAD: Final = (MAX_OFFER_BYTES - 1024) // 4 * 3
_MAX_ANSWER_PAYLOAD: Final = (MAX_ANSWER_BYTES - 1024) // 4 * 3

_OFFER: Final = "an offer to link"
_ANSWER: Final = "an answer to an offer to link"

# Escape sequences could hide a sentence of the notice on a terminal, and direction marks could reverse one.
_UNSEEN: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class RegistryAddress(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Where a data holder's lane is and who signs its checkpoints: an Ed25519 `key` in base64url.

    `ca` holds the certificates (PEM) that vouch for an https address; null is the system's own trust.
    """

    url: ServiceUrl
    key: Base64Of32
    ca: Annotated[str, Meta(max_length=MAX_CA_CHARS)] | None


class Notice(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The notice a person reads before consenting: its `terms`, the whole `text`, the jurisdiction `jur`."""

    terms: Terms
    text: Annotated[str, Meta(min_length=1, max_length=MAX_NOTICE_CHARS)]
    jur: Annotated[str, Meta(pattern=r"^[A-Z]{2}(?:-[A-Z0-9]{1,3})?\Z")]


class Newest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The newest record a data holder has of a person linked before, so that a recovered wallet can go on."""

    seq: Count
    digest: Base64Of32


class LinkOffer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What a data holder hands a person to link a wallet: `sub` is the fresh handle, `identity` its own key.

    Good for one answer, from `issued_at` until `expires` (exclusive), UTC seconds. `categories` are the
    schema's, ascending. Keys, handle and nonce are base64url.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.link-offer"] = "fedcredit.link-offer"
    holder: Name
    identity: Base64Of32
    sub: Base64Of32
    nonce: Base64Of32
    issued_at: UtcSeconds
    expires: UtcSeconds
    registry: RegistryAddress
    notice: Notice
    categories: Annotated[tuple[CategoryName, ...], Meta(min_length=1, max_length=MAX_CATEGORIES)]
    newest: Newest | None


class LinkAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A person's `key` for one data holder, signed with that key: proof that the wallet holds it.

    `offer` is the SHA-256 of the whole offer. Without it somebody between the two could show the person an
    offer with another registry and another identity, and still have the person's key linked here.
    """

    v: Literal[1] = 1
    typ: Literal["fedcredit.link"] = "fedcredit.link"
    holder: Name
    sub: Base64Of32
    nonce: Base64Of32
    offer: Base64Of32
    key: Base64Of32
    issued_at: UtcSeconds


_OFFERS: Final = CanonicalJson(LinkOffer, what=_OFFER, max_bytes=_MAX_OFFER_PAYLOAD)
_ANSWERS: Final = CanonicalJson(LinkAnswer, what=_ANSWER, max_bytes=_MAX_ANSWER_PAYLOAD)


def write_offer(offer: LinkOffer, identity: SigningKey) -> bytes:
    """`offer` in an envelope signed by the data holder's `identity`. Raises MalformedError for a broken rule."""
    payload = _OFFERS.encode(offer)
    _check_offer(offer)
    if offer.identity != base64url(identity.public):
        raise _broken("identity", "the public key that signs the offer")
    return write_envelope(PayloadType.LINK_OFFER, payload, identity)


def read_offer(data: bytes, *, at: int) -> LinkOffer:
    """The offer in `data`, signed by the key that it carries and in force at `at` (UTC seconds).

    Whose key that is only `fingerprint` can tell, compared by another way. Raises MalformedError,
    TamperingError, or RefusalError when it is too early or too late.
    """
    payload = peek_envelope(data, PayloadType.LINK_OFFER, what=_OFFER, max_bytes=MAX_OFFER_BYTES)
    offer = _OFFERS.parse(payload)
    _check_offer(offer)
    identity = from_base64url(offer.identity, size=KEY_BYTES)
    open_envelope(data, PayloadType.LINK_OFFER, identity, what=_OFFER, max_bytes=MAX_OFFER_BYTES)
    _check_time(offer.issued_at, offer.expires, at=at)
    return offer


def write_answer(offer: LinkOffer, key: SigningKey, *, at: int) -> bytes:
    """The person's acceptance of `offer` at `at`, in an envelope signed by `key`, which becomes the linked key."""
    answer = LinkAnswer(
        holder=offer.holder,
        sub=offer.sub,
        nonce=offer.nonce,
        offer=_digest(offer),
        key=base64url(key.public),
        issued_at=at,
    )
    return write_envelope(PayloadType.LINK, _ANSWERS.encode(answer), key)


def read_answer(data: bytes, *, offer: LinkOffer, at: int) -> bytes:
    """The person's public key (32 bytes) in the answer `data` to `offer`, read at `at`.

    Raises MalformedError, TamperingError for an answer to another offer or without proof of the key, or
    RefusalError when it comes too late. That an offer is answered once is for the data holder to see to.
    """
    answer = _ANSWERS.parse(peek_envelope(data, PayloadType.LINK, what=_ANSWER, max_bytes=MAX_ANSWER_BYTES))
    public = from_base64url(answer.key, size=KEY_BYTES)
    # Refuses small-order keys too, for which one signature would prove the key to everybody.
    open_envelope(data, PayloadType.LINK, public, what=_ANSWER, max_bytes=MAX_ANSWER_BYTES)
    answered = (answer.holder, answer.sub, answer.nonce, answer.offer)
    if answered != (offer.holder, offer.sub, offer.nonce, _digest(offer)):
        raise TamperingError(
            "an answer to an offer to link is to another offer than this one; do not link it, "
            "and ask the person to answer the offer that the data holder made."
        )
    _check_time(offer.issued_at, offer.expires, at=at)
    _check_time(offer.issued_at, offer.expires, at=answer.issued_at)
    return public


def fingerprint(public: bytes) -> str:
    """Eight groups of three digits that two people compare by phone, for example `012 345 678 901 ...`.

    Digits are the same in every language. 24 of them are 79.7 bits: whoever wants to pass for a given data
    holder must find another key with the same ones, a second preimage, at 2^79 keys and hashes. Two equal
    ones of one's own choice (2^40) deceive nobody, because both keys are the same party's.
    """
    number = int.from_bytes(hashlib.sha256(b"fedcredit/fingerprint/v1" + public).digest(), "big") % 10**24
    digits = f"{number:024}"
    return " ".join(digits[start : start + 3] for start in range(0, len(digits), 3))


def only_certificates(pem: str) -> str:
    """The certificates in `pem` and nothing else, as they are put into an offer. Raises MalformedError."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, x509.InvalidVersion):
        raise MalformedError(
            f"a text of {len(pem)} characters is not one or more certificates in PEM; whoever runs the data holder "
            "must take the certificates of the registry's operator."
        ) from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates)


def notice_digest(text: str) -> str:
    """What a notice's `terms.sha256` holds: SHA-256 of the text in UTF-8, in base64url."""
    return base64url(hashlib.sha256(text.encode()).digest())


def _check_offer(offer: LinkOffer) -> None:
    if offer.registry.ca is not None and only_certificates(offer.registry.ca) != offer.registry.ca:
        raise _broken("registry.ca", "certificates in PEM and nothing else")
    keys = {from_base64url(text, size=KEY_BYTES) for text in (offer.identity, offer.registry.key)}
    if keys & SMALL_ORDER_ENCODINGS:
        raise _broken("keys", "Ed25519 keys of large order")
    if _UNSEEN.search(offer.notice.text):
        raise _broken("notice.text", "text and line feeds, without control characters and direction marks")
    if notice_digest(offer.notice.text) != offer.notice.terms.sha256:
        raise _broken("notice.terms.sha256", "the SHA-256 of the notice's text")
    if offer.categories != tuple(sorted(set(offer.categories))):
        raise _broken("categories", "each category once, ascending")
    if not offer.issued_at < offer.expires <= offer.issued_at + MAX_OFFER_S:
        raise _broken("expires", f"later than issued_at by at most {MAX_OFFER_S // DAY_S} days")


def _check_time(issued_at: int, expires: int, *, at: int) -> None:
    if not issued_at - CLOCK_ERROR_S <= at < expires:
        when = "has run out" if at >= expires else f"is from more than {CLOCK_ERROR_S} s in the future"
        raise RefusalError(
            f"an offer to link {when}; it must be answered and read while it is in force. Compare the clocks at both "
            "ends, and ask the data holder for a new offer.",
            RefusalCode.LANE,
        )


def _digest(offer: LinkOffer) -> str:
    return base64url(hashlib.sha256(_OFFERS.encode(offer)).digest())


def _broken(field: str, needed: str) -> MalformedError:
    return MalformedError(
        f"an offer to link breaks the rule of its {field}: {needed}. The data holder must make the offer again."
    )
