import base64
from typing import Annotated, Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.canonical import CanonicalJson, base64url, from_base64url
from privacy.errors import MalformedError


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    zulu: Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)]
    alpha: str
    mike: tuple[bool, ...] = ()
    Upper: str | None = None


CODEC = CanonicalJson(Sample, what="a sample", max_bytes=400)
samples = st.builds(
    Sample,
    zulu=st.integers(-(2**53) + 1, 2**53 - 1),
    alpha=st.text(max_size=30),
    mike=st.lists(st.booleans(), max_size=4).map(tuple),
    Upper=st.none() | st.text(max_size=5),
)


@given(samples)
def test_encoding_is_what_the_rfc8785_package_writes_and_reads_back(sample: Sample) -> None:
    data = CODEC.encode(sample)
    fields = {name: value for name, value in msgspec.to_builtins(sample).items() if value not in (None, [])}
    if sample.mike:
        fields["mike"] = list(sample.mike)
    assert data == rfc8785.dumps(fields)
    assert CODEC.parse(data) == sample


@pytest.mark.parametrize(
    "data",
    [
        b'{"alpha":"x","zulu":1,"zulu":1}',
        b'{"alpha":"x", "zulu":1}',
        b'{"zulu":1,"alpha":"x"}',
        b'{"alpha":"x","zulu":1}\n',
        b'{"alpha":"x","zulu":1.0}',
        b'{"alpha":"x","zulu":1e0}',
        b'{"alpha":"x","zulu":-0}',
        b'{"alpha":"x","zulu":true}',
        b'{"alpha":"x","zulu":"1"}',
        b'{"alpha":"x","zulu":NaN}',
        b'{"alpha":"\\u0078","zulu":1}',
        b'{"alpha":"\\/","zulu":1}',
        b'{"alpha":"\xff","zulu":1}',
        b'{"alpha":"\xed\xa0\x80","zulu":1}',
        b'{"alpha":"x","mike":[],"zulu":1}',
        b'{"Upper":null,"alpha":"x","zulu":1}',
        b'{"alpha":"x","unknown":1,"zulu":1}',
        b'{"alpha":"x"}',
        b"\xef\xbb\xbf" + b'{"alpha":"x","zulu":1}',
        b"[" * 399,
        b'{"alpha":' + b"[" * 380,
        b"",
        b"null",
    ],
)
def test_what_is_not_the_one_encoding_is_refused(data: bytes) -> None:
    assert CODEC.parse(b'{"alpha":"x","zulu":1}') == Sample(alpha="x", zulu=1)
    with pytest.raises(MalformedError):
        CODEC.parse(data)


@given(st.binary(max_size=420))
def test_arbitrary_bytes_never_crash_the_parser(data: bytes) -> None:
    try:
        assert CODEC.encode(CODEC.parse(data)) == data
    except MalformedError:
        return


def test_size_is_limited_before_anything_is_read() -> None:
    with pytest.raises(MalformedError, match="401 bytes"):
        CODEC.parse(b'{"alpha":"x","zulu":1}'.ljust(401))
    with pytest.raises(MalformedError, match="at most 400"):
        CODEC.encode(Sample(alpha="x" * 400, zulu=1))


@pytest.mark.parametrize("change", [{"zulu": "1"}, {"alpha": "\ud800"}, {"mike": 1}, {"zulu": 2**70}, {"zulu": 1.5}])
def test_a_value_of_the_wrong_type_is_not_encoded(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        CODEC.encode(msgspec.structs.replace(Sample(zulu=1, alpha="x"), **change))


def test_messages_name_the_place_and_never_the_value() -> None:
    secret = "a-handle-that-is-secret"
    for data in (b'{"alpha":"x","zulu":"%b"}', b'{"alpha":"x","%b":1,"zulu":1}', b'{"alpha":"x","zulu":%b'):
        with pytest.raises(MalformedError) as caught:
            CODEC.parse(data % secret.encode())
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    with pytest.raises(MalformedError, match=r"\$\.zulu"):
        CODEC.parse(b'{"alpha":"x","zulu":"1"}')


@given(st.binary(max_size=40))
def test_base64url_is_the_standard_one_without_padding(data: bytes) -> None:
    text = base64url(data)
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert from_base64url(text, size=len(data)) == data
    for wrong in (text + "=", text + "A", text[:-1], text + "\n", " " + text):
        if len(data):
            with pytest.raises(MalformedError):
                from_base64url(wrong, size=len(data))


@given(st.text(min_size=43, max_size=43))
def test_arbitrary_text_never_crashes_the_decoder(text: str) -> None:
    try:
        assert base64url(from_base64url(text, size=32)) == text
    except MalformedError:
        return


@pytest.mark.parametrize(
    "handle",
    [
        "A" * 42 + "B",  # stray bits after the 32nd byte
        "A" * 43 + "=",
        "A" * 42 + "=",
        "A" * 42 + "+",
        "A" * 42 + "/",
        "А" + "A" * 42,  # Cyrillic
        "A" * 42 + "\u200b",
        "A" * 42 + "\n",
        "A" * 43 + "\n",
        "١" * 43,
        "A" * 44,
        "",
    ],
)
def test_handles_have_one_spelling(handle: str) -> None:
    assert from_base64url("A" * 43, size=32) == bytes(32)
    with pytest.raises(MalformedError):
        from_base64url(handle, size=32)
