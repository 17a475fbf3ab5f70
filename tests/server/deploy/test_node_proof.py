"""Which requests count as a node's own: no other than those that Flower's SuperLink takes for its own."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.primitives.asymmetric import sign_message, verify_signature
from hypothesis import example, given
from hypothesis import strategies as st

from server.deploy.node_proof import AHEAD_S, BEHIND_S, is_proven
from tests.server.deploy.door import node_key, private_key

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
AT = NOW.timestamp()


def signature(of: bytes, number: int = 0) -> bytes:
    return b64encode(sign_message(private_key(number), of))


GOOD = NOW.isoformat().encode()
SIGNED = signature(GOOD)


def proven(timestamp: bytes, signed: bytes) -> bool:
    return is_proven(node_key(), timestamp=timestamp, signature=signed, at=AT)


@given(at=st.integers(0, len(SIGNED) - 5), put=st.sampled_from(list(b"AQgw019+/=")))
def test_a_signature_counts_exactly_if_flower_takes_it(at: int, put: int) -> None:
    raw = SIGNED[:at] + bytes([put]) + SIGNED[at + 1 :]
    assert proven(GOOD, SIGNED)
    assert proven(GOOD, raw) == (raw == SIGNED)


@pytest.mark.parametrize("number", [1, 2])
def test_anothers_signature_is_none(number: int) -> None:
    assert not proven(GOOD, signature(GOOD, number))
    assert verify_signature(node_key(number), GOOD, sign_message(private_key(number), GOOD))


def test_a_signature_over_another_time_is_none() -> None:
    later = (NOW + timedelta(seconds=1)).isoformat().encode()
    assert not proven(later, SIGNED)
    assert proven(later, signature(later))


@given(st.floats(-2 * BEHIND_S, 2 * BEHIND_S))
@example(-SYSTEM_TIME_TOLERANCE + 0.001)
@example(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE - 0.001)
@example(3600.0)
@example(-3600.0)
def test_a_time_counts_if_superlink_would_take_it_and_hardly_else(ago_s: float) -> None:
    asked = (NOW - timedelta(seconds=ago_s)).isoformat().encode()
    taken = proven(asked, signature(asked))
    if -SYSTEM_TIME_TOLERANCE < ago_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
        assert taken
    if not -SYSTEM_TIME_TOLERANCE - 5 <= ago_s <= TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE + 5:
        assert not taken
    assert (AHEAD_S, BEHIND_S) == (SYSTEM_TIME_TOLERANCE + 5, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE + 5)


@pytest.mark.parametrize("timestamp", [
    b"", b"x", b"2026-11-22T08:00:00", b"2026-11-22", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59",
    b"2026-11-22T08:00:00+00:00\xff", b"1" * 5000, b"nan",
])  # fmt: skip
def test_a_time_that_says_nothing_is_refused_though_it_is_signed(timestamp: bytes) -> None:
    assert not proven(timestamp, signature(timestamp))


@pytest.mark.parametrize(
    "signed", [b"", b"AAAA", b"=", b"\xff\xfe", SIGNED + b"=", SIGNED[:-4], b"A" * 5000, b" " + SIGNED]
)
def test_what_is_no_signature_is_refused(signed: bytes) -> None:
    assert not proven(GOOD, signed)


def test_a_signature_has_one_spelling() -> None:
    """Python takes more padding than there should be, where none should."""
    whole = next(signed for _ in range(1000) if not (signed := signature(GOOD)).endswith(b"="))
    assert proven(GOOD, whole)
    for more in (b"=", b"==", b"\n"):
        assert not proven(GOOD, whole + more)
