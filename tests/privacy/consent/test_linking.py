import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.canonical import base64url
from privacy.consent.envelope import write_envelope
from privacy.consent.linking import (
    CLOCK_ERROR_S,
    MAX_OFFER_BYTES,
    LinkOffer,
    Newest,
    Notice,
    RegistryAddress,
    fingerprint,
    notice_digest,
    only_certificates,
    read_answer,
    read_offer,
    write_answer,
    write_offer,
)
from privacy.consent.record import Terms
from privacy.consent.signing import SMALL_ORDER_ENCODINGS, PayloadType, SigningKey
from privacy.errors import FedcreditError, MalformedError, RefusalCode, RefusalError, TamperingError
from tests.privacy.consent.samples import CATEGORIES, DAY, HOLDER, NOW, Person, digest

ALICE = Person("alice")
IDENTITY = SigningKey.from_seed(digest("identity of holder-01"))
REGISTRY = SigningKey.from_seed(digest("key of the registry"))
TEXT = "We ask you for your consent to four purposes.\nYou may withdraw at any time. 你隨時可以撤回同意。"


@cache
def certificate(name: str) -> str:
    key = Ed25519PrivateKey.from_private_bytes(digest(name))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=900))
        .sign(key, None)
    )
    return built.public_bytes(Encoding.PEM).decode()


def private_key() -> str:
    key = Ed25519PrivateKey.from_private_bytes(digest("private"))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def notice(text: str = TEXT) -> Notice:
    return Notice(terms=Terms(id="notice-1", sha256=notice_digest(text), lang="zh-TW"), text=text, jur="TW")


def registry(**changes: Any) -> RegistryAddress:
    settings: dict[str, Any] = {
        "url": "https://registry.example:8443/consent",
        "key": base64url(REGISTRY.public),
        "ca": certificate("ca"),
    }
    return RegistryAddress(**(settings | changes))


def offer(**changes: Any) -> LinkOffer:
    settings: dict[str, Any] = {
        "holder": HOLDER,
        "identity": base64url(IDENTITY.public),
        "sub": base64url(ALICE.handle),
        "nonce": base64url(digest("nonce")),
        "issued_at": NOW,
        "expires": NOW + DAY,
        "registry": registry(),
        "notice": notice(),
        "categories": CATEGORIES,
        "newest": None,
    }
    return LinkOffer(**(settings | changes))


def signed(payload: bytes, kind: PayloadType = PayloadType.LINK_OFFER, key: SigningKey = IDENTITY) -> bytes:
    return write_envelope(kind, payload, key)


def rewritten(value: Any, **changes: Any) -> bytes:
    """Fields overwritten by anything at all, keys sorted, no rule checked."""
    return msgspec.json.encode(msgspec.to_builtins(value) | changes, order="sorted")


WRITTEN = write_offer(offer(), IDENTITY)
ANSWERED = write_answer(offer(), ALICE.key, at=NOW + 60)


def test_a_person_answers_and_the_holder_learns_the_key() -> None:
    read = read_offer(WRITTEN, at=NOW + 1)
    assert read == offer()
    answered = write_answer(read, ALICE.key, at=NOW + 60)
    assert answered == ANSWERED
    assert read_answer(answered, offer=offer(), at=NOW + 61) == ALICE.key.public


def test_the_untouched_offer_passes_the_helper_that_breaks_it() -> None:
    assert read_offer(signed(rewritten(offer())), at=NOW) == offer()


def test_a_person_linked_before_learns_where_to_go_on() -> None:
    again = offer(newest=Newest(seq=7, digest=base64url(digest("payload 7"))), registry=registry(ca=None))
    assert read_offer(write_offer(again, IDENTITY), at=NOW).newest == again.newest


@pytest.mark.parametrize("seconds", [-CLOCK_ERROR_S, 0, DAY - 1])
def test_an_offer_and_its_answer_are_good_while_in_force(seconds: int) -> None:
    read_offer(WRITTEN, at=NOW + seconds)
    assert read_answer(ANSWERED, offer=offer(), at=NOW + seconds) == ALICE.key.public
    write_then = write_answer(offer(), ALICE.key, at=NOW + seconds)
    assert read_answer(write_then, offer=offer(), at=NOW + 60) == ALICE.key.public


