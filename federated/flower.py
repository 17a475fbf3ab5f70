"""Translation between our letters and Flower's records: the one place besides the apps that knows both."""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from federated.messages import Letter, decode_header, encode_header
from privacy.errors import MalformedError

_HEADER = "header"
_ARRAYS = "arrays"


def write_letter(letter: Letter) -> RecordDict:
    """The letter as Flower records: the header's bytes in a ConfigRecord, the arrays in an ArrayRecord."""
    arrays = ArrayRecord({name: Array(array) for name, array in letter.arrays.items()})
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
    return Letter(decode_header(payload), {name: array.numpy() for name, array in arrays.items()})
