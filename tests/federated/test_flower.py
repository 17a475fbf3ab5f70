"""Letters survive Flower's own serialisation bit for bit; nothing else passes for one."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.flower import read_letter, size_of, write_failure, write_letter
from federated.messages import Letter, Refused, encode_header
from federated.nonces import PIECE_BYTES, unwoven, woven, woven_size
from privacy.errors import MalformedError, RefusalCode
from tests.federated.letters import LETTERS, same

HEADER = encode_header(Refused("aster-bank", RefusalCode.PLAN))
NONCE = bytes(range(16))


def _records(header: Any = None, arrays: Any = None, **more: Any) -> RecordDict:
    header = ConfigRecord({"json": HEADER, "nonce": NONCE}) if header is None else header
    return RecordDict({"header": header} | ({} if arrays is None else {"arrays": arrays}) | more)


def _with_array(data: bytes, **fields: Any) -> RecordDict:
    declared = {"dtype": "float64", "shape": (2,), "stype": "fedcredit.letter"} | fields
    return _records(arrays=ArrayRecord({"x": Array(data=NONCE + data, **declared)}))


def _saved(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def _one_array() -> ArrayRecord:
    arrays = _with_array(_saved(np.ones(2)))["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return arrays


@given(LETTERS)
def test_a_letter_comes_back_bit_for_bit_through_flowers_own_bytes(letter: Letter) -> None:
    sent = recorddict_to_proto(write_letter(letter)).SerializeToString(deterministic=True)
    received = type(recorddict_to_proto(RecordDict())).FromString(sent)
    assert same(read_letter(recorddict_from_proto(received)), letter)


def test_an_array_in_any_layout_of_memory_arrives_with_its_values() -> None:
    turned = np.arange(6.0).reshape(2, 3).T
    for array in (turned, turned[::-1], turned[::2]):
        letter = read_letter(write_letter(Letter(Refused("aster-bank", RefusalCode.PLAN), {"x": array})))
        np.testing.assert_array_equal(letter.arrays["x"], array)


def test_the_records_that_tests_below_break_are_whole() -> None:
    assert read_letter(_records()).header == Refused("aster-bank", RefusalCode.PLAN)
    assert read_letter(_with_array(_saved(np.ones(2)))).arrays["x"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "records",
    [
        RecordDict(),
        RecordDict({"arrays": _one_array()}),
        _records(arrays=ArrayRecord({})),
        _records(metrics=MetricRecord({"people": 12})),
        _records(header=MetricRecord({"json": 1})),
        _records(header=ArrayRecord({})),
        _records(arrays=ConfigRecord({})),
        _records(header=ConfigRecord({"json": HEADER, "nonce": NONCE, "note": "about Ms Doe"})),
        _records(header=ConfigRecord({})),
        _records(header=ConfigRecord({"json": HEADER})),
        _records(header=ConfigRecord({"json": HEADER, "nonce": NONCE[:-1]})),
        _records(header=ConfigRecord({"json": HEADER, "nonce": b""}), arrays=_one_array()),
        _records(header=ConfigRecord({"json": HEADER, "nonce": NONCE + b"0"})),
        _records(header=ConfigRecord({"json": HEADER, "nonce": 16})),
        _records(header=ConfigRecord({"json": HEADER, "nonce": bytes(16)}), arrays=_one_array()),
        _records(header=ConfigRecord({"json": HEADER.decode(), "nonce": NONCE})),
        _records(header=ConfigRecord({"json": [HEADER], "nonce": NONCE})),
        _records(header=ConfigRecord({"json": HEADER + b" ", "nonce": NONCE})),
    ],
)
def test_other_records_are_malformed(records: RecordDict) -> None:
    with pytest.raises(MalformedError) as caught:
        read_letter(records)
    assert "Doe" not in str(caught.value)


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", _saved(np.ones(2)))
    return file.getvalue()


def _claiming(shape: str) -> bytes:
    return _saved(np.ones(2)).replace(b"'shape': (2,), }" + b" " * len(shape), b"'shape': (" + shape.encode() + b"), }")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rows of a table",
        _saved(np.ones(2))[:-1],
        _saved(np.ones(2)) + b"\0",
        _saved(np.ones(2)) + _saved(np.ones(2)),
        _saved(np.array([{"a": 1}]), allow_pickle=True),
        _zipped(),
        _claiming("1000000000000000,"),
        _claiming("-1,"),
    ],
)
def test_bytes_that_are_no_array_are_malformed_whatever_they_claim(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_letter(_with_array(data))


@given(st.data())
def test_a_damaged_array_is_malformed_or_an_array(data: st.DataObject) -> None:
    """A hostile node's bytes never raise anything that would end the round for the others."""
    damaged = bytearray(_saved(np.arange(3.0)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        letter = read_letter(_with_array(bytes(damaged)))
    except MalformedError:
        return
    assert isinstance(letter.arrays["x"], np.ndarray)


@pytest.mark.parametrize(
    ("fields", "array"),
    [
        ({"dtype": "float32"}, np.ones(2, np.float32)),
        ({"dtype": "object"}, np.ones(2)),
        ({"dtype": "uint64"}, np.ones(2)),
        ({"dtype": "float64"}, np.ones(2, np.uint64)),
        ({"shape": (3,)}, np.ones(2)),
        ({"shape": (1, 2)}, np.ones(2)),
        ({"shape": (-2,)}, np.ones(2)),
        ({"shape": (2**62, 2**62)}, np.ones(2)),
        ({"shape": (1,) * 65}, np.ones((1,) * 64)),
        ({"shape": (2, 2)}, np.asfortranarray(np.ones((2, 2)))),
        ({"stype": "torch.Tensor"}, np.ones(2)),
        ({"stype": "numpy.ndarray"}, np.ones(2)),
    ],
)
def test_an_array_that_differs_from_what_flower_says_of_it_is_malformed(fields: Any, array: Any) -> None:
    with pytest.raises(MalformedError):
        read_letter(_with_array(_saved(array), **fields))


@pytest.mark.parametrize(
    "shape", [(0, 2**31 - 1, 2**31 - 1, 2**31 - 1), (2**31 - 1, 2**31 - 1, 2**31 - 1, 0), (0, 2**62, 2**62)]
)
def test_an_array_without_numbers_and_with_endless_axes_is_malformed(shape: tuple[int, ...]) -> None:
    front = io.BytesIO()
    np.lib.format.write_array_header_1_0(front, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with pytest.raises(MalformedError):
        read_letter(_with_array(front.getvalue(), shape=shape))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, "U3", object])
def test_no_array_of_another_type_is_ever_written(dtype: Any) -> None:
    with pytest.raises(TypeError):
        write_letter(Letter(Refused("aster-bank", RefusalCode.PLAN), {"x": np.zeros(2, dtype)}))


LARGER_THAN_A_PIECE = PIECE_BYTES // 8 + 1


@pytest.mark.parametrize("arrays", [{}, {"x": np.zeros(3)}, {"x": np.zeros(2 * LARGER_THAN_A_PIECE), "y": np.zeros(3)}])
def test_no_name_that_flower_gives_to_a_part_of_a_letter_can_be_foreseen(arrays: Any) -> None:
    """Whoever registered such a name first could make SuperLink refuse the letter, at every try."""
    letter = Letter(Refused("aster-bank", RefusalCode.PLAN), arrays)
    first, second = (set(get_all_nested_objects(write_letter(letter))) for _ in range(2))
    assert len(first) == len(second) >= 2
    assert not first & second


def test_flower_names_an_array_in_pieces_as_large_as_ours() -> None:
    assert FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE == PIECE_BYTES
    letter = Letter(Refused("aster-bank", RefusalCode.PLAN), {"x": np.arange(2.0 * LARGER_THAN_A_PIECE)})
    assert same(read_letter(write_letter(letter)), letter)


@given(st.binary(min_size=16, max_size=16), st.integers(1, 3 * PIECE_BYTES))
@settings(max_examples=20)
def test_bytes_come_out_of_a_nonce_as_they_went_in_and_their_size_is_foretold(nonce: bytes, size: int) -> None:
    plain = bytes(size)
    data = woven(nonce, plain)
    assert len(data) == woven_size(size)
    assert unwoven(nonce, data) == plain
    for damaged in (data + nonce if len(data) % PIECE_BYTES == 0 else b"\0" + data[1:], b"\1" + data):
        if damaged != data:
            with pytest.raises(MalformedError):
                unwoven(nonce, damaged)


def test_the_size_of_a_letter_does_not_depend_on_chance() -> None:
    letter = Letter(Refused("aster-bank", RefusalCode.PLAN), {"x": np.ones(9)})
    assert size_of(letter) == size_of(letter) > 9 * 8 + 16 * 2 + len(encode_header(letter.header))


def test_a_failure_says_its_class_and_nothing_of_its_text() -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # Flower builds no message without them
    asked = Message(_records(), 1, "train")
    asked.metadata.__dict__["_message_id"] = "1"
    reply = write_failure(ValueError("could not convert string to float: 'Doe'"), reply_to=asked)
    received = message_from_proto(message_to_proto(reply))
    assert received.has_error()
    assert received.error.reason == "ValueError"