@pytest.mark.parametrize("seconds", [-CLOCK_ERROR_S - 1, DAY, DAY + 1, 400 * DAY])
def test_too_early_and_too_late_are_refused(seconds: int) -> None:
    answered_then = write_answer(offer(), ALICE.key, at=NOW + seconds)
    for attempt in (
        lambda: read_offer(WRITTEN, at=NOW + seconds),
        lambda: read_answer(ANSWERED, offer=offer(), at=NOW + seconds),
        lambda: read_answer(answered_then, offer=offer(), at=NOW + 60),
    ):
        with pytest.raises(RefusalError) as caught:
            attempt()
        assert caught.value.code is RefusalCode.LANE


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"typ": "fedcredit.link"},
        {"holder": "../holder"},
        {"identity": base64url(REGISTRY.public)},
        {"sub": "A" * 42 + "B"},
        {"nonce": ""},
        {"issued_at": float(NOW)},
        {"expires": NOW},
        {"expires": NOW + 30 * DAY + 1},
        {"categories": []},
        {"categories": ["credit_history", "capacity"]},
        {"categories": ["capacity", "capacity"]},
        {"categories": ["Capacity"]},
        {"categories": [f"c{number:02}" for number in range(17)]},
        {"newest": {"seq": 0, "digest": base64url(bytes(32))}},
        {"newest": {"seq": 1}},
        {"notice": None},
        {"registry": None},
        {"unknown": 1},
    ],
    ids=str,
)
def test_an_offer_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((MalformedError, TamperingError)):
        read_offer(signed(rewritten(offer(), **changes)), at=NOW)


@pytest.mark.parametrize(
    "url",
    [
        "http://registry.example",
        "http://10.0.0.1:8443",
        "http://127.0.0.1.example",
        "http://localhost",
        "https://person:secret@registry.example",
        "https://registry.example/?lane=holder-01",
        "https://registry.example/#top",
        "https://registry.example/../admin",
        "https://registry.example/%2e%2e",
        "https://registry.example/",
        "https://registry.example:0",
        "https://registry.example:",
        "https://Registry.example",
        "https://registry.example\n",
        "https://registry.example\\@elsewhere.example",
        "https://rеgistry.example",  # Cyrillic e
        "https://",
        "https:registry.example",
        "ftp://registry.example",
        "file:///etc/passwd",
        "//registry.example",
        "https://registry.example/" + "a" * 250,
        "",
    ],
)
def test_a_registry_address_that_could_lead_astray_is_refused(url: str) -> None:
    with pytest.raises(MalformedError):
        write_offer(offer(registry=registry(url=url)), IDENTITY)


@pytest.mark.parametrize("url", ["https://r", "https://192.0.2.1:8443", "http://127.0.0.1:8080", "https://a.b/c/d.e"])
def test_a_plain_registry_address_serves(url: str) -> None:
    assert read_offer(write_offer(offer(registry=registry(url=url)), IDENTITY), at=NOW).registry.url == url


@pytest.mark.parametrize(
    "ca",
    [
        "",
        "not a certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        certificate("ca") + "\n",
        "Certificate:\n" + certificate("ca"),
        certificate("ca") + private_key(),
        private_key(),
        certificate("ca").replace("\n", "\r\n"),
    ],
    ids=range(8),
)
def test_trust_is_certificates_and_nothing_else(ca: str) -> None:
    with pytest.raises(MalformedError):
        write_offer(offer(registry=registry(ca=ca)), IDENTITY)


def test_certificates_are_taken_out_of_what_surrounds_them() -> None:
    both = certificate("root") + certificate("intermediate")
    messy = f"# our registry\n{certificate('root')}\nand\n{private_key()}{certificate('intermediate')}\n"
    assert only_certificates(messy) == both
    assert read_offer(write_offer(offer(registry=registry(ca=both)), IDENTITY), at=NOW).registry.ca == both


