"""Translation between our letters and Flower's records: the one place besides the apps that knows both."""

import math
import secrets
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray

from federated.messages import Letter, decode_header, encode_header
from federated.nonces import NONCE_BYTES, unwoven, woven
from privacy.errors import MalformedError

_HEADER = "header"
_ARRAYS = "arrays"
_TEXT, _NONCE = "json", "nonce"
_STYPE: Final = "fedcredit.letter"
"""An array's bytes as NumPy saves them, with the letter's nonce in between."""
_TYPES = {"float64": "<f8", "uint64": "<u8"}  # all that travels
_MOST_AXES = 8
_RAISED = 2  # Flower's own code for an app that raised


def write_letter(letter: Letter, *, chance: Callable[[int], bytes] = secrets.token_bytes) -> RecordDict:
    """The letter as Flower records: the header's bytes in a ConfigRecord, the arrays, if any, in an ArrayRecord.

    There is a fresh nonce from `chance` in each (`federated.nonces` says why). TypeError for an array of another type
    than float64 and uint64.
    """
    nonce = chance(NONCE_BYTES)
    records = RecordDict({_HEADER: ConfigRecord({_TEXT: encode_header(letter.header), _NONCE: nonce})})
    if letter.arrays:  # a record of none would have the same name in every letter
        records[_ARRAYS] = ArrayRecord({name: _write_array(array, nonce) for name, array in letter.arrays.items()})
    return records


def read_letter(records: RecordDict) -> Letter:
    """The letter that `records` hold. MalformedError for anything more, less or other."""
    if _HEADER not in records or not {_HEADER, _ARRAYS}.issuperset(records):
        raise MalformedError("A Flower message must hold a header and at most arrays; its sender is not fedcredit.")
    header, arrays = records[_HEADER], records.get(_ARRAYS)
    if not isinstance(header, ConfigRecord) or set(header) != {_TEXT, _NONCE}:
        raise MalformedError("A Flower message holds records of the wrong kinds; its sender is not fedcredit.")
    if arrays is not None and (not isinstance(arrays, ArrayRecord) or not arrays):
        raise MalformedError("A Flower message holds records of the wrong kinds; its sender is not fedcredit.")
    payload, nonce = header[_TEXT], header[_NONCE]
    if not isinstance(payload, bytes) or not isinstance(nonce, bytes) or len(nonce) != NONCE_BYTES:
        raise MalformedError("A Flower message's header is not bytes with a nonce; its sender is not fedcredit.")
    return Letter(decode_header(payload), {name: _read_array(array, nonce) for name, array in (arrays or {}).items()})


def size_of(letter: Letter) -> int:
    """The bytes of the letter's records as they travel, without Flower's envelope and what lies around that."""
    return int(recorddict_to_proto(write_letter(letter)).ByteSize())


def write_failure(error: Exception, *, reply_to: Message) -> Message:
    """The reply of a node whose app raised `error`: the error's class, and nothing of its text.

    Flower's own reply would carry the text to the coordinator word for word, and a text may hold a cell of a table.
    """
    return Message(Error(_RAISED, type(error).__name__), reply_to=reply_to)


def _write_array(array: NDArray[Any], nonce: bytes) -> Array:
    if array.dtype.name not in _TYPES:
        raise TypeError(f"requires an array of {' or '.join(_TYPES)}")
    saved = BytesIO()
    np.save(saved, np.asarray(array, order="C"), allow_pickle=False)
    return Array(array.dtype.name, tuple(array.shape), _STYPE, woven(nonce, saved.getvalue()))


def _read_array(array: Array, nonce: bytes) -> NDArray[Any]:
    """What `_write_array` wrote. The text in front of the numbers is compared, never parsed: it may be anything."""
    kind, shape = _TYPES.get(array.dtype), array.shape
    if kind is None or array.stype != _STYPE or len(shape) > _MOST_AXES or any(n < 0 for n in shape):
        raise MalformedError("An array of a Flower message has a type or shape that no letter has.")
    data, front = unwoven(nonce, array.data), BytesIO()
    try:
        np.lib.format.write_array_header_1_0(front, {"descr": kind, "fortran_order": False, "shape": tuple(shape)})
        start, length = front.tell(), math.prod(shape) * np.dtype(kind).itemsize
        if data[:start] == front.getvalue() and len(data) - start == length:
            return np.array(np.frombuffer(data[start:], kind).reshape(shape))
    except (ValueError, OverflowError):
        pass  # an axis or a product of axes that numpy cannot count, in an array that may have no number at all
    raise MalformedError("An array of a Flower message is not what it claims to be; its sender is not fedcredit.")
