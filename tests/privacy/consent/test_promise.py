import json
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.consent.canonical import base64url
from privacy.consent.envelope import write_envelope
from privacy.consent.promise import Promise, read_promise, write_promise
from privacy.consent.signing import PayloadType, SigningKey
from privacy.errors import MalformedError, TamperingError
from tests.privacy.consent.samples import LANE, NOW, REGISTRY, digest

PROMISE = Promise(
    lane=LANE, leaf=base64url(digest("leaf")), position=0, received_at=NOW, merge_by=NOW + 60
)  # fmt: skip
FIELDS: Any = {
    "v": 1,
    "typ": "fedcredit.promise",
    "lane": LANE,
    "leaf": base64url(digest("leaf")),
    "position": 0,
    "received_at": NOW,
    "merge_by": NOW + 60,
}


def signed(payload: bytes, *, key: SigningKey = REGISTRY, kind: PayloadType = PayloadType.PROMISE) -> bytes:
    return write_envelope(kind, payload, key)


def read(data: bytes) -> Promise:
    return read_promise(data, registry_key=REGISTRY.public)


@given(st.integers(0, 2**53 - 1), st.integers(0, 3600))
def test_a_promise_is_read_as_it_was_written(position: int, delay: int) -> None:
    promise = msgspec.structs.replace(PROMISE, position=position, merge_by=NOW + delay)
    assert read(write_promise(promise, REGISTRY)) == promise


def test_a_promise_is_canonical_json_in_an_envelope() -> None:
    assert write_promise(PROMISE, REGISTRY) == signed(rfc8785.dumps(FIELDS))


@pytest.mark.parametrize(
    "changes",
    [
        {"position": -1},
        {"position": True},
        {"position": 0.0},
        {"position": 2**53},
        {"merge_by": NOW - 1},
        {"merge_by": NOW + 3601},
        {"received_at": 0},
        {"leaf": "A" * 42},
        {"lane": "Lane"},
        {"v": 2},
        {"typ": "fedcredit.tombstone"},
        {"tag": "AAAA"},
    ],
)
def test_a_promise_that_breaks_a_rule_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        read(signed(json.dumps(FIELDS | changes, sort_keys=True, separators=(",", ":")).encode()))


def test_a_promise_later_than_an_hour_is_not_even_written() -> None:
    with pytest.raises(MalformedError, match="due 3601 s after"):
        write_promise(msgspec.structs.replace(PROMISE, merge_by=NOW + 3601), REGISTRY)


def test_another_key_or_type_makes_no_promise() -> None:
    payload = rfc8785.dumps(FIELDS)
    with pytest.raises(TamperingError):
        read(signed(payload, key=SigningKey.from_seed(digest("another registry"))))
    with pytest.raises(MalformedError):
        read(signed(payload, kind=PayloadType.TOMBSTONE))


@given(st.binary(max_size=400), st.booleans())
def test_arbitrary_bytes_never_crash_the_reader(data: bytes, sealed: bool) -> None:
    with pytest.raises((MalformedError, TamperingError)):
        read(signed(data) if sealed else data)