def test_the_signed_notice_is_the_one_shown() -> None:
    other = notice("Another text.")
    with pytest.raises(MalformedError, match="notice's text"):
        write_offer(offer(notice=msgspec.structs.replace(notice(), text=other.text)), IDENTITY)
    assert notice().terms.sha256 == base64url(hashlib.sha256(TEXT.encode()).digest())


@pytest.mark.parametrize(
    "hidden", ["\x1b[8mhidden\x1b[0m", "\r", "\t", "\x00", "\x7f", "\x9b8m", "\u202e", "\u2066", "\u200f"], ids=ascii
)
def test_a_notice_cannot_hide_or_reverse_what_it_says(hidden: str) -> None:
    with pytest.raises(MalformedError, match="control characters"):
        write_offer(offer(notice=notice("You agree" + hidden + " to everything.")), IDENTITY)


def test_sizes_are_limited() -> None:
    widest = notice("\U0001f4b3" * 8192)
    assert len(write_offer(offer(notice=widest), IDENTITY)) <= MAX_OFFER_BYTES
    with pytest.raises(MalformedError):
        write_offer(offer(notice=notice("a" * 8193)), IDENTITY)
    with pytest.raises(MalformedError):
        write_offer(offer(registry=registry(ca=certificate("ca") * 60)), IDENTITY)
    with pytest.raises(MalformedError):
        read_offer(WRITTEN.ljust(MAX_OFFER_BYTES + 1), at=NOW)
    with pytest.raises(MalformedError):
        read_answer(ANSWERED.ljust(MAX_OFFER_BYTES), offer=offer(), at=NOW)


@pytest.mark.parametrize("public", sorted(SMALL_ORDER_ENCODINGS), ids=bytes.hex)
def test_small_order_keys_are_refused_everywhere(public: bytes) -> None:
    key = base64url(public)
    with pytest.raises(MalformedError, match="large order"):
        read_offer(signed(rewritten(offer(), identity=key)), at=NOW)
    with pytest.raises(MalformedError, match="large order"):
        write_offer(offer(registry=registry(key=key)), IDENTITY)
    # The signature of 64 zero bytes behind a neutral R is what such a key "signs" everything with.
    answer = msgspec.json.decode(answer_payload())
    forged = envelope(rewritten(answer, key=key), PayloadType.LINK, public + bytes(32))
    with pytest.raises(TamperingError):
        read_answer(forged, offer=offer(), at=NOW)


def answer_payload() -> bytes:
    return base64.b64decode(msgspec.json.decode(ANSWERED)["payload"])


def envelope(payload: bytes, kind: PayloadType, signature: bytes) -> bytes:
    fields = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind.value,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    return msgspec.json.encode(fields, order="sorted")


def test_a_key_without_its_proof_is_not_linked() -> None:
    mallory = Person("mallory").key
    claimed = rewritten(msgspec.json.decode(answer_payload()), key=base64url(ALICE.key.public))
    with pytest.raises(TamperingError):
        read_answer(signed(claimed, PayloadType.LINK, mallory), offer=offer(), at=NOW + 60)


@pytest.mark.parametrize(
    "changes",
    [
        {"holder": "holder-02"},
        {"sub": base64url(Person("bob").handle)},
        {"nonce": base64url(digest("another nonce"))},
        {"registry": registry(url="https://elsewhere.example")},
        {"registry": registry(key=base64url(IDENTITY.public))},
        {"notice": notice("Another text.")},
        {"categories": ("capacity",)},
        {"newest": Newest(seq=1, digest=base64url(bytes(32)))},
    ],
    ids=str,
)
def test_an_answer_is_to_one_offer_and_all_of_it(changes: dict[str, Any]) -> None:
    with pytest.raises(TamperingError, match="another offer"):
        read_answer(ANSWERED, offer=offer(**changes), at=NOW + 60)


