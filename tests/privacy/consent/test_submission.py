from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.consent.lane import Stub
from privacy.consent.limits import MAX_SEALED_BYTES, MAX_SUBMISSIONS
from privacy.consent.submission import MAX_FRAMES_BYTES, Submission, frame, parse_frames
from privacy.errors import MalformedError
from tests.privacy.consent.samples import digest, garbage, tombstone


def submission(name: str, ciphertext: bytes = b"sealed") -> Submission:
    return Submission(Stub(digest(name)[:16], 1, digest(name), sha256(ciphertext).digest()), ciphertext)


def raw(stub_leaf: bytes, ciphertext: bytes) -> bytes:
    return stub_leaf + len(ciphertext).to_bytes(2, "big") + ciphertext


ciphertexts = st.binary(min_size=1, max_size=60)
submissions = st.lists(st.builds(submission, st.text(max_size=3), ciphertexts), min_size=1, max_size=5)


@given(submissions)
def test_what_is_framed_is_parsed_and_framed_again_the_same(batch: list[Submission]) -> None:
    data = frame(batch)
    assert data == b"".join(raw(one.stub.leaf(), one.ciphertext) for one in batch)
    assert parse_frames(data) == batch


@given(submissions, st.data())
def test_frames_cut_anywhere_else_are_refused(batch: list[Submission], data: st.DataObject) -> None:
    framed = frame(batch)
    ends = {len(frame(batch[:count])) for count in range(1, len(batch) + 1)}
    cut = data.draw(st.integers(0, len(framed)))
    if cut in ends:
        assert frame(parse_frames(framed[:cut])) == framed[:cut]
    else:
        with pytest.raises(MalformedError, match="ends within a record" if cut else "1 to 256"):
            parse_frames(framed[:cut])
    with pytest.raises(MalformedError, match="ends within a record"):
        parse_frames(framed + b"\0")


@given(submissions, st.data())
def test_a_flipped_byte_never_brings_another_ciphertext(batch: list[Submission], data: st.DataObject) -> None:
    framed = bytearray(frame(batch))
    framed[data.draw(st.integers(0, len(framed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        parsed = parse_frames(bytes(framed))
    except MalformedError:
        return
    # A changed tag, epoch or commitment is another stub; whoever submits it signs nothing by it.
    assert frame(parsed) == bytes(framed)
    assert [one.ciphertext for one in parsed] == [one.ciphertext for one in batch]


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_crash_the_parser(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_frames(data)


def test_one_to_256_are_taken() -> None:
    many = [submission(str(number)) for number in range(MAX_SUBMISSIONS + 1)]
    assert len(parse_frames(frame(many[:-1]))) == MAX_SUBMISSIONS
    for wrong in ([], many):
        with pytest.raises(MalformedError):
            frame(wrong)
    one = frame(many[:1])
    for data in (b"", one * (MAX_SUBMISSIONS + 1)):
        with pytest.raises(MalformedError):
            parse_frames(data)
    assert len(frame([submission("x", bytes(MAX_SEALED_BYTES))] * MAX_SUBMISSIONS)) == MAX_FRAMES_BYTES


@settings(max_examples=5)
@given(st.sampled_from([1, MAX_SEALED_BYTES, 0, MAX_SEALED_BYTES + 1, 2**16 - 1]))
def test_a_ciphertext_has_1_to_4096_bytes(size: int) -> None:
    one = submission("x", bytes(size))
    data = raw(one.stub.leaf(), one.ciphertext)
    if 1 <= size <= MAX_SEALED_BYTES:
        assert parse_frames(data) == [one]
    else:
        for call in (lambda: parse_frames(data), lambda: frame([one])):
            with pytest.raises(MalformedError):
                call()


def test_a_ciphertext_that_is_not_its_stubs_is_refused() -> None:
    wrong = Submission(submission("x").stub, b"another")
    for call in (lambda: frame([wrong]), lambda: parse_frames(raw(wrong.stub.leaf(), wrong.ciphertext))):
        with pytest.raises(MalformedError, match="does not match"):
            call()


def test_a_tombstone_cannot_be_submitted_as_a_record() -> None:
    tomb = tombstone(garbage("g"), 0)
    assert tomb.beside is not None
    with pytest.raises(MalformedError):
        parse_frames(raw(tomb.stub.leaf(), tomb.beside))
