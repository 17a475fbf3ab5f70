import json
from typing import Any

import httpx
import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.canonical import base64url
from privacy.consent.envelope import write_envelope
from privacy.consent.key_set import EpochKey, KeySet, read_key_set, write_key_set
from privacy.consent.limits import ServiceUrl
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError, RefusalCode, RefusalError, TamperingError
from tests.privacy.consent.samples import DAY, HOLDER, IDENTITY, LANE_KEY, NOW, SMALL_LANE_KEY, digest

OLD, NEW = SMALL_LANE_KEY.public, LANE_KEY.public
KEYS = (EpochKey(epoch=1, key=base64url(OLD.to_bytes())), EpochKey(epoch=3, key=base64url(NEW.to_bytes())))
KEY_SET = KeySet(
    holder=HOLDER,
    version=2,
    issued_at=NOW,
    expires=NOW + 90 * DAY,
    current=3,
    keys=KEYS,
    side_door="https://desk.example:8443/side-door",
)
DATA = write_key_set(KEY_SET, IDENTITY)


def read(data: bytes, *, at: int | None = NOW, holder: str = HOLDER) -> KeySet:
    return read_key_set(data, identity=IDENTITY.public, holder=holder, at=at)


def signed(**changes: Any) -> bytes:
    fields = msgspec.to_builtins(KEY_SET) | changes
    return write_envelope(
        PayloadType.KEY_SET, json.dumps(fields, sort_keys=True, separators=(",", ":")).encode(), IDENTITY
    )


def test_a_key_set_is_read_as_it_was_written() -> None:
    assert read(DATA) == KEY_SET
    assert read(DATA).current_key == NEW
    assert [key.public for key in read(DATA).keys] == [OLD, NEW]
    payload = rfc8785.dumps(msgspec.to_builtins(KEY_SET))
    assert write_envelope(PayloadType.KEY_SET, payload, IDENTITY) == DATA == signed()


def test_a_key_set_serves_from_an_hour_before_its_issue_until_it_expires() -> None:
    for at in (NOW - 3600, NOW, NOW + 90 * DAY - 1):
        assert read(DATA, at=at) == KEY_SET
    for at in (NOW - 3601, NOW + 90 * DAY, NOW + 91 * DAY):
        with pytest.raises(RefusalError) as caught:
            read(DATA, at=at)
        assert caught.value.code is RefusalCode.LANE
        assert read(DATA, at=None) == KEY_SET


def test_only_the_data_holders_own_signature_counts() -> None:
    with pytest.raises(TamperingError):
        read_key_set(DATA, identity=SigningKey.from_seed(digest("other")).public, holder=HOLDER, at=NOW)
    with pytest.raises(TamperingError, match="another data holder"):
        read(DATA, holder="holder-02")
    as_link = write_envelope(PayloadType.LINK, rfc8785.dumps(msgspec.to_builtins(KEY_SET)), IDENTITY)
    with pytest.raises(MalformedError):
        read(as_link)


def key(epoch: int, text: str) -> dict[str, object]:
    return {"epoch": epoch, "key": text}


OLD_TEXT, NEW_TEXT = KEYS[0].key, KEYS[1].key


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": []},
        {"keys": [key(3, NEW_TEXT), key(1, OLD_TEXT)]},
        {"keys": [key(3, NEW_TEXT), key(3, OLD_TEXT)]},
        {"keys": [key(1, OLD_TEXT)]},
        {"keys": [key(epoch, OLD_TEXT) for epoch in range(1, 18)]},
        {"keys": [key(3, NEW_TEXT + "=")]},
        {"keys": [key(3, NEW_TEXT[:-1])]},
        {"keys": [key(3, NEW_TEXT[:-1] + chr(ord(NEW_TEXT[-1]) + 1))]},
        {"keys": [key(3, base64url(b"\x09" + bytes(32)))]},
        {"keys": [key(3, base64url(b"\x02" + b"\xff" * 1216))]},
        {"keys": [key(3, "")]},
        {"keys": [key(0, OLD_TEXT), key(3, NEW_TEXT)]},
        {"current": 2},
        {"current": True},
        {"version": 0},
        {"expires": NOW},
        {"expires": NOW + 90 * DAY + 1},
        {"issued_at": NOW - 1},
        {"holder": "holder 01"},
        {"v": 2},
        {"typ": "fedcredit.link"},
        {"side_door": "http://desk.example"},
        {"extra": None},
    ],
)
def test_a_key_set_that_breaks_a_rule_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        read(signed(**changes))


def test_a_broken_rule_is_not_even_signed() -> None:
    for changes in ({"current": 2}, {"expires": NOW}, {"keys": KEYS[::-1]}):
        with pytest.raises(MalformedError):
            write_key_set(msgspec.structs.replace(KEY_SET, **changes), IDENTITY)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("https://registry.example", True),
        ("https://registry.example:8443/lanes/v1.0", True),
        ("https://10.0.0.7:443", True),
        ("http://127.0.0.1:8080", True),
        ("http://127.0.0.1.example:8080", False),
        ("http://registry.example", False),
        ("https://registry.example/", False),
        ("https://Registry.example", False),
        ("https://user@registry.example", False),
        ("https://registry.example?x=1", False),
        ("https://registry.example#x", False),
        ("https://registry.example/../x", False),
        ("https://registry.example:0", False),
        ("https://registry.example\n", False),
        ("https://r\u0435gistry.example", False),
        ("https://", False),
        ("file:///etc/passwd", False),
        ("https://r/" + "x" * 300, False),
        ("https://a-b.c9.example:65535", True),
        ("https://a..b", False),
        ("https://xn--a", False),
        ("https://registry.xn--a.example", False),
        ("https://registry.-a", False),
        ("https://registry-", False),
        ("https://registry.example.", False),
        ("https://" + "a" * 63, True),
        ("https://" + "a" * 64, False),
        ("https://registry.example:65536", False),
        ("https://999.1.1.1", False),
        ("https://1.2.3", False),
        ("https://a.1", False),
        ("https://01.2.3.4:443", False),
    ],
)
def test_an_address_is_https_or_this_machine_and_spelt_one_way(text: str, taken: bool) -> None:
    try:
        msgspec.convert(text, ServiceUrl)
    except msgspec.ValidationError:
        assert not taken
    else:
        assert taken


@given(st.from_regex(r"https://[a-z0-9x.-]{1,40}(:[0-9]{1,5})?", fullmatch=True))
def test_an_address_that_is_taken_is_one_for_the_library_that_asks_it(text: str) -> None:
    try:
        msgspec.convert(text, ServiceUrl)
    except msgspec.ValidationError:
        return
    assert str(httpx.URL(text)).startswith(text.removesuffix(":443"))
    assert httpx.URL(text).host.encode("idna")


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_never_crash_the_reader(data: bytes, sealed: bool) -> None:
    with pytest.raises((MalformedError, TamperingError)):
        read(write_envelope(PayloadType.KEY_SET, data, IDENTITY) if sealed else data)


@given(st.text("AQgw-_=", max_size=60))
def test_a_key_has_one_spelling(text: str) -> None:
    try:
        public = EpochKey(epoch=1, key=text).public
    except MalformedError:
        return
    assert base64url(public.to_bytes()) == text
