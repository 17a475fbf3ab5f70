"""Translation between our letters and Flower's records: the one place besides the apps that knows both."""

import math
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray

from federated.messages import Letter, decode_header, encode_header
from privacy.errors import MalformedError

_HEADER = "header"
_ARRAYS = "arrays"
_TYPES = {"float64": "<f8", "uint64": "<u8"}  # all that travels
_MOST_AXES = 8
_RAISED = 2  # Flower's own code for an app that raised


def write_letter(letter: Letter) -> RecordDict:
    """The letter as Flower records: the header's bytes in a ConfigRecord, the arrays in an ArrayRecord.

    TypeError for an array of another type than float64 and uint64.
    """
    arrays = ArrayRecord({name: _write_array(array) for name, array in letter.arrays.items()})
    return RecordDict({_HEADER: ConfigRecord({"json": encode_header(letter.header)}), _ARRAYS: arrays})


def read_letter(records: RecordDict) -> Letter:
    """The letter that `records` hold. MalformedError for anything more, less or other."""
    if set(records) != {_HEADER, _ARRAYS}:
        raise MalformedError("A Flower message must hold exactly a header and arrays; its sender is not fedcredit.")
    header, arrays = records[_HEADER], records[_ARRAYS]
    if not isinstance(header, ConfigRecord) or not isinstance(arrays, ArrayRecord) or set(header) != {"json"}:
        raise MalformedError("A Flower message holds records of the wrong kinds; its sender is not fedcredit.")
    payload = header["json"]
    if not isinstance(payload, bytes):
        raise MalformedError("A Flower message's header is not bytes; its sender is not fedcredit.")
    return Letter(decode_header(payload), {name: _read_array(array) for name, array in arrays.items()})


def size_of(letter: Letter) -> int:
    """The bytes of the letter's records as they travel, without Flower's envelope and what lies around that."""
    return int(recorddict_to_proto(write_letter(letter)).ByteSize())


def write_failure(error: Exception, *, reply_to: Message) -> Message:
    """The reply of a node whose app raised `error`: the error's class, and nothing of its text.

    Flower's own reply would carry the text to the coordinator word for word, and a text may hold a cell of a table.
    """
    return Message(Error(_RAISED, type(error).__name__), reply_to=reply_to)


def _write_array(array: NDArray[Any]) -> Array:
    if array.dtype.name not in _TYPES:
        raise TypeError(f"requires an array of {' or '.join(_TYPES)}")
    return Array(np.asarray(array, order="C"))


def _read_array(array: Array) -> NDArray[Any]:
    """What `_write_array` wrote. The text in front of the numbers is compared, never parsed: it may be anything."""
    kind, shape = _TYPES.get(array.dtype), array.shape
    if kind is None or array.stype != "numpy.ndarray" or len(shape) > _MOST_AXES or any(n < 0 for n in shape):
        raise MalformedError("An array of a Flower message has a type or shape that no letter has.")
    front = BytesIO()
    try:
        np.lib.format.write_array_header_1_0(front, {"descr": kind, "fortran_order": False, "shape": tuple(shape)})
        start, length = front.tell(), math.prod(shape) * np.dtype(kind).itemsize
        if array.data[:start] == front.getvalue() and len(array.data) - start == length:
            return np.array(np.frombuffer(array.data[start:], kind).reshape(shape))
    except (ValueError, OverflowError):
        pass  # an axis or a product of axes that numpy cannot count, in an array that may have no number at all
    raise MalformedError("An array of a Flower message is not what it claims to be; its sender is not fedcredit.")
