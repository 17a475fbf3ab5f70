"""Letters for tests: every kind of header, filled at random, and arrays of the types that travel."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from federated.messages import (
    Coverage,
    Dealt,
    Delivery,
    Enquiry,
    Header,
    Instruction,
    Introduction,
    Joined,
    LedgerMark,
    Letter,
    Measurement,
    Opening,
    Received,
    Refused,
    Revealed,
    ScoreAnswers,
    ScoreRequests,
    SumKeys,
    Unmasking,
    Update,
)
from privacy.errors import RefusalCode

_NAMES = st.text(max_size=12)
_BYTES = st.binary(max_size=40)
_WHOLE = st.integers(-(2**63), 2**63 - 1)
_MARKS = st.builds(LedgerMark, _WHOLE, _BYTES)
_KEYS = st.builds(SumKeys, _BYTES, st.lists(_BYTES, max_size=2), st.lists(_BYTES, max_size=2), _BYTES)
_COHORTS = st.lists(_NAMES, max_size=3)
_SHARES = st.dictionaries(_NAMES, _BYTES, max_size=3)

_PLANS = (_BYTES, _BYTES, st.dictionaries(_NAMES, _NAMES, max_size=3), st.dictionaries(_NAMES, _MARKS, max_size=2))

HEADERS: st.SearchStrategy[Header] = st.one_of(
    st.builds(Opening, *_PLANS),
    st.builds(Enquiry, *_PLANS),
    st.builds(Coverage, _NAMES, _NAMES, _WHOLE, st.floats(0, 1e6), _MARKS, _BYTES),
    st.builds(Joined, _NAMES, _NAMES, st.none() | _KEYS, _MARKS, _BYTES),
    st.builds(Introduction, _NAMES, st.dictionaries(_NAMES, _KEYS, max_size=2)),
    st.builds(Dealt, _NAMES, _NAMES, _SHARES, _BYTES),
    st.builds(Delivery, _NAMES, _COHORTS, _SHARES),
    st.builds(Received, _NAMES, _NAMES, _COHORTS),
    st.builds(Instruction, _NAMES, _WHOLE, _COHORTS),
    st.builds(Measurement, _NAMES, _COHORTS, _BYTES),
    st.builds(Update, _NAMES, _NAMES, _BYTES, _BYTES, _MARKS),
    st.builds(Unmasking, _NAMES, _WHOLE, _COHORTS),
    st.builds(Revealed, _NAMES, _NAMES, _SHARES, _SHARES, _BYTES),
    st.builds(ScoreRequests, _BYTES, st.lists(_BYTES, max_size=3)),
    st.builds(ScoreAnswers, _NAMES, st.lists(_BYTES, max_size=3)),
    st.builds(Refused, _NAMES, st.sampled_from(RefusalCode)),
)
ARRAYS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.sampled_from([np.float64, np.uint64]).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    ),
    max_size=3,
)
LETTERS = st.builds(Letter, HEADERS, ARRAYS)


def same(left: Letter, right: Letter) -> bool:
    """Whether two letters are equal to the bit, and their arrays of one shape and type."""
    return (
        left.header == right.header
        and left.arrays.keys() == right.arrays.keys()
        and all(
            (array.dtype, array.shape, array.tobytes())
            == (right.arrays[name].dtype, right.arrays[name].shape, right.arrays[name].tobytes())
            for name, array in left.arrays.items()
        )
    )
