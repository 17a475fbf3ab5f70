"""Headers are strict and canonical; arrays are checked; a letter's digest tells letters apart."""

import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.messages import (
    Dealt,
    Header,
    Instruction,
    Joined,
    LedgerMark,
    Letter,
    Received,
    Refused,
    Revealed,
    ScoreAnswers,
    SumKeys,
    Update,
    array_of,
    decode_header,
    digest_of,
    encode_header,
)
from privacy.errors import FedcreditError, MalformedError, RefusalCode
from tests.federated.letters import HEADERS, LETTERS, same

INSTRUCTION = Instruction("run", 1, ["aster-bank"])
UPDATE = Update("aster-bank", "run/1", b"c" * 32, b"s" * 64, LedgerMark(1, b"d" * 32))


@given(HEADERS)
def test_a_header_comes_back_as_it_went(header: Header) -> None:
    assert decode_header(encode_header(header)) == header


@given(HEADERS)
def test_the_encoding_is_what_the_standard_library_calls_sorted_and_compact(header: Header) -> None:
    payload = encode_header(header)
    plain = json.loads(payload)
    assert json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == payload
    assert plain["kind"] in {kind.__struct_config__.tag for kind in get_args(Header)}


@given(HEADERS, st.data())
def test_whatever_decodes_is_canonical(header: Header, data: st.DataObject) -> None:
    """One header has one encoding: a changed byte is refused or is another header, never a second way to write it."""
    payload = bytearray(encode_header(header))
    position = data.draw(st.integers(0, len(payload) - 1))
    payload[position] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_header(bytes(payload))
    except MalformedError:
        return
    assert encode_header(decoded) == payload


@given(st.binary(max_size=60))
def test_noise_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_header(payload)


