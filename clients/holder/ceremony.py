"""Linking: offers to customers, and their answers, which prove that a wallet holds the key to be linked."""

import secrets
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from clients.holder.desk import Desk
from clients.holder.desk_book import PendingOffer
from federated.toml_table import BLANK
from privacy.consent.canonical import base64url, from_base64url
from privacy.consent.envelope import peek_envelope
from privacy.consent.limits import HANDLE_BYTES, MAX_OFFER_S, Base64Of32
from privacy.consent.linking import (
    MAX_ANSWER_BYTES,
    LinkOffer,
    Newest,
    Notice,
    RegistryAddress,
    notice_digest,
    only_certificates,
    read_answer,
    read_offer,
    write_offer,
)
from privacy.consent.record import ConsentRecord, Terms, encode_record, payload_digest
from privacy.consent.signing import PayloadType
from privacy.consent.view import Conflict, Link
from privacy.errors import MalformedError, RefusalCode, RefusalError, UsageError

_NONCE_BYTES = 32
_LONGEST_CUSTOMER = 128  # characters
# Of two records with one number neither is the newest; a wallet goes on after that number, from no digest it knows.
_NO_DIGEST = base64url(bytes(32))


class Linked(StrEnum):
    """What an answer changed."""

    NEW = "new"
    SAME = "same"
    REPLACED = "replaced"


LINKED_WORDS = {
    Linked.NEW: "Linked: the wallet proved its key. Its records count from the offer on.",
    Linked.SAME: "This customer was linked to this very key before; nothing was changed.",
    Linked.REPLACED: "Linked to the new key. The old link has ended, and records by the old key no longer count.",
}


class _Addressed(msgspec.Struct, frozen=True):
    """The part of an answer that tells to which offer it belongs; the rest is read with that offer."""

    nonce: Base64Of32


def make_offers(desk: Desk, customers: Sequence[str], *, at: int) -> list[bytes]:
    """A signed offer for each of `customers`, in order; the desk keeps them until they are answered or expire.

    An offer holds a handle and no customer number. Whoever is linked gets the handle there is, and the number of the
    newest record here, so that a recovered wallet can go on. Who was linked before gets the handle of then: under it
    the privacy ledger knows what was spent.
    """
    for customer in customers:
        if not 1 <= len(customer) <= _LONGEST_CUSTOMER or not customer.isprintable():
            raise UsageError(
                f"A customer number has 1 to {_LONGEST_CUSTOMER} printable characters, as in the column of the table "
                "that names people; give it so."
            )
    if len(set(customers)) < len(customers):
        raise UsageError("A customer is named twice; give each customer once.")
    registry, notice = _registry(desk), _notice(desk)
    categories = tuple(sorted(desk.categories))
    handles = desk.lane.handles_ever()
    pending, envelopes = [], []
    for customer in customers:
        handle = handles.get(customer)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        offer = LinkOffer(
            holder=desk.settings.holder,
            identity=base64url(desk.keys.identity.public),
            sub=base64url(secrets.token_bytes(HANDLE_BYTES) if handle is None else handle),
            nonce=base64url(nonce),
            issued_at=at,
            expires=at + MAX_OFFER_S,
            registry=registry,
            notice=notice,
            categories=categories,
            newest=None if handle is None else _newest(desk.lane.standing(handle)),
        )
        envelopes.append(write_offer(offer, desk.keys.identity))
        pending.append(PendingOffer(customer, nonce, envelopes[-1], desk.lane.head.size, offer.expires))
    desk.book.put_offers(pending, at=at)
    return envelopes


def link_answer(desk: Desk, data: bytes, *, replace: bool, at: int) -> Linked:
    """Tie the customer whose pending offer `data` answers to the key that it proves. An offer is good for one answer.

    RefusalError if no offer waits for this answer, if it comes too late, or if the customer is linked to another key
    and `replace` is false. MalformedError or TamperingError if it proves nothing.
    """
    pending = desk.book.offer(_nonce_of(data))
    if pending is None:
        raise RefusalError(
            "No offer of this desk waits for this answer: it was answered before, it has expired, a later offer to the "
            "same customer took its place, or another data holder made it. The desk should make a new offer.",
            RefusalCode.REPLAY,
        )
    offer = read_offer(pending.envelope, at=at)
    key = read_answer(data, offer=offer, at=at)
    handle = from_base64url(offer.sub, size=HANDLE_BYTES)
    linked = desk.lane.links().get(pending.customer)
    if linked is None:
        desk.lane.link({pending.customer: Link(handle, key, pending.lane_size)})
        done = Linked.NEW
    elif linked != handle:
        raise RefusalError(
            "This customer was linked in another way after the offer was made; nothing was changed. The desk should "
            "make a new offer.",
            RefusalCode.REPLAY,
        )
    elif desk.lane.public_key_of(linked) == key:
        done = Linked.SAME
    elif not replace:
        raise RefusalError(
            "This customer is linked to another key; nothing was changed. If the person stands at the desk and has "
            "lost the old wallet, run the command again with --replace: the old key's records then no longer count.",
            RefusalCode.CONSENT,
        )
    else:
        # From the lane's size now, not the offer's: the old key's link lasted until now, and two never overlap.
        desk.lane.replace_key(pending.customer, key)
        done = Linked.REPLACED
    # Last: an answer whose link was not stored must stay good.
    desk.book.drop_offers(pending.customer)
    return done


def _registry(desk: Desk) -> RegistryAddress:
    registry = desk.settings.registry
    trust = registry.trust(desk.directory)
    ca = None if trust is None else only_certificates(trust)
    return RegistryAddress(url=registry.url, key=base64url(registry.public), ca=ca)


def _notice(desk: Desk) -> Notice:
    settings = desk.settings.desk
    text = desk.text(settings.notice)
    if BLANK in text:
        raise MalformedError(
            f"{settings.notice} still says {BLANK!r}: people would be asked to consent to a draft. The data holder "
            "should finish the notice, then run the command again."
        )
    terms = Terms(id=settings.notice_id, sha256=notice_digest(text), lang=settings.language)
    return Notice(terms=terms, text=text, jur=settings.jurisdiction)


def _newest(standing: ConsentRecord | Conflict | None) -> Newest | None:
    match standing:
        case None:
            return None
        case Conflict(seq):
            return Newest(seq=seq, digest=_NO_DIGEST)
        case ConsentRecord():
            return Newest(seq=standing.seq, digest=payload_digest(encode_record(standing)))


def _nonce_of(data: bytes) -> bytes:
    payload = peek_envelope(data, PayloadType.LINK, what="an answer to an offer to link", max_bytes=MAX_ANSWER_BYTES)
    try:
        return from_base64url(msgspec.json.decode(payload, type=_Addressed).nonce, size=_NONCE_BYTES)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedError(
            "An answer to an offer to link does not say which offer it answers. The person's wallet must answer the "
            "offer again."
        ) from None