def test_somebody_between_the_two_cannot_put_in_a_key_of_their_own() -> None:
    between = SigningKey.from_seed(digest("between"))
    shown = offer(identity=base64url(between.public), registry=registry(url="https://elsewhere.example"))
    answered = write_answer(read_offer(write_offer(shown, between), at=NOW), ALICE.key, at=NOW + 60)
    with pytest.raises(TamperingError, match="another offer"):
        read_answer(answered, offer=offer(), at=NOW + 60)
    assert fingerprint(between.public) != fingerprint(IDENTITY.public)


def test_one_message_never_stands_for_another() -> None:
    for kind in PayloadType:
        if kind is not PayloadType.LINK_OFFER:
            with pytest.raises(MalformedError):
                read_offer(signed(rewritten(offer()), kind), at=NOW)
        if kind is not PayloadType.LINK:
            with pytest.raises(MalformedError):
                read_answer(signed(answer_payload(), kind, ALICE.key), offer=offer(), at=NOW)


def test_only_the_key_named_in_it_signs_an_offer() -> None:
    with pytest.raises(MalformedError, match="identity"):
        write_offer(offer(), REGISTRY)
    with pytest.raises(TamperingError):
        read_offer(signed(rewritten(offer()), key=REGISTRY), at=NOW)


@given(st.integers(0, len(WRITTEN) - 1), st.binary(max_size=3))
def test_a_changed_offer_is_never_read(place: int, new: bytes) -> None:
    changed = WRITTEN[:place] + new + WRITTEN[place + 1 :]
    if changed != WRITTEN:
        with pytest.raises((MalformedError, TamperingError)):
            read_offer(changed, at=NOW)


@given(st.integers(0, len(ANSWERED) - 1), st.binary(max_size=3))
def test_a_changed_answer_is_never_read(place: int, new: bytes) -> None:
    changed = ANSWERED[:place] + new + ANSWERED[place + 1 :]
    if changed != ANSWERED:
        with pytest.raises((MalformedError, TamperingError)):
            read_answer(changed, offer=offer(), at=NOW)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_arbitrary_bytes_never_crash_the_readers(data: bytes, payload: bytes) -> None:
    for attempt in (data, signed(payload)):
        with pytest.raises(MalformedError):
            read_offer(attempt, at=NOW)
    for attempt in (data, signed(payload, PayloadType.LINK)):
        with pytest.raises(MalformedError):
            read_answer(attempt, offer=offer(), at=NOW)


def test_a_fingerprint_is_eight_groups_of_three_digits_and_depends_on_every_byte() -> None:
    shown = fingerprint(IDENTITY.public)
    assert re.fullmatch(r"\d{3}(?: \d{3}){7}", shown)
    labelled = hashlib.sha256(b"fedcredit/fingerprint/v1" + IDENTITY.public).hexdigest()
    assert shown.replace(" ", "") == str(int(labelled, 16))[-24:]
    flipped = [
        IDENTITY.public[:place] + bytes([byte ^ 1]) + IDENTITY.public[place + 1 :]
        for place, byte in enumerate(IDENTITY.public)
    ]
    assert len({shown, *map(fingerprint, flipped)}) == 33


def test_no_message_names_a_person_a_key_or_a_notice() -> None:
    secrets = {offer().sub, offer().nonce, offer().identity, base64url(ALICE.key.public), TEXT, HOLDER}
    late = NOW + 2 * DAY
    texts = []
    for attempt in (
        lambda: read_offer(WRITTEN, at=late),
        lambda: read_offer(signed(rewritten(offer()), key=REGISTRY), at=NOW),
        lambda: read_offer(signed(rewritten(offer(), categories=["b", "a"])), at=NOW),
        lambda: read_answer(ANSWERED, offer=offer(holder="holder-02"), at=NOW),
        lambda: read_answer(ANSWERED, offer=offer(), at=late),
        lambda: write_offer(offer(), REGISTRY),
    ):
        with pytest.raises(FedcreditError) as caught:
            attempt()
        texts.append(str(caught.value))
    assert len(texts) == 6
    assert [text for text in texts for secret in secrets if secret in text] == []