def _changed(header: Header, **fields: object) -> bytes:
    plain = json.loads(encode_header(header)) | fields
    kept = {name: value for name, value in plain.items() if value is not ...}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "payload",
    [
        _changed(INSTRUCTION, extra=1),
        _changed(INSTRUCTION, run=...),
        _changed(INSTRUCTION, kind=...),
        _changed(INSTRUCTION, kind="instructions"),
        _changed(INSTRUCTION, kind="sum-keys"),
        _changed(INSTRUCTION, round_number="1"),
        _changed(INSTRUCTION, round_number=True),
        _changed(INSTRUCTION, round_number=1.0),
        _changed(INSTRUCTION, round_number=None),
        _changed(INSTRUCTION, cohort={}),
        _changed(INSTRUCTION, cohort=[1]),
        _changed(INSTRUCTION, cohort=None),
        _changed(UPDATE, ledger={"digest": "", "size": 1, "people": 2}),
        _changed(UPDATE, ledger={"digest": "A", "size": 1}),
        _changed(Refused("aster-bank", RefusalCode.PLAN), code="because of Ms Doe"),
        encode_header(INSTRUCTION) + b" ",
        encode_header(INSTRUCTION) + encode_header(INSTRUCTION),
        encode_header(INSTRUCTION).replace(b'{"', b'{ "', 1),
        encode_header(INSTRUCTION).replace(b'"run":"run"', b'"run":"r","run":"run"'),
        encode_header(INSTRUCTION).replace(b'"run":"run"', b'"run":"\\u0072un"'),
        json.dumps(dict(reversed(json.loads(encode_header(INSTRUCTION)).items())), separators=(",", ":")).encode(),
        b"[" * 100_000,
        b"",
    ],
)
def test_anything_more_less_or_other_is_refused_and_not_repeated_in_the_text(payload: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        decode_header(payload)
    assert "Doe" not in str(caught.value)
    assert "aster" not in str(caught.value)


def test_what_a_data_holder_sends_has_room_for_no_count_of_people_and_no_free_text() -> None:
    """Counts would give a withdrawal away, and a text could hold a row; only names, codes, keys and signatures go.

    The one number is how many entries its ledger has: charges of releases, whoever is in them.
    """
    kinds = (Joined, Dealt, Received, Update, Revealed, ScoreAnswers, Refused, SumKeys, LedgerMark)
    sent = {kind.__name__: dict(kind.__annotations__) for kind in kinds}
    assert sent == {
        "Joined": {
            "holder": str,
            "run": str,
            "keys": SumKeys | None,
            "ledger": LedgerMark,
            "signature": bytes,
        },
        "Dealt": {"holder": str, "run": str, "sealed": dict[str, bytes], "signature": bytes},
        "Received": {"holder": str, "run": str, "faulty": list[str]},
        "Update": {"holder": str, "release": str, "commitment": bytes, "signature": bytes, "ledger": LedgerMark},
        "Revealed": {
            "holder": str,
            "release": str,
            "seeds": dict[str, bytes],
            "keys": dict[str, bytes],
            "signature": bytes,
        },
        "ScoreAnswers": {"holder": str, "sealed": list[bytes]},
        "Refused": {"holder": str, "code": RefusalCode},
        "SumKeys": {"channel": bytes, "stages": list[bytes], "seeds": list[bytes], "signature": bytes},
        "LedgerMark": {"size": int, "digest": bytes},
    }


@pytest.mark.parametrize(
    "array",
    [
        None,
        np.zeros(2),
        np.zeros((3, 1)),
        np.zeros(3, np.float32),
        np.zeros(3, np.int64),
        np.zeros(3, ">f8"),
        np.array([1.0, np.nan, 2.0]),
        np.array([1.0, np.inf, 2.0]),
        np.array([1.0, -np.inf, 2.0]),
        np.array(["1", "2", "3"]),
        np.array([1, 2, 3], dtype=object),
    ],
)
def test_an_array_of_another_shape_or_type_or_not_finite_is_refused(array: Any) -> None:
    letter = Letter(INSTRUCTION, {} if array is None else {"x": array})
    with pytest.raises(MalformedError):
        array_of(letter, "x", shape=(3,), dtype=np.float64)


@given(LETTERS)
def test_an_array_is_handed_out_exactly_when_it_is_what_was_asked_for(letter: Letter) -> None:
    for name, array in letter.arrays.items():
        finite = bool(np.isfinite(array).all())
        try:
            found = array_of(letter, name, shape=array.shape, dtype=array.dtype.type)
        except FedcreditError:
            assert not finite
        else:
            assert finite
            assert found is array


@given(LETTERS, LETTERS)
def test_letters_have_one_digest_exactly_when_they_are_the_same(left: Letter, right: Letter) -> None:
    assert (digest_of(left) == digest_of(right)) is same(left, right)


@given(LETTERS, st.data())
def test_the_digest_sees_every_change_of_an_array(letter: Letter, data: st.DataObject) -> None:
    before = digest_of(letter)
    assert digest_of(Letter(letter.header, {**letter.arrays, "one more": np.zeros(0)})) != before
    for name, array in letter.arrays.items():
        others = {key: value for key, value in letter.arrays.items() if key != name}
        assert digest_of(Letter(letter.header, others)) != before
        assert digest_of(Letter(letter.header, {**others, name: array.reshape(1, *array.shape)})) != before
        other_type = np.uint64 if array.dtype == np.float64 else np.float64
        assert digest_of(Letter(letter.header, {**others, name: array.view(other_type)})) != before
        if array.size:
            changed = bytearray(array.tobytes())
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            flipped = np.frombuffer(bytes(changed), array.dtype).reshape(array.shape)
            assert digest_of(Letter(letter.header, {**others, name: flipped})) != before


def test_the_digest_depends_on_values_and_not_on_their_layout_or_the_order_of_names() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    straight = Letter(INSTRUCTION, {"a": grid.T.copy(), "b": np.zeros(1)})
    turned = Letter(INSTRUCTION, {"b": np.zeros(1), "a": grid.T})
    assert digest_of(straight) == digest_of(turned)
